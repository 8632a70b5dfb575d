"""Backbones predict what is missing from noisy latents, given conditions, the history and the noise level."""

from __future__ import annotations

from dreamwalk.backbones.framedit import FrameDiT, FrameDiTConfig
from dreamwalk.backbones.stdit import STDiT, STDiTConfig

BackboneConfig = FrameDiTConfig | STDiTConfig
Backbone = FrameDiT | STDiT


def build_backbone(config: BackboneConfig) -> Backbone:
    """The backbone that a config describes, with fresh weights."""
    match config:
        case FrameDiTConfig():
            return FrameDiT(config)
        case STDiTConfig():
            return STDiT(config)
