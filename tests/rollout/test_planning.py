"""Guidance by a reward, against the exact tilted distribution of a Gaussian process."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from gaussian import FRAMES, TRUTH, Oracle, sigmas
from torch import Tensor

from dreamwalk.rollout.execute import KeyedNoise, ModelInput, execute
from dreamwalk.rollout.planning import Reward, RewardGuidance, foreseen
from dreamwalk.schedules.plans import MaskName, Plan
from dreamwalk.schedules.staircase import staircase

KEYED = KeyedNoise((1, 2), (1,))


def linear(x: Tensor) -> Tensor:
    """Log c = the last frame."""
    return x[:, -1].flatten(1).sum(1)


def near_two(curvature: float) -> Reward:
    return lambda x: -curvature / 2 * (x[:, -1] - 2).flatten(1).square().sum(1)


def noise(frame: int, use: int) -> Tensor:
    return KEYED(frame, use).double()


def guided(*, samples: int = 1, weight: float = 1.0, reward: Reward = linear) -> RewardGuidance:
    return RewardGuidance(Oracle(), reward, noise, weight, samples)


def moments(plan: Plan, reward: Reward) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance of what a plan dreams: as the map from noise to dream is affine, from its
    value at 0 and at every unit vector."""

    def unit(frame: int, use: int) -> Tensor:
        rows = torch.zeros(FRAMES + 1, 1).double()
        rows[frame + 1] = 1.0
        return rows

    dreamt = execute(plan, RewardGuidance(Oracle(), reward, unit, cap=1e6), unit)[..., 0]
    linear_part = dreamt[1:] - dreamt[0]
    return dreamt[0], linear_part.T @ linear_part


def ready(steps: int, lag: int, mask: MaskName = "bidirectional") -> Plan:
    return foreseen(staircase(sigmas(steps), FRAMES, lag=lag, mask=mask))


@pytest.mark.parametrize("lag", [0, 8])
def test_a_linear_reward_becomes_an_exact_tilt_with_more_steps(lag: int) -> None:
    """exp(w x_T) moves the mean by the covariance with x_T and leaves the covariance as it is."""
    errors = []
    for steps in (8, 32):
        mean, covariance = moments(ready(steps, lag), linear)
        errors.append([float((mean - TRUTH[:, -1]).abs().max()), float((covariance - TRUTH).abs().max())])
    assert all(fine < coarse / 1.8 and fine < 0.15 for coarse, fine in zip(*errors, strict=True))


def test_a_quadratic_reward_moves_mean_and_covariance_towards_the_posterior() -> None:
    """Known to be too strong, so a little more certain than the truth, but nearer to it than before."""
    curvature = 0.5
    gain = TRUTH[:, -1] * curvature / (1 + curvature)
    mean, covariance = 2 * gain, TRUTH - gain[:, None] * TRUTH[-1][None]
    found_mean, found = moments(ready(32, 4), near_two(curvature))
    assert (found_mean - mean).norm() < 0.35 * mean.norm()
    assert (found - covariance).norm() < 0.6 * (TRUTH - covariance).norm()
    assert float(found[-1, -1]) < float(covariance[-1, -1])


def test_no_weight_changes_nothing() -> None:
    plan = ready(8, 2)
    plain = execute(plan, Oracle(), noise)
    assert torch.equal(execute(plan, guided(weight=0.0, samples=4), noise), plain)
    zero = execute(plan, guided(reward=lambda x: 0 * linear(x), samples=4), noise)
    torch.testing.assert_close(zero, plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mask", ["bidirectional", "causal"])
def test_foreseen_plans_read_what_waits_and_dream_the_same(mask: MaskName) -> None:
    """What is pure noise tells nothing, so reading it costs time and changes nothing."""
    plan = staircase(sigmas(8), FRAMES, lag=3, mask=mask)
    wide = foreseen(plan)
    assert all(len(row.reads[0].slots) == FRAMES for row in wide.rows)  # type: ignore[union-attr]
    assert wide.levels == plan.levels and wide.approximate == plan.approximate
    torch.testing.assert_close(execute(wide, Oracle(), noise), execute(plan, Oracle(), noise))


def look(sigmas: tuple[float, ...]) -> ModelInput:
    """A pyramid under way: the second of two known frames' followers moves first."""
    x = torch.randn(2, len(sigmas), 1, generator=torch.Generator().manual_seed(0)).double()
    moves = tuple(0 < s < 1 for s in sigmas)
    return ModelInput(x, sigmas, tuple(range(len(sigmas))), (0,) * len(sigmas), moves=moves)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_gradients_reach_earlier_frames_and_no_graph_is_left(mode: Callable[[], torch.no_grad]) -> None:
    here = look((0.0, 0.3, 0.6, 1.0))
    with mode():
        pull = guided()([replace(here, x=here.x.clone())])[0] - Oracle()([here])[0]
    assert not pull.requires_grad
    assert (pull[:, 1] < -1e-3).all() and (pull[:, 2] < -1e-3).all()  # v is subtracted: the frames rise
    assert not pull[:, 0].any() and not pull[:, 3].any()


def test_more_samples_are_less_chance() -> None:
    """Of one state, the spread of the pull over many draws of the future."""
    here = look((0.0, 0.1, 0.7, 0.9, 1.0))
    here = replace(here, x=here.x[:1].repeat(256, 1, 1))
    many = KeyedNoise(tuple(range(256)), (1,))

    def pull(samples: int) -> Tensor:
        futures = RewardGuidance(
            Oracle(), lambda x: x[:, -1, 0].pow(3), lambda f, u: many(f, u).double(), 1.0, samples
        )
        return futures([here])[0][:, 1, 0]

    pulls = {n: pull(n) for n in (1, 3, 9)}
    assert pulls[1].var() < 1e-20  # the first future is that of the walk itself
    # n - 1 of n are drawn, so the variance goes as (n - 1) / n^2: 0.22 and 0.099
    assert float(pulls[9].var() / pulls[3].var()) == pytest.approx(0.099 / 0.222, rel=0.35)
    assert torch.equal(pulls[3], pull(3))


def test_a_full_sequence_has_no_future_to_draw() -> None:
    plans = [execute(ready(4, 0), guided(samples=n, reward=near_two(1.0)), noise) for n in (1, 8)]
    assert torch.equal(*plans)


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="one future at least, got 0"):
        guided(samples=0)
    with pytest.raises(ValueError, match="above 0"):
        RewardGuidance(Oracle(), linear, noise, cap=0.0)
    with pytest.raises(ValueError, match="must be a finite number, got nan"):
        guided(weight=float("nan"))
    with pytest.raises(ValueError, match="one number a row"):
        guided(reward=lambda x: x.sum())([look((0.0, 0.5))])
