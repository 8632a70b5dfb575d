"""What a pinhole camera can see: sample points inside its pyramid of view, and which cameras see a point.

Lifted points `(x, y, z, 1, |p|^2)` make every bound of a view linear: four sides of the pyramid (any
principal point, so a pitch that only moves it is a pitch), and the distance. Positions are relative to a
place nearby and in units of a stated length, so that float32 does for worlds of any extent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

NEAR = 1.0
"""Points nearer than this many world units are not drawn."""
PLASTIC = 1.2207440846057596
"""Root of x^4 = x + 1: its powers step evenly through a cube (Roberts, the R3 sequence)."""


@dataclass(frozen=True)
class Cameras:
    """Of `n` frames of one size."""

    pose: Tensor
    """`world_from_camera`, `(n, 4, 4)`."""
    intrinsics: Tensor
    """`(n, 3, 3)` in pixels."""
    size: tuple[int, int]
    """Rows and columns of the frames."""
    time: Tensor | None = None
    """Index of each frame, int64 `(n,)`; None for frames to come."""
    depth: Tensor | None = None
    """Planar depth of the farthest surface in each cell of a coarse grid, `(n, p, q)` in world units; 0 where
    it is not known."""

    def __len__(self) -> int:
        return len(self.pose)

    @property
    def position(self) -> Tensor:
        """`(n, 3)`."""
        return self.pose[:, :3, 3]

    @property
    def direction(self) -> Tensor:
        """Unit vectors `(n, 3)` through the centres of the frames, in the world."""
        centre = torch.full((1, 2), 0.5, dtype=self.pose.dtype, device=self.pose.device)
        return self.rays(centre)[:, 0]

    def rays(self, share: Tensor) -> Tensor:
        """Unit vectors `(n, m, 3)` in the world through `share` `(m, 2)` of the width and height."""
        height, width = self.size
        k = self.intrinsics[:, None]
        x = (share[:, 0] * width - k[..., 0, 2]) / k[..., 0, 0]
        y = (share[:, 1] * height - k[..., 1, 2]) / k[..., 1, 1]
        ray = torch.stack([x, y, torch.ones_like(x)], -1)
        return ray / ray.norm(dim=-1, keepdim=True) @ self.pose[:, :3, :3].mT

    def rows(self, index: Tensor | slice) -> Cameras:
        """Some of them."""

        def chosen(x: Tensor) -> Tensor:
            return x[index] if isinstance(index, slice) else x.index_select(0, index)

        parts = (None if x is None else chosen(x) for x in (self.time, self.depth))
        return Cameras(chosen(self.pose), chosen(self.intrinsics), self.size, *parts)

    def double(self) -> Cameras:
        """Poses and intrinsics in float64."""
        return Cameras(self.pose.double(), self.intrinsics.double(), self.size, self.time, self.depth)


def points_ahead(cameras: Cameras, count: int, *, radius: float) -> Tensor:
    """World points `(n, count, 3)` inside the pyramid of each camera and within `radius` of it.

    Always the same ones: spread evenly over the pixels, and along a ray evenly in volume (WorldMem, Algorithm
    2, draws them in the whole sphere, of which a view of 105 by 75 degrees holds 18 %).
    """
    share = _sequence(count, cameras.pose.device).to(cameras.pose.dtype)
    distance = radius * share[:, 2:] ** (1 / 3)
    return cameras.position[:, None] + cameras.rays(share[:, :2]) * distance


def lifted(points: Tensor, origin: Tensor, *, unit: float) -> Tensor:
    """World points `(..., m, 3)` as `bounds` takes them: `(..., 5, m)`."""
    local = (points - origin) / unit
    parts = [local, torch.ones_like(local[..., :1]), local.square().sum(-1, keepdim=True)]
    return torch.cat(parts, -1).mT.contiguous()


def bounds(cameras: Cameras, origin: Tensor, *, unit: float, reach: float | None) -> Tensor:
    """Matrices `(n, 5, 5)` whose products with lifted points are all >= 0 for those that a camera sees,
    within `reach` of it in world units.

    With `z` the depth in units and `u, v` the share of the frame's width and height: `u z`, `(1 - u) z`,
    `v z`, `(1 - v) z`, and the square of the reach less that of the distance (0 without a reach).
    """
    height, width = cameras.size
    position = (cameras.position - origin) / unit
    turned = cameras.pose[:, :3, :3].mT
    camera_from_world = torch.cat([turned, -turned @ position[..., None]], -1)
    scale = torch.tensor([width, height, 1], dtype=position.dtype, device=position.device)
    across, down, ahead = (cameras.intrinsics / scale[:, None] @ camera_from_world).unbind(1)
    found = position.new_zeros(len(position), 5, 5)
    found[:, :4, :4] = torch.stack([across, ahead - across, down, ahead - down], 1)
    if reach is not None:
        found[:, 4, :3] = 2 * position
        found[:, 4, 3] = (reach / unit) ** 2 - position.square().sum(-1)
        found[:, 4, 4] = -1
    return found


@lru_cache(maxsize=16)
def _sequence(count: int, device: torch.device) -> Tensor:
    """Evenly spread points of the unit cube, float64 `(count, 3)`; the same on every device."""
    steps = torch.tensor([PLASTIC**-1, PLASTIC**-2, PLASTIC**-3], dtype=torch.float64)
    return ((0.5 + steps * torch.arange(1, count + 1)[:, None]) % 1).to(device)


def boxes_in_view(
    camera: Tensor, low: Tensor, high: Tensor, *, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Which boxes with corners `low` and `high` `(3, n)` a camera `(3, 4)`, as `splatting.projection` gives
    it, may see in a picture of `size`, bool `(n,)`; and the depth of their nearest corner `(n,)`."""
    x, y, z = camera
    height, width = size
    near = torch.tensor([0, 0, 0, NEAR], device=z.device)
    # A point is drawn up to half a pixel outside of the picture; a tenth more is for rounding.
    edges = [x + 0.6 * z, (width + 0.6) * z - x, y + 0.6 * z, (height + 0.6) * z - y]
    planes = torch.stack([*edges, z - near])
    up, down = planes[:, :3].clamp(min=0), planes[:, :3].clamp(max=0)
    seen = (up @ high + down @ low + planes[:, 3:] >= 0).all(0)
    return seen, up[4] @ low + down[4] @ high + z[3]
