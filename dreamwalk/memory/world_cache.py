"""Voyager's world cache: what the clips along a path have shown, as points of which few say a thing twice.

Voyager (Huang et al., arXiv 2506.04225), section 4.3, frame after frame:

    M_i = render(p, c_i)                       which pixels the cache covers from camera i
    add where M_i = 0                          invisible regions
    add where M_i = 1 and n . (o - x) < 0      the surface that is there faces away from the camera at o

    paper's word                our word
    world cache                 `WorldCache`, over `PointTiles`
    visibility mask             `Rendering.mask`
    surface normal              `cameras.depth_normals`, kept with every point
    (not bounded)               `TileBudget`

What is not in the paper: depth is first aligned to what the cache shows, by scale and bias of inverse depth;
edges of depth are left out; the whole is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dreamwalk.cameras import depth_normals
from dreamwalk.memory.depth_alignment import fit_inverse_depth
from dreamwalk.memory.frame_points import EDGES, FAR, points_of_frame
from dreamwalk.memory.point_tiles import PointTiles, Surfels, TileBudget
from dreamwalk.memory.splatting import Points, Rendering, render, unprojected
from dreamwalk.validation import Share


@dataclass(frozen=True)
class WorldCacheConfig:
    """What is kept of each frame."""

    insertion: Literal["all", "invisible", "facing"] = "facing"
    """Which pixels: all; those that the cache does not cover; also those where its surface faces away."""
    covered: Share = 0.2
    """The least `Rendering.mask` that counts as covered: 1 also adds what was seen coarser than now, which
    the paper does not."""
    edges: float = EDGES
    """Ratio of depths within 3x3 pixels above which pixels are left out; inf keeps all."""
    budget: TileBudget = field(default_factory=TileBudget)


class WorldCache:
    """The points of one scene; cameras are `(t, 4, 4)` with intrinsics `(t, 3, 3)` in pixels."""

    def __init__(self, config: WorldCacheConfig | None = None, *, folder: Path | str | None = None) -> None:
        self.config = config or WorldCacheConfig()
        self.tiles = PointTiles(self.config.budget, folder=folder)
        self.offered = 0
        """Points of all frames, before any were dropped."""

    def __len__(self) -> int:
        return len(self.tiles)

    @classmethod
    def open(cls, folder: Path | str, config: WorldCacheConfig | None = None) -> WorldCache:
        """The cache of the last commit; UserError for a folder that is broken or another's."""
        cache = cls(replace(config or WorldCacheConfig(), budget=TileBudget(points=None)))
        cache.tiles = PointTiles.open(folder, config.budget if config else None)
        cache.config = replace(cache.config, budget=cache.tiles.budget)
        return cache

    def render(self, poses: Tensor, intrinsics: Tensor, *, size: tuple[int, int]) -> Rendering:
        """What the cameras of a clip see: the partial RGB-D and the masks `(t, ..)` of its condition."""
        views = self.tiles.view(poses, intrinsics, size=size)
        cameras = zip(views, poses, intrinsics, strict=True)
        return Rendering.cat([_drawn(view, pose, matrix, size=size) for view, pose, matrix in cameras])

    def insert(self, rgb: Tensor, depth: Tensor, poses: Tensor, intrinsics: Tensor, *, time: int) -> None:
        """Add frames `(t, 3, h, w)` in [-1, 1] with planar depth `(t, h, w)` in world units, 0 for the sky;
        `time` is of the first. Depth that was generated is aligned before, see `fit`."""
        size = depth.shape[1], depth.shape[2]
        for i, (picture, near, pose, matrix) in enumerate(zip(rgb, depth, poses, intrinsics, strict=True)):
            wanted = self._wanted(pose, matrix, size=size)
            normal = _normals(near, pose, matrix).to(near.device)
            points_of = partial(points_of_frame, dreamed=False, edges=self.config.edges, wanted=wanted)
            points, facing = (
                points_of(colours, near, pose, matrix, time=time + i) for colours in (picture, normal)
            )
            rows = {part.name: getattr(points, part.name) for part in fields(points)}
            if len(points):
                self.tiles.add(Surfels(**rows, normal=facing.rgb))
        self.offered += depth.numel()

    def fit(self, depth: Tensor, poses: Tensor, intrinsics: Tensor) -> tuple[float, float]:
        """Scale and bias of the inverse depth of a clip `(t, h, w)` that fit it to what the cache shows, for
        `aligned_depth`. Of the clip as a whole: frame by frame, each fit to the one before, errors add up."""
        shown = self.render(poses, intrinsics, size=(depth.shape[1], depth.shape[2]))
        known = (shown.mask >= self.config.covered) & (shown.depth < FAR / 2)
        return fit_inverse_depth(depth, torch.where(known, shown.depth, 0.0))

    def _wanted(self, pose: Tensor, intrinsics: Tensor, *, size: tuple[int, int]) -> Tensor | None:
        """Pixels `(h, w)` of a frame that are added; None for all."""
        if self.config.insertion == "all":
            return None
        (near,) = self.tiles.view(pose[None], intrinsics[None], size=size)
        shown = _drawn(replace(near, rgb=near.normal), pose, intrinsics, size=size)
        covered = shown.mask[0] >= self.config.covered
        if self.config.insertion == "invisible":
            return ~covered
        place = unprojected(shown.depth[0], pose, intrinsics).view(3, *size)
        away = (shown.rgb[0] * (pose[:3, 3, None, None] - place)).sum(0) < 0
        return ~covered | (away & (shown.depth[0] < FAR / 2))

    def prefetch(self, poses: Tensor, intrinsics: Tensor, *, size: tuple[int, int]) -> None:
        """See `PointTiles.prefetch`."""
        self.tiles.prefetch(poses, intrinsics, size=size)

    def close(self) -> None:
        """See `PointTiles.close`."""
        self.tiles.close()

    def commit(self) -> None:
        """Make what was added last: see `PointTiles.commit`."""
        self.tiles.commit()


def _normals(depth: Tensor, pose: Tensor, intrinsics: Tensor) -> Tensor:
    """Unit normals `(3, h, w)` in the world, 0 at edges."""
    depth, pose, intrinsics = (part.cpu() for part in (torch.where(depth > 0, depth, FAR), pose, intrinsics))
    found = depth_normals(depth.numpy(), intrinsics=intrinsics.numpy(), world_from_camera=pose.numpy())
    return torch.from_numpy(found).float().permute(2, 0, 1)


def aligned_depth(depth: Tensor, scale: float, bias: float) -> Tensor:
    """Depth `(h, w)` whose inverse is `scale / depth + bias`; 0, the sky, stays, and what comes to lie behind
    everything becomes it."""
    inverse = scale / depth.clamp(min=1e-6) + bias
    return torch.where((depth > 0) & (inverse > 1 / FAR), 1 / inverse.clamp(min=1 / FAR), 0.0)


def _drawn(points: Points, pose: Tensor, intrinsics: Tensor, *, size: tuple[int, int]) -> Rendering:
    return render([points], pose[None], intrinsics=intrinsics[None], size=size)
