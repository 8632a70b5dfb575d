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
"""Quantiles of the inverse depth that tell its spread."""
ROUNDS, OUTLYING = 3, 4.0
"""Of fits; a pixel that errs by more than so many medians has no part in the next."""
CLEARLY = 0.8
"""A fit is taken in place of a simpler one when it lowers the median error to so much of it."""


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
    """Scale and bias with which `scale / depth + bias` fits `1 / known`, both `(..)`, 0 where unknown.

    The simplest of three that errs clearly less than the ones before: nothing (1, 0), a scale, both; (1, 0)
    too where few pixels are known. Voyager's data engine takes the least squares of both (arXiv 2506.04225,
    section 4.2), which noise in `depth` bends: a smaller scale, a bias above 0, and more with every clip.
    Quantiles of both sides are bent by neither.
    """
    both = (depth > 0) & (known > 0)
    if both.sum() < OVERLAP * depth.numel():
        return 1.0, 0.0
    x, y = (1 / part[both].double() for part in (depth, known))
    best, least = (1.0, 0.0), float(_errors(x, y, 1.0, 0.0).median())
    for fit in ((float((y / x).median()), 0.0), _spread_fit(x, y)):
        error = float(_errors(x, y, *fit).median())
        if error < CLEARLY * least:
            best, least = fit, error
    return best


def _spread_fit(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Scale and bias that give x the quantiles of y; then again, without what errs several times as much as
    most."""
    for _ in range(ROUNDS):
        (low, middle, high), (down, centre, up) = (_quantiles(part) for part in (x, y))
        scale = (up - down) / max(high - low, 1e-12)
        bias = centre - scale * middle
        errors = _errors(x, y, scale, bias)
        near = errors <= OUTLYING * errors.median()
        x, y = x[near], y[near]
    return scale, bias


def _quantiles(values: Tensor) -> list[float]:
    found = values.sort().values
    return [float(found[int(share * (len(found) - 1))]) for share in (BAND[0], 0.5, BAND[1])]


def _errors(x: Tensor, y: Tensor, scale: float, bias: float) -> Tensor:
    """By what ratio a fit is wrong, as logarithms."""
    return ((scale * x + bias).clamp(min=1e-9) / y).log().abs()
