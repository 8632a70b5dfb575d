"""Autoencode: the codec as a system of its own, trained before the systems that dream in its latents.

The patch codec (`codecs/patch.py`) sets its linear code from data and trains its decoder. The KL autoencoder
(`codecs/kl_autoencoder.py`, LDM, arXiv 2112.10752), the causal one of HunyuanVideo (`codecs/causal.py`, arXiv
2412.03603, section 4.1) and the temporal one of Movie Gen (`codecs/tae.py`, arXiv 2410.13720, section 3.1.1)
train encoder and decoder, with a small KL term on the bottleneck. That of tokens (`codecs/tokens.py`) has a
quantizer there (VQ-VAE, arXiv 1711.00937), whose terms carry their weights. A perceptual distance, an
adversarial term and the outlier penalty of these papers can be added to the error of pixels.

    paper's word             our word
    first-stage model        codec
    latent z                 latents
    discriminator            critic
    scaling factor           `codec.scale`, measured while the codec trains
    OPL                      `outliers`
    bottleneck               `codec.bottleneck`: what the decoder sees, and the terms of the loss of it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from dreamwalk.clip import Clip, FittingData
from dreamwalk.codecs import CodecConfig
from dreamwalk.codecs.block import BlockCodecConfig
from dreamwalk.codecs.causal import small, small_published
from dreamwalk.codecs.critic import Critic, CriticConfig, adversarial
from dreamwalk.codecs.delta import MIDDLE, DeltaCodecConfig, fine_steps, whole_frames
from dreamwalk.codecs.kl_autoencoder import KLCodecConfig
from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.codecs.perceptual import Perceptual
from dreamwalk.codecs.quantizers import BSQConfig, FSQConfig, UnquantizedConfig
from dreamwalk.codecs.residual_quantizers import MultiScaleConfig
from dreamwalk.codecs.rgbd import codec_input
from dreamwalk.codecs.tae import TAEConfig
from dreamwalk.codecs.tokens import (
    QuantizerConfig,
    matched,
    small_layers,
    small_scales,
    small_tokens,
    tokens_tiny,
)
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.system import System, SystemConfig
from dreamwalk.weights.config import from_json
from dreamwalk.weights.vgg import read_perceptual
from dreamwalk.world import ActionSchema

MATCHED = matched(small_layers())
"""The codec of `tokens` with one thing or another in the middle, by name."""
DELTA_QUANTIZERS: dict[str, QuantizerConfig] = {
    "fsq": fine_steps(),
    "none": UnquantizedConfig(16),
    "fsq16": FSQConfig(),
    "fsq12": FSQConfig((8, 8, 8, 8)),
    "bsq8": BSQConfig(8),
    "bsq16": BSQConfig(16),
    "bsq24": BSQConfig(24),
    "scales": MultiScaleConfig(FSQConfig()),
}
"""What may be in the middle of the delta codec of Doom, by name."""


@dataclass(frozen=True)
class AutoencodeConfig(SystemConfig):
    """A codec and the weights of its loss."""

    codec: CodecConfig | DeltaCodecConfig = field(default_factory=PatchCodecConfig)
    noise: float = 0.05
    """Std of noise on the latents while the decoder trains, in stds of theirs: generated latents are not
    exact."""
    l1: float = 0.5
    """Share of the absolute error in the loss; the rest is squared error; pixels are in [-1, 1]."""
    kl: float = 1e-6
    """Weight of the KL term, for codecs that learn their encoder."""
    outliers: float = 0.0
    """Weight of the outlier penalty of Movie Gen (`codecs/penalties.py`), which puts it at 1e5, for codecs
    with a KL term."""
    perceptual: str = ""
    """A .safetensors file of VGG16 (`weights/vgg.py`) whose distance of frames joins the loss; only training
    needs it."""
    perceptual_weight: float = 0.1
    critic: CriticConfig | None = None
    """A discriminator, trained along by the same optimizer, for the adversarial term."""
    adversarial: float = 0.05
    """Weight of the adversarial term."""

    def sized(self, schema: ActionSchema, size: tuple[int, int]) -> Self:
        if not isinstance(self.codec, DeltaCodecConfig):
            return self
        return replace(self, codec=replace(self.codec, actions=schema.size))

    @property
    def needs_depth(self) -> bool:
        learns_motion = isinstance(self.codec, DeltaCodecConfig) and self.codec.motion > 0
        return learns_motion or super().needs_depth

    def build(self) -> Autoencode:
        return Autoencode(self)


class Autoencode(System):
    """A codec and its loss."""

    name = "autoencode"
    config: AutoencodeConfig

    def __init__(self, config: AutoencodeConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec.build()
        self.critic = Critic(config.critic) if config.critic else None

    @cached_property
    def perceptual(self) -> Perceptual:
        """The perceptual distance, read when it is first needed; not a part of the system or its weights."""
        return read_perceptual(self.config.perceptual)

    def fit_from_data(self, data: FittingData) -> None:
        """Before the first step, set what is computed from data, not learned."""
        if not self.codec.fitted:
            self.codec.fit(codec_input(data.large_batch(), self.codec.image_channels))

    def loss(self, clip: Clip, generator: KeyedGenerator) -> dict[str, Tensor]:
        """Reconstruction of `clip.video`; `loss` is what is minimised, the other terms are logged."""
        video = codec_input(clip, self.codec.image_channels)
        rebuilt = self.codec.rebuilt(video, clip, generator, noise=self.config.noise)
        restored, losses, measured = rebuilt
        error, terms = restored - video, losses | measured
        squared, absolute = error.square().mean(), error.abs().mean()
        loss = self.config.l1 * absolute + (1 - self.config.l1) * squared
        if self.config.perceptual:
            terms["perceptual"] = self.perceptual.to(video.device)(restored[:, :, :3], video[:, :, :3])
            loss = loss + self.config.perceptual_weight * terms["perceptual"]
        if self.critic:
            terms["verdict"], terms["critic"] = adversarial(self.critic, video[:, :, :3], restored[:, :, :3])
            loss = loss + self.config.adversarial * terms["verdict"] + terms["critic"]
        weights = {"kl": self.config.kl, "outliers": self.config.outliers}
        for name, term in losses.items():
            loss = loss + weights.get(name, 1.0) * term
        return {"loss": loss, "psnr": 10 * torch.log10(4 / squared.detach()), **terms}

    def adapt_weights(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Of a delta codec with another quantizer, of any shape, or whose tokens tell another thing: what is
        next to them begins anew, and all else goes on."""
        codec, other = self.config.codec, config.get("codec") or {}
        if not isinstance(codec, DeltaCodecConfig) or "quantizer" not in other:
            return tensors
        before = from_json(DeltaCodecConfig, other)
        if (before.quantizer, before.tells) == (codec.quantizer, codec.tells):
            return tensors
        parts = MIDDLE if before.tells == codec.tells else (*MIDDLE, "add")
        middle = tuple(f"codec.{part}." for part in parts)
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(middle)}
        return kept | {name: own for name, own in self.state_dict().items() if name.startswith(middle)}

    @torch.no_grad()
    def preview(self, clip: Clip) -> Tensor:
        """Reconstruction in [-1, 1] `(b, t, 3, h, w)`, for a look during training."""
        video = codec_input(clip, self.codec.image_channels)
        return self.codec.restored(video, clip.actions)[:, :, :3].clamp(-1, 1)


