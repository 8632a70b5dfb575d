"""RGB-D video: depth as a fourth channel beside red, green and blue.

The channel is one fixed transform of planar depth `z` in world units, `64 / (z + 32) - 1`: in [-1, 1], finer
where things are near, and -1 where they are infinitely far or unknown (sky). It is float throughout; an 8-bit
picture of it would have steps of 7 % at 500 units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dreamwalk.clip import Clip
from dreamwalk.errors import UserError

NEAR = 32.0
"""World units that are added to depth, so that what touches the camera stays finite."""
SKY = 2000.0
"""World units from which a decoded depth counts as sky: 0."""


def depth_channel(depth: Tensor) -> Tensor:
    """Planar depth in world units, 0 for sky, to a channel in [-1, 1]."""
    return torch.where(depth > 0, 2 * NEAR / (depth + NEAR) - 1, -1.0)


def depth_of(channel: Tensor) -> Tensor:
    """The inverse of `depth_channel`; 0, sky, for whatever is farther than `SKY`."""
    depth = 2 * NEAR / (channel + 1).clamp(min=1e-6) - NEAR
    return torch.where(depth < SKY, depth.clamp(min=1.0), 0.0)


def codec_input(clip: Clip, image_channels: int) -> Tensor:
    """Video of a batched clip in [-1, 1] for a codec of so many image channels, `(b, t, 3 or 4, h, w)`.

    UserError for a clip without the depth that is asked for.
    """
    video = clip.video.float() / 127.5 - 1
    if image_channels == 3:
        return video
    if clip.depth is None:
        raise UserError("these data have no depth, and the codec is one of RGB-D: train one with 3 channels")
    return torch.cat([video, depth_channel(clip.depth.float())[:, :, None]], dim=2)
