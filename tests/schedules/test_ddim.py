import itertools

import pytest
import torch

from dreamwalk.layers import vp
from dreamwalk.schedules.ddim import ddim_sigmas, ddim_timesteps


def test_euler_is_ddim() -> None:
    """For any network, here a fixed crooked function of sample and level."""
    y = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    steps, sigmas = [*ddim_timesteps(10).tolist(), None], ddim_sigmas(10)
    x = vp.to_flow(y, sigmas[0])
    for (k, following), (now, then) in zip(
        itertools.pairwise(steps), itertools.pairwise(sigmas), strict=True
    ):
        u, here = (3 * y + k).sin(), vp.abar()[k]
        there = torch.ones_like(here) if following is None else vp.abar()[following]
        clean, noise = here.sqrt() * y - (1 - here).sqrt() * u, (1 - here).sqrt() * y + here.sqrt() * u
        y = there.sqrt() * clean + (1 - there).sqrt() * noise
        sample = vp.to_vp(x, now)
        x = x + (then - now) * vp.flow_velocity(sample, (3 * sample + k).sin(), now)
    torch.testing.assert_close(x, y, atol=1e-11, rtol=0)


def test_timesteps_of_ddim() -> None:
    assert ddim_timesteps(10).tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert ddim_timesteps(16).tolist()[-4:] == [249, 186, 124, 61]
    sigmas = ddim_sigmas(10)
    assert len(sigmas) == 11 and sigmas[0].item() == pytest.approx(0.99945, abs=1e-5) and sigmas[-1] == 0
    with pytest.raises(ValueError, match="DDIM must be a whole number from 1 to 1000, got 0"):
        ddim_timesteps(0)
