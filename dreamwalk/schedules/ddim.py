"""The sigmas of DDIM on a VP schedule (arXiv 2010.02502), as sigmas of a flow."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamwalk.layers.vp import LEVELS, sigma_of
from dreamwalk.schedules.plans import check_range


def ddim_timesteps(steps: int) -> Tensor:
    """`steps` timesteps from 999 down, evenly spaced towards -1, which is clean and not among them; cut, not
    rounded, to integers: 999, 899, ..., 99 for ten."""
    check_range("the steps of DDIM", steps, 1, LEVELS)
    return torch.linspace(-1, LEVELS - 1, steps + 1)[1:].flip(0).long()


def ddim_sigmas(steps: int) -> Tensor:
    """`steps + 1` sigmas for Euler's method, float64: those of `ddim_timesteps`, then 0.

    The first is 0.99945, not 1: the schedule never quite loses the data.
    """
    return torch.cat([sigma_of(ddim_timesteps(steps)), torch.zeros(1, dtype=torch.float64)])
