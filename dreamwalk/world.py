"""Worlds: anything that a person or a policy can walk in, one step at a time.

The real game, a recording of it and a dream of it are all `World`s, which are `gymnasium.Env`s, so that the
page, the recorder and the examination cannot tell them apart. This module never imports torch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamwalk.errors import UserError
from dreamwalk.validation import Positive, Signed

Action = Mapping[str, np.ndarray]
Info = dict[str, Any]
Seen = tuple[np.ndarray, Info]
"""What `reset` gives: a frame uint8 `(h, w, 3)` and what is known of it."""
Stepped = tuple[np.ndarray, float, bool, bool, Info]
"""What `step` gives: a frame, reward, terminated, truncated and info."""


@dataclass(frozen=True)
class ActionSchema:
    """What can be done in one step: buttons that are held or not, and axes in units per step.

    As a gymnasium action it is `{"buttons": int8 (n,), "axes": float32 (m,)}` with axes in their own units
    (degrees for yaw and pitch), without what there is none of; as a model's input it is one float32 vector
    `(n + m,)`, the axes divided by their limits. UserError for names that repeat and numbers that do not fit.
    """

    buttons: tuple[str, ...]
    axes: tuple[str, ...] = ()
    limits: tuple[Positive, ...] = ()
    """Largest magnitude of each axis."""
    choices: tuple[tuple[str, ...], ...] = ()
    """Groups of buttons of which one acts in every step: the first that is held, else the group's first."""
    ranges: tuple[tuple[Signed, Signed], ...] = ()
    """Least and greatest value of each axis, where they are not minus and plus its limit."""

    def __post_init__(self) -> None:
        for name in ("choices", "ranges"):  # JSON knows no tuples
            object.__setattr__(self, name, tuple(map(tuple, getattr(self, name))))
        names, grouped = [*self.buttons, *self.axes], [name for group in self.choices for name in group]
        if len(self.axes) != len(self.limits) or len(self.ranges) not in (0, len(self.axes)):
            raise UserError(f"{len(self.axes)} axes need as many limits, got {len(self.limits)}")
        if len(set(names)) < len(names):
            raise UserError(f"buttons and axes have different names, got {', '.join(names)}")
        if len(set(grouped)) < len(grouped) or not set(grouped) <= set(self.buttons):
            raise UserError(f"choices are groups of buttons that do not overlap, got {self.choices}")
        low, high = self.bounds
        if not all(0 < limit < math.inf for limit in self.limits) or not (low <= high).all():
            raise UserError(f"limits of axes are finite numbers above 0, got {self.limits}")

    @property
    def size(self) -> int:
        """Length of the vector form."""
        return len(self.buttons) + len(self.axes)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest values of the axes `(m,)`, in their own units."""
        pairs = self.ranges or tuple((-limit, limit) for limit in self.limits)
        low, high = np.asarray(pairs, np.float32).reshape(-1, 2).T
        return low, high

    @property
    def space(self) -> spaces.Dict:
        low, high = self.bounds
        parts: dict[str, spaces.Space] = {}
        if self.buttons:
            parts["buttons"] = spaces.MultiBinary(len(self.buttons))
        if self.axes:
            parts["axes"] = spaces.Box(low, high, dtype=np.float32)
        return spaces.Dict(parts)

    def action(self, held: Sequence[str] = (), **axes: float) -> dict[str, np.ndarray]:
        """An action from names: `schema.action(["forward"], yaw=5.0)`. Axes are clipped to their limits."""
        for name in [*held, *axes]:
            if name not in self.buttons and name not in self.axes:
                known = ", ".join([*self.buttons, *self.axes])
                raise UserError(f"unknown action '{name}': this world knows {known}")
        vector = [float(name in held) for name in self.buttons]
        vector += [axes.get(name, 0.0) / limit for name, limit in zip(self.axes, self.limits, strict=True)]
        return self.unpack(np.asarray(vector, np.float32))

    def pack(self, action: Action) -> np.ndarray:
        """Gymnasium action to vector `(size,)` as it acts (`canonical`): buttons 0 or 1, axes in [-1, 1].

        UserError for what is no action of this schema.
        """
        n, counts = len(self.buttons), {"buttons": len(self.buttons), "axes": len(self.axes)}
        try:
            parts = [np.asarray(action[name], np.float32).reshape(k) for name, k in counts.items() if k]
        except (KeyError, IndexError, TypeError, ValueError):
            raise self._unknown(action) from None
        vector = np.concatenate([np.zeros(0, np.float32), *parts])
        if not np.isin(vector[:n], (0, 1)).all() or not np.isfinite(vector).all():
            raise self._unknown(action)
        vector[n:] /= np.asarray(self.limits, np.float32)
        return self.canonical(vector)

    def _unknown(self, action: Any) -> UserError:
        parts = [f"'buttons' of {len(self.buttons)} numbers 0 or 1"] * bool(self.buttons)
        parts += [f"'axes' of {len(self.axes)} finite numbers"] * bool(self.axes)
        given, made = " ".join(repr(action).split())[:60], "as `world.actions.action(...)` makes it"
        return UserError(f"an action here is a dict with {' and '.join(parts)}, {made}: got {given}")

    def canonical(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors `(..., size)` as they act: of each group of choices one button alone, axes in bounds."""
        acting = np.array(vectors, np.float32)
        for group in self.choices:
            columns = [self.buttons.index(name) for name in group]
            acting[..., columns] = np.eye(len(group))[(acting[..., columns] > 0.5).argmax(-1)]
        limits = np.asarray(self.limits, np.float32)
        low, high = self.bounds
        n = len(self.buttons)
        acting[..., n:] = np.clip(acting[..., n:], low / limits, high / limits)
        return acting

    def unpack(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Vector `(size,)` to gymnasium action; the inverse of `pack`."""
        vector = np.asarray(vector, np.float32)
        if vector.shape != (self.size,):
            raise UserError(f"an action vector here has shape ({self.size},), got {vector.shape}")
        n = len(self.buttons)
        action = {}
        if self.buttons:
            action["buttons"] = (vector[:n] > 0.5).astype(np.int8)
        if self.axes:
            action["axes"] = np.clip(vector[n:] * np.asarray(self.limits, np.float32), *self.bounds)
        return action

    def words(self, vector: np.ndarray) -> str:
        """A short reading of a vector, for captions and overlays: `forward yaw +8`."""
        held, axes = self.named(vector)
        turns = [f"{name} {value:+.3g}" for name, value in zip(self.axes, axes, strict=True) if value]
        return " ".join([*held, *turns]) or "stay"

    def named(self, vector: np.ndarray) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """The names of the buttons that a vector holds, and the values of its axes in their own units."""
        action = self.unpack(vector)
        buttons = zip(self.buttons, action.get("buttons", ()), strict=True)
        return tuple(name for name, held in buttons if held), tuple(map(float, action.get("axes", ())))


class World(gymnasium.Env):
    """A `gymnasium.Env` with camera poses in its info and a snapshot of its state.

    Observation: uint8 `(h, w, 3)`. `info` carries `world_from_camera` (4, 4) and `intrinsics` (3, 3) in
    pixels of the observation, OpenCV camera (x right, y down, z forward), pixel centres at +0.5, and where
    the world knows it `depth` float32 `(h, w)`, planar z-depth. `reset(seed=..., options=...)` understands
    `options={"start": k}` when the world has a gallery of starts. Yaw is positive to the right, pitch
    positive upwards.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    actions: ActionSchema
    fps: float = 10.0

    def _declare(self, size: Sequence[int], render_mode: str | None) -> None:
        """Say of a world with `actions` and `fps` what gymnasium asks: frames of `size` (h, w) and how it
        renders. UserError for a mode in which worlds cannot."""
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"a world has no render_mode '{render_mode}': it has 'rgb_array', and None")
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": max(1, round(self.fps))}
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (*size, 3), np.uint8)
        self.action_space = self.actions.space

    @abstractmethod
    def state(self) -> Any:
        """A snapshot from which `restore` continues exactly as if nothing had happened."""

    @abstractmethod
    def restore(self, state: Any) -> Seen:
        """Go back to a snapshot; returns the observation and info that belonged to it."""

    def follow(self, vectors: np.ndarray) -> Stepped:
        """Take a step for each action vector `(k, size)`, k at least 1, of which only the last is looked at.

        Returns what that step returned, or the one that the episode ended with. Worlds that draw slowly can
        do it faster than step by step.
        """
        for vector in vectors:
            frame, reward, terminated, truncated, info = self.step(self.actions.unpack(vector))
            if terminated or truncated:
                break
        return frame, float(reward), terminated, truncated, info


