"""Causal video autoencoder of HunyuanVideo (arXiv 2412.03603, section 4.1), and one that is strictly causal.

Four frames and 8x8 pixels become one latent; the first frame is a latent by itself, so that 4k + 1 frames are
k + 1 latents and a picture is a video of one frame. `hunyuan()` has the published sizes (246,478,803
parameters); `weights.hunyuan_vae` reads what was published.

Its convolutions and its attention look back only, but its group norms do not: their mean and variance are of
all frames, and so the first latent changes with the last frame. With `norm="position"` and
`attention="frame"` no frame sees a later one, and a video can be coded as a stream, exactly and in constant
space. Without gradients both are computed in pieces, so that few copies of a video are held at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.codecs.causal_layers import (
    AttentionKind,
    CausalConv,
    Level,
    Middle,
    NormKind,
    Past,
    ResidualBlock,
    Strides,
    Upsample,
    activated,
    build_norm,
    convolve,
    frames_of_a_piece,
    laid_out,
)
from dreamwalk.codecs.scale import Scale


@dataclass(frozen=True)
class CausalVAEConfig:
    """Sizes of a causal video autoencoder."""

    channels: int = 16
    """Latent channels."""
    widths: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of each level, from pixels to latents."""
    blocks: int = 2
    """Residual blocks a level (one more when decoding)."""
    groups: int = 32
    """Groups of the group norms."""
    norm: NormKind = "group"
    """Over groups of channels and all positions (published), or over the channels of each position."""
    attention: AttentionKind = "causal"
    """In the middle: of each frame over itself and all before it (published), or over itself only."""
    strides: tuple[Strides, ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    """Frames, rows and columns that become one after each level but the last. Decoding repeats them in the
    same order, as published, not backwards."""
    scale: float | None = 0.476986
    """Latents are multiplied by this, so that their variance is about one; None: as training measures it."""
    patch: int = 1
    """Pixels a side that are one position, in their own channels, before the first convolution."""

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.widths) - 1:
            levels, needed = len(self.widths), len(self.widths) - 1
            raise ValueError(f"{levels} levels need {needed} strides between them, not {len(self.strides)}")
        uneven = [width for width in self.widths if width % self.groups]
        if self.norm == "group" and uneven:
            raise ValueError(f"width {uneven[0]} does not divide into {self.groups} groups")

    @property
    def strict(self) -> bool:
        """Whether no frame sees a later one, nor more than a few before it."""
        return self.norm == "position" and self.attention == "frame"

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels per latent in time, height and width."""
        t, h, w = (prod(axis) for axis in zip(*self.strides, strict=True))
        return t, h * self.patch, w * self.patch


class CausalVAE(nn.Module):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> means `(b, 1 + (t - 1)/4, c, h/8, w/8)`; `decode` goes
    back."""

    causal = True

    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.moments = nn.Conv3d(2 * config.channels, 2 * config.channels, 1)
        self.expand = nn.Conv3d(config.channels, config.channels, 1)
        self.decoder = Decoder(config)
        self.scale = Scale(config.scale)

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels per latent in time, height and width."""
        return self.config.stride

    @property
    def channels(self) -> int:
        return self.config.channels

    @property
    def loudness(self) -> Tensor:
        """How much a squared error of each channel weighs: all alike."""
        return torch.ones(self.config.channels, 1, 1, device=self.expand.weight.device)

    def latent_frames(self, frames: int) -> int:
        """Latents of so many frames: one of the first, and one of every four after it."""
        return 1 + -(-(frames - 1) // self.stride[0])

    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the unscaled latents, the last frame repeated up to 4k + 1 frames."""
        self._check(video)
        missing = -(video.shape[1] - 1) % self.stride[0]
        whole = torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], 1) if missing else video
        p = self.config.patch
        step = frames_of_a_piece(video.shape[3] // p, video.shape[4] // p)
        return self._moments(self._through(self.encoder, self._folded(whole), step=step))

    def normalise(self, latents: Tensor) -> Tensor:
        return self.scale(latents)

    def encode(self, video: Tensor) -> Tensor:
        return self.normalise(self.posterior(video)[0])

    def decode(self, latents: Tensor, frames: int | None = None) -> Tensor:
        """Video of all frames, or of the first `frames` if the last ones were only repeated for coding."""
        decoded = 1 + (latents.shape[1] - 1) * self.stride[0]
        if frames is not None and not 0 < frames <= decoded:
            raise ValueError(f"{latents.shape[1]} latents are 1 to {decoded} frames, not {frames}")
        (t, h, w), p = self.stride, self.config.patch
        step = max(1, frames_of_a_piece(h * latents.shape[3] // p, w * latents.shape[4] // p) // t)
        return self._unfolded(self._through(self.decoder, self._expanded(latents), step=step))[:, :frames]

    def stream_encode(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Latents `(b, 1, c, h, w)` one by one as soon as their frames are there: one, then four for each.

        Pieces `(b, t, 3, h, w)` have any number of frames. At the end the last frame is repeated as in
        `encode`, whose latents these are. No gradients. ValueError where frames are not coded by themselves.
        """
        self._must_stream()
        return self._latents(pieces)

    def stream_decode(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Video piece by piece: one frame of the first latent, four of each that follows; as `decode`.

        Pieces `(b, t, c, h, w)` have any number of latents. No gradients. ValueError as of `stream_encode`.
        """
        self._must_stream()
        return self._frames(latents)

    @torch.no_grad()
    def _latents(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        past, count, last = Past(), 0, None
        for piece in pieces:
            self._check(piece)
            for frames in piece.split(self.stride[0], dim=1):
                yield from self._latent(frames, past)
            count, last = count + piece.shape[1], piece[:, -1:]
        missing = -(count - 1) % self.stride[0]
        if last is not None and missing:
            yield from self._latent(last.expand(-1, missing, -1, -1, -1), past)

    def _latent(self, frames: Tensor, past: Past) -> Iterator[Tensor]:
        for moments in self.encoder([self._folded(frames)], past):
            yield self.normalise(self._moments(moments)[0])

    @torch.no_grad()
    def _frames(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        past = Past()
        for piece in latents:
            for latent in piece.split(1, dim=1):
                yield self._unfolded(torch.cat(self.decoder([self._expanded(latent)], past), dim=2))

    def _must_stream(self) -> None:
        if not self.config.strict:
            raise ValueError(
                "group norms and attention over all frames need the whole video, so this codec cannot code a "
                "stream exactly: one with norm='position' and attention='frame' can"
            )

    def _through(self, coder: Encoder | Decoder, x: Tensor, *, step: int) -> Tensor:
        """All at once if gradients are wanted. If not: piece after piece through all layers where frames are
        coded by themselves, else layer after layer through all pieces."""
        if torch.is_grad_enabled():
            return coder([x], None)[0]
        pieces = [x[:, :, :1], *x[:, :, 1:].split(step, dim=2)] if x.shape[2] > 1 else [x]
        if not self.config.strict:
            return torch.cat(coder(pieces, None), dim=2)
        past = Past()
        return torch.cat([out for piece in pieces for out in coder([piece], past)], dim=2)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = rearrange(convolve(self.moments, x), "b c t h w -> b t c h w").chunk(2, dim=2)
        return mean, log_variance.clamp(-30, 20)

    def _expanded(self, latents: Tensor) -> Tensor:
        x = laid_out(rearrange(self.scale.undo(latents), "b t c h w -> b c t h w"))
        return convolve(self.expand, x)

    def _folded(self, video: Tensor) -> Tensor:
        p = self.config.patch
        return laid_out(rearrange(video, "b t c (h p) (w q) -> b (c p q) t h w", p=p, q=p))

    def _unfolded(self, x: Tensor) -> Tensor:
        p = self.config.patch
        return rearrange(x, "b (c p q) t h w -> b t c (h p) (w q)", p=p, q=p)

    def _check(self, video: Tensor) -> None:
        (h, w), (_, down, across) = video.shape[-2:], self.stride
        if h % down or w % across:
            near = f"{max(down, round(h / down) * down)}x{max(across, round(w / across) * across)}"
            raise ValueError(
                f"frames of {h}x{w} do not divide by {down}x{across}: the nearest size is {near}"
            )


class Encoder(nn.Module):
    """Pixels `(b, c, t, h, w)` in pieces to moments in pieces."""

    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__()
        widths = config.widths
        self.first = CausalConv(3 * config.patch**2, widths[0])
        self.levels = nn.ModuleList()
        for i, (width, out) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            last = i == len(widths) - 1
            resample = None if last else CausalConv(out, out, stride=config.strides[i])
            self.levels.append(Level(_blocks(config, width, out, count=config.blocks), resample))
        self.middle = _middle(config)
        self.norm = build_norm(config.norm, widths[-1], groups=config.groups)
        self.last = CausalConv(widths[-1], 2 * config.channels)

    def forward(self, pieces: Iterable[Tensor], past: Past | None) -> list[Tensor]:
        x = list(self.first(pieces, past))
        for level in self.levels:
            x = level(x, past)
        x = self.middle(x, past)
        return list(self.last(activated(self.norm(x)), past))


class Decoder(nn.Module):
    """Latents `(b, c, t, h, w)` in pieces to pixels in pieces."""

    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.first = CausalConv(config.channels, widths[0])
        self.middle = _middle(config)
        self.levels = nn.ModuleList()
        for i, (width, out) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            last = i == len(widths) - 1
            resample = None if last else Upsample(out, factors=config.strides[i])
            self.levels.append(Level(_blocks(config, width, out, count=config.blocks + 1), resample))
        self.norm = build_norm(config.norm, widths[-1], groups=config.groups)
        self.last = CausalConv(widths[-1], 3 * config.patch**2)

    def forward(self, pieces: Iterable[Tensor], past: Past | None) -> list[Tensor]:
        x = self.middle(list(self.first(pieces, past)), past)
        for level in self.levels:
            x = level(x, past)
        return list(self.last(activated(self.norm(x)), past))


def _middle(config: CausalVAEConfig) -> Middle:
    return Middle(config.widths[-1], norm=config.norm, groups=config.groups, attention=config.attention)


def _blocks(config: CausalVAEConfig, width: int, out: int, *, count: int) -> list[ResidualBlock]:
    steps = pairwise([width, *[out] * count])
    return [ResidualBlock(a, b, norm=config.norm, groups=config.groups) for a, b in steps]


def hunyuan() -> CausalVAEConfig:
    """The VAE of HunyuanVideo: 16 channels, 4 frames and 8x8 pixels a latent; 246,478,803 parameters."""
    return CausalVAEConfig()


def small(channels: int = 16) -> CausalVAEConfig:
    """Strict, and small enough to train on a processor in minutes: 5.4 million parameters."""
    widths, strides = (48, 64, 96), ((2, 1, 1), (2, 2, 2))
    return CausalVAEConfig(
        channels, widths, 1, 16, norm="position", attention="frame", strides=strides, scale=None, patch=4
    )


def small_published(channels: int = 16) -> CausalVAEConfig:
    """Of the size of `small`, normalised and attending as published."""
    return replace(small(channels), norm="group", attention="causal")
