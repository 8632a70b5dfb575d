"""Clips collected from any gymnasium game."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.images import Fit
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.games import Game, RandomKeys
from dreamwalk.worlds.levels import SPLITS

Policy = Callable[[np.ndarray, dict[str, Any], np.random.Generator], np.ndarray]
"""From a frame, its info and a source of chance to an action vector `(a,)`."""
ATTEMPTS = 20


@dataclass(frozen=True)
class GameWalks:
    """Play of a game as a source of clips; `collect_game` makes it."""

    make: str | Callable[[], gymnasium.Env]
    schema: ActionSchema
    fps: float
    size: tuple[int, int]
    repeat: int
    policy: Policy | None
    skip: int
    split: str
    seed: int
    clip_frames: int
    fit: Fit

    def describe(self) -> dict[str, Any]:
        name = self.make if isinstance(self.make, str) else getattr(self.make, "__name__", "game")
        policy = getattr(self.policy, "__name__", "policy") if self.policy else "random keys"
        walks = {"split": self.split, "seed": self.seed, "policy": policy, "skip": self.skip, "fit": self.fit}
        return {"world": "game", "level": name, **walks}

    def clips(self, indices: range) -> Iterator[Clip]:
        env = self.make if isinstance(self.make, str) else self.make()
        with closing(Game(env, size=self.size, repeat=self.repeat, fit=self.fit)) as game:
            for index in indices:
                yield self._play(game, index)

    def _play(self, game: Game, index: int) -> Clip:
        """The first of some episodes of this index that lasts long enough."""
        longest = 0
        for attempt in range(ATTEMPTS):
            random = np.random.default_rng((self.seed, SPLITS.index(self.split), index, attempt))
            policy = self.policy or RandomKeys(self.schema)
            frame, info = game.reset(seed=int(random.integers(1 << 31)))
            frames, vectors = [frame], [np.zeros(self.schema.size, np.float32)]
            skip = int(random.integers(self.skip + 1))
            for _ in range(skip + self.clip_frames - 1):
                action = self.schema.unpack(policy(frame, info, random))
                frame, _, terminated, truncated, info = game.step(action)
                frames.append(frame)
                vectors.append(self.schema.pack(action))
                if terminated or truncated:
                    break
            if len(frames) == skip + self.clip_frames:
                return Clip(video=np.stack(frames[skip:]), actions=np.stack(vectors[skip:]))
            longest = max(longest, len(frames) - skip)
        advice = f"add `--clip-frames {longest}`" if longest > 1 else "add a smaller `--skip`"
        raise UserError(f"{ATTEMPTS} episodes in a row ended before {self.clip_frames} frames: {advice}")


def collect_game(
    make: str | Callable[[], gymnasium.Env],
    *,
    out: str | Path,
    frames: int = 40_000,
    policy: Policy | None = None,
    size: tuple[int, int] = (96, 128),
    clip_frames: int = 64,
    repeat: int = 1,
    skip: int = 0,
    split: str = "train",
    seed: int = 0,
    workers: int = 1,
    fit: Fit = "letterbox",
) -> Path:
    """Play a game and write at least `frames` frames as clips into the folder `out`, which is returned.

    `make` is a gymnasium id or a function that makes the game (a module's own function when `workers` > 1).
    A clip begins up to `skip` steps into an episode. UserError for games that `Game` cannot wrap, before
    anything is written, and for numbers that make no clips.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}': known are {', '.join(SPLITS)}")
    if frames < 1 or workers < 1 or clip_frames < 2 or skip < 0:
        raise UserError(
            f"frames and workers are at least 1, clip_frames 2 and skip 0, got frames={frames}, "
            f"workers={workers}, clip_frames={clip_frames}, skip={skip}"
        )
    if not isinstance(make, str) and not callable(make):
        raise UserError(f"give a game's name or a function that makes it, not a {type(make).__name__}")
    with closing(Game(make if isinstance(make, str) else make(), size=size, repeat=repeat)) as game:
        game.reset(seed=seed)  # shows what its frames are
        schema, fps = game.actions, game.fps
    walks = GameWalks(make, schema, fps, size, repeat, policy, skip, split, seed, clip_frames, fit)
    return write_clips(walks, -(-frames // clip_frames), out, workers=workers)
