"""RGB-D as the pictures of a video codec, as HunyuanWorld-Voyager packs it, and depth as a code of one range.

    [ colours ]   3 channels in [-1, 1]
    [ gap     ]   16 rows of 1
    [ depth   ]   its code, thrice

A picture of `h` rows becomes one of `2 h + 16` before any codec of RGB (arXiv 2506.04225, section 4.1), so
that depth needs no codec of its own. Read back, depth is the luma of its three channels. Packed in channels
instead it goes through a codec of RGB-D, and left out, through one of RGB: the three are `PACKINGS`.

The release codes each frame by the range of its own inverse depth and stores 8 bits. Here a clip has one
range, with room for what comes nearer or lies farther than what is known of it, the code is float, and the
range is given back with the frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamwalk.codecs.codec import Stride
from dreamwalk.errors import UserError

GAP = 16
"""Rows of pixels between colours and depth."""
LUMA = 0.299, 0.587, 0.114
QUANTILES = 0.02, 0.98
"""Of known inverse depth, which the range spans; what lies outside is noise as often as not."""
SKY = 0.9
"""Share of the farthest depth from which a decoded one counts as sky: 0."""
MOST = 2**20
"""Pixels from which quantiles are read."""


@dataclass(frozen=True)
class DepthRange:
    """What the codes -1 and 1 mean, for each of `b` clips, `(b,)` in world units."""

    far: Tensor
    near: Tensor

    def to(self, device: torch.device) -> DepthRange:
        """The same on a device."""
        return DepthRange(self.far.to(device), self.near.to(device))

    @classmethod
    def of(cls, depth: Tensor, *, headroom: float) -> DepthRange:
        """Of all that is known of the depths of clips, planar in world units, `(b, ...)`, 0 elsewhere, with
        room for what is `headroom` times as near or as far.

        UserError for a clip of which none is known.
        """
        bounds = []
        for row in depth.flatten(1):
            known = row[row > 0]
            if not len(known):
                raise UserError("nothing is known of the depth of a clip: give its first picture a depth")
            inverse = 1 / known[:: -(-len(known) // MOST)].double()
            bounds.append(inverse.quantile(inverse.new_tensor(QUANTILES)))
        least, most = torch.stack(bounds).to(depth).unbind(1)
        return cls(headroom / least, 1 / (headroom * most))

    def code(self, depth: Tensor) -> Tensor:
        """Depths `(b, ...)` to codes in [-1, 1], linear in inverse depth; sky, 0, to -1."""
        far, near = (bound.view(-1, *[1] * (depth.ndim - 1)) for bound in (self.far, self.near))
        share = (1 / depth - 1 / far) / (1 / near - 1 / far)
        return torch.where(depth > 0, (2 * share - 1).clamp(-1, 1), -1.0)

    def depth(self, code: Tensor) -> Tensor:
        """The inverse of `code`; 0 for whatever lies at the far end."""
        far, near = (bound.view(-1, *[1] * (code.ndim - 1)) for bound in (self.far, self.near))
        depth = 1 / (1 / far + (code.clamp(-1, 1) + 1) / 2 * (1 / near - 1 / far))
        return torch.where(depth < SKY * far, depth, 0.0)


class Packing(Protocol):
    """How pictures with depth become pictures of a codec."""

    image_channels: int
    """Of the codec."""

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what is coded for a picture of `size`."""

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The inverse of `size`."""

    def join(self, rgb: Tensor, code: Tensor) -> Tensor:
        """Colours in [-1, 1] `(.., 3, h, w)` and coded depth `(.., h, w)` as pictures of the codec."""

    def part(self, video: Tensor) -> tuple[Tensor, Tensor | None]:
        """The inverse of `join`; no depth where it was left out."""

    def known(self, known: Tensor) -> Tensor:
        """Pixels that are known, bool `(.., h, w)`, as pixels of what is coded."""


class RowPacking:
    """Colours over a gap over depth."""

    image_channels = 3

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        return 2 * size[0] + GAP, size[1]

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return (size[0] - GAP) // 2, size[1]

    def join(self, rgb: Tensor, code: Tensor) -> Tensor:
        depth = code[..., None, :, :].expand_as(rgb)
        return torch.cat([rgb, torch.ones_like(rgb[..., :1, :]).repeat_interleave(GAP, -2), depth], dim=-2)

    def part(self, video: Tensor) -> tuple[Tensor, Tensor | None]:
        height = (video.shape[-2] - GAP) // 2
        depth = video[..., -height:, :]
        return video[..., :height, :], (depth * depth.new_tensor(LUMA)[:, None, None]).sum(-3)

    def known(self, known: Tensor) -> Tensor:
        return torch.cat(
            [known, torch.ones_like(known[..., :1, :]).repeat_interleave(GAP, -2), known], dim=-2
        )


class ChannelPacking:
    """Depth as a fourth channel."""

    image_channels = 4

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def join(self, rgb: Tensor, code: Tensor) -> Tensor:
        return torch.cat([rgb, code[..., None, :, :]], dim=-3)

    def part(self, video: Tensor) -> tuple[Tensor, Tensor | None]:
        return video[..., :3, :, :], video[..., 3, :, :]

    def known(self, known: Tensor) -> Tensor:
        return known


class NoDepth(ChannelPacking):
    """Colours alone."""

    image_channels = 3

    def join(self, rgb: Tensor, code: Tensor) -> Tensor:
        return rgb

    def part(self, video: Tensor) -> tuple[Tensor, Tensor | None]:
        return video, None


DepthPlace = Literal["rows", "channels", "none"]
PACKINGS: dict[DepthPlace, Packing] = {"rows": RowPacking(), "channels": ChannelPacking(), "none": NoDepth()}


def known_cells(known: Tensor, stride: Stride, *, coverage: Literal["whole", "share"]) -> Tensor:
    """The latents of a causal codec that see known pixels only, 1, and the others, -1: `(b, t', h', w')`; or
    the `share` of known pixels on that scale.

    `known` is bool `(b, t, h, w)`. The first latent sees the first frame alone, and the last frame is
    repeated up to a whole latent.
    """
    missing = -(known.shape[1] - 1) % stride[0]
    unknown = torch.cat(
        [known[:, :1].expand(-1, stride[0] - 1, -1, -1), known, known[:, -1:].expand(-1, missing, -1, -1)],
        dim=1,
    ).logical_not()
    pool = F.max_pool3d if coverage == "whole" else F.avg_pool3d
    return 1 - 2 * pool(unknown.float()[:, None], stride)[:, 0]
