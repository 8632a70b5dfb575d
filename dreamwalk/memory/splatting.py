"""Soft rendering of clouds of points: a z-buffer, then the average of all points that agree with it.

A point is drawn into four pixels, bilinearly, of a picture whose pixels are as large as its own: of full
size, or of a half, a quarter, an eighth for points that were seen from farther away. Every sum is of
integers, so that a picture is the same bits for any order of the points and any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamwalk.codecs.rgbd import depth_channel
from dreamwalk.layers.precision import float32_arithmetic
from dreamwalk.memory.frustum import NEAR

AGREE, SLACK = 1.04, 2.0
"""A point agrees with the nearest one of its pixel up to `AGREE` times its depth and `SLACK` units more."""
BEHIND, BEHIND_SLACK = 1.15, 10.0
"""The same for one picture before another: those of large pixels have rough depths."""
LEVELS, WIDE = 4, 1.7
"""Points wider than `WIDE` pixels are drawn at half the size, and so on down to an eighth."""
NEARER = 6
"""Neighbours of a pixel in front of it, of 8, from which it shines through a surface."""
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

    @property
    def rgbd(self) -> Tensor:
        """As a codec of RGB-D takes it, `(b, 4, h, w)`."""
        return torch.cat([self.rgb, depth_channel(self.depth)[:, None]], 1)

    def rows(self, index: Tensor) -> Rendering:
        """From some of the cameras."""
        return Rendering(*(getattr(self, field.name)[index] for field in fields(self)))

    def without(self, pixels: Tensor) -> Rendering:
        """As if nothing were known of some pixels, bool `(b, h, w)`."""
        kept = ~pixels
        return Rendering(self.rgb * kept[:, None], *(x * kept for x in (self.depth, self.mask, self.dreamed)))

    @classmethod
    def empty(cls, count: int, size: tuple[int, int], *, device: torch.device) -> Rendering:
        """Of clouds without points."""
        nothing = torch.zeros(count, *size, device=device)
        return cls(nothing[:, None].expand(-1, 3, -1, -1), nothing, nothing, nothing)

    @classmethod
    def cat(cls, views: Sequence[Rendering]) -> Rendering:
        return cls(*(torch.cat([getattr(view, field.name) for view in views]) for field in fields(cls)))


class PointFrames(NamedTuple):
    """Frames as points, a pixel each: `n` frames of each of `b` walks."""

    rgb: Tensor
    """`(b, n, 3, h, w)` in [-1, 1]."""
    depth: Tensor
    """Planar, in world units, `(b, n, h, w)`."""
    kept: Tensor
    """Pixels that are points, bool `(b, n, h, w)`."""
    world_from_camera: Tensor
    """`(b, n, 4, 4)`."""
    intrinsics: Tensor
    """`(b, n, 3, 3)`, in pixels."""
    dreamed: Tensor
    """bool `(b, n)`."""


class _Splats(NamedTuple):
    """What cameras see of points, `(n,)` each."""

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
    page: Tensor
    """Camera and layer, int32."""


@torch.no_grad()
@float32_arithmetic()
def render(
    clouds: Sequence[Points], world_from_camera: Tensor, *, intrinsics: Tensor, size: tuple[int, int]
) -> Rendering:
    """Cloud `i` seen by camera `i`: poses `(b, 4, 4)` and intrinsics `(b, 3, 3)` in pixels of a picture of
    `size` (h, w).

    What was shown as true wins: dreamed points show only where the true ones leave a pixel open, or only
    know it coarser.
    """
    layers = 2 if any(bool(cloud.dreamed.any()) for cloud in clouds) else 1
    cameras = zip(clouds, world_from_camera, intrinsics, strict=True)
    seen = [
        _seen(cloud, pose, matrix, size=size, layers=layers, view=view)
        for view, (cloud, pose, matrix) in enumerate(cameras)
    ]
    splats = _Splats(*map(torch.cat, zip(*seen, strict=True))) if len(seen) > 1 else seen[0]
    return _drawn(splats, views=len(seen), layers=layers, size=size)


@torch.no_grad()
@float32_arithmetic()
def render_frames(
    frames: PointFrames, held: Tensor, world_from_camera: Tensor, *, intrinsics: Tensor
) -> Rendering:
    """What clouds look like that hold all points of some frames: those of walk `i` that `held` `(b, t, n)`
    says, seen by the `t` cameras of the walk, `(b, t, 4, 4)` and `(b, t, 3, 3)`; a batch of `b t`."""
    size = height, width = frames.depth.shape[-2], frames.depth.shape[-1]
    matrices = projection(world_from_camera, intrinsics).flatten(0, 1)
    place = unprojected(frames.depth, frames.world_from_camera, frames.intrinsics).flatten(0, 1)
    row, view, frame = held.nonzero().unbind(1)
    frame, view = row * held.shape[2] + frame, row * held.shape[1] + view
    camera = matrices.index_select(0, view)
    x, y, z = torch.baddbmm(camera[..., 3:], camera[..., :3], place.index_select(0, frame)).unbind(1)
    x, y = x / z, y / z
    kept = frames.kept.flatten(0, 1).flatten(1).index_select(0, frame)
    index = (kept & _inside(x, y, z, size=size)).flatten().nonzero().squeeze(1)
    pair = index // (height * width)
    frame, view = frame.index_select(0, pair), view.index_select(0, pair)
    pixel = frame * (height * width) + index % (height * width)
    x, y, z = (part.flatten().index_select(0, index) for part in (x, y, z))
    colours = frames.rgb.clamp(-1, 1).add(1).mul(127.5).round().byte().movedim(2, 0).flatten(1)
    footprint = (frames.depth / frames.intrinsics[..., :1, :1]).flatten().index_select(0, pixel)
    focal = intrinsics[..., 0, 0].flatten().index_select(0, view)
    page = (2 * view + frames.dreamed.flatten().index_select(0, frame)).int()
    rgb = [channel.index_select(0, pixel) for channel in colours]
    splats = _to_splats((x, y, z), footprint, rgb, focal=focal, page=page)
    return _drawn(splats, views=len(matrices), layers=2, size=size)


def _drawn(splats: _Splats, *, views: int, layers: int, size: tuple[int, int]) -> Rendering:
    pyramid = _pyramid(views * layers, size, device=splats.z.device)
    picture = _filled(_without_specks(_joined(_splatted(splats, pyramid))))
    true, show = picture[::layers], torch.zeros_like(picture[::layers, 0])
    if layers == 2:
        dreamed = picture[1::2]
        true, show = _layered(true, dreamed)
    return Rendering(true[:, :3], true[:, 3], true[:, 4], show)


def projection(world_from_camera: Tensor, intrinsics: Tensor) -> Tensor:
    """The matrices `(.., 3, 4)` that take world positions to (column z, row z, z) of the pixels of cameras
    `(.., 4, 4)` with intrinsics `(.., 3, 3)`."""
    turn = world_from_camera[..., :3, :3].mT.double()
    camera_from_world = torch.cat([turn, -turn @ world_from_camera[..., :3, 3:].double()], -1)
    return (intrinsics.double() @ camera_from_world).float()


def unprojected(depth: Tensor, world_from_camera: Tensor, intrinsics: Tensor) -> Tensor:
    """World positions `(.., 3, h w)` of the pixels of planar depths `(.., h, w)`."""
    y, x = (torch.arange(side, device=depth.device) + 0.5 for side in depth.shape[-2:])
    (fx, _, cx), (_, fy, cy) = intrinsics[..., 0, :, None].unbind(-2), intrinsics[..., 1, :, None].unbind(-2)
    rays = [((x - cx) / fx)[..., None, :] * depth, ((y - cy) / fy)[..., None] * depth, depth]
    local = torch.stack(rays, -3).flatten(-2)
    return world_from_camera[..., :3, :3] @ local + world_from_camera[..., :3, 3:]


def _layered(true: Tensor, dreamed: Tensor) -> tuple[Tensor, Tensor]:
    """One picture of two, and where it is the dreamed one: where the true one is open, or coarser at equal
    depth."""
    (near, mask), (far, finer) = true[:, 3:].unbind(1), dreamed[:, 3:].unbind(1)
    equal = (near < far * BEHIND + BEHIND_SLACK) & (far < near * BEHIND + BEHIND_SLACK)
    show = (finer > mask) & (equal | (mask == 0))
    return torch.where(show[:, None], dreamed, true), show.float()


def _seen(
    cloud: Points, pose: Tensor, intrinsics: Tensor, *, size: tuple[int, int], layers: int, view: int
) -> _Splats:
    matrix = projection(pose, intrinsics)
    x, y, z = torch.addmm(matrix[:, 3:], matrix[:, :3], cloud.position)
    x, y = x / z, y / z
    index = _inside(x, y, z, size=size).nonzero().squeeze(1)
    x, y, z, footprint = (row.index_select(0, index) for row in (x, y, z, cloud.footprint))
    page = torch.full_like(index, layers * view, dtype=torch.int32)
    if layers == 2:
        page += cloud.dreamed.index_select(0, index)
    rgb = [row.index_select(0, index) for row in cloud.rgb]
    return _to_splats((x, y, z), footprint, rgb, focal=intrinsics[0, 0], page=page)


def _inside(x: Tensor, y: Tensor, z: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Points within half a pixel of the picture, for these still share in its outermost pixels."""
    height, width = size
    off = torch.maximum(
        (x - width / 2).abs_().sub_(width / 2 + 0.5), (y - height / 2).abs_().sub_(height / 2 + 0.5)
    )
    return (off < 0) & (z > NEAR)


