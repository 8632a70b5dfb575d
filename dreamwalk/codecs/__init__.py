"""Codecs turn frames into latents and back: `encode`, `decode`, `stride`, `channels`."""

from __future__ import annotations

from dreamwalk.codecs.frame import KLCodec, KLCodecConfig
from dreamwalk.codecs.patch import PatchCodec, PatchCodecConfig

CodecConfig = PatchCodecConfig | KLCodecConfig
Codec = PatchCodec | KLCodec


def build_codec(config: CodecConfig) -> Codec:
    """The codec that a config describes, with random or identity weights."""
    return PatchCodec(config) if isinstance(config, PatchCodecConfig) else KLCodec(config)
