"""Sigmas of sampling: the noise levels of a frame or a clip from pure noise to clean."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.schedules.ddim import ddim_sigmas
from dreamwalk.schedules.flow import shift
from dreamwalk.schedules.plans import check_range


def shifted_sigmas(steps: int, *, shift_by: float = 1.0) -> Tensor:
    """`steps + 1` even sigmas from 1 down to 0, float64, moved towards noise by `shift_by` (`flow.shift`)."""
    check_range("steps", steps, 1)
    return shift(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift_by)


Spacing = Literal["linear", "shifted", "linear-quadratic"]
"""Evenly, moved towards noise, or first in small even steps, then in growing ones."""


def linear_quadratic_sigmas(steps: int, *, emulated: int = 1000) -> Tensor:
    """`steps + 1` sigmas from 1 down to 0, float64: the first half is that of `emulated` linear steps, the
    steps of the second grow quadratically (Movie Gen, arXiv 2410.13720, section 3.4.2, with 25 and 25 steps).

    UserError for an odd or too small number of steps.
    """
    check_range("steps", steps, 1)
    if steps < 2 or steps % 2:
        raise UserError(f"a linear-quadratic spacing has an even number of steps: take {max(2, steps + 1)}")
    half, end = steps // 2, steps / 2 / emulated
    rest = 1 - end * 2
    i = torch.arange(half + 1, dtype=torch.float64)
    even = i / emulated
    growing = end + i / emulated + rest * (i / half) ** 2
    return 1 - torch.cat([even[:-1], growing])


def spaced_sigmas(spacing: Spacing, steps: int, *, shift_by: float) -> list[float]:
    """Sigmas by their spacing; `shift_by` is for `shifted`."""
    if spacing == "linear-quadratic":
        return linear_quadratic_sigmas(steps).tolist()
    return shifted_sigmas(steps, shift_by=shift_by if spacing == "shifted" else 1.0).tolist()


@lru_cache(maxsize=64)
def rising_sigmas(spacing: Literal["shifted", "ddim"], steps: int, *, shift_by: float) -> tuple[float, ...]:
    """Those of frames, from clean to noise."""
    sigmas = ddim_sigmas(steps) if spacing == "ddim" else shifted_sigmas(steps, shift_by=shift_by)
    return tuple(reversed(sigmas.tolist()))
