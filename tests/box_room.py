"""A box room with coloured walls, seen as RGB-D from anywhere, and a tiny dream with a memory of points."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dreamwalk.cameras import intrinsics_matrix
from dreamwalk.clip import Clip
from dreamwalk.codecs import patch
from dreamwalk.memory.points import PointsConfig
from dreamwalk.systems import forcing
from dreamwalk.systems.forcing import Forcing
from dreamwalk.worlds.doom import pose_matrix

SIDE, ROOM = 32, torch.tensor([[-200.0, -150.0, 0.0], [200.0, 150.0, 128.0]])
MATRIX = torch.from_numpy(intrinsics_matrix(16, 16, cx=16, cy=16))
STILL, AHEAD = torch.zeros(1, 7), torch.eye(7)[:1]


def look(x: float, y: float, heading: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pose, uint8 picture `(3, h, w)` and depth of a box room with coloured walls."""
    pose = torch.from_numpy(pose_matrix((x, y, 41), heading)).float()
    grid = (torch.arange(SIDE) + 0.5 - SIDE / 2) / 16
    local = torch.stack(torch.broadcast_tensors(grid, grid[:, None], torch.ones(())), -1)
    rays = local @ pose[:3, :3].T
    depth = torch.where(rays > 0, (ROOM[1] - pose[:3, 3]) / rays, (ROOM[0] - pose[:3, 3]) / rays).amin(-1)
    hit = pose[:3, 3] + depth[..., None] * rays
    return pose, (127.5 + 120 * (hit / 60).sin()).permute(2, 0, 1).byte(), depth


def walk(poses: list[tuple[float, float, float]]) -> Clip:
    """A batch of one clip."""
    seen = [look(*pose) for pose in poses]
    pose, video, depth = (torch.stack(parts)[None] for parts in zip(*seen, strict=True))
    matrices = MATRIX.expand(1, len(poses), 3, 3)
    actions = torch.zeros(1, len(poses), 7)
    return Clip(video, actions, depth=depth, world_from_camera=pose, intrinsics=matrices)


def dream_of_rooms(memory: PointsConfig | None = None) -> Forcing:
    torch.manual_seed(0)
    codec = replace(patch.tiny(), image_channels=4)
    made = replace(forcing.tiny(), codec=codec, memory=memory or PointsConfig(), window=3).build()
    made.memory.kinematics.fit(*walked())
    return made


def walked() -> tuple[Tensor, Tensor, Tensor]:
    """Paths of a body that turns by 0.5 per action 5, looks up by 0.2 per action 6, keeps 0.7 of its speed,
    and is sometimes held."""
    draw = torch.Generator().manual_seed(0)
    actions = torch.rand(40, 30, 7, generator=draw) * torch.tensor([1, 1, 1, 1, 0, 2, 2.0])
    actions -= torch.tensor([0, 0, 0, 0, 0, 1.0, 1.0])
    poses, matrices = torch.eye(4).repeat(40, 30, 1, 1), MATRIX.repeat(40, 30, 1, 1)
    heading, pitch, speed, at = torch.zeros(40), torch.zeros(40), torch.zeros(40, 2), torch.zeros(40, 2)
    for i in range(30):
        ahead = torch.stack([heading.cos(), heading.sin()], -1)
        right = torch.stack([heading.sin(), -heading.cos()], -1)
        push = (actions[:, i, 0] - actions[:, i, 1])[:, None] * ahead
        push = push + (actions[:, i, 3] - actions[:, i, 2])[:, None] * right
        held = torch.rand(40, 1, generator=draw) < 0.1
        speed = torch.where(held, 0.0, 0.7 * speed + 6 * push)
        at, heading, pitch = at + speed, heading - 0.5 * actions[:, i, 5], pitch + 0.2 * actions[:, i, 6]
        (c, s), none, one = (heading.cos(), heading.sin()), torch.zeros(40), torch.ones(40)
        axes = [(s, -c, none), (none, none, -one), (c, s, none)]
        poses[:, i, :3, :3] = torch.stack([torch.stack(axis, -1) for axis in axes], -1)
        poses[:, i, :2, 3], matrices[:, i, 1, 2] = at, 16 - 16 * pitch.tan()
    return poses, matrices, actions
