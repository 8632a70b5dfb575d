"""Schedules as data: which frame has which noise level at which step.

A schedule is a matrix `(rows + 1, frames)` of levels in [0, 1]; row m to row m + 1 is one pass of the
backbone. All frames equal is full-sequence diffusion, a lag between neighbours is the pyramid of Diffusion
Forcing (arXiv 2407.01392, section 3.3), and a lag of all steps is one frame after another.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dreamwalk.schedules.flow import shift


def sigma_grid(steps: int, *, shift_by: float = 1.0) -> Tensor:
    """`steps + 1` levels from 1 (noise) down to 0 (clean), float64, moved towards noise by `shift_by`."""
    if steps < 1:
        raise ValueError(f"a frame needs at least one denoising step, got {steps}")
    return shift(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift_by)


def staircase(steps: int, frames: int, *, lag: int, shift_by: float = 1.0) -> Tensor:
    """The matrix `(steps + lag (frames - 1) + 1, frames)` in which frame f starts `lag` rows after frame f -
    1.

    `lag` 0 denoises all frames together, `steps` one frame after another; in between is a pyramid.
    """
    if frames < 1:
        raise ValueError(f"a schedule needs at least one frame, got {frames}")
    if not 0 <= lag <= steps:
        raise ValueError(f"the lag must lie between 0 and the {steps} steps, got {lag}")
    rows = torch.arange(steps + lag * (frames - 1) + 1)
    done = rows[:, None] - lag * torch.arange(frames)[None, :]
    return sigma_grid(steps, shift_by=shift_by)[done.clamp(0, steps)]


def check_schedule(sigmas: Tensor) -> None:
    """ValueError naming the first thing wrong with a matrix: it must go from all noise to all clean, never
    upwards and never idle, and earlier frames must never be noisier than later ones."""
    if sigmas.ndim != 2 or sigmas.shape[0] < 2:
        raise ValueError(
            f"a schedule is a matrix (rows + 1, frames) with at least one step, got {tuple(sigmas.shape)}"
        )
    if not (sigmas[0] == 1).all():
        raise ValueError(f"the first row must be all noise (1), got {sigmas[0].tolist()}")
    if not (sigmas[-1] == 0).all():
        raise ValueError(f"the last row must be all clean (0), got {sigmas[-1].tolist()}")
    fall = sigmas[:-1] - sigmas[1:]
    if (fall < 0).any():
        row, frame = (fall < 0).nonzero()[0].tolist()
        raise ValueError(f"noise rises from row {row} to {row + 1} in frame {frame}")
    if (fall.amax(1) == 0).any():
        raise ValueError(f"row {int((fall.amax(1) == 0).nonzero()[0])} changes nothing")
    if (sigmas[:, :-1] > sigmas[:, 1:]).any():
        row, frame = (sigmas[:, :-1] > sigmas[:, 1:]).nonzero()[0].tolist()
        raise ValueError(f"in row {row} frame {frame} is noisier than frame {frame + 1}, which comes later")
