"""Patch codec: principal components of patches going in, a small convolutional decoder coming out.

The encoder is the best linear code of a patch, found in seconds from a few thousand frames; at equal size it
beats minutes of training a convolutional autoencoder. The decoder starts as its inverse and learns to add
what the linear code lost, mostly the seams. Frames are coded one by one, so streaming and whole-clip coding
are the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.errors import UserError


@dataclass(frozen=True)
class PatchCodecConfig:
    """Sizes of a patch codec."""

    channels: int = 64
    """Principal components kept per patch."""
    patch: int = 16
    """Side of a patch in pixels: a power of two, at least 2."""
    widths: tuple[int, ...] = (128, 96, 64, 32)
    """Channels of the decoder at 1/16, 1/8, ... of the resolution; () for the linear decoder alone."""
    whitening: float = 0.5
    """Latent channel = component / std ** whitening: 0 keeps pixel scale, 1 makes all equally loud."""


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(nn.functional.silu(self.first(nn.functional.silu(x))))


class LinearCode(nn.Module):
    """The principal components of blocks of pixels, found by `fit` and not trained."""

    mean: Tensor
    components: Tensor
    scale: Tensor

    def __init__(self, pixels: int, channels: int, *, whitening: float) -> None:
        """`pixels` are the numbers of a block; channel = component / std ** whitening."""
        super().__init__()
        if not 0 < channels <= pixels:
            raise UserError(f"a block of {pixels} numbers has 1 to {pixels} components, not {channels}")
        self.whitening = whitening
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.eye(channels, pixels))
        self.register_buffer("scale", torch.ones(channels))

    @property
    def loudness(self) -> Tensor:
        """How much a squared error of each channel weighs in pixels, `(c, 1, 1)`, one on average."""
        weight = self.scale.square()
        return (weight / weight.mean())[:, None, None]

    @torch.no_grad()
    def find(self, blocks: Tensor) -> None:
        """Set the code from many blocks `(n, pixels)`."""
        blocks = blocks.double()
        channels = len(self.components)
        if len(blocks) < channels:
            raise UserError(f"{len(blocks)} blocks are too few to find {channels} components")
        mean = blocks.mean(0)
        variances, vectors = torch.linalg.eigh((blocks - mean).T @ (blocks - mean) / len(blocks))
        variances, vectors = variances.flip(0)[:channels], vectors.flip(1)[:, :channels].T
        std = variances.clamp(min=1e-8).sqrt()
        scale = std**self.whitening
        scale = scale * (std / scale).square().mean().sqrt()  # unit variance over all channels together
        self.mean.copy_(mean)
        self.components.copy_(vectors)
        self.scale.copy_(scale)

    def to_code(self, blocks: Tensor) -> Tensor:
        """Blocks `(..., pixels)` to codes `(..., channels)`."""
        return (blocks - self.mean) @ self.components.T / self.scale

    def to_blocks(self, code: Tensor) -> Tensor:
        """The inverse of `to_code`, but for the components that are not kept."""
        return (code * self.scale) @ self.components + self.mean


class PatchCodec(LinearCode):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> latents `(b, t, c, h/16, w/16)`; `decode` goes back."""

    def __init__(self, config: PatchCodecConfig) -> None:
        super().__init__(3 * config.patch**2, config.channels, whitening=config.whitening)
        self.config = config
        self.refine = self._decoder(config)

    @staticmethod
    def _decoder(config: PatchCodecConfig) -> nn.Sequential:
        layers: list[nn.Module] = []
        width, side = config.channels, config.patch
        for index, following in enumerate(config.widths):
            if index:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
                side //= 2
            layers += [nn.Conv2d(width, following, 3, padding=1), ResidualBlock(following)]
            width = following
        last = nn.Conv2d(width, 3 * side**2, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        return nn.Sequential(*layers, nn.SiLU(), last, nn.PixelShuffle(side))

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels per latent in time, height and width."""
        return 1, self.config.patch, self.config.patch

    @property
    def channels(self) -> int:
        return self.config.channels

    def fit(self, video: Tensor) -> None:
        """Set the linear code from frames in [-1, 1] `(b, t, 3, h, w)`."""
        self.find(self._patches(video).flatten(0, -2))

    def encode(self, video: Tensor) -> Tensor:
        _, _, _, h, w = video.shape
        p = self.config.patch
        if h % p or w % p:
            raise UserError(
                f"frames of {h}x{w} do not divide into patches of {p}: "
                f"the nearest size is {_nearest(h, p)}x{_nearest(w, p)}"
            )
        latents = self.to_code(self._patches(video))
        return rearrange(latents, "b t h w c -> b t c h w").contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        b, p = latents.shape[0], self.config.patch
        code = rearrange(latents.to(next(self.parameters()).dtype), "b t c h w -> (b t) h w c")
        linear = rearrange(self.to_blocks(code), "n h w (c p q) -> n c (h p) (w q)", p=p, q=p)
        residual = self.refine(rearrange(code, "n h w c -> n c h w"))
        return rearrange(linear + residual, "(b t) c h w -> b t c h w", b=b)

    def _patches(self, video: Tensor) -> Tensor:
        p = self.config.patch
        return rearrange(video, "b t c (h p) (w q) -> b t h w (c p q)", p=p, q=p)


def _nearest(size: int, patch: int) -> int:
    return max(patch, round(size / patch) * patch)
