"""Tiles: a long or large video through a codec in pieces, blended where they overlap.

The codec then works on one tile at a time, and of finished pictures two tiles in time are held at most,
however long the video. Every tile is weighed in the units of what comes out: pixels and frames when decoding,
latents when encoding. Weights are trapezoids, one for each axis: they rise and fall linearly over what two
neighbours share, and sum to one everywhere. The last tile of an axis lies flush with the end, so none is a
sliver that sees nothing around it.

A tile sees less than the whole, so the result is an approximation; a codec never tiles by itself.
Movie Gen (arXiv 2410.13720, section 3.1.1) tiles time in 32 frames, with 16 of overlap when decoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dreamwalk.codecs.codec import Codec, require_whole_latents
from dreamwalk.errors import UserError

Coder = Callable[[Tensor], Tensor]
"""`encode` or `decode` of a codec."""
AXES = (("frames", "time"), ("pixels", "height"), ("pixels", "width"))


@dataclass(frozen=True)
class Tiling:
    """Size of a tile and of what neighbours share: frames, pixels down, pixels across.

    All are whole latents. Where frame 0 has a latent of its own, every tile takes one latent more before it.
    """

    tile: tuple[int, int, int] = (32, 256, 256)
    overlap: tuple[int, int, int] = (16, 64, 64)


def tiled_encode(codec: Codec, video: Tensor, tiling: Tiling) -> Tensor:
    """What `codec.encode` gives, tile by tile; UserError for tiles or frames that are not whole latents."""
    require_whole_latents(video, codec.stride)
    (_, t, _, h, w), (_, down, across) = video.shape, codec.stride
    size = codec.latent_frames(t), h // down, w // across
    axes = [[tile.turned() for tile in axis] for axis in _axes(codec, size, tiling)]
    return torch.cat(list(_stitched(codec.encode, video, axes)), dim=1)


def tiled_decode(codec: Codec, latents: Tensor, tiling: Tiling, *, frames: int | None = None) -> Tensor:
    """What `codec.decode` gives, tile by tile; UserError for tiles that are not whole latents."""
    return torch.cat(list(stream_decode(codec, latents, tiling, frames=frames)), dim=1)


def stream_decode(
    codec: Codec, latents: Tensor, tiling: Tiling, *, frames: int | None = None
) -> Iterator[Tensor]:
    """The frames of `tiled_decode` as they are finished, `(b, some, 3, h, w)`.

    Held at any time are the frames of one tile in time and those that it shares with the next.
    """
    axes = _axes(codec, (latents.shape[1], *latents.shape[3:]), tiling)
    decoded = axes[0][-1].outputs.stop
    if frames is not None and not 0 < frames <= decoded:
        raise UserError(f"{latents.shape[1]} latents are 1 to {decoded} frames, not {frames}")
    left = frames or decoded
    for finished in _stitched(codec.decode, latents, axes):
        count = finished.shape[1]
        if left > 0:
            yield finished[:, :left]
        left -= count
        del finished  # or it would be held while the next tile is decoded


class _Tile(NamedTuple):
    """A tile along one axis: what goes in, what comes out, and how much of that only leads in."""

    inputs: slice
    outputs: slice
    lead: int

    def turned(self) -> _Tile:
        """The same for the other direction."""
        return _Tile(self.outputs, self.inputs, self.lead)

    @property
    def kept(self) -> slice:
        return slice(self.outputs.start + self.lead, self.outputs.stop)


_Weighed = tuple[_Tile, Tensor]
"""A tile and the weights `(n,)` of its outputs."""


def _axes(codec: Codec, size: Sequence[int], tiling: Tiling) -> list[list[_Tile]]:
    """Tiles for decoding, in time, height and width, of `size` latents."""
    alone = codec.causal and codec.stride[0] > 1  # the first frame has a latent of its own
    axes: list[list[_Tile]] = []
    for axis, (count, stride) in enumerate(zip(size, codec.stride, strict=True)):
        tile, overlap = _in_latents(tiling, axis, stride)
        first = int(alone and axis == 0)
        axes.append([])
        for span in spans(count - first, tile=tile, overlap=overlap):
            start, stop = span.start, span.stop
            inputs, outputs = slice(start, stop + first), slice(start * stride, stop * stride + first)
            axes[-1].append(_Tile(inputs, outputs, lead=first if start else 0))
    return axes


def spans(count: int, *, tile: int, overlap: int) -> list[slice]:
    """Where on an axis of `count` places tiles lie of which neighbours share `overlap`, the last more."""
    starts = [max(0, min(start, count - tile)) for start in range(0, max(count - overlap, 1), tile - overlap)]
    return [slice(start, min(start + tile, count)) for start in starts]


def _in_latents(tiling: Tiling, axis: int, stride: int) -> tuple[int, int]:
    """Size and overlap of tiles along an axis in latents; UserError with the nearest that are whole."""
    unit, where = AXES[axis]
    tile, overlap = tiling.tile[axis], tiling.overlap[axis]
    tiles = f"tiles of {tile} {unit} in {where}"
    if tile < stride or tile % stride:
        nearest = max(1, round(tile / stride)) * stride
        raise UserError(f"{tiles} are not whole latents of {stride}: the nearest are {nearest}")
    if overlap % stride or not 0 <= overlap < tile:
        nearest = min(max(0, round(overlap / stride)) * stride, tile - stride)
        raise UserError(f"{tiles} cannot share {overlap}: with latents of {stride} the nearest is {nearest}")
    return tile // stride, overlap // stride


@torch.no_grad()
def _stitched(run: Coder, source: Tensor, axes: list[list[_Tile]]) -> Iterator[Tensor]:
    """Outputs in the order of time, each as soon as no later tile has a share in it."""
    times, rows, columns = (_weighed(axis, source) for axis in axes)
    ends = [tile.kept.start for tile, _ in times[1:]] + [times[-1][0].kept.stop]
    shared: Tensor | None = None
    for (time, weight), end in zip(times, ends, strict=True):
        frames = _mosaic(run, source[:, time.inputs], rows, columns, lead=time.lead)
        frames *= weight[:, None, None, None]
        if shared is not None:
            frames[:, : shared.shape[1]] += shared
        done = end - time.kept.start
        shared = frames[:, done:].clone()
        frames = frames[:, :done].to(source.dtype, copy=True)
        yield frames
        del frames


def _mosaic(
    run: Coder, source: Tensor, rows: list[_Weighed], columns: list[_Weighed], *, lead: int
) -> Tensor:
    """Whole pictures of the frames of one tile in time."""
    height, width = (side[-1][0].outputs.stop for side in (rows, columns))
    whole: Tensor | None = None
    for (row, down), (column, across) in itertools.product(rows, columns):
        part = run(source[..., row.inputs, column.inputs])[:, lead:]
        if whole is None:
            whole = part.new_zeros(*part.shape[:3], height, width, dtype=across.dtype)
        whole[..., row.outputs, column.outputs] += part * (down[:, None] * across)
    assert whole is not None
    return whole


def _weighed(axis: list[_Tile], source: Tensor) -> list[_Weighed]:
    exact, weights = torch.promote_types(source.dtype, torch.float32), trapezoids([t.kept for t in axis])
    return [(tile, weight.to(source.device, exact)) for tile, weight in zip(axis, weights, strict=True)]


def trapezoids(kept: Sequence[slice]) -> list[Tensor]:
    """Weights of overlapping spans, float64: together one everywhere, and linear where two share."""
    total = torch.zeros(kept[-1].stop, dtype=torch.float64)
    weights = []
    for before, span, after in zip([None, *kept[:-1]], kept, [*kept[1:], None], strict=True):
        place = torch.arange(span.start, span.stop, dtype=torch.float64) + 0.5
        weight = torch.ones_like(place)
        if before:
            weight = torch.minimum(weight, (place - span.start) / (before.stop - span.start))
        if after:
            weight = torch.minimum(weight, (span.stop - place) / (span.stop - after.start))
        total[span] += weight
        weights.append(weight)
    return [weight / total[span] for weight, span in zip(weights, kept, strict=True)]
