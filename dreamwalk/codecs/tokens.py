"""Token codec: a causal video codec with a quantizer between encoder and decoder, so that video is tokens.

The layers are those of `codecs/causal.py`, or of `codecs/shuffle.py`, whose shortcuts between pixels and
latents make it learn far sooner; or, frame by frame, those of `codecs/vqgan.py`. A first frame is latents of
its own, norms are of each position and attention looks back at most: no token sees a later frame, as a
tokenizer of video needs it (MAGVIT-v2, arXiv 2310.05737, section 3.2). The means of a causal codec are scaled
to a mean square of one, as measured in training, before they are quantized: no quantizer has to know how loud
they are, and one number for all positions and times tells nothing of the future.

A matched family differs by config alone: `quantizer` FSQ, LFQ, BSQ, VQ, residual or multi-scale, or none of
them (`UnquantizedConfig`), and the inner codec by itself with its KL term.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from torch import Tensor

from dreamwalk.codecs.causal import CausalVAEConfig
from dreamwalk.codecs.codec import Bottleneck, Codec, Normals, Spread, Stride
from dreamwalk.codecs.quantizers import BSQConfig, FSQConfig, Quantized, UnquantizedConfig
from dreamwalk.codecs.residual_quantizers import MultiScaleConfig, ResidualConfig, StageConfig
from dreamwalk.codecs.shuffle import ShuffleVAEConfig
from dreamwalk.codecs.vector_quantizer import VQConfig
from dreamwalk.codecs.vqgan import VQGANConfig
from dreamwalk.errors import UserError

InnerConfig = CausalVAEConfig | ShuffleVAEConfig | VQGANConfig
QuantizerConfig = StageConfig | ResidualConfig | MultiScaleConfig | UnquantizedConfig


@dataclass(frozen=True)
class TokenCodecConfig:
    """A causal codec with a KL bottleneck, and the quantizer that takes the place of that; or a VQGAN."""

    codec: InnerConfig
    quantizer: QuantizerConfig = field(default_factory=FSQConfig)

    def __post_init__(self) -> None:
        if self.codec.channels != self.quantizer.channels:
            raise UserError(
                f"the quantizer takes {self.quantizer.channels} channels, and the codec gives "
                f"{self.codec.channels}: build it with as many"
            )

    @property
    def channels(self) -> int:
        """Latent channels."""
        return self.codec.channels

    @property
    def stride(self) -> Stride:
        """Frames, rows and columns of pixels per latent."""
        return self.codec.stride

    @property
    def vocabulary(self) -> int:
        """Codes that a token can be."""
        return self.quantizer.vocabulary

    def build(self) -> TokenCodec:
        """The codec, with random weights."""
        return TokenCodec(self)


class TokenCodec(Codec):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> latents `(b, t', c, h', w')`, the values of codes;
    `decode` goes back. `tokens` and `from_tokens` do the same with indices.

    Tokens are `(b, t', h', w')`, those of a residual quantizer `(b, t', h', w', stages)`, and those of a
    multi-scale one `(b, t', n)`.
    """

    config: TokenCodecConfig
    vocabulary: int
    """Codes that a token can be."""

    def __init__(self, config: TokenCodecConfig) -> None:
        super().__init__(config)
        self.vocabulary = config.vocabulary
        self.inner = config.codec.build()
        self.quantizer = config.quantizer.build()
        # Published codes are for latents as they are.
        self.spread = None if isinstance(config.codec, VQGANConfig) else Spread(config.channels)

    def encode(self, video: Tensor) -> Tensor:
        return _channels_third(self.quantized(self.inner.encode(video)).values)

    def tokens(self, video: Tensor) -> Tensor:
        """Indices of video, whose last frame is repeated up to whole latents; UserErrors of `check_size`."""
        return self.quantized(self.inner.encode(video)).indices

    def quantized(self, latents: Tensor) -> Quantized:
        """Latents of the codec inside, `(b, t', c, h', w')`, through the quantizer."""
        return self.quantizer(self.vectors(latents))

    def vectors(self, latents: Tensor) -> Tensor:
        """What is quantized of latents of the codec inside, `(b, t', h', w', c)`."""
        z = _channels_last(latents)
        return z if self.spread is None else self.spread(z)

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """The latents that tokens stand for, those of `encode` to the last bit; UserError for what is no
        token of this codec."""
        values = self.quantizer.values(tokens)
        if values.ndim != 5:
            raise UserError(
                f"tokens have the axes that `tokens` gives them, (b, t, ...), not {tuple(tokens.shape)}"
            )
        return _channels_third(values)

    def check_size(self, video: Tensor) -> None:
        self.inner.check_size(video)

    def reconstruct(self, latents: Tensor) -> Tensor:
        return self.inner.reconstruct(latents)

    def bottleneck(self, video: Tensor, chance: Normals, *, noise: float) -> Bottleneck:
        """Codes as they are, for generated tokens are codes too; the terms of the quantizer; and how its
        vocabulary was used of late."""
        latents = self.inner.encode_measured(video)
        if self.spread is not None:
            self.spread.measure(_channels_last(latents))
        z = self.vectors(latents)
        self.quantizer.measure(z.detach())
        values, indices, losses = self.quantizer(z)
        return Bottleneck(_channels_third(values), losses, self.quantizer.recent_usage(indices))

    def stream_encode(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Latents `(b, 1, c, h', w')` one by one, as soon as their frames are there, those of `encode`; no
        gradients. UserError where the codec inside cannot code a stream."""
        return (_channels_third(values) for values, _, _ in self._stream(pieces))

    def stream_tokens(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """The same as tokens `(b, 1, ..)`."""
        return (indices for _, indices, _ in self._stream(pieces))

    def stream_decode(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Video piece by piece: one frame of the first latent, a stride of each that follows; as `decode`."""
        return self.inner.stream_decode(piece.to(self.dtype) for piece in latents)

    @torch.no_grad()
    def agreement(self, video: Tensor) -> Tensor:
        """Share of tokens that are the same after decoding and encoding again; 1 where there is no drift."""
        tokens = self.tokens(video)
        return (self.tokens(self.decode(self.from_tokens(tokens))) == tokens).double().mean()

    def _stream(self, pieces: Iterable[Tensor]) -> Iterator[Quantized]:
        latents = self.inner.stream_encode(pieces)  # which says at once whether it can
        return (self.quantized(latent) for latent in latents)


def _channels_last(latents: Tensor) -> Tensor:
    return rearrange(latents, "b t c h w -> b t h w c")


def _channels_third(values: Tensor) -> Tensor:
    return rearrange(values, "b t h w c -> b t c h w").contiguous()


def tokenized(codec: InnerConfig, quantizer: QuantizerConfig) -> TokenCodecConfig:
    """A codec with as many channels as a quantizer takes, and that."""
    return TokenCodecConfig(replace(codec, channels=quantizer.channels), quantizer)


def matched(codec: ShuffleVAEConfig) -> dict[str, ShuffleVAEConfig | TokenCodecConfig]:
    """One codec by what is between encoder and decoder: nothing, a KL term, tokens of about 16 bits, and of 8
    and 24."""
    return {
        "none": tokenized(codec, UnquantizedConfig(codec.channels)),
        "kl": codec,
        "fsq": tokenized(codec, FSQConfig()),
        "vq": tokenized(codec, VQConfig(codes=2**16)),
        "bsq8": tokenized(codec, BSQConfig(8)),
        "bsq16": tokenized(codec, BSQConfig(16)),
        "bsq24": tokenized(codec, BSQConfig(24)),
    }


def small_tokens() -> TokenCodecConfig:
    """4x16x16 pixels to one of 64,000 codes, small enough to train on a processor: 6.0 million parameters."""
    return tokenized(small_layers(), FSQConfig())


def small_layers() -> ShuffleVAEConfig:
    """The layers of `small_tokens`."""
    return ShuffleVAEConfig(6, (48, 48, 96), 1, ((2, 2, 2), (2, 2, 2)), None, 4)


def small_scales() -> TokenCodecConfig:
    """The same with tokens from coarse to fine, for frames of 96x128: 17 coarse ones a frame, then the 48."""
    return tokenized(small_layers(), MultiScaleConfig(FSQConfig()))


def tokens_tiny() -> TokenCodecConfig:
    """Small enough for a test: 2x4x4 pixels to one of 256 codes."""
    return tokenized(ShuffleVAEConfig(4, (16, 32), 1, ((2, 2, 2),), None, 2), FSQConfig((4, 4, 4, 4)))
