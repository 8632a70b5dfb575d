"""Flow matching on the straight path between data and noise (arXiv 2210.02747; rectified flow, arXiv
2209.03003).

    x_sigma = (1 - sigma) x + sigma eps        v = dx_sigma / dsigma = eps - x

`sigma` is 0 for clean data and 1 for noise. Papers that write t = 1 for data mean t = 1 - sigma.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expand_like(sigma: Tensor, x: Tensor) -> Tensor:
    """`sigma` `(b, t)` with the trailing axes of `x` `(b, t, ...)`, to multiply it."""
    return sigma.reshape(*sigma.shape, *[1] * (x.ndim - sigma.ndim))


def add_noise(x: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """`x_sigma` for clean `x` and noise `eps` `(b, t, ...)` at `sigma` `(b, t)`."""
    sigma = expand_like(sigma, x)
    return (1 - sigma) * x + sigma * eps


def renoise(x: Tensor, eps: Tensor, low: float, high: float) -> Tensor:
    """`x` at sigma `low` taken to the higher sigma `high` with fresh noise, by the transition of the path:

    x_high = a x_low + b eps, a = (1 - high) / (1 - low), b^2 = high^2 - (a low)^2, so that both the share of
    the data and the variance of the noise are those of `high`.
    """
    share = (1 - high) / (1 - low)
    return share * x + (high**2 - (share * low) ** 2) ** 0.5 * eps


def denoised(x_sigma: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """Clean prediction of a velocity: `x = x_sigma - sigma v`."""
    return x_sigma - expand_like(sigma, x_sigma) * v


def rescale(x_sigma: Tensor, sigma: Tensor, v: Tensor, v_cond: Tensor, *, share: float) -> Tensor:
    """Guided `v` whose clean prediction has the standard deviation of that of `v_cond`, by a `share`.

    Guidance rescale (arXiv 2305.08891, section 3.4), on the clean prediction and not on the velocity.
    """
    x, cond = denoised(x_sigma, v, sigma), denoised(x_sigma, v_cond, sigma)
    axes = tuple(range(1, x.ndim))
    ratio = cond.std(axes, keepdim=True) / x.std(axes, keepdim=True).clamp(min=1e-6)
    x, sigma = x * (1 + share * (ratio - 1)), expand_like(sigma, x)
    return torch.where(sigma > 0, (x_sigma - x) / sigma.clamp(min=1e-6), v)


def shift(sigma: Tensor, factor: float) -> Tensor:
    """Move sigmas towards noise: `factor sigma / (1 + (factor - 1) sigma)` (SD3, arXiv 2403.03206, 5.3.2)."""
    return factor * sigma / (1 + (factor - 1) * sigma)


def logit_normal(normal: Tensor, *, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Sigmas whose logit is normal, from standard normal draws (SD3, section 3.1)."""
    return torch.sigmoid(mean + std * normal)
