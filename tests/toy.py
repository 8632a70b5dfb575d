"""A toy world for tests: a coloured panorama that turns with yaw, and clips of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dreamwalk.clip import Clip
from dreamwalk.memory.neural_map import NeuralMapConfig
from dreamwalk.rollout.dream import WorldSpec
from dreamwalk.systems import nextframe
from dreamwalk.systems.nextframe import NextFrame, NextFrameConfig
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.doom import DOOM_ACTIONS


def panorama(heading: float, *, side: int = 32) -> np.ndarray:
    """uint8 `(side, side, 3)`: three sine waves around a circle, seen through 90 degrees, darker below."""
    angles = np.deg2rad(heading + np.linspace(-45, 45, side))
    waves = np.stack([np.sin(angles), np.sin(2 * angles + 1), np.sin(3 * angles + 2)], -1)
    light = np.linspace(1.0, 0.4, side)[:, None, None]
    return ((waves[None] * 0.5 + 0.5) * light * 255).astype(np.uint8)


def camera(heading: float, *, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Pose and intrinsics of who sees `panorama(heading)`, standing at (40, 40); right is positive."""
    angle = np.deg2rad(heading)
    ahead, right = (np.cos(angle), -np.sin(angle), 0), (-np.sin(angle), -np.cos(angle), 0)
    pose = np.eye(4, dtype=np.float32)
    pose[:3] = np.array([right, (0, 0, -1), ahead, (40, 40, 41)]).T
    return pose, np.array([[side / 2, 0, side / 2], [0, side / 2, side / 2], [0, 0, 1]], np.float32)


def with_map(config: NextFrameConfig) -> NextFrameConfig:
    """The same system with a tiny map of where the toy stands."""
    place = NeuralMapConfig(
        origin=(0, 0), extent=(80, 80), samples=6, reach=60.0, rays=2, width=64, features=16
    )
    return replace(config, memory=place)


@dataclass(frozen=True)
class AsData:
    """One batched clip as the data that a system is fitted to."""

    clip: Clip

    def large_batch(self) -> Clip:
        return self.clip

    def paths(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.clip.world_from_camera, self.clip.intrinsics, self.clip.actions


@dataclass(frozen=True)
class Toy:
    """Source of clips of the panorama under random turns."""

    clip_frames: int = 12
    side: int = 32
    rate: float = 10.0
    schema: ActionSchema = DOOM_ACTIONS
    posed: bool = True

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
            poses, intrinsics = zip(*(camera(float(h), side=self.side) for h in heading), strict=True)
            turns = [{"yaw": float(turn)} if "yaw" in self.schema.axes else {} for turn in yaw]
            vectors = [self.schema.pack(self.schema.action(**turn)) for turn in turns]
            video = np.stack([panorama(float(h), side=self.side) for h in heading])
            yield Clip(
                video=video,
                actions=np.stack(vectors),
                caption="turning",
                world_from_camera=np.stack(poses) if self.posed else None,
                intrinsics=np.stack(intrinsics) if self.posed else None,
            )


def toy_system(config: NextFrameConfig | None = None) -> NextFrame:
    """A tiny next-frame system with random weights, all of them in play, that can be walked in."""
    torch.manual_seed(0)
    system = NextFrame(config or nextframe.tiny()).eval()
    for parameter in system.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    starts = np.stack([panorama(0), panorama(120)])
    poses, intrinsics = np.stack([camera(0)[0], camera(120)[0]]), camera(0)[1]
    system.world_spec = WorldSpec(DOOM_ACTIONS, 10.0, starts, poses, intrinsics, walk_speed=5.0)
    return system
