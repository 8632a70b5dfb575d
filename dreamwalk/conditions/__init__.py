"""Conditions of backbones besides frames: actions and text."""

from __future__ import annotations

from dreamwalk.conditions.byte_encoder import ByteEncoderConfig
from dreamwalk.conditions.hunyuan import HunyuanTextConfig, TencentTextConfig
from dreamwalk.conditions.hunyuan15 import Hunyuan15TextConfig
from dreamwalk.conditions.moviegen import MovieGenTextConfig

_HunyuanTextConfig = HunyuanTextConfig | TencentTextConfig | Hunyuan15TextConfig
TextEncoderConfig = ByteEncoderConfig | _HunyuanTextConfig | MovieGenTextConfig
"""Of a text encoder: trained along, published, or published with a trained projection."""
