"""The points of a frame."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from dreamwalk.memory.depth_alignment import depth_edges
from dreamwalk.memory.splatting import Points, unprojected

FAR = 20_000.0
"""World units at which pixels without depth, the sky, are stored, so that it comes back too."""
EDGES = 1.35
"""Ratio of depths within 3x3 pixels above which a predicted depth is not to be trusted."""


@torch.no_grad()
def points_of_frame(
    rgb: Tensor,
    depth: Tensor,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    *,
    time: int,
    dreamed: bool,
    edges: float = EDGES,
    wanted: Tensor | None = None,
) -> Points:
    """The points of a frame `(3, h, w)` in [-1, 1] with planar depth `(h, w)` in world units, 0 for the sky.

    Pixels at depth edges of that ratio are left out (inf keeps all), as are those that are not `wanted`, bool
    `(h, w)`. Neighbours in the frame are neighbours in the points.
    """
    h, w = depth.shape
    depth = torch.where(depth > 0, depth, FAR)
    kept = ~depth_edges(depth, edges)
    if wanted is not None:
        kept &= wanted
    order = _pixel_order((h, w), device=depth.device)
    order = order[kept.flatten()[order]]
    position = unprojected(depth, world_from_camera, intrinsics)[:, order]
    colours = ((rgb.clamp(-1, 1) + 1) * 127.5).round().byte().flatten(1)[:, order]
    times = torch.full_like(order, time, dtype=torch.int32)
    layer = torch.full_like(order, dreamed, dtype=torch.bool)
    return Points(position, colours, (depth / intrinsics[0, 0]).flatten()[order], times, layer)


@lru_cache(maxsize=16)
def _pixel_order(size: tuple[int, int], *, device: torch.device) -> Tensor:
    """Pixels in the order of a Z-shaped curve: any few in a row are neighbours."""
    y, x = torch.meshgrid(*(torch.arange(side) for side in size), indexing="ij")
    key = torch.zeros(size, dtype=torch.int64)
    for bit in range(max(size).bit_length()):
        key |= ((x >> bit & 1) << 2 * bit) | ((y >> bit & 1) << 2 * bit + 1)
    return key.flatten().argsort().to(device)
