"""A tiny Voyager of RGB-D in channels that has learnt nothing, and carries over what it is told."""

from __future__ import annotations

from dataclasses import replace

import torch
from toy import AsData

from dreamwalk.backbones.mmdit import MMDiTConfig
from dreamwalk.clip import Clip
from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.systems import voyager


def carrying_voyager(clip: Clip) -> voyager.Voyager:
    """RGB-D in channels, a frame a latent, untrained: what is known is carried over."""
    torch.manual_seed(0)
    tiny = voyager.tiny()
    backbone = MMDiTConfig(48, 98, width=32, heads=2, patch=(1, 1, 1), axes=(4, 6, 6))
    backbone = replace(
        backbone, double_blocks=1, single_blocks=1, refiner_blocks=1, text_dim=16, pooled_dim=0
    )
    codec = PatchCodecConfig(channels=48, patch=8, widths=(), image_channels=4)
    config = replace(tiny, codec=codec, backbone=backbone, depth="channels", coverage="share", headroom=1.5)
    system = replace(config, frames=5, size=(32, 32), steps=3).build()
    system.fit_from_data(AsData(clip))
    with torch.no_grad():
        system.skip.weight.copy_(torch.eye(48, 98).roll(49, 1))
    return system.eval()
