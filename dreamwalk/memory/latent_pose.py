"""Where an action leads the camera, told by the last frame: WorldMem's pose prediction (arXiv 2504.12369).

Whoever dreams of a place that nobody has measured has no true poses, and memory needs some. The last latent
frame says what is in the way; a small network of it, the pose and the action gives the next pose:

    three convolutions of stride 2 over the latents, their mean      f
    two layers on pose and action                                    m
    two layers on both                                               blocks along x, y and z, and turns

Turns are in units of 15 degrees and rounded, as a player of the published walks turns. It recalls nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dreamwalk.data.minedojo import BIN, cameras_of, poses_of
from dreamwalk.errors import UserError, brief, writing
from dreamwalk.memory.contract import CameraState, FinishedFrame, Memory, MemoryModel, NoStore, TokenSizes
from dreamwalk.validation import Count

FILE = "last_latents.npy"


@dataclass(frozen=True)
class LatentPoseConfig:
    """Sizes of the pose network; by default the published ones."""

    widths: tuple[Count, Count, Count] = (32, 64, 128)
    """Of the convolutions."""
    features: Count = 256
    """Of the picture."""
    hidden: Count = 128
    """Of pose and action."""

    def build(self, sizes: TokenSizes) -> LatentPoseMemory:
        """For latents of these sizes, with fresh weights."""
        return LatentPoseMemory(self, sizes)


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


class LatentPoseMemory(MemoryModel):
    """The pose network; sessions keep the last frame for it, and nothing else."""

    def __init__(self, config: LatentPoseConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.pose = LatentPose(config, channels=sizes.channels, actions=sizes.actions)

    def begin(self) -> LastFrame:
        return LastFrame(self)

    def open(self, folder: Path, *, rows: int) -> LastFrame:
        memory = self.begin()
        try:
            latents = np.load(folder / FILE, allow_pickle=False)
            memory.latents = torch.from_numpy(latents).to(self.pose.features.weight.device)
        except (OSError, ValueError, EOFError, TypeError) as error:
            raise UserError(
                f"'{folder / FILE}' cannot be read ({brief(error)}): begin a new session"
            ) from None
        if memory.latents.ndim != 4 or len(memory.latents) != rows:
            raise UserError(f"'{folder / FILE}' is of another session: begin a new one")
        return memory

    def next_camera(self, camera: CameraState | None, action: Tensor, memory: Memory) -> CameraState | None:
        if camera is None or not isinstance(memory, LastFrame) or memory.latents is None:
            return None
        pose = self.pose.next_pose(memory.latents, camera.pose, action)
        return replace(camera, pose=pose, displacement=pose[:, :3, 3] - camera.pose[:, :3, 3], action=action)


class LastFrame(NoStore):
    """The latents `(b, c, h, w)` of the last frame."""

    latents: Tensor | None = None

    def write(self, frame: FinishedFrame) -> None:
        self.latents = frame.latents.float()

    def clone(self) -> LastFrame:
        twin = LastFrame(self.model)
        twin.latents = self.latents
        return twin

    def to(self, device: torch.device | str) -> LastFrame:
        twin = self.clone()
        twin.latents = None if self.latents is None else self.latents.to(device)
        return twin

    def save(self, folder: Path) -> None:
        assert self.latents is not None
        with writing(folder / FILE):
            np.save(folder / FILE, self.latents.cpu().numpy())

    def __deepcopy__(self, copied: dict[int, object]) -> LastFrame:
        # Copies of a session share the weights.
        return self.clone()
