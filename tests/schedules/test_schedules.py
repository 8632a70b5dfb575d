import itertools

import torch

from dreamwalk.schedules.flow import add_noise, logit_normal, shift
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.sigmas import shifted_sigmas


def test_euler_on_the_true_velocity_reaches_the_data() -> None:
    x, eps = torch.randn(2, 5, dtype=torch.float64)
    now = eps.clone()
    sigmas = shifted_sigmas(7, shift_by=3.0)
    for here, there in itertools.pairwise(sigmas):
        now = now + (there - here) * (eps - x)
    torch.testing.assert_close(now, x)


def test_shift_keeps_the_ends_and_inverts() -> None:
    sigma = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(shift(shift(sigma, 3.0), 1 / 3.0), sigma)
    assert shift(sigma, 3.0)[0] == 0
    assert shift(sigma, 3.0)[-1] == 1


def test_logit_normal_draws_are_in_range() -> None:
    sigma = logit_normal(torch.randn(1000))
    assert 0 < sigma.min() < 0.2 < 0.8 < sigma.max() < 1


def test_perturb_is_the_straight_path() -> None:
    x, eps = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    assert add_noise(x, eps, torch.tensor([[0.0, 0.25]]))[0, :, 0].tolist() == [0.0, 0.25]


def test_a_rows_noise_depends_on_its_key_alone() -> None:
    together = KeyedGenerator([(0, 5, 0), (0, 5, 1)]).normal(3, 4)
    alone = KeyedGenerator([(0, 5, 1)]).normal(3, 4)
    assert torch.equal(together[1:], alone)
    assert not torch.equal(together[0], together[1])
