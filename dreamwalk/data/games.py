"""Any gymnasium game as a World, and clips collected from it.

The game shows pixels, either as its observation (uint8, height x width x 3) or by `render()` with
`render_mode="rgb_array"`. Its actions may be Discrete, MultiBinary, Box, or a Dict of these: each choice
becomes a button and each number an axis. Games know no poses: their clips train the systems that need none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamwalk.clip import Clip
from dreamwalk.data.levels import SPLITS
from dreamwalk.data.pictures import fit
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.world import Action, ActionSchema, World

Policy = Callable[[np.ndarray, dict[str, Any], np.random.Generator], np.ndarray]
"""From a frame, its info and a source of chance to an action vector `(a,)`."""
ATTEMPTS = 20


class Game(World):
    """A gymnasium game as a World: frames of `size` (h, w), actions by the schema in `actions`.

    One step here is `repeat` steps of the game with the same action. No button held means the first choice of
    a Discrete action; of several, the first counts. `state`/`restore` replay the episode from its seed, which
    is exact for games that are. UserError when the game shows no pixels or its actions are of another kind.
    """

    def __init__(
        self, env: gymnasium.Env | str, *, size: tuple[int, int] = (96, 128), repeat: int = 1
    ) -> None:
        self.env = open_game(env) if isinstance(env, str) else env
        self._pixels = _shows_pixels(self.env.observation_space)
        if not self._pixels and self.env.render_mode != "rgb_array":
            raise UserError("this game shows no pixels: make it with render_mode='rgb_array'")
        self._translation = translate(self.env.action_space, _meanings(self.env))
        self.actions = self._translation.schema
        self.size, self.repeat = size, repeat
        self.fps = float(self.env.metadata.get("render_fps") or 10) / repeat
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": max(1, round(self.fps))}
        self.render_mode = "rgb_array"
        self.observation_space = spaces.Box(0, 255, (*size, 3), np.uint8)
        self.action_space = self.actions.space
        self._seed: int | None = None
        self._history: list[np.ndarray] = []
        self._frame = np.zeros((*size, 3), np.uint8)
        self._info: dict[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._seed = seed if seed is not None else int(self.np_random.integers(1 << 31))
        self._history = []
        observation, self._info = self.env.reset(seed=self._seed, options=options)
        return self._show(observation)

    def step(self, action: Action) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        vector = self.actions.pack(action)
        self._history.append(vector)
        native = self._translation.native(vector)
        total = 0.0
        for _ in range(self.repeat):
            observation, reward, terminated, truncated, self._info = self.env.step(native)
            total += float(reward)
            if terminated or truncated:
                break
        frame, info = self._show(observation)
        return frame, total, bool(terminated), bool(truncated), info

    def render(self) -> np.ndarray:
        return self._frame.copy()

    def state(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "history": list(self._history),
            "random": self.np_random.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        frame, info = self.reset(seed=state["seed"])
        for vector in state["history"]:
            frame, _, _, _, info = self.step(self.actions.unpack(vector))
        self.np_random.bit_generator.state = state["random"]
        return frame, info

    def close(self) -> None:
        self.env.close()

    def _show(self, observation: Any) -> tuple[np.ndarray, dict[str, Any]]:
        picture = observation if self._pixels else self.env.render()
        self._frame = fit(np.asarray(picture), self.size)
        return self._frame.copy(), dict(self._info)


def open_game(name: str) -> gymnasium.Env:
    """`gymnasium.make`, with pixels; UserError with its advice for a name that it does not know."""
    try:
        return gymnasium.make(name, render_mode="rgb_array")
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise UserError(f"there is no game called '{name}': {error}") from None


@dataclass(frozen=True)
class Translation:
    """How an action vector becomes an action of the game."""

    schema: ActionSchema
    native: Callable[[np.ndarray], Any]


def translate(space: spaces.Space, meanings: tuple[str, ...] = (), *, prefix: str = "") -> Translation:
    """The schema of an action space, and the way back into it; `meanings` are names for a Discrete one."""
    if isinstance(space, spaces.Discrete):
        count, start = int(space.n), int(space.start)
        names = meanings or tuple(f"{prefix or 'choice_'}{k}" for k in range(count))
        return Translation(ActionSchema(names), lambda v: start + int(np.argmax(v > 0.5)))
    if isinstance(space, spaces.MultiBinary) and isinstance(space.n, int):
        names = tuple(f"{prefix or 'button_'}{k}" for k in range(space.n))
        return Translation(ActionSchema(names), lambda v: (v > 0.5).astype(np.int8))
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        limits = np.maximum(abs(space.low), abs(space.high)).astype(np.float32)
        names = tuple(f"{prefix or 'axis_'}{k}" for k in range(len(limits)))
        low, high, kind = space.low, space.high, space.dtype
        schema = ActionSchema((), names, tuple(limits.tolist()))
        return Translation(schema, lambda v: np.clip(v * limits, low, high).astype(kind))
    if isinstance(space, spaces.Dict):
        return _translate_dict(space, prefix)
    known = "Discrete, MultiBinary, a bounded Box with one axis, or a Dict of these"
    raise UserError(f"actions of kind {space} are not known here: wrap the game so that they are {known}")


def _translate_dict(space: spaces.Dict, prefix: str) -> Translation:
    """Parts side by side: first all the buttons, then all the axes."""
    parts = {key: translate(part, prefix=f"{prefix}{key}_") for key, part in space.spaces.items()}
    schemas = [part.schema for part in parts.values()]
    schema = ActionSchema(
        tuple(name for s in schemas for name in s.buttons),
        tuple(name for s in schemas for name in s.axes),
        tuple(limit for s in schemas for limit in s.limits),
    )

    def native(vector: np.ndarray) -> dict[str, Any]:
        button, axis, action = 0, len(schema.buttons), {}
        for key, part in parts.items():
            buttons, axes = len(part.schema.buttons), len(part.schema.axes)
            own = np.concatenate([vector[button : button + buttons], vector[axis : axis + axes]])
            action[key] = part.native(own)
            button, axis = button + buttons, axis + axes
        return action

    return Translation(schema, native)


def _shows_pixels(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and space.shape[2:] == (3,)


def _meanings(env: gymnasium.Env) -> tuple[str, ...]:
    """Names of the choices, where the game tells them (Atari does)."""
    tell = getattr(env.unwrapped, "get_action_meanings", None)
    return tuple(str(name).lower() for name in tell()) if tell else ()


class RandomKeys:
    """The policy of a child at the keyboard: a few random keys and a random turn, held for some steps."""

    def __init__(self, schema: ActionSchema) -> None:
        self.schema, self.left = schema, 0
        self.vector = np.zeros(schema.size, np.float32)

    def __call__(self, frame: np.ndarray, info: dict[str, Any], random: np.random.Generator) -> np.ndarray:
        if self.left == 0:
            self.left = int(random.integers(1, 9))
            buttons, axes = len(self.schema.buttons), len(self.schema.axes)
            held = random.random(buttons) < 1.5 / max(buttons, 1)
            turns = random.uniform(-1, 1, axes) * (random.random(axes) < 0.5)
            self.vector = np.concatenate([held, turns]).astype(np.float32)
        self.left -= 1
        return self.vector


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

    def describe(self) -> dict[str, Any]:
        name = self.make if isinstance(self.make, str) else getattr(self.make, "__name__", "game")
        policy = getattr(self.policy, "__name__", "policy") if self.policy else "random keys"
        walks = {"split": self.split, "seed": self.seed, "policy": policy, "skip": self.skip}
        return {"world": "game", "level": name, **walks}

    def clips(self, indices: range) -> Iterator[Clip]:
        env = self.make if isinstance(self.make, str) else self.make()
        with closing(Game(env, size=self.size, repeat=self.repeat)) as game:
            for index in indices:
                yield self._play(game, index)

    def _play(self, game: Game, index: int) -> Clip:
        """The first of some episodes of this index that lasts long enough."""
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
        advice = "choose a smaller clip_frames"
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
) -> Path:
    """Play a game and write at least `frames` frames as clips into the folder `out`, which is returned.

    `make` is a gymnasium id or a function that makes the game (a module's own function when `workers` > 1).
    A clip begins up to `skip` steps into an episode. UserError for games that `Game` cannot wrap and for
    unknown splits.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}': known are {', '.join(SPLITS)}")
    with closing(Game(make if isinstance(make, str) else make(), size=size, repeat=repeat)) as game:
        schema, fps = game.actions, game.fps
    walks = GameWalks(make, schema, fps, size, repeat, policy, skip, split, seed, clip_frames)
    return write_clips(walks, -(-frames // clip_frames), out, workers=workers)
