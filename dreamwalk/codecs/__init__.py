"""Codecs turn video into latents and back. The config of a codec builds it: `config.build()`."""

from __future__ import annotations

from dreamwalk.codecs.block import BlockCodecConfig
from dreamwalk.codecs.causal import CausalVAEConfig
from dreamwalk.codecs.codec import Codec
from dreamwalk.codecs.kl_autoencoder import KLCodecConfig
from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.codecs.shuffle import ShuffleVAEConfig
from dreamwalk.codecs.tae import TAEConfig
from dreamwalk.codecs.tokens import TokenCodecConfig
from dreamwalk.codecs.vit import ViTCodecConfig

__all__ = ["Codec", "CodecConfig", "ViTCodecConfig"]

FrameCodecConfig = PatchCodecConfig | KLCodecConfig | ViTCodecConfig
VideoCodecConfig = BlockCodecConfig | CausalVAEConfig | ShuffleVAEConfig | TAEConfig | TokenCodecConfig
CodecConfig = FrameCodecConfig | VideoCodecConfig
