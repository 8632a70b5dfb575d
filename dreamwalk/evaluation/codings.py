"""What the report on codebooks asks of a codec, in one place: video to values and indices, and back.

A codec of another kind joins by a class derived from `Coding` and a line in `coding_of`.
"""

from __future__ import annotations

from math import log2
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from dreamwalk.codecs.causal_layers import precise
from dreamwalk.codecs.codec import Codec, KLAutoencoder
from dreamwalk.codecs.quantizers import LFQ, Quantizer, full_precision
from dreamwalk.codecs.residual_quantizers import MultiScaleQuantizer, ResidualQuantizer
from dreamwalk.codecs.tokens import TokenCodec


class Coded(NamedTuple):
    """What a codec makes of video."""

    values: Tensor
    """`(b, t', c, h', w')`, as the decoder takes them."""
    points: Tensor | None = None
    """The same before the quantizer, in the space of its codes; None for a codec without one."""
    parts: tuple[Tensor, ...] = ()
    """Indices of each stage or scale, `(b, ..)`."""
    nats: Tensor | None = None
    """KL divergence of the posterior from the standard normal, `(b)`, summed over the latents of a clip."""


class Coding:
    """A codec of continuous latents, as it is: the base of the others."""

    stages: dict[str, Quantizer]
    """The vocabulary of each of `Coded.parts`, by its name; empty for continuous latents."""

    def __init__(self, codec: Codec) -> None:
        self.codec, self.stages = codec, {}

    @property
    def kind(self) -> str:
        """What lies between encoder and decoder, in a word or two."""
        return "none"

    @torch.inference_mode()
    def code(self, video: Tensor) -> Coded:
        """Of video in [-1, 1] `(b, t, 3, h, w)`; UserErrors of `check_size`."""
        return Coded(self.codec.encode(video))

    @torch.inference_mode()
    def decode(self, values: Tensor, frames: int) -> Tensor:
        """Video in [-1, 1] `(b, frames, 3, h, w)`."""
        return self.codec.decode(values, frames).clamp(-1, 1)


class KLCoding(Coding):
    """The means of a Gaussian posterior, and its divergence, which is the rate."""

    codec: KLAutoencoder

    @property
    def kind(self) -> str:
        return "KL"

    @torch.inference_mode()
    def code(self, video: Tensor) -> Coded:
        mean, log_variance = self.codec.posterior(video)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        return Coded(self.codec.scale(mean), nats=divergence.double().flatten(1).sum(1))


class TokenCoding(Coding):
    """A codec with a quantizer."""

    codec: TokenCodec

    def __init__(self, codec: TokenCodec) -> None:
        super().__init__(codec)
        self.stages = stages_of(codec.quantizer)

    @property
    def kind(self) -> str:
        return kind_of_quantizer(self.codec.quantizer)

    @torch.inference_mode()
    def code(self, video: Tensor) -> Coded:
        latents, quantizer = self.codec.inner.encode(video), self.codec.quantizer
        values, indices, _ = self.codec.quantized(latents)
        with full_precision(latents):
            points = quantizer.project(precise(rearrange(latents, "b t c h w -> b t h w c")))
        staged = isinstance(quantizer, ResidualQuantizer)
        parts = quantizer.parted(indices) if staged else [indices]
        values, points = (rearrange(x, "b t h w c -> b t c h w") for x in (values, points))
        return Coded(values, points, tuple(parts))


def coding_of(codec: Codec) -> Coding:
    """The coding of a codec; one of tokens whose quantizer passes all is that of continuous latents."""
    if isinstance(codec, TokenCodec) and codec.quantizer.codebooks:
        return TokenCoding(codec)
    return KLCoding(codec) if isinstance(codec, KLAutoencoder) else Coding(codec)


def stages_of(quantizer: Quantizer) -> dict[str, Quantizer]:
    """The vocabulary of each stage or scale, by its name; of a single one by `all`."""
    if not isinstance(quantizer, ResidualQuantizer):
        return {"all": quantizer}
    if isinstance(quantizer, MultiScaleQuantizer):
        names = [f"scale {h}x{w}" for h, w in quantizer.config.scales]
    else:
        names = [f"stage {k + 1}" for k in range(quantizer.stages)]
    codes = [quantizer.codes[k % quantizer.codebooks] for k in range(quantizer.stages)]
    return {name: each for name, each in zip(names, codes, strict=True) if isinstance(each, Quantizer)}


def kind_of_quantizer(quantizer: Quantizer) -> str:
    """The quantizer and its vocabulary, such as `BSQ 2^16` or `4 x VQ 1,024`."""
    if isinstance(quantizer, ResidualQuantizer):
        shared = isinstance(quantizer, MultiScaleQuantizer)
        count = f"{quantizer.stages} scales of " if shared else f"{quantizer.stages} x "
        return count + kind_of_quantizer(next(iter(stages_of(quantizer).values())))
    name = type(quantizer).__name__
    if isinstance(quantizer, LFQ):
        return f"{name} 2^{quantizer.channels}"
    bits = log2(quantizer.vocabulary)
    short = bits.is_integer() and bits > 12
    return f"{name} 2^{bits:.0f}" if short else f"{name} {quantizer.vocabulary:,}"
