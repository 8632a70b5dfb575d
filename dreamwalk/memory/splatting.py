"""Soft rendering of clouds of points: a z-buffer, then the average of all points that agree with it.

A point is drawn into four pixels, bilinearly, of a picture whose pixels are as large as its own: of full
size, or of a half, a quarter, an eighth for points that were seen from farther away. Every sum is of integers,
so that a picture is the same bits for any order of the points and any number of threads, on a CPU and a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NEAR = 1.0
"""Points nearer than this many world units are not drawn."""
AGREE, SLACK = 1.04, 2.0
"""A point agrees with the nearest one of its pixel up to `AGREE` times its depth and `SLACK` units more."""
BEHIND, BEHIND_SLACK = 1.15, 10.0
"""The same for one picture before another: those of large pixels have rough depths."""
LEVELS, WIDE = 4, 1.7
"""Points wider than `WIDE` pixels are drawn at half the size, and so on down to an eighth."""
WEIGHTS = 255
"""Steps of a bilinear weight: the product with a colour of 8 bits has 16, so 65,536 points fit a pixel."""
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
    """`(b, h, w)`: 1 where points are as fine as the pixel; 1/2, 1/4, 1/8 where they are so much coarser;
    1/16 where only neighbours fill; 0 where nothing is near."""
    dreamed: Tensor
    """1 where the pixel shows what was dreamed, `(b, h, w)`."""


class _Splats(NamedTuple):
    """What one camera sees of points, `(n,)` each."""

    x: Tensor
    """Column in pixels; the centre of the first is 0.5."""
    y: Tensor
    z: Tensor
    footprint: Tensor
    level: Tensor
    """Of the pyramid, int32."""
    red_green: Tensor
    """Two colours in one int64, so that one sum adds both."""
    blue_one: Tensor
    layer: Tensor
    """1 for what was dreamed, int32."""


class _Pictures(NamedTuple):
    """Layers of renderings."""

    rgb: Tensor
    """`(pages, 3, h, w)` in [-1, 1]; like the others 0 where nothing is."""
    depth: Tensor
    """`(pages, h, w)`."""
    mask: Tensor
    """`(pages, h, w)`, as of a `Rendering`."""


@torch.no_grad()
def render(
    clouds: Sequence[Points], world_from_camera: Tensor, *, intrinsics: Tensor, size: tuple[int, int]
) -> Rendering:
    """Cloud `i` seen by camera `i`: poses `(b, 4, 4)` and intrinsics `(b, 3, 3)` in pixels of a picture of
    `size` (h, w).

    What was shown as true wins: dreamed points show only where the true ones leave a pixel open, or only
    know it coarser.
    """
    cameras = zip(clouds, world_from_camera, intrinsics, strict=True)
    seen = [_seen(cloud, pose, matrix, size) for cloud, pose, matrix in cameras]
    layers = 2 if any(bool(splats.layer.any()) for splats in seen) else 1
    page = torch.cat([splats.layer + layers * view for view, splats in enumerate(seen)])
    splats = _Splats(*map(torch.cat, zip(*seen, strict=True)))
    pyramid = _Pyramid(len(seen) * layers, size, device=page.device)
    pictures = _fill(_joined(_splatted(splats, page, pyramid)))
    true, *dreamed = (_Pictures(*(x[layer::layers] for x in pictures)) for layer in range(layers))
    if not dreamed:
        return Rendering(*true, torch.zeros_like(true.mask))
    show = _shows(true, dreamed[0])
    rgb = torch.where(show[:, None], dreamed[0].rgb, true.rgb)
    depth, mask = (torch.where(show, b, a) for a, b in zip(true[1:], dreamed[0][1:], strict=True))
    return Rendering(rgb, depth, mask, show.float())


def _shows(true: _Pictures, dreamed: _Pictures) -> Tensor:
    """Where the dreamed layer shows `(b, h, w)`: where the true one is open, or coarser at equal depth."""
    finer = dreamed.mask > true.mask
    equal = (dreamed.depth < true.depth * BEHIND + BEHIND_SLACK) & (
        true.depth < dreamed.depth * BEHIND + BEHIND_SLACK
    )
    return finer & (equal | (true.mask == 0))


def _seen(cloud: Points, pose: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> _Splats:
    height, width = size
    turn = pose[:3, :3].T.double()
    matrix = intrinsics.double() @ torch.cat([turn, -turn @ pose[:3, 3:].double()], 1)
    x, y, z = torch.addmm(matrix[:, 3:].float(), matrix[:, :3].float(), cloud.position)
    x, y = x / z, y / z
    # Within half a pixel of the picture: such points still share in its outermost pixels.
    off = torch.maximum(
        (x - width / 2).abs_().sub_(width / 2 + 0.5), (y - height / 2).abs_().sub_(height / 2 + 0.5)
    )
    index = ((off < 0) & (z > NEAR)).nonzero().squeeze(1)
    x, y, z, footprint = (row.index_select(0, index) for row in (x, y, z, cloud.footprint))
    red, green, blue = (row.index_select(0, index).long() for row in cloud.rgb)
    pixels = footprint * (intrinsics[0, 0] / WIDE) / z
    # The exponent of a float is its binary logarithm.
    level = (pixels.view(torch.int32) >> 23).sub_(126).clamp_(0, LEVELS - 1)
    layer = cloud.dreamed.index_select(0, index).int()
    return _Splats(x, y, z, footprint, level, (red << 32).add_(green), (blue << 32).add_(1), layer)


class _Pyramid:
    """Pages of pixels at the sizes h w, h/2 w/2, .. in one row of cells, each with a margin of one pixel."""

    def __init__(self, pages: int, size: tuple[int, int], *, device: torch.device) -> None:
        self.pages = pages
        self.sizes = [(-(-size[0] // 2**level), -(-size[1] // 2**level)) for level in range(LEVELS)]
        self.counts = [pages * (h + 2) * (w + 2) for h, w in self.sizes]
        starts = [
            sum(self.counts[:level]) + count // pages * page
            for level, count in enumerate(self.counts)
            for page in range(pages)
        ]
        self.starts = torch.tensor(starts, device=device, dtype=torch.int32)
        self.strides = torch.tensor([w + 2 for _, w in self.sizes], device=device, dtype=torch.int32)

    def levels(self, cells: Tensor) -> list[Tensor]:
        """A row of cells as one tensor `(pages, h + 2, w + 2)` a level."""
        parts = zip(cells.split(self.counts), self.sizes, strict=True)
        return [part.view(self.pages, h + 2, w + 2) for part, (h, w) in parts]


def _splatted(splats: _Splats, page: Tensor, pyramid: _Pyramid) -> list[_Pictures]:
    """Of each level the average of all points that agree, with a mask of 0 and 1."""
    device, cells = page.device, sum(pyramid.counts)
    shrink = (127 - splats.level << 23).view(torch.float32)
    x, y = ((shrink * place).add_(0.5) for place in (splats.x, splats.y))  # a margin, less half a centre
    left, top = x.floor(), y.floor()
    x, y = x.sub_(left), y.sub_(top)
    stride = pyramid.strides.index_select(0, splats.level)
    corner = pyramid.starts.index_select(0, splats.level * pyramid.pages + page)
    corner.add_(left.int()).addcmul_(top.int(), stride)
    # Floats above 0 order like their bits. The nearest point to 3 % wins, of those the finest: its own depth
    # and footprint are the key, so that no order of the points matters.
    bits, pixel = splats.z.view(torch.int32).long(), splats.footprint.view(torch.int32).long()
    key = (bits >> 18 << 50).add_(pixel >> 12 << 31).add_(bits)
    cell = corner + (x >= 0.5).int() + (y >= 0.5).int() * stride
    nearest = torch.full((cells,), EMPTY, device=device).scatter_reduce_(0, cell.long(), key, "amin")
    for level in pyramid.levels(nearest):
        around = _least_around(level)
        level.copy_(torch.where(level == EMPTY, around, level))
    depth = (nearest & 0x7FFFFFFF).int().view(torch.float32)
    depth = torch.where(nearest == EMPTY, 0.0, depth)
    farthest = torch.where(depth > 0, depth * AGREE + SLACK, 0.0)  # where nothing is, no point agrees
    sums = torch.zeros((2, cells), dtype=torch.int64, device=device)
    for down, row in ((0, 1 - y), (1, y)):
        for across, column in ((0, 1 - x), (1, x)):
            cell = (corner + down * stride).add_(across).long()
            agrees = splats.z <= farthest.index_select(0, cell)
            weight = (row * column).mul_(WEIGHTS).add_(0.5).int().mul_(agrees.int()).long()
            for total, colours in zip(sums, (splats.red_green, splats.blue_one), strict=True):
                total.scatter_add_(0, cell, weight * colours)
    return [_averaged(*parts) for parts in zip(*map(pyramid.levels, (*sums, depth)), strict=True)]


def _least_around(keys: Tensor) -> Tensor:
    """The least of the 3x3 cells around each, of pages `(pages, h, w)`; of the outermost cells any."""
    for axis in (-1, -2):
        keys = torch.minimum(keys, torch.minimum(keys.roll(1, axis), keys.roll(-1, axis)))
    return keys


def _averaged(red_green: Tensor, blue_one: Tensor, depth: Tensor) -> _Pictures:
    """Sums over the cells of a level as a picture."""
    red_green, blue_one, depth = (x[:, 1:-1, 1:-1] for x in (red_green, blue_one, depth))
    weight = blue_one & 0xFFFFFFFF
    channels = torch.stack([red_green >> 32, red_green & 0xFFFFFFFF, blue_one >> 32], 1).float()
    known = (weight > 0).float()
    rgb = (channels / weight.clamp(min=1)[:, None] / 127.5 - 1) * known[:, None]
    return _Pictures(rgb, depth * known, known)


def _joined(levels: list[_Pictures]) -> _Pictures:
    """The finest level, coarse ones where it has nothing or where they are in front."""
    rgb, depth, mask = levels[-1]
    for fine in reversed(levels[:-1]):
        rgb, depth, mask = _grown(_Pictures(rgb, depth, mask), fine.depth.shape[-2:])
        hidden = (depth > 0) & (depth * BEHIND + BEHIND_SLACK < fine.depth)
        show = (fine.mask > 0) & ~hidden
        rgb = torch.where(show[:, None], fine.rgb, rgb)
        depth, mask = torch.where(show, fine.depth, depth), torch.where(show, fine.mask, mask / 2)
    return _Pictures(rgb, depth, mask)


def _grown(pictures: _Pictures, size: Sequence[int]) -> _Pictures:
    """At twice the size, cut to `size`: bilinear, of those pixels that are known."""
    rgb, depth, mask = pictures
    known = (mask > 0).float()
    both = torch.cat([rgb, depth[:, None], mask[:, None], known[:, None]], 1)
    both = F.interpolate(both, scale_factor=2.0, mode="bilinear")[..., : size[0], : size[1]]
    share = both[:, 5:]
    both = both[:, :5] / share.clamp(min=1e-6) * (share > 0.3)
    return _Pictures(both[:, :3], both[:, 3], both[:, 4])


def _fill(pictures: _Pictures) -> _Pictures:
    """Holes take the mean of their known neighbours, twice."""
    rgb, depth, mask = pictures
    for _ in range(2):
        known = (mask > 0).float()
        near = torch.cat([rgb, depth[:, None], known[:, None]], 1)
        for axis in (-1, -2):
            near = F.pad(near, (1, 1, 0, 0) if axis == -1 else (0, 0, 1, 1))
            size = near.shape[axis] - 2
            near = near.narrow(axis, 0, size) + near.narrow(axis, 1, size) + near.narrow(axis, 2, size)
        mean = near[:, :4] / near[:, 4:].clamp(min=1)
        empty = 1 - known
        rgb, depth = rgb + mean[:, :3] * empty[:, None], depth + mean[:, 3] * empty
        mask = mask + (near[:, 4] > 0) * empty / 16
    return _Pictures(rgb, depth, mask)
