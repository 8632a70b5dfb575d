"""A tiny game for tests: a white square that is pushed about, seen by `render()` or as the observation."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces


class Push(gymnasium.Env):
    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, space: spaces.Space, *, pixels: bool = False, lasts: int = 1000) -> None:
        self.action_space, self.render_mode, self.lasts = space, "rgb_array", lasts
        box = spaces.Box(0, 255, (40, 60, 3), np.uint8)
        self.observation_space = box if pixels else spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.pixels, self.seen = pixels, []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.at, self.age = self.np_random.uniform(10, 30, 2), 0
        return self._see(), {}

    def step(self, action: Any):
        self.seen.append(action)
        number = float(
            np.sum([np.sum(part) for part in action.values()] if isinstance(action, dict) else action)
        )
        self.at = (self.at + np.array([number, 1])) % np.array([60, 40])
        self.age += 1
        return self._see(), 1.0, self.age >= self.lasts, False, {}

    def render(self) -> np.ndarray:
        picture = np.zeros((40, 60, 3), np.uint8)
        x, y = self.at.astype(int)
        picture[y : y + 8, x : x + 8] = 255
        return picture

    def _see(self) -> np.ndarray:
        return self.render() if self.pixels else self.at.copy()


def make_push(render_mode: str = "rgb_array") -> Push:
    return Push(spaces.Discrete(3), pixels=True)
