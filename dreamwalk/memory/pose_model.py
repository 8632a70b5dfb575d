"""The pose model: where an action leads the camera, for play without true poses (WorldMem predicts poses from
actions for the same reason, arXiv 2504.12369)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamwalk.validation import Positive, Signed


@dataclass(frozen=True)
class FloorConfig:
    """The part of the floor that a grid covers."""

    origin: tuple[Signed, Signed]
    """Its corner of least x and y, in world units."""
    extent: tuple[Positive, Positive]
    """Its size along x and y."""
    cell: Positive = 16.0
    """World units of a cell."""


class FeatureGrid(nn.Module):
    """Learnt features on a grid over the floor, read by bilinear interpolation (Neural Map, arXiv 1702.08360;
    feature grids as in Instant NGP, arXiv 2201.05989)."""

    GAIN = 4.0
    """Features learn so much faster than weights."""

    def __init__(self, floor: FloorConfig, *, channels: int, cell: float) -> None:
        super().__init__()
        (x, y), (width, height) = floor.origin, floor.extent
        self.features = nn.Parameter(
            0.5 / self.GAIN * torch.randn(channels, math.ceil(height / cell) + 1, math.ceil(width / cell) + 1)
        )
        self.register_buffer("origin", torch.tensor([x, y]), persistent=False)
        self.register_buffer(
            "span", torch.tensor(self.features.shape[:0:-1]).float() * cell - cell, persistent=False
        )

    def forward(self, points: Tensor) -> Tensor:
        """Features `(..., c)` at floor points `(..., 2)`; outside, those of the nearest edge."""
        spots = (2 * (points - self.origin) / self.span - 1).reshape(1, 1, -1, 2)
        read = nn.functional.grid_sample(
            self.GAIN * self.features[None], spots, align_corners=True, padding_mode="border"
        )
        return read[0, :, 0].T.reshape(*points.shape[:-1], -1)


class PoseModel(nn.Module):
    """Where an action leads: the next pose from this one, the last move and two actions; knows the walls.

    It is fitted to walked paths before anything is trained, in a minute or two, and then stays as it is. What
    nothing pushes slows down: without an action other than turning, in this step and the one before, a move
    is bounded by a share of the last one, so that who stands still stays there wherever it is.
    """

    UNIT = 16.0
    GLIDE = 0.8
    """That share, a little more than the 0.744 that Doom's friction leaves of a move in a step of 3 tics."""
    REACH = 64.0
    """World units that no push exceeds in a step."""
    TURNS = 0.01
    """Radians from which a full action is a turn."""

    def __init__(self, floor: FloorConfig, *, actions: int, channels: int = 4, width: int = 128) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.zeros(actions))
        self.ground = FeatureGrid(floor, channels=channels, cell=floor.cell / 2)
        around = torch.arange(12) * (math.tau / 12)
        ring = torch.stack([around.cos(), around.sin()], dim=-1)
        self.register_buffer("around", torch.cat([16 * ring, 32 * ring]), persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(24 * channels + actions + 3, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 3),
        )
        self.free = nn.Linear(actions + 3, 3, bias=False)
        self.requires_grad_(False)

    @property
    def fitted(self) -> bool:
        return bool(self.turn.any())

    def forward(self, pose: Tensor, move: Tensor, before: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Pose `(b, 4, 4)` and move `(b, 3)` in world units after `action` `(b, a)`, from those that the
        action `before` led to."""
        turned = pose @ about_the_vertical(action @ self.turn.detach())
        axes = nn.functional.normalize(turned[:, :3, :3], dim=1)  # or they would shrink over hours of walking
        place = pose[:, None, :2, 3] + torch.einsum("bij,nj->bni", axes[:, :2, (2, 0)], self.around)
        drift = torch.einsum("bji,bj->bi", axes, move) / self.UNIT
        inputs = torch.cat([action, drift], dim=-1)
        local = self.free(inputs) + self.mlp(torch.cat([self.ground(place).flatten(1), inputs], dim=-1))
        step = self._bounded(self.UNIT * torch.einsum("bij,bj->bi", axes, local), move, before, action)
        following = pose.clone()
        following[:, :3] = torch.cat([axes, (pose[:, :3, 3] + step)[..., None]], dim=-1)
        return following, step

    def _bounded(self, step: Tensor, move: Tensor, before: Tensor, action: Tensor) -> Tensor:
        """A step `(b, 3)`, no longer than what is left of the last move and what pushes allow."""
        pushes = (before.abs() + action.abs()) @ (self.turn.abs() < self.TURNS).to(action.dtype)
        most = self.GLIDE * move.norm(dim=-1) + self.REACH * pushes
        return step * (most / step.norm(dim=-1).clamp(min=1e-6)).clamp(max=1)[:, None]

    def fit(self, poses: Tensor, actions: Tensor, *, steps: int, window: int = 16) -> None:
        """Learn from whole walks, poses `(k, t, 4, 4)` and actions `(k, t, a)`, by walking pieces of them."""
        poses, actions = (paths.to(self.turn.device) for paths in (poses, actions))
        window = min(window, poses.shape[1])
        draw = torch.Generator().manual_seed(0)
        self.requires_grad_(True)
        optimizer = torch.optim.AdamW(self.parameters(), lr=4e-3, betas=(0.9, 0.99), weight_decay=0.0)
        course = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1, k / 20, 2 * (1 - k / steps)))
        for _ in range(steps):
            walk = torch.randint(len(poses), (64, 1), generator=draw)
            piece = torch.randint(poses.shape[1] - window + 1, (64, 1), generator=draw) + torch.arange(window)
            self.loss(poses[walk, piece], actions[walk, piece]).backward()
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            optimizer.step()
            course.step()
            optimizer.zero_grad()
        self.requires_grad_(False)

    def loss(self, poses: Tensor, actions: Tensor) -> Tensor:
        """Squared error of turns, and of poses `(b, t, 4, 4)` walked from the first two on, in units."""
        ahead = poses[:, :, :3, 2]
        right = poses[:, :-1, :3, 0]
        turned = torch.atan2((ahead[:, 1:] * right).sum(-1), (ahead[:, 1:] * ahead[:, :-1]).sum(-1))
        errors = [100 * (turned - actions[:, 1:] @ self.turn).square().mean()]
        pose, move = poses[:, 1], poses[:, 1, :3, 3] - poses[:, 0, :3, 3]
        for i in range(2, poses.shape[1]):
            pose, move = self(pose, move, actions[:, i - 1], actions[:, i])
            errors.append(((pose[:, :3, 3] - poses[:, i, :3, 3]) / self.UNIT).square().sum(-1).mean())
        return torch.stack(errors).mean()


def about_the_vertical(angle: Tensor) -> Tensor:
    """Rotations `(b, 4, 4)` to the right by `angle` radians, in the camera's own axes."""
    turn = torch.eye(4, device=angle.device).repeat(len(angle), 1, 1)
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], dim=-2)
    turn[:, 0:3:2, 0:3:2] = rows
    return turn
