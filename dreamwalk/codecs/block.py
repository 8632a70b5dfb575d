"""Block codec: principal components of blocks of pixels going in, their inverse and a filter coming out.

What `codecs/patch.py` is for frames, this is for video: a code of 2x16x16 pixels that is found in minutes.
The edges of blocks are smoothed as video codecs do it, by a deblocking filter (H.264, section 8.7), here a
small network that sees a restored frame and the one before it. The first frame has a latent of its own, as in
the causal codecs (`codecs/causal.py`), here as a block that stands still, so that all latents speak one
language. No frame sees a later one, so a stream of latents is decoded as the whole. Many channels on a coarse
grid are what LTX-Video (arXiv 2501.00103) showed to suit a diffusion transformer: one token for each latent
pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.codecs.causal_layers import frames_of_a_piece
from dreamwalk.codecs.patch import FilterBlock, LinearCodec
from dreamwalk.errors import UserError
from dreamwalk.layers.modulation import zero_init


@dataclass(frozen=True)
class BlockCodecConfig:
    """Sizes of a block codec."""

    stride: tuple[int, int, int] = (2, 16, 16)
    """Frames, rows and columns of a block."""
    channels: int = 128
    """Principal components kept per block."""
    whitening: float = 0.5
    """Latent channel = component / std ** whitening: 0 keeps pixel scale, 1 makes all equally loud."""
    cell: int = 4
    """Pixels a side that are one position of the deblocking filter, in their own channels."""
    width: int = 64
    """Of the filter."""
    depth: int = 3
    """Its residual blocks."""
    place: int = 8
    """Channels that tell a position of the filter where in its block it is."""

    def __post_init__(self) -> None:
        if self.stride[1] % self.cell or self.stride[2] % self.cell:
            raise UserError(f"blocks of {self.stride[1]}x{self.stride[2]} are not whole cells of {self.cell}")

    def build(self) -> BlockCodec:
        """The codec, with a linear code to be fitted."""
        return BlockCodec(self)


class Deblocking(nn.Module):
    """What restored frames lack, seen in each and in the one before it; nothing at first."""

    def __init__(self, config: BlockCodecConfig) -> None:
        super().__init__()
        (t, h, w), self.cell = config.stride, config.cell
        pixels = 3 * self.cell**2
        self.place = nn.Parameter(torch.randn(1 + t, config.place, h // self.cell, w // self.cell) / 2)
        """Of a first frame, and of each frame of a block."""
        self.first = nn.Conv2d(2 * pixels + config.place, config.width, 3, padding=1)
        self.blocks = nn.Sequential(*(FilterBlock(config.width) for _ in range(config.depth)))
        self.last = zero_init(nn.Conv2d(config.width, pixels, 3, padding=1))

    def forward(self, frames: Tensor, before: Tensor | None) -> Tensor:
        """A first frame and whole blocks `(b, t, 3, h, w)`, or whole blocks after the frame `before`."""
        p, video = self.cell, torch.cat([frames[:, :1] if before is None else before, frames], dim=1)
        cells = rearrange(video, "b t c (h p) (w q) -> b t (c p q) h w", p=p, q=p)
        now, last = cells[:, 1:], cells[:, :-1]
        seen = torch.cat([now, last, self._places(now, begun=before is not None)], dim=2).flatten(0, 1)
        lacking = self.last(self.blocks(self.first(seen.contiguous(memory_format=torch.channels_last))))
        return rearrange(lacking, "(b t) (c p q) h w -> b t c (h p) (w q)", b=len(frames), p=p, q=p)

    def _places(self, cells: Tensor, *, begun: bool) -> Tensor:
        """Where in its block each of `cells` `(b, t, c, h, w)` is."""
        (b, t, _, h, w), blocks = cells.shape, self.place[1:]
        table = blocks.repeat(-(-t // len(blocks)), 1, 1, 1)
        table = table[:t] if begun else torch.cat([self.place[:1], table])[:t]
        return table.repeat(1, 1, h // table.shape[2], w // table.shape[3]).expand(b, -1, -1, -1, -1)


class BlockCodec(LinearCodec):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> latents `(b, 1 + (t - 1)/2, c, h/16, w/16)`; `decode`
    goes back."""

    config: BlockCodecConfig

    def __init__(self, config: BlockCodecConfig) -> None:
        super().__init__(config)
        self.deblocking = Deblocking(config)

    def reconstruct(self, latents: Tensor) -> Tensor:
        (t, h, w), cell = self.stride, self.config.cell
        count = frames_of_a_piece(latents, (t, h // cell, w // cell))
        pieces = [latents] if torch.is_grad_enabled() else latents.split(count, dim=1)
        return torch.cat(list(self._decoded(pieces)), dim=1)

    @torch.no_grad()
    def stream_decode(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Video piece by piece: one frame of the first latent, a stride of each that follows; as `decode`."""
        yield from self._decoded(latent for piece in latents for latent in piece.split(1, dim=1))

    def _decoded(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        before = None
        for piece in pieces:
            restored = self._restored(piece, begun=before is not None)
            yield restored + self.deblocking(restored, before)
            before = restored[:, -1:].clone()

    def _restored(self, latents: Tensor, *, begun: bool) -> Tensor:
        """What the linear code alone restores."""
        (t, h, w), code = self.stride, rearrange(latents, "b t c h w -> b t h w c")
        frames = rearrange(self.to_blocks(code), "b t h w (f c p q) -> b (t f) c (h p) (w q)", f=t, p=h, q=w)
        return frames if begun else torch.cat([frames[:, :t].mean(1, keepdim=True), frames[:, t:]], dim=1)

    def _patches(self, video: Tensor) -> Tensor:
        """Blocks `(b, t', h', w', pixels)`, the ends repeated so that they are whole."""
        t, h, w = self.stride
        whole = torch.cat([video[:, :1].expand(-1, t - 1, -1, -1, -1), self.padded(video)], dim=1)
        return rearrange(whole, "b (t f) c (h p) (w q) -> b t h w (f c p q)", f=t, p=h, q=w)
