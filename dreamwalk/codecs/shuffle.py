"""Causal video autoencoder that moves pixels into channels: that of HunyuanVideo-1.5 (arXiv 2511.18870).

Four frames and 16x16 pixels become one latent, the first frame one by itself. Where a level ends,
neighbouring frames, rows and columns become channels of one position, or go back, as learnt by a convolution
and beside it by a shortcut that learns nothing: it averages channels, or repeats them (DC-AE, arXiv
2410.10733). The same shortcut leads past the layers next to the latents. Norms are of each position and
attention looks back, so no frame sees a later one: a stream is coded exactly, in space that grows by the
attention's keys and values only. `hunyuan15_vae()` has the published sizes (1,260,634,115 parameters);
`published.vae` reads the published weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.codecs.causal_coding import CausalCodec, CausalDecoder, CausalEncoder, CausalSizes
from dreamwalk.codecs.causal_layers import CausalConv, CausalStage, LayerKind, StreamState
from dreamwalk.codecs.codec import Stride
from dreamwalk.errors import UserError
from dreamwalk.validation import Positive


@dataclass(frozen=True)
class ShuffleVAEConfig(CausalSizes):
    """Sizes of a causal video autoencoder that moves pixels into channels; decoding goes backwards."""

    channels: int = 32
    widths: tuple[int, ...] = (128, 256, 512, 1024, 1024)
    strides: tuple[Stride, ...] = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    scale: Positive | None = 1.03682

    def __post_init__(self) -> None:
        super().__post_init__()
        for (a, b), (t, h, w) in zip(pairwise(self.widths), self.strides, strict=True):
            if h * w * a % b or b % (t * h * w):
                raise UserError(
                    f"{b} channels cannot follow {a} where {t}x{h}x{w} become one: take a multiple of "
                    f"{t * h * w} that divides {h * w * a}"
                )
        if self.widths[-1] % (2 * self.channels):
            raise UserError(f"the last width, {self.widths[-1]}, is no multiple of {2 * self.channels}")

    def build(self) -> ShuffleVAE:
        """The codec, with random weights."""
        return ShuffleVAE(self)


class ShuffleVAE(CausalCodec):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> means `(b, 1 + (t - 1)/4, c, h/16, w/16)`; `decode`
    goes back."""

    def __init__(self, config: ShuffleVAEConfig) -> None:
        super().__init__(config)
        self.encoder = ShuffleEncoder(config)
        self.decoder = ShuffleDecoder(config)


class Shuffle(nn.Module):
    """A video at another resolution: a convolution and a shortcut, the first frame by itself."""

    pattern: ClassVar[str]

    def __init__(self, width: int, out: int, *, made: int, factors: Stride, frames: int) -> None:
        super().__init__()
        self.conv = CausalConv(width, made)
        self.out, self.factors, self.frames = out, factors, frames

    def forward(self, pieces: Iterable[Tensor], past: StreamState | None) -> Iterator[Tensor]:
        """The first frame, and one piece for each that completes a number of `frames`."""
        begun = past is not None and self in past
        whole = list(self._whole(pieces, past))
        for i, (x, y) in enumerate(zip(whole, self.conv(whole, past), strict=True)):
            moved = self.moved(x, y, frames=self.factors[0] if i or begun else 1)
            yield rearrange(moved, "b t h w c -> b c t h w")

    def moved(self, x: Tensor, y: Tensor, *, frames: int) -> Tensor:
        """The shortcut of `x` and the convolved `y`, resampled and added, as `(b, t, h, w, c)`."""
        _, h, w = self.factors
        return self.joined(*(rearrange(part, self.pattern, r=frames, p=h, q=w) for part in (x, y)))

    def joined(self, short: Tensor, new: Tensor) -> Tensor:
        """Their sum, each brought to `out` channels."""
        raise NotImplementedError

    def _whole(self, pieces: Iterable[Tensor], past: StreamState | None) -> Iterator[Tensor]:
        """The same frames: the first, and then whole numbers of `frames`; the rest waits in `past`."""
        rest = None if past is None else past.get(self)
        for piece in pieces:
            if rest is None:
                yield piece[:, :, :1]
                rest = piece[:, :, 1:]
            else:
                rest = torch.cat([rest, piece], dim=2) if rest.shape[2] else piece
            count = rest.shape[2] // self.frames * self.frames
            if count:
                yield rest[:, :, :count]
            rest = rest[:, :, count:].clone()
            if past is not None:
                past[self] = rest


