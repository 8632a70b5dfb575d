"""Row-wise quantisation to eight bits."""

from __future__ import annotations

from torch import Tensor


def row_scale(matrix: Tensor, largest: float) -> Tensor:
    """Scales `(r,)` by which the largest magnitude of each row of `(r, ...)` becomes `largest`."""
    return (matrix.float().flatten(1).abs().amax(1) / largest).clamp(min=1e-12)
