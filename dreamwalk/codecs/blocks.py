"""Block codec: principal components of blocks of pixels going in, a causal video decoder coming out.

What `codecs/patch.py` is for frames, this is for video: a code of 2x16x16 pixels that is found in minutes,
and a decoder that starts as its inverse and learns what the linear code lost. The first frame is a block in
time by itself, as in the causal codecs (`codecs/causal.py`), and no frame sees a later one, so a stream of
latents is decoded exactly as the whole. Many channels on a coarse grid are what LTX-Video (arXiv 2501.00103)
showed to suit a diffusion transformer: one token for each latent pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.codecs.causal import CausalVAEConfig, Decoder
from dreamwalk.codecs.causal_layers import Past, frames_of_a_piece, laid_out
from dreamwalk.codecs.frame import require_whole_latents
from dreamwalk.codecs.patch import LinearCode


def _decoder() -> CausalVAEConfig:
    return CausalVAEConfig(
        channels=128, widths=(32, 48, 64, 64), blocks=1, norm="position", attention="frame",
        strides=((1, 2, 2), (2, 2, 2), (1, 2, 2)), scale=1.0, patch=2,
    )  # fmt: skip


@dataclass(frozen=True)
class BlockCodecConfig:
    """Sizes of a block codec."""

    decoder: CausalVAEConfig = field(default_factory=_decoder)
    """Its decoder is used, and its strides and channels are the codec's."""
    whitening: float = 0.5
    """Latent channel = component / std ** whitening: 0 keeps pixel scale, 1 makes all equally loud."""

    def __post_init__(self) -> None:
        if not self.decoder.strict:
            raise ValueError(
                "a block codec needs a strictly causal decoder: norm='position', attention='frame'"
            )


class BlockCodec(nn.Module):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> latents `(b, 1 + (t - 1)/2, c, h/16, w/16)`; `decode`
    goes back."""

    causal = True

    def __init__(self, config: BlockCodecConfig) -> None:
        super().__init__()
        self.config = config
        t, h, w = self.stride
        self.first = LinearCode(3 * h * w, self.channels, whitening=config.whitening)
        self.rest = LinearCode(3 * t * h * w, self.channels, whitening=config.whitening)
        self.decoder = Decoder(config.decoder)
        nn.init.zeros_(self.decoder.last.conv.weight)
        nn.init.zeros_(self.decoder.last.conv.bias)  # type: ignore[arg-type]

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels per latent in time, height and width."""
        return self.config.decoder.stride

    @property
    def channels(self) -> int:
        return self.config.decoder.channels

    @property
    def loudness(self) -> Tensor:
        """How much a squared error of each channel weighs in pixels, `(c, 1, 1)`, one on average."""
        return self.rest.loudness

    def latent_frames(self, frames: int) -> int:
        """Latents of so many frames: one of the first, and one of every stride after it."""
        return 1 + -(-(frames - 1) // self.stride[0])

    def fit(self, video: Tensor) -> None:
        """Set the linear codes from video in [-1, 1] `(b, t, 3, h, w)` of more than one frame."""
        self.first.find(self._blocks(video, 1).flatten(0, -2))
        whole = video.shape[1] // self.stride[0] * self.stride[0]
        self.rest.find(self._blocks(video[:, :whole], self.stride[0]).flatten(0, -2))

    def encode(self, video: Tensor) -> Tensor:
        """Latents, the last frame repeated until it divides; ValueError with the nearest size."""
        require_whole_latents(video, self.stride)
        t = self.stride[0]
        missing = -(video.shape[1] - 1) % t
        video = torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], 1) if missing else video
        code = self.first.to_code(self._blocks(video[:, :1], 1))
        if video.shape[1] > 1:
            code = torch.cat([code, self.rest.to_code(self._blocks(video[:, 1:], t))], dim=1)
        return rearrange(code, "b t h w c -> b t c h w").contiguous()

    def decode(self, latents: Tensor, frames: int | None = None) -> Tensor:
        """Video of all frames, or of the first `frames` if the last ones were only repeated for coding."""
        (t, h, w), p = self.stride, self.config.decoder.patch
        step = max(1, frames_of_a_piece(h * latents.shape[3] // p, w * latents.shape[4] // p) // t)
        past, pieces = (None, [latents]) if torch.is_grad_enabled() else (Past(), latents.split(step, dim=1))
        return torch.cat([self._decoded(piece, past) for piece in pieces], dim=1)[:, :frames]

    @torch.no_grad()
    def stream_decode(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Video piece by piece: one frame of the first latent, a stride of each that follows; as `decode`."""
        past = Past()
        for piece in latents:
            for latent in piece.split(1, dim=1):
                yield self._decoded(latent, past)

    def _decoded(self, latents: Tensor, past: Past | None) -> Tensor:
        linear = self._linear(latents, begun=bool(past))
        refined = self.decoder([laid_out(rearrange(latents, "b t c h w -> b c t h w"))], past)
        return linear + self._pixels(torch.cat(refined, dim=2))

    def _linear(self, latents: Tensor, *, begun: bool) -> Tensor:
        """What the linear codes alone restore."""
        code = rearrange(latents, "b t c h w -> b t h w c")
        parts = [] if begun else [self._frames(self.first.to_blocks(code[:, :1]), 1)]
        rest = code if begun else code[:, 1:]
        parts += [self._frames(self.rest.to_blocks(rest), self.stride[0])] if rest.shape[1] else []
        return torch.cat(parts, dim=1)

    def _pixels(self, x: Tensor) -> Tensor:
        p = self.config.decoder.patch
        return rearrange(x, "b (c p q) t h w -> b t c (h p) (w q)", p=p, q=p)

    def _blocks(self, video: Tensor, frames: int) -> Tensor:
        _, h, w = self.stride
        return rearrange(video, "b (t f) c (h p) (w q) -> b t h w (f c p q)", f=frames, p=h, q=w)

    def _frames(self, blocks: Tensor, frames: int) -> Tensor:
        _, h, w = self.stride
        return rearrange(blocks, "b t h w (f c p q) -> b (t f) c (h p) (w q)", f=frames, p=h, q=w)
