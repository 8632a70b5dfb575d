"""A toy world for tests: a coloured panorama that turns with yaw, and clips of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dreamwalk.clip import Clip
from dreamwalk.rollout.dream import Walkable
from dreamwalk.systems import nextframe
from dreamwalk.systems.nextframe import NextFrame
from dreamwalk.world import DOOM_ACTIONS, ActionSchema


def panorama(heading: float, *, side: int = 32) -> np.ndarray:
    """uint8 `(side, side, 3)`: three sine waves around a circle, seen through 90 degrees, darker below."""
    angles = np.deg2rad(heading + np.linspace(-45, 45, side))
    waves = np.stack([np.sin(angles), np.sin(2 * angles + 1), np.sin(3 * angles + 2)], -1)
    light = np.linspace(1.0, 0.4, side)[:, None, None]
    return ((waves[None] * 0.5 + 0.5) * light * 255).astype(np.uint8)


@dataclass(frozen=True)
class Toy:
    """Source of clips of the panorama under random turns."""

    clip_frames: int = 12
    side: int = 32
    fps: float = 10.0
    schema: ActionSchema = DOOM_ACTIONS

    @property
    def size(self) -> tuple[int, int]:
        return self.side, self.side

    def describe(self) -> dict[str, Any]:
        return {"world": "toy", "level": "", "split": "train", "seed": 0}

    def clips(self, indices: range) -> Iterator[Clip]:
        for index in indices:
            random = np.random.default_rng(index)
            yaw = random.uniform(-20, 20, self.clip_frames)
            yaw[0] = 0
            heading = random.uniform(0, 360) + np.cumsum(yaw)
            vectors = [self.schema.pack(self.schema.action(yaw=float(turn))) for turn in yaw]
            video = np.stack([panorama(float(h), side=self.side) for h in heading])
            yield Clip(video=video, actions=np.stack(vectors), caption="turning")


def toy_system() -> NextFrame:
    """A tiny next-frame system with random weights, all of them in play, that can be walked in."""
    torch.manual_seed(0)
    system = NextFrame(nextframe.tiny()).eval()
    for parameter in system.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    starts = np.stack([panorama(0), panorama(120)])
    poses = np.stack([np.eye(4, dtype=np.float32)] * 2)
    intrinsics = np.array([[16, 0, 16], [0, 16, 16], [0, 0, 1]], np.float32)
    system.walkable = Walkable(DOOM_ACTIONS, 10.0, starts, poses, intrinsics, pace=5.0)
    return system