def _to_splats(
    place: tuple[Tensor, Tensor, Tensor], footprint: Tensor, rgb: list[Tensor], *, focal: Tensor, page: Tensor
) -> _Splats:
    """Points at columns, rows and depths `place`, with colours of 8 bits."""
    red, green, blue = (row.long() for row in rgb)
    pixels = (footprint * (focal / WIDE)).div_(place[2])
    # The exponent of a float is its binary logarithm.
    level = (pixels.view(torch.int32) >> 23).sub_(126).clamp_(0, LEVELS - 1)
    colours = red.bitwise_left_shift_(32).add_(green), (blue << 32).add_(1)
    return _Splats(*place, footprint, level, *colours, page)


class _Pyramid(NamedTuple):
    """Pages of pixels at the sizes h w, h/2 w/2, .. in one row of cells, each with a margin of one pixel."""

    shapes: list[tuple[int, int, int]]
    """Of each level: pages, rows and columns with margins."""
    counts: list[int]
    """Of each level, its cells."""
    starts: Tensor
    """Of each level the first cells of its pages."""
    strides: Tensor
    """Of each level, cells from one row to the next."""

    def levels(self, cells: Tensor) -> list[Tensor]:
        """Rows of cells `(.., cells)` as one tensor `(.., pages, h + 2, w + 2)` a level."""
        parts = zip(cells.split(self.counts, -1), self.shapes, strict=True)
        return [part.unflatten(-1, shape) for part, shape in parts]


