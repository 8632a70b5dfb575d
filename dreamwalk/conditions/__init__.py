"""What a backbone is told besides the frames: actions."""

from __future__ import annotations

from dreamwalk.conditions.byte_encoder import ByteEncoder, ByteEncoderConfig
from dreamwalk.conditions.hunyuan import HunyuanTextConfig, HunyuanTextEncoder
from dreamwalk.conditions.hunyuan15 import Hunyuan15TextConfig, Hunyuan15TextEncoder

WordsConfig = ByteEncoderConfig | HunyuanTextConfig | Hunyuan15TextConfig
"""Of what reads the words: trained along, or published."""


def build_reader(config: WordsConfig) -> ByteEncoder | HunyuanTextEncoder:
    """Texts to `TextEmbedding`, as a config describes it."""
    match config:
        case ByteEncoderConfig():
            return ByteEncoder(config)
        case Hunyuan15TextConfig():
            return Hunyuan15TextEncoder(config)
        case HunyuanTextConfig():
            return HunyuanTextEncoder(config)
