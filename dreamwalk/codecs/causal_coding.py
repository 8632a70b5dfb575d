"""How a video goes through a causal autoencoder: whole or in pieces, as a stream, there and back.

Of every causal codec of videos, whose encoder and decoder turn pieces into pieces (`causal_layers.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.codecs.causal_layers import Past, Strides, frames_of_a_piece, laid_out
from dreamwalk.codecs.kl_autoencoder import require_whole_latents
from dreamwalk.codecs.scale import Scale
from dreamwalk.errors import UserError


class CausalSizes(Protocol):
    """What is asked of a config."""

    @property
    def channels(self) -> int: ...
    @property
    def scale(self) -> float | None: ...
    @property
    def patch(self) -> int: ...
    @property
    def strict(self) -> bool: ...
    @property
    def stride(self) -> tuple[int, int, int]: ...


class CausalCodec(nn.Module):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> means `(b, t', c, h', w')`; `decode` goes back."""

    causal = True
    encoder: nn.Module
    """Pixels `(b, c, t, h, w)` in pieces, and a `Past` or None, to moments in pieces."""
    decoder: nn.Module
    """Latents in pieces, and a `Past` or None, to pixels in pieces."""

    def __init__(self, config: CausalSizes) -> None:
        super().__init__()
        self.config: Any = config
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
        return torch.ones(self.config.channels, 1, 1, device=next(self.parameters()).device)

    def latent_frames(self, frames: int) -> int:
        """Latents of so many frames: one of the first, and one of every four after it."""
        return 1 + -(-(frames - 1) // self.stride[0])

    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the unscaled latents, the last frame repeated up to 4k + 1 frames."""
        require_whole_latents(video, self.stride)
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
            raise UserError(f"{latents.shape[1]} latents are 1 to {decoded} frames, not {frames}")
        (t, h, w), p = self.stride, self.config.patch
        step = max(1, frames_of_a_piece(h * latents.shape[3] // p, w * latents.shape[4] // p) // t)
        return self._unfolded(self._through(self.decoder, self._expanded(latents), step=step))[:, :frames]

    def stream_encode(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Latents `(b, 1, c, h, w)` one by one as soon as their frames are there: one, then four for each.

        Pieces `(b, t, 3, h, w)` have any number of frames. At the end the last frame is repeated as in
        `encode`, whose latents these are. No gradients. UserError where frames are not coded by themselves.
        """
        self._must_stream()
        return self._latents(pieces)

    def stream_decode(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Video piece by piece: one frame of the first latent, four of each that follows; as `decode`.

        Pieces `(b, t, c, h, w)` have any number of latents. No gradients. UserError as of `stream_encode`.
        """
        self._must_stream()
        return self._frames(latents)

    @torch.no_grad()
    def _latents(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        past, count, last = Past(), 0, None
        for piece in pieces:
            require_whole_latents(piece, self.stride)
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
            raise UserError(
                "group norms and attention over all frames need the whole video, so this codec cannot code a "
                "stream exactly: one with norm='position' and attention='frame' can"
            )

    def _through(self, coder: nn.Module, x: Tensor, *, step: int) -> Tensor:
        """All at once if gradients are wanted. If not: piece after piece through all layers where frames are
        coded by themselves, else layer after layer through all pieces."""
        if torch.is_grad_enabled():
            return torch.cat(coder([x], None), dim=2)
        pieces = [x[:, :, :1], *x[:, :, 1:].split(step, dim=2)] if x.shape[2] > 1 else [x]
        if not self.config.strict:
            return torch.cat(coder(pieces, None), dim=2)
        past = Past()
        return torch.cat([out for piece in pieces for out in coder([piece], past)], dim=2)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance `(b, t, c, h, w)` from what the encoder gives."""
        mean, log_variance = rearrange(x, "b c t h w -> b t c h w").chunk(2, dim=2)
        return mean, log_variance.clamp(-30, 20)

    def _expanded(self, latents: Tensor) -> Tensor:
        """What the decoder takes, `(b, c, t, h, w)`."""
        return laid_out(rearrange(self.scale.undo(latents), "b t c h w -> b c t h w"))

    def _folded(self, video: Tensor) -> Tensor:
        p = self.config.patch
        return laid_out(rearrange(video, "b t c (h p) (w q) -> b (c p q) t h w", p=p, q=p))

    def _unfolded(self, x: Tensor) -> Tensor:
        p = self.config.patch
        return rearrange(x, "b (c p q) t h w -> b t c (h p) (w q)", p=p, q=p)


def require_strides(widths: Sequence[int], strides: Sequence[Strides]) -> None:
    """UserError unless there is one stride between every two levels."""
    if len(strides) != len(widths) - 1:
        raise UserError(
            f"{len(widths)} levels need {len(widths) - 1} strides between them, not {len(strides)}"
        )


def stride_of(strides: Sequence[Strides], *, patch: int) -> Strides:
    """Pixels per latent in time, height and width, of all levels together."""
    t, h, w = (prod(axis) for axis in zip(*strides, strict=True))
    return t, h * patch, w * patch
