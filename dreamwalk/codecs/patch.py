"""Patch codec: principal components of patches going in, a small convolutional decoder coming out.

The encoder is the best linear code of a patch, found in seconds from a few thousand frames; at equal size it
beats minutes of training a convolutional autoencoder. The decoder starts as its inverse and learns to add
what the linear code lost, mostly the seams. Frames are coded one by one, so streaming and whole-clip coding
are the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.codecs.codec import Codec, CodecSizes, Stride
from dreamwalk.errors import UserError
from dreamwalk.layers.modulation import zero_init


@dataclass(frozen=True)
class PatchCodecConfig:
    """Sizes of a patch codec."""

    channels: int = 64
    """Principal components kept per patch."""
    image_channels: int = 3
    """3 for RGB, 4 for RGB-D (`codecs/rgbd.py`)."""
    patch: int = 16
    """Side of a patch in pixels: a power of two, at least 2."""
    widths: tuple[int, ...] = (128, 96, 64, 32)
    """Channels of the decoder at 1/16, 1/8, ... of the resolution; () for the linear decoder alone."""
    whitening: float = 0.5
    """Latent channel = component / std ** whitening: 0 keeps pixel scale, 1 makes all equally loud."""

    @property
    def stride(self) -> Stride:
        """Frames, rows and columns of pixels per latent."""
        return 1, self.patch, self.patch

    def build(self) -> PatchCodec:
        """The codec, with a linear code to be fitted."""
        return PatchCodec(self)


class FilterBlock(nn.Module):
    """Two convolutions beside a shortcut; the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(nn.functional.silu(self.first(nn.functional.silu(x))))


class LinearSizes(CodecSizes, Protocol):
    """The part of a config that linear codes share."""

    @property
    def whitening(self) -> float: ...


def principal_components(blocks: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Variances `(count,)` and directions `(count, d)` of the largest ones of vectors `(n, d)`, the largest
    first; UserError for too few vectors."""
    if len(blocks) < count:
        raise UserError(f"{len(blocks)} blocks are too few to find {count} components")
    variances, vectors = torch.linalg.eigh(blocks.T @ blocks / len(blocks))
    return variances.flip(0)[:count], vectors.flip(1)[:, :count].T


class LinearCodec(Codec):
    """A codec whose encoder is the principal components of blocks of pixels, found by `fit`, not trained."""

    config: LinearSizes
    mean: Tensor
    components: Tensor
    scale: Tensor

    def __init__(self, config: LinearSizes, *, image_channels: int = 3) -> None:
        """UserError for more channels than a block has pixels."""
        super().__init__(config)
        self.image_channels = image_channels
        channels, pixels = config.channels, image_channels * prod(config.stride)
        if not 0 < channels <= pixels:
            raise UserError(f"a block of {pixels} numbers has 1 to {pixels} components, not {channels}")
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.eye(channels, pixels))
        self.register_buffer("scale", torch.ones(channels))

    @property
    def fitted(self) -> bool:
        return bool(self.mean.any())

    @property
    def channel_weights(self) -> Tensor:
        """Squared error in pixels of an error in each channel, `(c, 1, 1)`, one on average."""
        weight = self.scale.square()
        return (weight / weight.mean())[:, None, None]

    @torch.no_grad()
    def fit(self, video: Tensor) -> None:
        """Set the linear code from much video in [-1, 1], RGB or RGB-D."""
        blocks, channels = self._patches(video).flatten(0, -2).double(), self.channels
        mean = blocks.mean(0)
        variances, vectors = principal_components(blocks - mean, channels)
        std = variances.clamp(min=1e-8).sqrt()
        scale = std**self.config.whitening
        scale = scale * (std / scale).square().mean().sqrt()  # unit variance over all channels together
        self.mean.copy_(mean)
        self.components.copy_(vectors)
        self.scale.copy_(scale)

    def encode(self, video: Tensor) -> Tensor:
        self.check_size(video)
        code = (self._patches(video) - self.mean) @ self.components.T / self.scale
        return rearrange(code, "b t h w c -> b t c h w").contiguous()

    def to_blocks(self, code: Tensor) -> Tensor:
        """Codes `(..., channels)` to blocks `(..., pixels)`, but for the components that are not kept."""
        return (code * self.scale) @ self.components + self.mean

    def _patches(self, video: Tensor) -> Tensor:
        """Blocks of pixels `(b, t', h', w', pixels)`."""
        raise NotImplementedError


class PatchCodec(LinearCodec):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> latents `(b, t, c, h/16, w/16)`; `decode` goes back."""

    config: PatchCodecConfig

    def __init__(self, config: PatchCodecConfig) -> None:
        super().__init__(config, image_channels=config.image_channels)
        layers: list[nn.Module] = []
        width, side = config.channels, config.patch
        for index, following in enumerate(config.widths):
            if index:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
                side //= 2
            layers += [nn.Conv2d(width, following, 3, padding=1), FilterBlock(following)]
            width = following
        last = zero_init(nn.Conv2d(width, config.image_channels * side**2, 3, padding=1))
        layers += [nn.SiLU(), last, nn.PixelShuffle(side)]
        self.refine = nn.Sequential(*layers) if config.widths else None

    def reconstruct(self, latents: Tensor) -> Tensor:
        b, p = latents.shape[0], self.config.patch
        code = rearrange(latents, "b t c h w -> (b t) h w c")
        linear = rearrange(self.to_blocks(code), "n h w (c p q) -> n c (h p) (w q)", p=p, q=p)
        if self.refine:
            linear = linear + self.refine(rearrange(code, "n h w c -> n c h w"))
        return rearrange(linear, "(b t) c h w -> b t c h w", b=b)

    def _patches(self, video: Tensor) -> Tensor:
        p = self.config.patch
        return rearrange(video, "b t c (h p) (w q) -> b t h w (c p q)", p=p, q=p)


def tiny() -> PatchCodecConfig:
    """For tests: 8x8 pixels to 16 channels."""
    return PatchCodecConfig(channels=16, patch=8, widths=(16, 16))
