"""Frames whose pixels are taken from elsewhere in others, in coordinates of [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from dreamwalk.layers.precision import float32_arithmetic


def half_sides(like: Tensor, height: int, width: int) -> Tensor:
    """Pixels of a coordinate of one, across and down."""
    return like.new_tensor([width / 2, height / 2])


def cells(like: Tensor, height: int, width: int) -> Tensor:
    """Centres of cells `(1, h, w, 2)`, across and down, in [-1, 1]."""
    down, across = ((torch.arange(n, device=like.device) + 0.5) * 2 / n - 1 for n in (height, width))
    return torch.stack(torch.meshgrid(across, down, indexing="xy"), -1)[None].to(like.dtype)


@float32_arithmetic()
def transformed(homography: Tensor, points: Tensor) -> Tensor:
    """Points `(b, h, w, 2)` by homographies `(b, 3, 3)`."""
    points = nn.functional.pad(points, (0, 1), value=1.0).expand(len(homography), -1, -1, -1)
    full = torch.einsum("bij,bhwj->bhwi", homography, points)
    return full[..., :2] / full[..., 2:].clamp(min=0.1)  # nothing is behind the camera


def sampled(frames: Tensor, places: Tensor) -> Tensor:
    """Frames `(b, c, h, w)`, each pixel taken from a place `(b, h, w, 2)`, 0 beyond the frame.

    Bilinear sampling blurs what is moved again and again, and torch's bicubic one sharpens it until it
    ripples: two thirds of this and a third of that are about Catmull and Rom's, which does neither."""
    cubic, linear = (
        grid_sample(frames, places, mode=mode, align_corners=False) for mode in ("bicubic", "bilinear")
    )
    return (2 * cubic + linear) / 3
