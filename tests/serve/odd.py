"""A world with actions of its own names, as a gymnasium game has them, that remembers what reached it."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from dreamwalk.world import Action, ActionSchema, World

ODD = ActionSchema(
    buttons=(
        *("choice_0", "choice_1", "choice_2", "choice_3", "fire", "rightfire", "leftfire", "noop"),
        *("open_inventory", "hotbar.1", "drop", "swap hands", "r", "Größe"),
    ),
    axes=("steering", "gas", "camera_roll"),
    limits=(1.0, 0.5, 40.0),
)
SIZE = (48, 80)


class Odd(World):
    """Shows a grey that changes with every step; `seen` has what each step was told, by name."""

    actions = ODD
    action_space = ODD.space
    observation_space = spaces.Box(0, 255, (*SIZE, 3), np.uint8)

    def __init__(self, fps: float = 60.0) -> None:
        self.fps = fps
        self.seen: list[dict[str, float]] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.seen.clear()
        return self._look(), {}

    def step(self, action: Action) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        named = [
            *zip(ODD.buttons, action["buttons"], strict=True),
            *zip(ODD.axes, action["axes"], strict=True),
        ]
        self.seen.append({name: float(value) for name, value in named if value})
        return self._look(), 0.0, False, False, {}

    def _look(self) -> np.ndarray:
        return np.full((*SIZE, 3), len(self.seen) % 200, np.uint8)

    def state(self) -> Any:
        return list(self.seen)

    def restore(self, state: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self.seen = list(state)
        return self._look(), {}