def doom() -> AutoencodeConfig:
    """The frame codec of the shipped dreams: 96x128 pixels to 64 channels on a 6x8 grid."""
    return AutoencodeConfig(codec=PatchCodecConfig(channels=64))


def blocks() -> AutoencodeConfig:
    """The video codec of the shipped clips: 2 frames of 16x16 pixels to 128 channels."""
    return AutoencodeConfig(codec=BlockCodecConfig(), noise=0.2)


def hunyuan() -> AutoencodeConfig:
    """The layout of HunyuanVideo's VAE, 4x8x8 pixels to 16 channels, small: 5.4 million parameters."""
    return AutoencodeConfig(codec=small_published())


def causal() -> AutoencodeConfig:
    """Of the size of `hunyuan`, and strictly causal, so that it codes streams."""
    return AutoencodeConfig(codec=small())


def image() -> AutoencodeConfig:
    """The image autoencoder that `tae` inflates: 8x8 pixels to 16 channels."""
    codec = KLCodecConfig(channels=16, width=8, multiples=(1, 4, 8, 20), blocks=1, scale=None)
    return AutoencodeConfig(codec)


def tae() -> AutoencodeConfig:
    """The layout of Movie Gen's TAE, 8x8x8 pixels to 16 channels, small; without its outlier penalty."""
    config = image().codec
    assert isinstance(config, KLCodecConfig)
    return AutoencodeConfig(codec=TAEConfig(config))


def tokens() -> AutoencodeConfig:
    """Video as tokens, one of 64,000 for 4x16x16 pixels."""
    return AutoencodeConfig(codec=small_tokens())


def scales() -> AutoencodeConfig:
    """The same from coarse to fine, for models of the next scale."""
    return AutoencodeConfig(codec=small_scales())


def tokens_of(quantizer: str) -> AutoencodeConfig:
    """The codec of `tokens` with something else in the middle: one of a matched family."""
    return AutoencodeConfig(codec=MATCHED[quantizer])


def delta(quantizer: str = "fsq") -> AutoencodeConfig:
    """What a frame of Doom adds to the one before: 48 tokens of 47 bits, or of another quantizer."""
    return AutoencodeConfig(codec=DeltaCodecConfig(actions=7, quantizer=DELTA_QUANTIZERS[quantizer]))


def delta_frames() -> AutoencodeConfig:
    """A frame of Doom by itself, beside what is expected of it: 48 tokens of 22 bits."""
    return AutoencodeConfig(codec=whole_frames())


def tiny() -> AutoencodeConfig:
    """For tests: a token of 256 for 2x4x4 pixels."""
    return AutoencodeConfig(codec=tokens_tiny())