class Down(Shuffle):
    """Frames, rows and columns become channels; the shortcut averages groups of them."""

    pattern = "b c (t r) (h p) (w q) -> b t h w (r p q c)"

    def __init__(self, width: int, out: int, factors: Stride) -> None:
        super().__init__(width, out, made=out // prod(factors), factors=factors, frames=factors[0])

    def joined(self, short: Tensor, new: Tensor) -> Tensor:
        """A first frame stands for all that would become one."""
        return new.repeat(1, 1, 1, 1, self.out // new.shape[-1]) + averaged(short, self.out)


class Up(Shuffle):
    """Channels become frames, rows and columns; the shortcut repeats them."""

    pattern = "b (r p q c) t h w -> b (t r) (h p) (w q) c"

    def __init__(self, width: int, out: int, factors: Stride) -> None:
        super().__init__(width, out, made=out * prod(factors), factors=factors, frames=1)

    def joined(self, short: Tensor, new: Tensor) -> Tensor:
        """Of a first frame, which becomes one, some of the new channels are not needed."""
        return new[..., : self.out] + repeated(short, self.out)


class ShuffleEncoder(CausalEncoder):
    """A `CausalEncoder` with a shortcut past its last layer."""

    def __init__(self, config: ShuffleVAEConfig) -> None:
        super().__init__(config, _stages(config.widths, config.strides, config.blocks, Down))
        self.out = 2 * config.channels

    def forward(self, pieces: Iterable[Tensor], past: StreamState | None) -> list[Tensor]:
        x = self.hidden(pieces, past)
        new = self.to_moments(x, past)
        return [y + averaged(piece, self.out, dim=1) for piece, y in zip(x, new, strict=True)]


class ShuffleDecoder(CausalDecoder):
    """A `CausalDecoder` with a shortcut past its first layer."""

    def __init__(self, config: ShuffleVAEConfig) -> None:
        super().__init__(config, _stages(config.widths[::-1], config.strides[::-1], config.blocks + 1, Up))

    def expanded(self, pieces: Iterable[Tensor], past: StreamState | None) -> list[Tensor]:
        given = list(pieces)
        new = zip(given, self.first(given, past), strict=True)
        return [y + repeated(piece, y.shape[1], dim=1) for piece, y in new]


def averaged(x: Tensor, width: int, *, dim: int = -1) -> Tensor:
    """Channels to fewer, each the mean of neighbours."""
    return x.unflatten(dim, (width, -1)).mean(dim + 1 if dim >= 0 else dim)


def repeated(x: Tensor, width: int, *, dim: int = -1) -> Tensor:
    """Channels to more, each as often."""
    return x.repeat_interleave(width // x.shape[dim], dim)


def _stages(
    widths: Sequence[int], strides: Sequence[Stride], blocks: int, way: type[Down] | type[Up]
) -> Iterator[CausalStage]:
    """Blocks keep the width; the resampling after all stages but the last changes it."""
    ways = [way(a, b, stride) for (a, b), stride in zip(pairwise(widths), strides, strict=True)]
    for width, resample in zip(widths, [*ways, None], strict=True):
        yield CausalStage([width] * (blocks + 1), LayerKind(), resample)


def hunyuan15_vae() -> ShuffleVAEConfig:
    """The VAE of HunyuanVideo-1.5: 32 channels, 4 frames and 16x16 pixels a latent; 1,260,634,115
    parameters."""
    return ShuffleVAEConfig()
