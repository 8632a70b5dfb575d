"""Depth that a network predicted, made to fit what is known before it is stored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROUGHLY = 1.6
"""Depths this many times apart are of different surfaces."""
OVERLAP = 0.04
"""Share of the picture that a fit needs."""
RIDGE = 1e-4
"""Weight of staying as it is."""
ROUNDS, TRIM = 4, 2.5
"""Of the fit; each leaves out what lies more than `TRIM` median errors off."""


def depth_edges(depth: Tensor, ratio: float) -> Tensor:
    """Where the depth `(h, w)` changes more than `ratio` times within 3x3 pixels: there a smooth prediction
    lies between two surfaces, on neither."""
    far = near = F.pad(depth[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    for axis, side in enumerate(depth.shape):  # much faster than pooling
        far, *others = (far.narrow(axis, k, side) for k in range(3))
        near, *also = (near.narrow(axis, k, side) for k in range(3))
        for other, another in zip(others, also, strict=True):
            far, near = torch.maximum(far, other), torch.minimum(near, another)
    return far > near * ratio


def align_depth(depth: Tensor, known: Tensor) -> Tensor:
    """`depth` `(h, w)` with the scale and bias of inverse depth that fit the `known` one; 0 where there is
    none, in both.

    A least-squares fit of relative errors over the pixels that roughly agree, trimmed; the same depth where
    these are few.
    """
    fits = (depth > 0) & (known > 0) & (depth < known * ROUGHLY) & (known < depth * ROUGHLY)
    target = known[fits].double()
    # known (scale / depth + bias) = 1, with columns of about the same size
    unit = target.mean()
    columns = torch.stack([target / depth[fits], target / unit])
    fit = torch.tensor([1.0, 0.0], dtype=torch.float64, device=depth.device)
    for _ in range(ROUNDS):
        if columns.shape[1] < OVERLAP * depth.numel():
            break
        # A little towards no change: one flat wall tells scale and bias not apart.
        pull = RIDGE * columns.shape[1] * torch.eye(2, dtype=torch.float64, device=depth.device)
        fit = torch.linalg.solve(columns @ columns.T + pull, columns.sum(1) + pull[0])
        error = (fit @ columns - 1).abs()
        columns = columns[:, error <= TRIM * error.median()]
    inverse = fit[0] / depth + fit[1] / unit
    moved = (1 / inverse.clamp(min=1 / ROUGHLY / depth, max=ROUGHLY / depth)).float()
    return torch.where(depth > 0, moved, 0.0)
