"""Depth that a network predicted, made to fit what is known before it is stored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROUGHLY = 1.6
"""Depths this many times apart are of different surfaces."""
OVERLAP = 0.04
"""Share of the picture that must be known."""


def depth_edges(depth: Tensor, ratio: float) -> Tensor:
    """Where the depths `(.., h, w)` change more than `ratio` times within 3x3 pixels: there a smooth
    prediction lies between two surfaces, on neither."""
    h, w = depth.shape[-2:]
    pictures = depth.reshape(-1, 1, *depth.shape[-2:])
    far = near = F.pad(pictures, (1, 1, 1, 1), mode="replicate").view(*depth.shape[:-2], h + 2, w + 2)
    for axis, side in ((-2, h), (-1, w)):  # much faster than pooling
        far, *others = (far.narrow(axis, k, side) for k in range(3))
        near, *also = (near.narrow(axis, k, side) for k in range(3))
        for other, another in zip(others, also, strict=True):
            far, near = torch.maximum(far, other), torch.minimum(near, another)
    return far > near * ratio


def align_depth(depth: Tensor, known: Tensor) -> Tensor:
    """`depth` `(h, w)` times the factor that fits it to the `known` one; 0 where there is none, in both.

    The median over the pixels that roughly agree; the same depth where these are few. A bias of inverse
    depth beside the factor did worse: what is near and known says little of what is far and open.
    """
    fits = (depth > 0) & (known > 0) & (depth < known * ROUGHLY) & (known < depth * ROUGHLY)
    if fits.sum() < OVERLAP * depth.numel():
        return depth
    return depth * (known[fits] / depth[fits]).median()
