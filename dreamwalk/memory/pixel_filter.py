"""The pixels of a frame from what the network decoded and what the memory renders: what is known is copied,
at its full sharpness, what is not is made sharp.

A small U-Net on blocks of 4x4 pixels, after the decoder. It tells, pixel by pixel, how much of the rendering
to take, and adds to that. It learns from the frames' own pixels, and from a critic, since of what nobody has
seen an error of pixels alone makes the mean: a blur.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamwalk.codecs.patch import FilterBlock
from dreamwalk.codecs.rgbd import depth_channel
from dreamwalk.layers.modulation import zero_init
from dreamwalk.memory.splatting import Rendering

BLOCK = 4
"""Side of the blocks of pixels that are its inputs."""
IMAGE = 4
"""Channels of an RGB-D frame."""


@dataclass(frozen=True)
class PixelFilterConfig:
    """Sizes of a pixel filter."""

    width: int = 64
    """Channels at a quarter of the resolution; twice as many at an eighth."""
    blocks: int = 3
    """Residual blocks at an eighth; one less before and after together."""


class PixelFilter(nn.Module):
    """A decoded frame `(b, 4, h, w)` and what was rendered for it to the frame that is shown."""

    def __init__(self, config: PixelFilterConfig) -> None:
        super().__init__()
        width, wide = config.width, 2 * config.width
        self.embed = nn.Conv2d((2 * IMAGE + 2) * BLOCK**2, width, 3, padding=1)
        self.before = FilterBlock(width)
        self.down = nn.Conv2d(width, wide, 2, stride=2)
        self.middle = nn.Sequential(*(FilterBlock(wide) for _ in range(config.blocks)))
        self.up = nn.ConvTranspose2d(wide, width, 2, stride=2)
        self.after = FilterBlock(width)
        self.head = zero_init(nn.Conv2d(width, (IMAGE + 1) * BLOCK**2, 3, padding=1))

    def forward(self, decoded: Tensor, rendering: Rendering) -> Tensor:
        """`(b, 4, h, w)`, sides divisible by 8."""
        rendered = torch.cat([rendering.rgb, depth_channel(rendering.depth)[:, None]], 1).to(decoded.dtype)
        told = torch.stack([rendering.mask, rendering.dreamed], 1).to(decoded.dtype)
        inputs = torch.cat([decoded, rendered, told], 1)
        fine = self.before(self.embed(nn.functional.pixel_unshuffle(inputs, BLOCK)))
        fine = self.after(fine + self.up(self.middle(self.down(fine))))
        made = nn.functional.pixel_shuffle(self.head(nn.functional.silu(fine)), BLOCK)
        known = told[:, :1]
        # At first what is finely known is taken, and nothing is added.
        share = (made[:, IMAGE:] + 4 * known - 2).sigmoid() * (known > 0)
        return decoded + share * (rendered - decoded) + made[:, :IMAGE]