@lru_cache(maxsize=16)
def _pyramid(pages: int, size: tuple[int, int], *, device: torch.device) -> _Pyramid:
    shapes = [(pages, -(-size[0] // 2**level) + 2, -(-size[1] // 2**level) + 2) for level in range(LEVELS)]
    counts = [pages * height * width for _, height, width in shapes]
    starts = [sum(counts[:k]) + counts[k] // pages * page for k in range(LEVELS) for page in range(pages)]
    integers = lambda values: torch.tensor(values, device=device, dtype=torch.int32)
    return _Pyramid(shapes, counts, integers(starts), integers([width for _, _, width in shapes]))


def _splatted(splats: _Splats, pyramid: _Pyramid) -> list[Tensor]:
    """Of each level a picture `(pages, 5, h, w)`: the mean colour of all points that agree, depth, and a mask
    of 0 and 1; all are 0 where nothing is."""
    device, cells = splats.z.device, sum(pyramid.counts)
    shrink = (127 - splats.level).bitwise_left_shift_(23).view(torch.float32)
    x, y = ((shrink * place).add_(0.5) for place in (splats.x, splats.y))  # a margin, less half a centre
    left, top = x.floor(), y.floor()
    x, y = x.sub_(left), y.sub_(top)
    stride = pyramid.strides.index_select(0, splats.level)
    corner = pyramid.starts.index_select(0, splats.level * pyramid.shapes[0][0] + splats.page)
    corner.add_(left.int()).addcmul_(top.int(), stride)
    # Floats above 0 order like their bits. The nearest point to 3 % wins, of those the finest: its own depth
    # and footprint are the key, so that no order of the points matters.
    bits, pixel = splats.z.view(torch.int32).long(), splats.footprint.view(torch.int32).long()
    key = (bits >> 18 << 50).add_(pixel.bitwise_right_shift_(12).bitwise_left_shift_(31)).add_(bits)
    cell = (corner + (x >= 0.5).int()).addcmul_((y >= 0.5).int(), stride)
    nearest = torch.full((cells,), EMPTY, device=device).scatter_reduce_(0, cell.long(), key, "amin")
    nearest = torch.where(nearest == EMPTY, _least_around(nearest, pyramid), nearest)
    empty = nearest == EMPTY
    depth = nearest.bitwise_and_(0x7FFFFFFF).int().view(torch.float32).masked_fill_(empty, 0)
    farthest = (depth * AGREE).add_(SLACK).masked_fill_(empty, 0)  # where nothing is, no point agrees
    sums = torch.zeros((2, cells), dtype=torch.int64, device=device)
    for down, row in ((0, 1 - y), (stride, y)):
        for across, column in ((0, 1 - x), (1, x)):
            cell = (corner + down).add_(across).long()
            agrees = (splats.z <= farthest.index_select(0, cell)).int()
            weight = (row * column).mul_(WEIGHTS).add_(0.5).int().mul_(agrees).long()
            sums[0].scatter_add_(0, cell, weight * splats.red_green)
            sums[1].scatter_add_(0, cell, weight * splats.blue_one)
    low = sums & 0xFFFFFFFF
    channels = torch.cat([sums >> 32, low]).float()[[0, 2, 1]]  # red blue green one
    known = (low[1] > 0).float()
    colours = channels.div_(low[1].clamp(min=1)).div_(127.5).sub_(1).mul_(known)
    rows = torch.cat([colours, (depth * known)[None], known[None]])
    return [level[..., 1:-1, 1:-1].transpose(0, 1) for level in pyramid.levels(rows)]


def _least_around(keys: Tensor, pyramid: _Pyramid) -> Tensor:
    """The least of the 3x3 cells around each; of the margins any."""
    keys = torch.minimum(keys, torch.minimum(keys.roll(1), keys.roll(-1)))
    levels = pyramid.levels(keys)
    return torch.cat([torch.minimum(x, torch.minimum(x.roll(1, 1), x.roll(-1, 1))).flatten() for x in levels])


def _joined(levels: list[Tensor]) -> Tensor:
    """The finest picture, coarse ones where it has nothing or where they are in front; those count half in
    the mask."""
    picture = levels[-1]
    for fine in reversed(levels[:-1]):
        coarse = F.interpolate(
            torch.cat([picture, (picture[:, 4:] > 0).float()], 1), scale_factor=2.0, mode="bilinear"
        )
        coarse = coarse[..., : fine.shape[-2], : fine.shape[-1]]
        share = coarse[:, 5:]
        coarse = coarse[:, :5] / share.clamp(min=1e-6) * (share > 0.3)
        coarse[:, 4] /= 2
        depth, mask = fine[:, 3], fine[:, 4]
        behind = (coarse[:, 3] * BEHIND + BEHIND_SLACK < depth) & (coarse[:, 4] > 0)
        picture = torch.where(((mask > 0) & ~behind)[:, None], fine, coarse)
    return picture


def _without_specks(picture: Tensor) -> Tensor:
    """Single pixels that shine through a surface, whose points lie a little too far apart, become holes."""
    depth = picture[:, 3]
    around, (h, w) = F.pad(depth, (1, 1, 1, 1)), depth.shape[-2:]
    nearer = torch.zeros_like(depth)
    for down in range(3):
        for across in range(3):
            beside = around[:, down : down + h, across : across + w]
            nearer += (beside > 0) & (beside * BEHIND + BEHIND_SLACK < depth)
    return picture * (nearer < NEARER)[:, None]


def _filled(picture: Tensor) -> Tensor:
    """Holes take the mean of the 5x5 pixels around them that are known."""
    known = (picture[:, 4:] > 0).float()
    near = F.pad(torch.cat([picture[:, :4], known], 1), (2, 2, 2, 2))
    for axis in (-1, -2):
        near = reduce(torch.add, (near.narrow(axis, k, near.shape[axis] - 4) for k in range(5)))
    share = near[:, 4:]
    near = torch.cat([near[:, :4] / share.clamp(min=1), (share > 0).float() / 16], 1)
    return picture + near * (1 - known)
