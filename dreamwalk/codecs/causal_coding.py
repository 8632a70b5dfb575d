"""How a video goes through a causal autoencoder: whole or in pieces, as a stream, there and back.

Of every causal codec of videos, whose encoder and decoder turn pieces into pieces (`causal_layers.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.codecs import causal_layers
from dreamwalk.codecs.causal_layers import CausalConv, CausalMiddle, CausalStage, LayerKind, StreamState
from dreamwalk.codecs.codec import KLAutoencoder, Stride, split_moments
from dreamwalk.errors import UserError
from dreamwalk.validation import Positive


@dataclass(frozen=True)
class CausalSizes:
    """Sizes that causal codecs share."""

    channels: int = 16
    """Latent channels."""
    widths: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of each level, from pixels to latents."""
    blocks: int = 2
    """Residual blocks a level (one more when decoding)."""
    strides: tuple[Stride, ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    """Frames, rows and columns that become one after each level but the last."""
    scale: Positive | None = None
    """Latents are multiplied by this, so that their variance is about one; None: as training measures it."""
    patch: int = 1
    """Pixels a side that are one position, in their own channels, before the first convolution."""

    def __post_init__(self) -> None:
        levels, strides = len(self.widths), len(self.strides)
        if strides != levels - 1:
            raise UserError(f"{levels} levels need {levels - 1} strides between them, not {strides}")

    @property
    def stride(self) -> Stride:
        """Frames, rows and columns of pixels per latent."""
        t, h, w = (prod(axis) for axis in zip(*self.strides, strict=True))
        return t, h * self.patch, w * self.patch

    @property
    def layers(self) -> LayerKind:
        """The norms and the attention of all layers."""
        return LayerKind()

    @property
    def strict(self) -> bool:
        """Whether a stream can be coded exactly: no frame sees a later one."""
        return True


class CausalEncoder(nn.Module):
    """Pixels `(b, c, t, h, w)` in pieces to moments in pieces."""

    def __init__(self, config: CausalSizes, stages: Iterable[CausalStage]) -> None:
        super().__init__()
        first, *_, last = config.widths
        self.first = CausalConv(3 * config.patch**2, first)
        self.levels = nn.ModuleList(stages)
        self.middle = CausalMiddle(last, config.layers)
        self.norm = config.layers.build_norm(last)
        self.last = CausalConv(last, 2 * config.channels)

    def forward(self, pieces: Iterable[Tensor], past: StreamState | None) -> list[Tensor]:
        return list(self.to_moments(self.hidden(pieces, past), past))

    def hidden(self, pieces: Iterable[Tensor], past: StreamState | None) -> list[Tensor]:
        """Before the last norm."""
        x = list(self.first(pieces, past))
        for level in self.levels:
            x = level(x, past)
        return self.middle(x, past)

    def to_moments(self, x: list[Tensor], past: StreamState | None) -> Iterator[Tensor]:
        """Norm, SiLU and convolution."""
        return self.last(causal_layers.activated(self.norm(x)), past)


class CausalDecoder(nn.Module):
    """Latents `(b, c, t, h, w)` in pieces to pixels in pieces."""

    def __init__(self, config: CausalSizes, stages: Iterable[CausalStage]) -> None:
        super().__init__()
        last, *_, first = config.widths
        self.first = CausalConv(config.channels, first)
        self.middle = CausalMiddle(first, config.layers)
        self.levels = nn.ModuleList(stages)
        self.norm = config.layers.build_norm(last)
        self.last = CausalConv(last, 3 * config.patch**2)

    def forward(self, pieces: Iterable[Tensor], past: StreamState | None) -> list[Tensor]:
        x = self.middle(self.expanded(pieces, past), past)
        for level in self.levels:
            x = level(x, past)
        return list(self.last(causal_layers.activated(self.norm(x)), past))

    def expanded(self, pieces: Iterable[Tensor], past: StreamState | None) -> list[Tensor]:
        """Latents as wide as the first layers."""
        return list(self.first(pieces, past))


class CausalCodec(KLAutoencoder):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> means `(b, t', c, h', w')`; `decode` goes back."""

    config: CausalSizes
    encoder: CausalEncoder
    decoder: CausalDecoder

    def moments_of(self, video: Tensor) -> Tensor:
        return self._moments(self._run(self.encoder, self._folded(video), (1, 1, 1)))

    def reconstruct(self, latents: Tensor) -> Tensor:
        (t, h, w), p = self.stride, self.config.patch
        return self._unfolded(self._run(self.decoder, self._expanded(latents), (t, h // p, w // p)))

    def stream_encode(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Latents `(b, 1, c, h, w)` one by one as soon as their frames are there: one, then four for each.

        Pieces `(b, t, 3, h, w)` have any number of frames. At the end the last frame is repeated as in
        `encode`, whose latents these are. No gradients. UserError where frames are not coded by themselves.
        """
        self._require_strict()
        return self._latents(pieces)

    def stream_decode(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Video piece by piece: one frame of the first latent, four of each that follows; as `decode`.

        Pieces `(b, t, c, h, w)` have any number of latents. No gradients. UserError as of `stream_encode`.
        """
        self._require_strict()
        return self._frames(latents)

    @torch.no_grad()
    def _latents(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        past, count, last = StreamState(), 0, None
        for piece in pieces:
            self.check_size(piece)
            for frames in piece.split(self.stride[0], dim=1):
                yield from self._latent(frames, past)
            count, last = count + piece.shape[1], piece[:, -1:]
        missing = -(count - 1) % self.stride[0]
        if last is not None and missing:
            yield from self._latent(last.expand(-1, missing, -1, -1, -1), past)

    def _latent(self, frames: Tensor, past: StreamState) -> Iterator[Tensor]:
        for moments in self.encoder([self._folded(frames)], past):
            yield self.scale(split_moments(self._moments(moments))[0])

    @torch.no_grad()
    def _frames(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        past = StreamState()
        for piece in latents:
            for latent in piece.split(1, dim=1):
                yield self._unfolded(torch.cat(self.decoder([self._expanded(latent)], past), dim=2))

    def _require_strict(self) -> None:
        if not self.config.strict:
            raise UserError(
                "group norms and attention over all frames need the whole video, so this codec cannot code a "
                "stream exactly: one with norm='position' and attention='frame' can"
            )

    def _run(self, coder: CausalEncoder | CausalDecoder, x: Tensor, factors: Stride) -> Tensor:
        """All at once if gradients are wanted. If not: piece after piece through all layers where frames are
        coded by themselves, else layer after layer through all pieces. `factors`: see `frames_of_a_piece`."""
        if torch.is_grad_enabled():
            return torch.cat(coder([x], None), dim=2)
        step = causal_layers.frames_of_a_piece(x, factors)
        pieces = [x[:, :, :1], *x[:, :, 1:].split(step, dim=2)] if x.shape[2] > 1 else [x]
        if not self.config.strict:
            return torch.cat(coder(pieces, None), dim=2)
        past = StreamState()
        return torch.cat([out for piece in pieces for out in coder([piece], past)], dim=2)

    def _moments(self, x: Tensor) -> Tensor:
        """`(b, t, 2 c, h, w)` from the encoder's output."""
        return rearrange(x, "b c t h w -> b t c h w")

    def _expanded(self, latents: Tensor) -> Tensor:
        """What the decoder takes, `(b, c, t, h, w)`."""
        return causal_layers.laid_out(rearrange(self.scale.undo(latents), "b t c h w -> b c t h w"))

    def _folded(self, video: Tensor) -> Tensor:
        p = self.config.patch
        return causal_layers.laid_out(rearrange(video, "b t c (h p) (w q) -> b (c p q) t h w", p=p, q=p))

    def _unfolded(self, x: Tensor) -> Tensor:
        p = self.config.patch
        return rearrange(x, "b (c p q) t h w -> b t c (h p) (w q)", p=p, q=p)
