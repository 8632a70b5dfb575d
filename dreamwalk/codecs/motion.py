"""Motion of pixels by the true geometry, of clips with depth and poses: where each was a frame before."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamwalk.clip import Clip

BEYOND = 16.0
"""Pixels outside of the frame before up to which a place there is still told."""


def true_motion(clip: Clip, stride: int) -> tuple[Tensor, Tensor] | None:
    """Of every `stride`-th pixel of the frames of a batched clip after the first: the flow `(b, t - 1, 2, h,
    w)`, x and y in pixels, that points to where it was, and bool `(b, t - 1, h, w)` where it is known. None
    for clips without depth or poses.

    What was hidden there is told as well: a still world has no other motion than the camera's.
    """
    if clip.depth is None or clip.world_from_camera is None or clip.intrinsics is None:
        return None
    height, width = clip.depth.shape[2:]
    half = stride // 2
    depth = clip.depth[:, 1:, half::stride, half::stride].float()
    v, u = (torch.arange(half, side, stride, device=depth.device) + 0.5 for side in (height, width))
    pixels = torch.stack(
        [*torch.meshgrid(u, v, indexing="xy"), torch.ones(len(v), len(u), device=depth.device)]
    )
    poses, lenses = clip.world_from_camera.double(), clip.intrinsics.double()
    before_from_now = torch.linalg.inv(poses[:, :-1]) @ poses[:, 1:]
    turned = lenses[:, :-1] @ before_from_now[..., :3, :3] @ torch.linalg.inv(lenses[:, 1:])
    moved = lenses[:, :-1] @ before_from_now[..., :3, 3:]
    rays = torch.einsum("btij,jhw->btihw", turned.float(), pixels)
    # Sky, at depth 0, is infinitely far: it only turns.
    points = torch.where(depth[:, :, None] > 0, rays * depth[:, :, None] + moved.float()[..., None], rays)
    place = points[:, :, :2] / points[:, :, 2:].clamp(min=1e-3)
    sides = place.new_tensor([width, height])[:, None, None]
    inside = ((place > -BEYOND) & (place < sides + BEYOND)).all(2)
    return place - pixels[:2], inside & (points[:, :, 2] > 1e-3)
