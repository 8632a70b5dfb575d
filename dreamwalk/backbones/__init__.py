"""Backbones predict the velocity of noisy latents, given conditions; `config.build()` makes one."""

from __future__ import annotations

from dreamwalk.backbones.clip_backbone import ClipBackbone
from dreamwalk.backbones.context_blocks import ContextMMDiTConfig
from dreamwalk.backbones.crossdit import CrossDiTConfig
from dreamwalk.backbones.frame_backbone import FrameBackbone
from dreamwalk.backbones.framedit import FrameDiTConfig
from dreamwalk.backbones.memory_stdit import MemorySTDiTConfig
from dreamwalk.backbones.mmdit import MMDiTConfig
from dreamwalk.backbones.mmdit_multi import MultiEncoderMMDiTConfig
from dreamwalk.backbones.stdit import STDiTConfig

__all__ = ["BackboneConfig", "ClipBackbone", "ClipBackboneConfig", "FrameBackbone", "FrameBackboneConfig"]

FrameBackboneConfig = FrameDiTConfig | STDiTConfig | MemorySTDiTConfig
"""Of frames, conditioned on actions, with a cache."""
ClipBackboneConfig = MMDiTConfig | MultiEncoderMMDiTConfig | ContextMMDiTConfig | CrossDiTConfig
"""Of whole clips, conditioned on text."""
BackboneConfig = FrameBackboneConfig | ClipBackboneConfig
