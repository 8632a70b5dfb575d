"""The neural map: a memory of one level that lies in its weights.

A history of a few frames forgets what is behind the camera, and errors accumulate in it. The neural map keeps
learnt features on a grid over the floor of one level. They are read along the rays of every column of tokens
and added to the tokens, as the features of neural maps are (Neural Map, arXiv 1702.08360).

Cameras stand upright, as in `dreamwalk.cameras`: z is up in the world, and looking up is a shear. So a column
of tokens shares its rays on the floor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import Recalled
from dreamwalk.clip import Clip, FittingData
from dreamwalk.errors import UserError
from dreamwalk.memory.contract import (
    CameraState,
    Memory,
    MemoryModel,
    Recollection,
    TokenSizes,
    Trainee,
    require_poses,
)
from dreamwalk.memory.pose_model import FeatureGrid, FloorConfig, PoseModel
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.validation import Positive, Share


@dataclass(frozen=True)
class NeuralMapConfig(FloorConfig):
    """A map of a level of `extent` world units (x, y) from `origin` on."""

    channels: int = 8
    """Features of a cell."""
    samples: int = 40
    """Points read along a ray."""
    reach: Positive = 1100.0
    """Depth of the farthest of them."""
    rays: int = 4
    """Rays through a column of tokens."""
    width: int = 1024
    """Of the network that reads them."""
    features: int = 128
    """That it gives for every token."""
    pose_dropout: Share = 0.1
    """Probability of training a clip without its poses."""
    pose_model_steps: int = 6000
    """Steps of gradient descent in which the pose model is fitted."""

    def build(self, sizes: TokenSizes) -> NeuralMapMemory:
        """The memory for tokens of these sizes, with fresh weights."""
        return NeuralMapMemory(self, sizes)


def home_map() -> NeuralMapConfig:
    """Of the level `home`."""
    return NeuralMapConfig(origin=(-32, -32), extent=(1152, 736))


class NeuralMapMemory(MemoryModel):
    """A neural map and the pose model of its level."""

    one_level = True

    def __init__(self, config: NeuralMapConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.config = config
        self.map = NeuralMap(
            config, grid=sizes.grid, stride=sizes.stride, channels=sizes.channels, width=sizes.width
        )
        self.pose_model = PoseModel(config, actions=sizes.actions)

    def recall(self, camera: CameraState | None, time: int) -> Recollection:
        if camera is None:
            return Recollection()
        features = self.map(camera.pose[:, None], camera.intrinsics[:, None])
        return Recollection(self.map.to_tokens(features))

    def next_camera(self, camera: CameraState | None, action: Tensor, memory: Memory) -> CameraState | None:
        if camera is None:
            return None
        pose, displacement = self.pose_model(camera.pose, camera.displacement, camera.action, action)
        return replace(camera, pose=pose, displacement=displacement, action=action)

    def fit_from_data(self, data: FittingData) -> None:
        """Fit the pose model, unless it came with weights; UserError for paths that leave the map."""
        if self.pose_model.fitted:
            return
        poses, _, actions = data.paths()
        points, low = poses[..., :2, 3], torch.tensor(self.config.origin)
        if (points < low).any() or (points > low + torch.tensor(self.config.extent)).any():
            raise UserError(
                "paths in these data leave the map: set `--system.memory.origin` and "
                "`--system.memory.extent`, or train `nextframe.game`, which needs none"
            )
        self.pose_model.fit(poses, actions, steps=self.config.pose_model_steps)

    def recalled_of_clip(
        self, clip: Clip, x: Tensor, generator: KeyedGenerator, *, system: Trainee
    ) -> tuple[Recalled, dict[str, Tensor]]:
        """The map also predicts the latents by itself, so that most of the level is known before a
        transformer makes use of it."""
        features = self.map(*require_poses(clip))
        terms = {"map": system.error(x, self.map.latents(features)).mean()}
        posed = (generator.uniform(1) >= self.config.pose_dropout)[..., None, None]
        return Recalled(posed * self.map.to_tokens(features)), terms


class NeuralMap(nn.Module):
    """Poses and intrinsics to features of every token's surroundings."""

    def __init__(
        self, config: NeuralMapConfig, *, grid: tuple[int, int], stride: int, channels: int, width: int
    ) -> None:
        """For tokens on a `grid` (rows, columns), `stride` pixels apart, of `channels` latent channels."""
        super().__init__()
        self.config, self.rows, self.columns, self.stride = config, grid[0], grid[1], stride
        self.grid = FeatureGrid(config, channels=config.channels, cell=config.cell)
        read = config.rays * config.samples * config.channels
        self.mlp = nn.Sequential(
            nn.Linear(read + 3, config.width),
            nn.SiLU(),
            nn.Linear(config.width, config.width),
            nn.SiLU(),
            nn.Linear(config.width, self.rows * config.features),
        )
        self.to_latents = nn.Linear(config.features, channels)
        self.to_tokens = nn.Linear(config.features, width)
        nn.init.zeros_(self.to_tokens.weight)
        nn.init.zeros_(self.to_tokens.bias)

    def latents(self, features: Tensor) -> Tensor:
        """Latents `(b, t, c, h, w)` predicted from `features` `(b, t, n, f)` alone."""
        return rearrange(self.to_latents(features), "b t (h w) c -> b t c h w", h=self.rows)

    def forward(self, world_from_camera: Tensor, intrinsics: Tensor) -> Tensor:
        """Features `(b, t, n, f)` for poses `(b, t, 4, 4)` and `intrinsics` `(b, t, 3, 3)` in pixels."""
        config, (b, t) = self.config, world_from_camera.shape[:2]
        count, across = self.columns * config.rays, self.stride / config.rays
        u = (torch.arange(count, device=intrinsics.device) + 0.5) * across
        slope = (u - intrinsics[..., 0, 2:]) / intrinsics[..., 0, :1]
        ahead, right = world_from_camera[..., None, :2, 2], world_from_camera[..., None, :2, 0]
        ray = ahead + slope[..., None] * right
        depth = config.reach * torch.linspace(0.05, 1, config.samples, device=ray.device).square()
        points = world_from_camera[..., None, None, :2, 3] + depth[:, None] * ray[..., None, :]
        seen = self.grid(points).reshape(b, t, self.columns, -1)
        middle = ray.reshape(b, t, self.columns, config.rays, 2).mean(3)
        horizon = intrinsics[..., 1, 2] / (self.rows * self.stride) - 0.5
        sheared = horizon[..., None, None].expand(b, t, self.columns, 1)
        h = self.mlp(torch.cat([seen, middle, sheared], dim=-1))
        return h.reshape(b, t, self.columns, self.rows, -1).transpose(2, 3).flatten(2, 3)
