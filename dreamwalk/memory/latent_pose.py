"""Where an action leads the camera, told by the last frame: WorldMem's pose prediction (arXiv 2504.12369).

Whoever dreams of a place that nobody has measured has no true poses, and memory needs some. The last latent
frame says what is in the way; a small network of it, the pose and the action gives the next pose:

    three convolutions of stride 2 over the latents, their mean      f
    two layers on pose and action                                    m
    two layers on both                                               blocks along x, y and z, and turns

Turns are in units of 15 degrees and rounded, as a player of the published walks turns.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dreamwalk.data.minedojo import BIN, cameras_of, poses_of
from dreamwalk.validation import Count


@dataclass(frozen=True)
class LatentPoseConfig:
    """Sizes of the pose network; by default the published ones."""

    widths: tuple[Count, Count, Count] = (32, 64, 128)
    """Of the convolutions."""
    features: Count = 256
    """Of the picture."""
    hidden: Count = 128
    """Of pose and action."""


class LatentPose(nn.Module):
    """Latents `(b, c, h, w)`, pose `(b, 5)` and action `(b, a)` to the step `(b, 5)`, before rounding."""

    def __init__(self, config: LatentPoseConfig, *, channels: int, actions: int) -> None:
        super().__init__()
        widths, hidden = (channels, *config.widths), config.hidden
        pairs = itertools.pairwise(widths)
        convolutions = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs]
        self.picture = nn.Sequential(*(part for conv in convolutions for part in (conv, nn.ReLU())))
        self.features = nn.Linear(widths[-1], config.features)
        self.motion = nn.Sequential(
            nn.Linear(5 + actions, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.step = nn.Sequential(
            nn.Linear(config.features + hidden, hidden), nn.ReLU(), nn.Linear(hidden, 5)
        )

    def forward(self, latents: Tensor, pose: Tensor, action: Tensor) -> Tensor:
        """`pose` is x, y, z in blocks, and pitch and yaw in units of 15 degrees."""
        seen = self.features(self.picture(latents).mean((2, 3)))
        return self.step(torch.cat([seen, self.motion(torch.cat([pose, action], -1))], -1))

    @torch.no_grad()
    def next_pose(self, latents: Tensor, camera: Tensor, action: Tensor) -> Tensor:
        """`world_from_camera` `(b, 4, 4)` after an action, in a world as of `data.minedojo`."""
        pose = poses_of(camera.cpu().numpy())
        pose[:, 4] *= -1  # the network was shown yaw to the left
        pose[:, 3:] = np.floor(np.round(pose[:, 3:] / BIN, 3) % (360 / BIN))
        given = torch.from_numpy(pose).to(latents)
        moved = given + self(latents, given, action.to(latents))
        following = moved.double().cpu().numpy()
        following[:, 3:] = BIN * (pose[:, 3:] + np.round(following[:, 3:] - pose[:, 3:]))
        following[:, 4] *= -1
        return torch.from_numpy(cameras_of(following)).to(camera)


def reckoned_pose(camera: Tensor, action: Tensor, *, speed: float) -> Tensor:
    """`world_from_camera` `(b, 4, 4)` after an action `(b, 8)` of `data.minedojo`, where nothing tells what
    is in the way: turns are exact, and a key covers `speed` blocks of flat ground."""
    pose = poses_of(camera.cpu().numpy())
    forward, back, left, right, _, _, yaw, pitch = action.double().cpu().numpy().T
    pose[:, 3:] += BIN * np.stack([-pitch, yaw], -1)
    pose[:, 3] = pose[:, 3].clip(-90, 90)
    sin, cos = np.sin(np.deg2rad(pose[:, 4])), np.cos(np.deg2rad(pose[:, 4]))
    ahead, aside = speed * (forward - back), speed * (right - left)
    pose[:, [0, 2]] += np.stack([-ahead * sin - aside * cos, ahead * cos - aside * sin], -1)
    return torch.from_numpy(cameras_of(pose)).to(camera)
