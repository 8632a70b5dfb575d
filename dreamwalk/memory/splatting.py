"""Soft rendering of clouds of points: a z-buffer, then the average of all points that agree with it.

Every sum is of integers, so that a picture is the same bits for any order of the points and any number of
threads, on a CPU and on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

NEAR = 1.0
"""Points nearer than this many world units are not drawn."""
AGREE, SLACK = 1.04, 2.0
"""A point agrees with the nearest one of its pixel up to `AGREE` times its depth and `SLACK` units more."""
COARSER = 1.35
"""And takes part in the average up to this many times the footprint of the nearest one."""
WEIGHTS = 255
"""Steps of a bilinear weight: the product with a colour of 8 bits has 16, so 65,536 points fit a pixel."""
LEVELS, WIDE = 4, 1.4
"""Points wider than `WIDE` pixels are drawn in a picture of half the size, and so on down to an eighth."""
EMPTY = (1 << 63) - 1


@dataclass(frozen=True)
class Points:
    """Coloured points, each axis in its own row of memory."""

    position: Tensor
    """World coordinates, float32 `(3, n)`."""
    rgb: Tensor
    """uint8 `(3, n)`."""
    footprint: Tensor
    """World size of the pixel that it was seen with (depth / focal length), float32 `(n,)`."""
    time: Tensor
    """Of the frame that showed it, int32 `(n,)`."""
    dreamed: Tensor
    """Whether that frame was dreamed, bool `(n,)`."""

    def __len__(self) -> int:
        return self.position.shape[1]

    def to(self, device: torch.device | str) -> Points:
        return Points(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class Rendering:
    """What clouds look like from `b` cameras."""

    rgb: Tensor
    """`(b, 3, h, w)` in [-1, 1], 0 where nothing is near."""
    depth: Tensor
    """Planar depth in world units, `(b, h, w)`, 0 where nothing is near."""
    mask: Tensor
    """`(b, h, w)`: 1 where points are, 1/2 and 1/4 where only neighbours fill, 0 where nothing is near."""
    dreamed: Tensor
    """1 where the pixel shows what was dreamed, `(b, h, w)`."""


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def render(
    clouds: Sequence[Points], world_from_camera: Tensor, *, intrinsics: Tensor, size: tuple[int, int]
) -> Rendering:
    """Cloud `i` seen by camera `i`: poses `(b, 4, 4)` and intrinsics `(b, 3, 3)` in pixels of a picture of
    `size` (h, w).

    What was shown as true wins: dreamed points fill only what the true ones leave open.
    """
    views = [
        _in_view(cloud, pose, matrix, size)
        for cloud, pose, matrix in zip(clouds, world_from_camera, intrinsics, strict=True)
    ]
    layers = 2 if any(bool(view.dreamed.any()) for view in views) else 1
    page = torch.cat([layers * index + view.dreamed * (layers - 1) for index, view in enumerate(views)])
    view = _View(*(torch.cat([getattr(view, f.name) for view in views]) for f in fields(_View)))
    pyramid = _Pyramid(len(views) * layers, size, device=page.device)
    rgb, depth, mask = _fill(*_compose(_splat(view, page, pyramid)))
    rgb, depth, mask = (x.unflatten(0, (len(views), layers)) for x in (rgb, depth, mask))
    if layers == 1:
        return Rendering(rgb[:, 0], depth[:, 0], mask[:, 0], torch.zeros_like(mask[:, 0]))
    own = mask[:, 0] > 0
    pick = lambda x: torch.where(own, x[:, 0], x[:, 1])
    dreamed = (~own & (mask[:, 1] > 0)).float()
    return Rendering(torch.where(own[:, None], rgb[:, 0], rgb[:, 1]), pick(depth), pick(mask), dreamed)


@dataclass(frozen=True)
class _View:
    """The points that cameras see, `(n,)` each."""

    x: Tensor
    """Column in pixels; the centre of the first is 0.5."""
    y: Tensor
    z: Tensor
    footprint: Tensor
    level: Tensor
    """Of the pyramid, whose pixels are as large as the point's own."""
    red_green: Tensor
    """Two colours in one int64, so that one sum adds both."""
    blue_one: Tensor
    dreamed: Tensor