class DiscreteActions(gymnasium.ActionWrapper, gymnasium.utils.RecordConstructorArgs):
    """A world whose actions are numbers: stay, each button alone, and each axis to either side.

    `share` is how far of its limit an axis goes. `get_action_meanings()` says which number is what.
    """

    def __init__(self, env: gymnasium.Env, *, share: float = 0.25) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, share=share)
        super().__init__(env)
        world = env.unwrapped
        assert isinstance(world, World)
        schema, n = world.actions, len(world.actions.buttons)
        single = np.eye(schema.size, dtype=np.float32)
        turns = [sign * share * row for row in single[n:] for sign in (-1, 1)]
        vectors = schema.canonical(np.stack([np.zeros(schema.size), *single[:n], *turns]))
        self.vectors = list(map(np.asarray, dict.fromkeys(map(tuple, vectors.tolist()))))
        self.schema = schema
        self.action_space = spaces.Discrete(len(self.vectors))

    def action(self, action: Any) -> Action:
        if not self.action_space.contains(action):
            last = len(self.vectors) - 1
            raise UserError(f"an action here is a whole number from 0 to {last}, got {action!r:.60}")
        return self.schema.unpack(self.vectors[int(action)])

    def get_action_meanings(self) -> list[str]:
        """What each number does, as `ActionSchema.words` has it."""
        return [self.schema.words(vector) for vector in self.vectors]
