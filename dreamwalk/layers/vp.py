"""Variance-preserving diffusion seen as flow matching: one change of scale and of clock.

    y_k = alpha x + s eps     alpha^2 = abar_k, s^2 = 1 - abar_k      VP (DDPM, arXiv 2006.11239)
    u   = alpha eps - s x                                             what a v-predicting network gives
                                                                      (arXiv 2202.00512, appendix D)
    x_sigma = y_k / (alpha + s) = (1 - sigma) x + sigma eps           sigma = s / (alpha + s)
    v = eps - x = (s - alpha) y_k + (alpha + s) u

So a network of the one kind is a network of the other, and DDIM without noise (arXiv 2010.02502) is Euler's
method: both hold x and eps of a step fixed. `alpha` and `s` follow from sigma alone; only a timestep k, the
label that a network was trained with, needs the schedule of noise. That schedule is the sigmoid one (arXiv
2212.11972, figure 8) from -3 to 3 on 1000 levels, of which the last is cut to abar_999 = abar_998 / 1000.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

LEVELS = 1000
LOW, HIGH = 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))


@cache
def abar() -> Tensor:
    """Share of the data's variance at each timestep, `(1000,)` float64, falling."""
    clock = torch.arange(LEVELS + 1, dtype=torch.float64, device="cpu") / LEVELS
    share = (HIGH - (6 * clock - 3).sigmoid()) / (HIGH - LOW)
    return (share[1:] / share[:-1]).clamp(min=0.001).cumprod(0)


def sigma_of(timestep: Tensor) -> Tensor:
    """Flow level of integer timesteps, float64."""
    alpha, s = (share.sqrt() for share in (abar()[timestep.cpu()], 1 - abar()[timestep.cpu()]))
    return (s / (alpha + s)).to(timestep.device)


def timestep_of(sigma: Tensor) -> Tensor:
    """The timestep whose level is nearest on the schedule's clock, int64: the inverse of `sigma_of`.

    In closed form, so that it holds no table and compiles; 0 at sigma 0, and 999 at sigma 1.
    """
    alpha, _ = alpha_s(sigma if sigma.dtype == torch.float64 else sigma.float())
    value = HIGH - (HIGH - LOW) * alpha.square()
    clock = ((value / (1 - value)).log() + 3) / 6
    return (LEVELS * clock - 1).round().long().clamp(0, LEVELS - 1)


def alpha_s(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """`(alpha, s)` at a flow level, with alpha^2 + s^2 = 1."""
    return (1 - sigma) / length(sigma), sigma / length(sigma)


def length(sigma: Tensor) -> Tensor:
    """Of a flow sample against its VP sample: hypot(1 - sigma, sigma), spelt out for ONNX, which lacks it."""
    return ((1 - sigma).square() + sigma.square()).sqrt()


def to_vp(x_sigma: Tensor, sigma: Tensor) -> Tensor:
    """The VP sample of a flow sample; `sigma` must broadcast."""
    return x_sigma / length(sigma)


def to_flow(y: Tensor, sigma: Tensor) -> Tensor:
    """The flow sample of a VP sample."""
    return y * length(sigma)


def flow_velocity(y: Tensor, u: Tensor, sigma: Tensor) -> Tensor:
    """`v = eps - x` from a VP sample and its VP velocity."""
    alpha, s = alpha_s(sigma)
    return (s - alpha) * y + (alpha + s) * u