class _Pyramid:
    """Pages of pixels at the sizes h w, h/2 w/2, .. in one row of cells, each with a margin of one pixel."""

    def __init__(self, pages: int, size: tuple[int, int], *, device: torch.device) -> None:
        self.pages = pages
        self.sizes = [(-(-size[0] // 2**level), -(-size[1] // 2**level)) for level in range(LEVELS)]
        cells = [(h + 2) * (w + 2) for h, w in self.sizes]
        starts = [pages * sum(cells[:level]) for level in range(LEVELS)]
        self.cells = pages * sum(cells)
        table = [
            [start + page * count for page in range(pages)]
            for start, count in zip(starts, cells, strict=True)
        ]
        self.starts = torch.tensor(table, device=device).flatten()
        self.strides = torch.tensor([w + 2 for _, w in self.sizes], device=device)

    def levels(self, cells: Tensor) -> list[Tensor]:
        """Row `(.., cells)` as one tensor `(.., pages, h + 2, w + 2)` a level."""
        parts = cells.split([self.pages * (h + 2) * (w + 2) for h, w in self.sizes], -1)
        return [
            part.unflatten(-1, (self.pages, h + 2, w + 2))
            for part, (h, w) in zip(parts, self.sizes, strict=True)
        ]


def _in_view(cloud: Points, pose: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> _View:
    turn = pose[:3, :3].T.double()
    matrix = intrinsics.double() @ torch.cat([turn, -turn @ pose[:3, 3:].double()], 1)
    x, y, z = torch.addmm(matrix[:, 3:].float(), matrix[:, :3].float(), cloud.position)
    x, y = x / z, y / z
    height, width = size
    seen = (z > NEAR) & (x > -0.5) & (x < width + 0.5) & (y > -0.5) & (y < height + 0.5)
    index = seen.nonzero().squeeze(1)
    red, green, blue = (row.index_select(0, index).long() for row in cloud.rgb)
    x, y, z, footprint = (row.index_select(0, index) for row in (x, y, z, cloud.footprint))
    pixels = footprint * intrinsics[0, 0] / z
    # The exponent of a float is its binary logarithm.
    level = (((pixels / WIDE).view(torch.int32) >> 23) - 126).clamp_(0, LEVELS - 1)
    dreamed = cloud.dreamed.index_select(0, index)
    return _View(x, y, z, footprint, level, red << 32 | green, blue << 32 | 1, dreamed)


def _splat(view: _View, page: Tensor, pyramid: _Pyramid) -> list[tuple[Tensor, Tensor]]:
    """Of each level colours `(pages, 3, h, w)` and depths `(pages, h, w)`, 0 where nothing is."""
    device = page.device
    shrink = ((127 - view.level) << 23).view(torch.float32)
    x, y = view.x * shrink + 0.5, view.y * shrink + 0.5  # the margin, less the half of a centre
    left, top = x.floor(), y.floor()
    stride = pyramid.strides.index_select(0, view.level)
    corner = (
        pyramid.starts.index_select(0, view.level * pyramid.pages + page) + left.long() + top.long() * stride
    )
    x, y = x - left, y - top
    nearest_cell = corner + (x >= 0.5) + (y >= 0.5) * stride
    # Floats above 0 order like their bits. The nearest point to 3 % wins, of those the finest: its own depth
    # and footprint are the key, so that no order of the points matters.
    bits, pixel = view.z.view(torch.int32).long(), view.footprint.view(torch.int32).long()
    key = bits >> 18 << 50 | pixel >> 12 << 31 | bits
    nearest = torch.full((pyramid.cells,), EMPTY, device=device)
    nearest.scatter_reduce_(0, nearest_cell, key, "amin")
    for level in pyramid.levels(nearest):
        around = _least_around(level)
        level.copy_(torch.where(level == EMPTY, around, level))
    some = nearest < EMPTY
    depth = torch.where(some, (nearest & 0x7FFFFFFF).int().view(torch.float32), 0.0)
    farthest = torch.where(some, depth * AGREE + SLACK, 0.0)  # where nothing is, no point agrees
    coarsest = (nearest >> 31 << 12 & 0x7FFFFFFF).int().view(torch.float32) * COARSER
    sums = [torch.zeros(pyramid.cells, dtype=torch.int64, device=device) for _ in range(2)]
    for down in (0, 1):
        for across in (0, 1):
            cell = corner + (across + down * stride)
            agrees = view.z <= farthest.index_select(0, cell)
            agrees &= view.footprint <= coarsest.index_select(0, cell)
            share = (x if across else 1 - x) * (y if down else 1 - y)
            weight = (share * WEIGHTS).mul_(agrees).add_(0.5).long()
            for total, colours in zip(sums, (view.red_green, view.blue_one), strict=True):
                total.scatter_add_(0, cell, weight * colours)
    red_green, blue_one = sums
    weight = blue_one & 0xFFFFFFFF
    channels = torch.stack([red_green >> 32, red_green & 0xFFFFFFFF, blue_one >> 32]).float()
    rgb = channels / weight.clamp(min=1).float() / 127.5 - 1
    depth = torch.where(weight > 0, depth, 0.0)
    inner = lambda cells: [level[..., 1:-1, 1:-1] for level in pyramid.levels(cells)]
    return [(colour.transpose(0, 1), z) for colour, z in zip(inner(rgb), inner(depth), strict=True)]


def _least_around(keys: Tensor) -> Tensor:
    """The least of the 3x3 cells around each, of pages `(pages, h, w)`; of the outermost cells any."""
    for axis in (-1, -2):
        keys = torch.minimum(keys, torch.minimum(keys.roll(1, axis), keys.roll(-1, axis)))
    return keys


def _compose(levels: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Colours `(pages, 3, h, w)` and depths `(pages, h, w)` of the finest level, coarse ones where it has
    none or where they are in front; and whether anything is there."""
    rgb, depth = levels[-1]
    for fine_rgb, fine in reversed(levels[:-1]):
        height, width = fine.shape[-2:]
        rgb, depth = _grow(rgb, depth, (height, width))
        hidden = (depth > 0) & (depth * 1.15 + 10 < fine)
        shown = (fine > 0) & ~hidden
        rgb, depth = torch.where(shown[:, None], fine_rgb, rgb), torch.where(shown, fine, depth)
    known = depth > 0
    return torch.where(known[:, None], rgb, 0.0), depth, known


def _grow(rgb: Tensor, depth: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """At twice the size, cut to `size`: of the four nearest pixels those that are known, weighted."""
    known = (depth > 0).float()[:, None]
    both = torch.cat([rgb * known, depth[:, None], known], 1)
    both = F.interpolate(both, scale_factor=2.0, mode="bilinear")[..., : size[0], : size[1]]
    share = both[:, 4:]
    both = torch.where(share > 0.3, both[:, :4] / share, 0.0)
    return both[:, :3], both[:, 3]


def _fill(rgb: Tensor, depth: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Holes take the mean of their known neighbours, twice."""
    mask = known.float()
    for share in (0.5, 0.25):
        there = (mask > 0).float()[:, None]
        near = F.avg_pool2d(torch.cat([rgb, depth[:, None], there], 1) * there, 3, 1, 1)
        empty = (there == 0) & (near[:, 4:] > 0)
        mean = near[:, :4] / near[:, 4:].clamp(min=1e-6)
        rgb = torch.where(empty, mean[:, :3], rgb)
        depth = torch.where(empty[:, 0], mean[:, 3], depth)
        mask = torch.where(empty[:, 0], share, mask)
    return rgb, depth, mask
