"""Codecs turn frames into latents and back: `encode`, `decode`, `stride`, `channels`."""

from __future__ import annotations

from dreamwalk.codecs.frame import KLCodec, KLCodecConfig
from dreamwalk.codecs.patch import PatchCodec, PatchCodecConfig
from dreamwalk.codecs.vit import ViTCodec, ViTCodecConfig

CodecConfig = PatchCodecConfig | KLCodecConfig | ViTCodecConfig
Codec = PatchCodec | KLCodec | ViTCodec


def build_codec(config: CodecConfig) -> Codec:
    """The codec that a config describes, with random or identity weights."""
    match config:
        case PatchCodecConfig():
            return PatchCodec(config)
        case KLCodecConfig():
            return KLCodec(config)
        case ViTCodecConfig():
            return ViTCodec(config)
