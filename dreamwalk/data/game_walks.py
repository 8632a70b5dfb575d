"""Clips collected from any gymnasium game."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.data.writing import Walks
from dreamwalk.errors import UserError
from dreamwalk.images import Fit
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.games import Game, RandomKeys

Policy = Callable[[np.ndarray, dict[str, Any], np.random.Generator], np.ndarray]
"""From a frame, its info and a source of chance to an action vector `(a,)`."""
ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True)
class GameWalks(Walks):
    """Play any gymnasium game with random keys and write what is seen."""

    id: str = ""
    """Name of the game, such as CartPole-v1, or with the package that registers it: ale_py:ALE/Pong-v5."""
    make: Callable[[], gymnasium.Env] | None = None
    """In Python, a function that makes the game; it has a name of its module if several workers play."""
    policy: Policy | None = None
    """In Python, who plays."""
    fit: Fit = "letterbox"
    """What becomes of frames of another shape: whole between bars, stretched, or cut about the middle."""
    repeat: int = 1
    """Steps of the game per step here."""
    skip: int = 0
    """Clips begin up to so many steps into an episode."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.skip < 0:
            raise UserError(f"skip is at least 0, got skip={self.skip}")
        if bool(self.id) == bool(self.make) or not callable(self.make or int):
            raise UserError("give a game's name, such as --id CartPole-v1, or a function that makes it")

    @cached_property
    def _game_facts(self) -> tuple[ActionSchema, float]:
        """What the game says of itself, asked once. UserError for games that `Game` cannot wrap."""
        with closing(self._open()) as game:
            game.reset(seed=self.seed)  # shows what its frames are
            return game.actions, game.fps

    @property
    def schema(self) -> ActionSchema:
        return self._game_facts[0]

    @property
    def rate(self) -> float:
        return self._game_facts[1]

    def describe(self) -> dict[str, Any]:
        name = self.id or getattr(self.make, "__name__", "game")
        policy = getattr(self.policy, "__name__", "policy") if self.policy else "random keys"
        walks = {"split": self.split, "seed": self.seed, "policy": policy, "skip": self.skip, "fit": self.fit}
        return {"world": "game", "level": name, **walks}

    def clips(self, indices: range) -> Iterator[Clip]:
        with closing(self._open()) as game:
            for index in indices:
                yield self._play(game, index)

    def _open(self) -> Game:
        return Game(self.make() if self.make else self.id, size=self.size, repeat=self.repeat, fit=self.fit)

    def _play(self, game: Game, index: int) -> Clip:
        """The first of some episodes of this index that lasts long enough."""
        longest = 0
        for attempt in range(ATTEMPTS):
            random = self.random(index, attempt)
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
