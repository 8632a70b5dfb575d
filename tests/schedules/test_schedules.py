import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwalk.schedules.draws import Draws
from dreamwalk.schedules.flow import logit_normal, perturb, shift, snr_weight
from dreamwalk.schedules.sigmas import check_schedule, sigma_grid, staircase


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 20), frames=st.integers(1, 12), share=st.floats(0, 1), shift_by=st.floats(1, 5))
def test_every_staircase_is_a_schedule(steps: int, frames: int, share: float, shift_by: float) -> None:
    lag = round(share * steps)
    sigmas = staircase(steps, frames, lag=lag, shift_by=shift_by)
    check_schedule(sigmas)
    assert sigmas.shape == (steps + lag * (frames - 1) + 1, frames)
    falls = (sigmas[:-1] != sigmas[1:]).sum(0)
    assert (falls == steps).all()  # every frame takes every step, whatever the lag


def test_lag_of_all_steps_is_one_frame_after_another() -> None:
    moving = staircase(3, 4, lag=3).diff(dim=0) != 0
    assert (moving.sum(1) == 1).all()


def test_lag_zero_is_all_frames_together() -> None:
    sigmas = staircase(5, 3, lag=0)
    assert (sigmas == sigmas[:, :1]).all()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[1.0, 1.0]], "at least one step"),
        ([[1.0, 0.5], [0.0, 0.0]], "first row"),
        ([[1.0, 1.0], [0.0, 0.1]], "last row"),
        ([[1.0, 1.0], [0.0, 1.0], [0.5, 0.5], [0.0, 0.0]], "rises from row 1 to 2 in frame 0"),
        ([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]], "row 0 changes nothing"),
        ([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], "noisier than frame 1"),
    ],
)
def test_the_broken_rule_is_named(rows: list[list[float]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_schedule(torch.tensor(rows))


@pytest.mark.parametrize(("steps", "frames", "lag"), [(0, 1, 0), (4, 0, 1), (4, 2, 5), (4, 2, -1)])
def test_impossible_staircases_are_refused(steps: int, frames: int, lag: int) -> None:
    with pytest.raises(ValueError, match=r"at least one|between 0 and"):
        staircase(steps, frames, lag=lag)


def test_euler_on_the_true_velocity_reaches_the_data() -> None:
    x, eps = torch.randn(2, 5, dtype=torch.float64)
    now = eps.clone()
    grid = sigma_grid(7, shift_by=3.0)
    for here, there in itertools.pairwise(grid):
        now = now + (there - here) * (eps - x)
    torch.testing.assert_close(now, x)


def test_shift_keeps_the_ends_and_inverts() -> None:
    sigma = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(shift(shift(sigma, 3.0), 1 / 3.0), sigma)
    assert shift(sigma, 3.0)[0] == 0
    assert shift(sigma, 3.0)[-1] == 1


def test_levels_and_weights_are_in_range() -> None:
    sigma = logit_normal(torch.randn(1000))
    assert 0 < sigma.min() < 0.2 < 0.8 < sigma.max() < 1
    assert snr_weight(torch.tensor([0.0, 0.5, 1.0]), floor=0.5).tolist() == [4.0, 4.0, 1.0]


def test_perturb_is_the_straight_path() -> None:
    x, eps = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    assert perturb(x, eps, torch.tensor([[0.0, 0.25]]))[0, :, 0].tolist() == [0.0, 0.25]


def test_a_rows_noise_depends_on_its_key_alone() -> None:
    together = Draws([(0, 5, 0), (0, 5, 1)]).normal(3, 4)
    alone = Draws([(0, 5, 1)]).normal(3, 4)
    assert torch.equal(together[1:], alone)
    assert not torch.equal(together[0], together[1])
