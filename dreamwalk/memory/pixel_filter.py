"""The pixels of a frame from what the network decoded and what the memory renders: what is known is copied,
at its full sharpness, what is not is made sharp. And the depth of a picture that comes without.

Both are small U-Nets on blocks of 4x4 pixels. The filter tells, pixel by pixel, how much of the rendering to
take, and adds to that. It learns from the frames' own pixels, and from a critic, since of what nobody has
seen an error of pixels alone makes the mean: a blur.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamwalk.codecs.patch import FilterBlock
from dreamwalk.layers.modulation import zero_init
from dreamwalk.memory.splatting import Rendering

BLOCK = 4
"""Side of the blocks of pixels that are its inputs."""
IMAGE = 4
"""Channels of an RGB-D frame."""


@dataclass(frozen=True)
class PixelFilterConfig:
    """Sizes of a U-Net over blocks of pixels."""

    width: int = 64
    """Channels at a quarter of the resolution; twice as many at an eighth."""
    blocks: int = 3
    """Residual blocks at an eighth; one before them and one after."""

    def build(self, inputs: int, outputs: int) -> nn.Sequential:
        """From images of `inputs` channels to images of `outputs`, zero at first; sides divisible by 8."""
        width, wide = self.width, 2 * self.width
        middle = nn.Sequential(
            nn.Conv2d(width, wide, 2, stride=2),
            *(FilterBlock(wide) for _ in range(self.blocks)),
            nn.ConvTranspose2d(wide, width, 2, stride=2),
        )
        return nn.Sequential(
            nn.PixelUnshuffle(BLOCK),
            nn.Conv2d(inputs * BLOCK**2, width, 3, padding=1),
            FilterBlock(width),
            _Beside(middle),
            FilterBlock(width),
            nn.SiLU(),
            zero_init(nn.Conv2d(width, outputs * BLOCK**2, 3, padding=1)),
            nn.PixelShuffle(BLOCK),
        )


class _Beside(nn.Module):
    """Layers beside a shortcut."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class PixelFilter(nn.Module):
    """A decoded frame `(b, 4, h, w)` and what was rendered for it to the frame that is shown."""

    def __init__(self, config: PixelFilterConfig) -> None:
        super().__init__()
        self.layers = config.build(2 * IMAGE + 2, IMAGE + 1)

    def forward(self, decoded: Tensor, rendering: Rendering) -> Tensor:
        """`(b, 4, h, w)`."""
        rendered = rendering.rgbd.to(decoded.dtype)
        told = torch.stack([rendering.mask, rendering.dreamed], 1).to(decoded.dtype)
        made, known = self.layers(torch.cat([decoded, rendered, told], 1)), told[:, :1]
        # At first what is finely known is taken, and nothing is added.
        share = (made[:, IMAGE:] + 4 * known - 2).sigmoid() * (known > 0)
        return decoded + share * (rendered - decoded) + made[:, :IMAGE]
