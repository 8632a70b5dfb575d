"""Conditions of backbones besides frames: actions and text."""

from __future__ import annotations

from dreamwalk.conditions.byte_encoder import ByteEncoderConfig
from dreamwalk.conditions.hunyuan import HunyuanTextConfig
from dreamwalk.conditions.hunyuan15 import Hunyuan15TextConfig
from dreamwalk.conditions.moviegen import MovieGenTextConfig

TextEncoderConfig = ByteEncoderConfig | HunyuanTextConfig | Hunyuan15TextConfig | MovieGenTextConfig
"""Of a text encoder: trained along, published, or published with a trained projection."""
