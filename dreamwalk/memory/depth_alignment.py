"""Depth that a network predicted, made to fit what is known before it is stored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROUGHLY = 1.6
"""Depths this many times apart are of different surfaces."""
OVERLAP = 0.04
"""Share of the picture that must be known."""
BAND = 0.2, 0.8
"""Quantiles of both inverse depths between which they are fitted."""
ROUNDS, KEPT = 3, 0.8
"""Of fits, each to the share of the pixels that the one before fits best."""


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


def fit_inverse_depth(depth: Tensor, known: Tensor) -> tuple[float, float]:
    """Scale and bias with which `scale / depth + bias` fits `1 / known`, both `(h, w)`, 0 where unknown.

    Voyager's data engine fits so (arXiv 2506.04225, section 4.2): trimmed least squares, on pixels whose
    inverse depths lie in the middle `BAND` of both. (1, 0) where too few pixels are known, and a scale alone
    where all are about as far.
    """
    both = (depth > 0) & (known > 0)
    if both.sum() < OVERLAP * depth.numel():
        return 1.0, 0.0
    x, y = (1 / part[both].double() for part in (depth, known))
    middle = torch.ones_like(x, dtype=torch.bool)
    for part in (x, y):
        low, high = part.quantile(torch.tensor(BAND, dtype=part.dtype, device=part.device))
        middle &= (part >= low) & (part <= high)
    if middle.sum() < OVERLAP * depth.numel() / 2:
        middle = torch.ones_like(middle)
    x, y = x[middle], y[middle]
    scale, bias = _line(x, y)
    for _ in range(ROUNDS):
        error = (scale * x + bias - y).abs()
        near = error <= error.quantile(KEPT)
        scale, bias = _line(x[near], y[near])
    return scale, bias


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Least squares of `scale x + bias = y`; through 0 where x hardly varies, or falls as y rises."""
    spread, scale = x.var(correction=0), 0.0
    if spread > (0.02 * x.mean()) ** 2:
        scale = float(((x - x.mean()) * (y - y.mean())).mean() / spread)
    if scale <= 0:
        return float((x * y).sum() / x.square().sum()), 0.0
    return scale, float(y.mean() - scale * x.mean())
