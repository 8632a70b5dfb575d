"""Causal video autoencoder of HunyuanVideo (arXiv 2412.03603, section 4.1), and one that is strictly causal.

Four frames and 8x8 pixels become one latent; the first frame is a latent by itself, so that 4k + 1 frames are
k + 1 latents and a picture is a video of one frame. `hunyuan_vae()` has the published sizes (246,478,803
parameters); `published.vae` reads what was published.

Its convolutions and its attention look back only, but its group norms do not: their mean and variance are of
all frames, and so the first latent changes with the last frame. With `norm="position"` and
`attention="frame"` no frame sees a later one, and a video can be coded as a stream, exactly and in constant
space. Without gradients both are computed in pieces, so that few copies of a video are held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from dreamwalk.codecs import causal_layers
from dreamwalk.codecs.causal_coding import CausalCodec, CausalDecoder, CausalEncoder, CausalSizes
from dreamwalk.codecs.causal_layers import CausalConv, CausalStage, LayerKind, Upsample, convolve
from dreamwalk.codecs.codec import Stride
from dreamwalk.errors import UserError
from dreamwalk.validation import Positive


@dataclass(frozen=True)
class CausalVAEConfig(CausalSizes):
    """Sizes of a causal video autoencoder; decoding repeats the `strides` in the same order, as published."""

    scale: Positive | None = 0.476986
    groups: int = 32
    """Groups of the group norms."""
    norm: causal_layers.NormKind = "group"
    """Over groups of channels and all positions (published), or over the channels of each position."""
    attention: causal_layers.AttentionKind = "causal"
    """In the middle: of each frame over itself and all before it (published), or over itself only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        uneven = [width for width in self.widths if width % self.groups]
        if self.norm == "group" and uneven:
            raise UserError(f"width {uneven[0]} does not divide into {self.groups} groups")

    @property
    def strict(self) -> bool:
        """Whether no frame sees a later one, nor more than a few before it."""
        return self.norm == "position" and self.attention == "frame"

    @property
    def layers(self) -> LayerKind:
        return LayerKind(self.norm, self.attention, self.groups)

    def build(self) -> CausalVAE:
        """The codec, with random weights."""
        return CausalVAE(self)


class CausalVAE(CausalCodec):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> means `(b, 1 + (t - 1)/4, c, h/8, w/8)`; `decode` goes
    back."""

    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__(config)
        widths, blocks = config.widths, config.blocks
        downsample = lambda width, stride: CausalConv(width, width, stride=stride)
        self.encoder = CausalEncoder(config, _stages(config, widths, blocks, downsample))
        self.moments = nn.Conv3d(2 * config.channels, 2 * config.channels, 1)
        self.expand = nn.Conv3d(config.channels, config.channels, 1)
        self.decoder = CausalDecoder(config, _stages(config, widths[::-1], blocks + 1, Upsample))

    def _moments(self, x: Tensor) -> Tensor:
        return super()._moments(convolve(self.moments, x))

    def _expanded(self, latents: Tensor) -> Tensor:
        return convolve(self.expand, super()._expanded(latents))


def _stages(
    config: CausalVAEConfig, widths: Sequence[int], blocks: int, resample: Callable[[int, Stride], nn.Module]
) -> Iterator[CausalStage]:
    """The first block of a stage changes the width; all stages but the last resample."""
    strides = (*config.strides, None)
    for before, width, stride in zip((widths[0], *widths), widths, strides, strict=False):
        way = resample(width, stride) if stride else None
        yield CausalStage((before, *[width] * blocks), config.layers, way)


def hunyuan_vae() -> CausalVAEConfig:
    """The VAE of HunyuanVideo: 16 channels, 4 frames and 8x8 pixels a latent; 246,478,803 parameters."""
    return CausalVAEConfig()


def small(channels: int = 16) -> CausalVAEConfig:
    """Strict, and small enough to train on a processor in minutes: 5.4 million parameters."""
    return replace(small_published(channels), norm="position", attention="frame")


def small_published(channels: int = 16) -> CausalVAEConfig:
    """Of the size of `small`, normalised and attending as published."""
    return CausalVAEConfig(channels, (48, 64, 96), 1, ((2, 1, 1), (2, 2, 2)), scale=None, patch=4, groups=16)
