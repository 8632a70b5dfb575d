"""Backbones predict what is missing from noisy latents, given conditions, the history and the noise level."""

from __future__ import annotations

from dreamwalk.backbones.crossdit import CrossDiT, CrossDiTConfig
from dreamwalk.backbones.framedit import FrameDiT, FrameDiTConfig
from dreamwalk.backbones.mmdit import MMDiT, MMDiTConfig
from dreamwalk.backbones.mmdit_multi import MultiEncoderMMDiT, MultiEncoderMMDiTConfig
from dreamwalk.backbones.stdit import STDiT, STDiTConfig

BackboneConfig = FrameDiTConfig | STDiTConfig
Backbone = FrameDiT | STDiT
VideoBackboneConfig = MMDiTConfig | MultiEncoderMMDiTConfig | CrossDiTConfig
VideoBackbone = MMDiT | MultiEncoderMMDiT | CrossDiT
"""Of whole clips, told in words."""


def build_backbone(config: BackboneConfig) -> Backbone:
    """The backbone that a config describes, with fresh weights."""
    match config:
        case FrameDiTConfig():
            return FrameDiT(config)
        case STDiTConfig():
            return STDiT(config)


def build_video_backbone(config: VideoBackboneConfig) -> VideoBackbone:
    """The backbone of whole clips that a config describes, with fresh weights."""
    match config:
        case MultiEncoderMMDiTConfig():
            return MultiEncoderMMDiT(config)
        case MMDiTConfig():
            return MMDiT(config)
        case CrossDiTConfig():
            return CrossDiT(config)
