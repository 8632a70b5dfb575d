"""Grids of noise levels: what one frame goes through from noise to clean."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamwalk.schedules.flow import shift


def sigma_grid(steps: int, *, shift_by: float = 1.0) -> Tensor:
    """`steps + 1` levels from 1 (noise) down to 0 (clean), float64, moved towards noise by `shift_by`."""
    if steps < 1:
        raise ValueError(f"a frame needs at least one denoising step, got {steps}")
    return shift(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift_by)
