"""Codecs turn frames into latents and back: `encode`, `decode`, `stride`, `channels`."""

from __future__ import annotations

from dreamwalk.codecs.block import BlockCodec, BlockCodecConfig
from dreamwalk.codecs.causal import CausalVAE, CausalVAEConfig
from dreamwalk.codecs.kl_autoencoder import KLCodec, KLCodecConfig
from dreamwalk.codecs.patch import PatchCodec, PatchCodecConfig
from dreamwalk.codecs.shuffle import ShuffleVAE, ShuffleVAEConfig
from dreamwalk.codecs.tae import TAECodec, TAEConfig
from dreamwalk.codecs.vit import ViTCodec, ViTCodecConfig

CodecConfig = PatchCodecConfig | KLCodecConfig | ViTCodecConfig
"""Codecs of frames."""
VideoCodecConfig = BlockCodecConfig | CausalVAEConfig | ShuffleVAEConfig | TAEConfig
"""Codecs of videos: several frames are one latent."""
Codec = PatchCodec | KLCodec | ViTCodec
VideoCodec = BlockCodec | CausalVAE | ShuffleVAE | TAECodec


def build_codec(config: CodecConfig) -> Codec:
    """The codec of frames that a config describes, with random or identity weights."""
    match config:
        case PatchCodecConfig():
            return PatchCodec(config)
        case KLCodecConfig():
            return KLCodec(config)
        case ViTCodecConfig():
            return ViTCodec(config)


def build_video_codec(config: VideoCodecConfig) -> VideoCodec:
    """The codec of videos that a config describes, with random or identity weights."""
    match config:
        case BlockCodecConfig():
            return BlockCodec(config)
        case CausalVAEConfig():
            return CausalVAE(config)
        case ShuffleVAEConfig():
            return ShuffleVAE(config)
        case TAEConfig():
            return TAECodec(config)
