"""What the report on codebooks asks of a codec, in one place: video to indices and back to video.

A codec of another kind joins by a class derived from `Coding` and a line in `coding_of`.
"""

from __future__ import annotations

from math import log2
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from dreamwalk.codecs.causal_layers import precise
from dreamwalk.codecs.codec import Codec, KLAutoencoder, Stride
from dreamwalk.codecs.delta import DeltaCodec
from dreamwalk.codecs.quantizers import LFQ, Quantizer, full_precision
from dreamwalk.codecs.residual_quantizers import MultiScaleQuantizer, ResidualQuantizer
from dreamwalk.codecs.tokens import TokenCodec
from dreamwalk.errors import UserError


class CodedVideo(NamedTuple):
    """What a codec makes of video."""

    restored: Tensor
    """Video in [-1, 1] `(b, t, 3, h, w)`."""
    values: Tensor
    """`(b, t', c, h', w')`, as the decoder takes them."""
    points: Tensor | None = None
    """The same before the quantizer, in the space of its codes; None for a codec without one."""
    parts: tuple[Tensor, ...] = ()
    """Indices of each stage or scale, `(b, ..)`."""
    nats: Tensor | None = None
    """KL divergence of the posterior from the standard normal, `(b)`, summed over the latents of a clip."""


class Coding:
    """A codec as the report sees it."""

    kind: str
    """What lies between encoder and decoder, in a word or two."""
    sizes: Any
    """Config of its layers."""
    channels: int
    stride: Stride
    given: int = 0
    """First frames that are not coded, and do not count."""

    def __init__(self) -> None:
        self.stages: dict[str, Quantizer] = {}
        """The vocabulary of each of `CodedVideo.parts`, by its name; empty for continuous latents."""

    def check_frames(self, video: Tensor, source: str) -> None:
        """UserError for frames of the codec called `source` that are not whole latents."""

    def code(self, video: Tensor, actions: Tensor) -> CodedVideo:
        """Of video in [-1, 1] `(b, t, 3, h, w)`; actions `(b, t, a)` are for codecs that are told them."""
        raise NotImplementedError

    def bypassed(self, video: Tensor, actions: Tensor) -> Tensor | None:
        """`CodedVideo.restored` with the quantizer left out; None where there is none."""
        return None


class LatentCoding(Coding):
    """A codec of continuous latents, as it is: the base of those that encode a clip as a whole."""

    kind = "none"

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec, self.sizes, self.channels, self.stride = codec, codec.config, codec.channels, codec.stride

    def check_frames(self, video: Tensor, source: str) -> None:
        """The last frame, repeated up to a whole latent, would count as well coded."""
        frames, codec = video.shape[1], self.codec
        codec.check_size(video[:1])
        if (whole := codec.decoded_frames(codec.latent_frames(frames))) != frames:
            raise UserError(
                f"{frames} frames do not divide into latents of '{source}': the next number is {whole}"
            )

    @torch.inference_mode()
    def code(self, video: Tensor, actions: Tensor) -> CodedVideo:
        values = self.codec.encode(video)
        return CodedVideo(self.decode(values, video.shape[1]), values)

    def decode(self, values: Tensor, frames: int) -> Tensor:
        """Video in [-1, 1] `(b, frames, 3, h, w)`."""
        return self.codec.decode(values, frames).clamp(-1, 1)


class KLCoding(LatentCoding):
    """The means of a Gaussian posterior, and its divergence, which is the rate."""

    kind = "KL"
    codec: KLAutoencoder

    @torch.inference_mode()
    def code(self, video: Tensor, actions: Tensor) -> CodedVideo:
        mean, log_variance = self.codec.posterior(video)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        values, nats = self.codec.scale(mean), divergence.double().flatten(1).sum(1)
        return CodedVideo(self.decode(values, video.shape[1]), values, nats=nats)


class TokenCoding(LatentCoding):
    """A codec with a quantizer."""

    codec: TokenCodec

    def __init__(self, codec: TokenCodec) -> None:
        super().__init__(codec)
        self.sizes = codec.inner.config
        if codec.quantizer.codebooks:
            self.kind, self.stages = kind_of_quantizer(codec.quantizer), stages_of(codec.quantizer)

    @torch.inference_mode()
    def code(self, video: Tensor, actions: Tensor) -> CodedVideo:
        latents = self.codec.inner.encode(video)
        values, indices, _ = self.codec.quantized(latents)
        values = rearrange(values, "b t h w c -> b t c h w").contiguous()
        restored = self.decode(values, video.shape[1])
        if not self.stages:
            return CodedVideo(restored, values)
        parts = parted_stages(self.codec.quantizer, indices)
        return CodedVideo(restored, values, self.points(latents), parts)

    @torch.inference_mode()
    def bypassed(self, video: Tensor, actions: Tensor) -> Tensor | None:
        if not self.stages:
            return None
        return self.decode(self.points(self.codec.inner.encode(video)), video.shape[1])

    def points(self, latents: Tensor) -> Tensor:
        """Latents `(b, t, c, h, w)` of the codec inside in the space of the codes: bounded for FSQ, on the
        unit sphere for BSQ."""
        with full_precision(latents):
            points = self.codec.quantizer.project(precise(self.codec.vectors(latents)))
        return rearrange(points, "b t h w c -> b t c h w").contiguous()


class DeltaCoding(Coding):
    """Frames coded given the decoded one before; the first is given."""

    given = 1

    def __init__(self, codec: DeltaCodec) -> None:
        super().__init__()
        self.codec, self.sizes, self.channels = codec, codec.config, codec.config.channels
        self.stride, self.kind = codec.stride, "delta, none"
        if codec.quantizer.codebooks:
            self.stages = stages_of(codec.quantizer)
            self.kind = f"delta, {kind_of_quantizer(codec.quantizer)}"

    def check_frames(self, video: Tensor, source: str) -> None:
        self.codec.check_size(video)

    @torch.inference_mode()
    def code(self, video: Tensor, actions: Tensor) -> CodedVideo:
        coded = self.codec.code(video, actions)
        values = rearrange(coded.values, "b t h w c -> b t c h w")
        parts = parted_stages(self.codec.quantizer, coded.tokens) if self.stages else ()
        return CodedVideo(coded.video.clamp(-1, 1), values, parts=parts)

    @torch.inference_mode()
    def bypassed(self, video: Tensor, actions: Tensor) -> Tensor | None:
        if not self.stages:
            return None
        frames = [video[:, 0]]
        for frame, action in zip(video[:, 1:].unbind(1), actions[:, 1:].unbind(1), strict=True):
            sight = self.codec.look(frames[-1], action)
            latents = self.codec.quantizer.project(self.codec.latents(sight, frame))
            frames.append(self.codec.decode(sight, latents, action))
        return torch.stack(frames, 1)


def coding_of(codec: object) -> Coding | None:
    """The coding of a codec; None for what is no codec of RGB."""
    if isinstance(codec, DeltaCodec):
        return DeltaCoding(codec)
    if not isinstance(codec, Codec) or codec.image_channels != 3:
        return None
    if isinstance(codec, TokenCodec):
        return TokenCoding(codec)
    return KLCoding(codec) if isinstance(codec, KLAutoencoder) else LatentCoding(codec)


def parted_stages(quantizer: Quantizer, indices: Tensor) -> tuple[Tensor, ...]:
    """Indices of each of `stages_of`."""
    return tuple(quantizer.parted(indices)) if isinstance(quantizer, ResidualQuantizer) else (indices,)


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
