import pytest
import torch

from dreamwalk.layers import vp
from dreamwalk.schedules.flow import add_noise

ALL = torch.arange(vp.LEVELS)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    x, eps = torch.randn(2, 1, vp.LEVELS, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, eps


def test_the_schedule_of_noise() -> None:
    """The share of data falls from nearly one, is a half in the middle, and is cut at the very end."""
    share = vp.abar()
    assert share.dtype == torch.float64 and (share.diff() < 0).all()
    assert share[0] > 0.9995 and share[499] == pytest.approx(0.5, abs=1e-9)
    assert share[999] / share[998] == pytest.approx(0.001)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_timestep_has_a_level_of_its_own(dtype: torch.dtype) -> None:
    sigma = vp.sigma_of(ALL).to(dtype)
    assert (sigma.diff() > 0).all() and sigma[0] > 0 and sigma[-1] < 1
    assert torch.equal(vp.timestep_of(sigma), ALL)
    assert vp.timestep_of(torch.tensor([0.0, 1.0], dtype=dtype)).tolist() == [0, 999]


def test_a_flow_sample_is_a_vp_sample_of_another_scale() -> None:
    (x, eps), sigma, share = pair(), vp.sigma_of(ALL), vp.abar()[:, None]
    y = share.sqrt() * x + (1 - share).sqrt() * eps
    flowing = add_noise(x, eps, sigma[None])
    torch.testing.assert_close(vp.to_vp(flowing, sigma[:, None]), y, atol=1e-12, rtol=0)
    torch.testing.assert_close(vp.to_flow(y, sigma[:, None]), flowing, atol=1e-12, rtol=0)


def test_velocities_of_both_kinds_are_one() -> None:
    (x, eps), sigma = pair(), vp.sigma_of(ALL)[:, None]
    alpha, s = vp.alpha_s(sigma)
    v = vp.flow_velocity(alpha * x + s * eps, alpha * eps - s * x, sigma)
    torch.testing.assert_close(v, eps - x, atol=1e-12, rtol=0)
