"""Worlds: anything that a person or a policy can walk in, one step at a time.

The real game, a recording of it and a dream of it are all `World`s, which are `gymnasium.Env`s, so that the
page, the recorder and the examination cannot tell them apart. This module never imports torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamwalk.errors import UserError

Action = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ActionSchema:
    """What can be done in one step: buttons that are held or not, and axes in units per step.

    As a gymnasium action it is `{"buttons": int8 (n,), "axes": float32 (m,)}` with axes in their own units
    (degrees for yaw and pitch); as a model's input it is one float32 vector `(n + m,)`, the axes divided by
    their limits.
    """

    buttons: tuple[str, ...]
    axes: tuple[str, ...] = ()
    limits: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.limits):
            raise UserError(f"{len(self.axes)} axes need as many limits, got {len(self.limits)}")

    @property
    def size(self) -> int:
        """Length of the vector form."""
        return len(self.buttons) + len(self.axes)

    @property
    def space(self) -> spaces.Dict:
        limits = np.asarray(self.limits, np.float32)
        parts: dict[str, spaces.Space] = {"buttons": spaces.MultiBinary(len(self.buttons))}
        if self.axes:
            parts["axes"] = spaces.Box(-limits, limits, dtype=np.float32)
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
        """Gymnasium action to vector `(size,)`: buttons 0 or 1, axes in [-1, 1]."""
        buttons = np.asarray(action["buttons"], np.float32)
        if not self.axes:
            return buttons
        axes = np.asarray(action["axes"], np.float32) / np.asarray(self.limits, np.float32)
        return np.concatenate([buttons, np.clip(axes, -1.0, 1.0)])

    def unpack(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Vector `(size,)` to gymnasium action; the inverse of `pack`."""
        vector = np.asarray(vector, np.float32)
        if vector.shape != (self.size,):
            raise UserError(f"an action vector here has shape ({self.size},), got {vector.shape}")
        n = len(self.buttons)
        action = {"buttons": (vector[:n] > 0.5).astype(np.int8)}
        if self.axes:
            limits = np.asarray(self.limits, np.float32)
            action["axes"] = np.clip(vector[n:], -1.0, 1.0) * limits
        return action

    def words(self, vector: np.ndarray) -> str:
        """A short reading of a vector, for captions and overlays: `forward yaw +8`."""
        action = self.unpack(vector)
        parts = [name for name, held in zip(self.buttons, action["buttons"], strict=True) if held]
        parts += [
            f"{name} {value:+.0f}"
            for name, value in zip(self.axes, action.get("axes", ()), strict=True)
            if value
        ]
        return " ".join(parts) or "stay"


class World(gymnasium.Env):
    """A `gymnasium.Env` with camera poses in its info and a snapshot of its state.

    Observation: uint8 `(h, w, 3)`. `info` carries `world_from_camera` (4, 4) and `intrinsics` (3, 3) in
    pixels of the observation, OpenCV camera (x right, y down, z forward), pixel centres at +0.5, and where
    the world knows it `depth` float32 `(h, w)`, planar z-depth. `reset(seed=..., options=...)` understands
    `options={"start": k}` when the world has a gallery of starts. Yaw is positive to the right, pitch
    positive upwards.
    """

    actions: ActionSchema
    fps: float = 10.0

    @abstractmethod
    def state(self) -> Any:
        """A snapshot from which `restore` continues exactly as if nothing had happened."""

    @abstractmethod
    def restore(self, state: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Go back to a snapshot; returns the observation and info that belonged to it."""


DOOM_ACTIONS = ActionSchema(
    buttons=("forward", "back", "left", "right", "place"), axes=("yaw", "pitch"), limits=(30.0, 15.0)
)
"""`left` and `right` step sideways; `place` puts an object in front of the player, and it stays."""
