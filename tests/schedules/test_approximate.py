"""What `Plan.approximate` says, against the exact denoiser of a Gaussian process."""

from collections.abc import Callable

import pytest
from gaussian import FRAMES, LONG, error, sigmas
from published_schedules import keyframes, resampled, rolling, trapezoid

from dreamwalk.schedules.clip_plans import overlapped, recalled
from dreamwalk.schedules.plans import Plan
from dreamwalk.schedules.staircase import staircase

Makes = Callable[[int], Plan]


@pytest.mark.parametrize(
    "make",
    [
        lambda s: staircase(sigmas(s), FRAMES, lag=s),
        lambda s: staircase(sigmas(s), FRAMES, lag=s, window=FRAMES),
        lambda s: staircase(sigmas(s), FRAMES, lag=s // 3, mask="bidirectional", window=FRAMES),
        lambda s: staircase(sigmas(s), FRAMES, lag=s, chunk=2, mask="block"),
        lambda s: staircase(sigmas(s), 4, lag=s, chunk=2, history=2, mask="block"),
        lambda s: rolling(sigmas(s), 1, lag=s // 2, history=4),
        lambda s: trapezoid(sigmas(s), FRAMES, lag=s // 4),
        lambda s: resampled(sigmas(s), 4, jump=s // 2, times=1, history=2),
        lambda s: recalled(staircase(sigmas(s), 3, lag=s), [0, 1], at=3),
    ],
)
def test_plans_that_name_no_approximation_are_exact(make: Makes) -> None:
    """Of frames each of which tells something that no other does, in the limit of many steps."""
    few, many = (error(make(steps), draws=64, truth=LONG) for steps in (32, 128))
    assert not make(8).approximate and many < few / 3 < 0.04


@pytest.mark.parametrize(
    ("make", "markov", "long"),
    [
        (lambda s: staircase(sigmas(s), FRAMES, lag=s, window=1), 0.9, 0.5),
        (lambda s: staircase(sigmas(s), FRAMES, lag=s, window=1, mask="bidirectional"), 0.9, 0.5),
        (lambda s: staircase(sigmas(s), FRAMES, lag=s, window=2, mask="bidirectional"), 0, 0.138),
        (lambda s: staircase(sigmas(s), FRAMES, lag=s // 2, window=2, mask="bidirectional"), 0.523, 0.219),
        (lambda s: staircase(sigmas(s), FRAMES, lag=s, window=3, mask="bidirectional"), 0, 0.088),
        (lambda s: staircase(sigmas(s), FRAMES, lag=s, window=2), 0, 0.138),
        (lambda s: staircase(sigmas(s), FRAMES, lag=s, chunk=2, window=4, mask="block"), 0, 0.061),
        (lambda s: rolling(sigmas(s), 4, lag=s // 2, history=1), 0, 0.097),
        (lambda s: rolling(sigmas(s), 4, lag=s // 2), 0.505, 0.219),
        (lambda s: overlapped(sigmas(s), FRAMES, clip=3, overlap=0, level=1), 0.9, 0.5),
        (lambda s: keyframes(sigmas(s), 5, every=2), 0, 0.074),
        (lambda s: staircase(sigmas(s), FRAMES, lag=s, history_sigma=0.4), 0.283, 0.157),
    ],
)
def test_plans_that_forget_err_and_say_so(make: Makes, markov: float, long: float) -> None:
    """However many steps are taken. What the last frame alone decides, no short window can lose."""
    plan = make(256)
    assert plan.approximate
    assert error(plan, draws=64) == pytest.approx(markov, abs=0.015)
    assert error(plan, draws=64, truth=LONG) == pytest.approx(long, abs=0.01)
