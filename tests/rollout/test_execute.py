"""Plans walked with the exact denoiser of a Gaussian process: no network, so what is wrong is the plan."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from gaussian import FRAMES, RHO, Basis, Oracle, alone, each, error, sigmas
from torch import Tensor
from toy import Toy, toy_system

from dreamwalk.backbones.frame_backbone import FrameInputs
from dreamwalk.clip import batch
from dreamwalk.rollout.execute import KeyedNoise, ModelInput, Update, execute, heun, multistep
from dreamwalk.rollout.frame_predictor import CachedFramePredictor, FramePredictor
from dreamwalk.schedules import guidance
from dreamwalk.schedules.guidance import Guide, guided, unguided
from dreamwalk.schedules.plans import Branch, ForwardSpec, Fuse, Pass, Plan, Renoise
from dreamwalk.schedules.sigmas import shifted_sigmas
from dreamwalk.schedules.staircase import staircase


@pytest.mark.parametrize(
    ("lag", "expected"), [(0, (0.327, 0.093, 0.024)), (1, (0.295, 0.091, 0.024)), (99, (0.310, 0.088, 0.023))]
)
def test_when_frames_see_all_others_every_schedule_converges(
    lag: int, expected: tuple[float, float, float]
) -> None:
    found = [error(staircase(sigmas(s), FRAMES, lag=min(lag, s), mask="bidirectional")) for s in (8, 32, 128)]
    assert found == pytest.approx(expected, abs=0.012)
    assert found[2] < found[1] / 3 < found[0] / 6


@pytest.mark.parametrize(("share", "bias"), [(0.0, 0.46), (0.25, 0.206), (0.5, 0.08), (1.0, 0.023)])
def test_a_causal_mask_is_exact_only_frame_after_frame(share: float, bias: float) -> None:
    plan = staircase(sigmas(128), FRAMES, lag=int(share * 128))
    assert error(plan) == pytest.approx(bias, abs=0.02)
    assert bool(plan.approximate) == (share < 1)


def test_chunks_one_after_another_are_exact() -> None:
    plan = staircase(sigmas(128), FRAMES, lag=128, chunk=2, mask="block")
    assert not plan.approximate and error(plan) < 0.03


def test_history_shown_a_little_noisy_costs_a_little() -> None:
    exact = error(staircase(sigmas(128), FRAMES, lag=128))
    shown = [error(staircase(sigmas(128), FRAMES, lag=128, history_sigma=c)) for c in (0.02, 0.4)]
    assert shown[0] == pytest.approx(exact, abs=0.005)
    assert shown[1] == pytest.approx(0.283, abs=0.03)


@pytest.mark.parametrize("update", [heun, multistep])
def test_second_order_solvers_converge_faster(update: Update) -> None:
    plan = staircase(sigmas(24), FRAMES, lag=6, mask="bidirectional")
    assert error(plan, update) < error(plan) / 4


def in_turns(steps: int) -> Plan:
    """Frames with even numbers move, then those with odd ones: each rests while the others move."""
    slots, rising, levels, rows = (
        tuple(range(FRAMES)),
        tuple(reversed(sigmas(steps))),
        [(steps,) * FRAMES],
        [],
    )
    for row in range(2 * steps):
        shown = tuple(rising[level] for level in levels[-1])
        rows.append(Pass((ForwardSpec(slots, shown, (0,) * FRAMES),)))
        levels.append(tuple(level - (p % 2 == row % 2) for p, level in enumerate(levels[-1])))
    return Plan(rising, slots, (False,) * FRAMES, tuple(levels), tuple(rows))


@pytest.mark.parametrize("update", [heun, multistep])
@pytest.mark.parametrize(
    "make", [in_turns, lambda s: staircase(sigmas(s), FRAMES, lag=s // 4, mask="bidirectional")]
)
def test_second_order_solvers_are_of_second_order(make: Callable[[int], Plan], update: Update) -> None:
    """Twice the steps leave a quarter of the error, also where frames rest between two moves."""
    few, many = (error(make(steps), update) for steps in (16, 32))
    assert many < few / 3.5 and many < 0.003


def test_a_step_that_goes_on_as_before_needs_one_pass() -> None:
    """Two where a frame has rested, of which a staircase has none."""
    stairs, turns = Oracle(), Oracle()
    plan = staircase(sigmas(8), FRAMES, lag=2, mask="bidirectional")
    execute(plan, stairs, Basis(), update=multistep)
    execute(in_turns(8), turns, Basis(), update=multistep)
    assert stairs.calls == len(plan.rows)
    assert turns.calls == 2 * 16 - 3  # the first row, and the last two, which end clean


def test_known_frames_stay_as_they_are_and_are_obeyed() -> None:
    plan = staircase(sigmas(64), 2, lag=64, history=2)
    given = torch.tensor([[[1.0], [2.0]]]).double()
    basis = Basis()
    still = execute(plan, Oracle(), lambda frame, use: 0 * basis(frame, use)[:1], given=given)
    assert torch.equal(still[:, :2], given)
    assert still[0, 2:, 0].tolist() == pytest.approx([2 * RHO, 2 * RHO**2], abs=0.05)


def test_all_known_is_returned_bit_for_bit() -> None:
    read = ForwardSpec((0, 1), (0.0, 0.0), (0, 1))
    plan = Plan((0.0, 1.0), (0, 1), (True, True), ((0, 0), (0, 0)), (Pass((read,), commit=(0, 1)),))
    given = torch.randn(2, 2, 3)
    assert torch.equal(execute(plan, alone, KeyedNoise((0, 1), (3,)), given=given), given)


def test_branches_are_mixed_before_the_step() -> None:
    """Guidance with weights 1.5 and -0.5 on a linear model is a linear mix of velocities."""
    plan = guided(staircase(sigmas(8), 1, lag=8, history=1), guidance.history(1.5))
    seen: list[float] = []

    def predict(branch: ModelInput) -> Tensor:
        seen.append(branch.input_sigma[0])
        return branch.x + branch.input_sigma[0]  # a velocity that tells the level of the history

    noise = KeyedNoise((3,), (1,))
    dreamt = execute(plan, each(predict), noise, given=torch.zeros(1, 1, 1))[0, 1, 0]
    x = float(noise(1, 0))
    for _ in range(8):
        x -= (x + 1.5 * 0.0 - 0.5 * 1.0) / 8
    assert float(dreamt) == pytest.approx(x, abs=1e-6) and set(seen) == {0.0, 1.0}


@pytest.mark.parametrize(("weight", "asked"), [(1.0, [(True,)]), (0.0, [(False,)]), (2.0, [(True, False)])])
def test_the_branches_of_a_read_are_asked_for_together(weight: float, asked: list[tuple[bool, ...]]) -> None:
    """Those without a weight are not asked for."""
    found = []

    def predictor(branches: Sequence[ModelInput]) -> list[Tensor]:
        found.append(tuple(branch.conditional for branch in branches))
        return [branch.x for branch in branches]

    plan = guided(staircase(sigmas(1), 1, lag=1), guidance.conditions(weight))
    execute(plan, predictor, KeyedNoise((3,), (1,)))
    assert found == asked


def test_history_guidance_of_one_is_no_guidance() -> None:
    plans = [
        guided(staircase(sigmas(8), 3, lag=8, history=2), g)
        for g in (guidance.history(1.0), lambda _: (Branch(),))
    ]
    given = torch.tensor([[[0.3], [-1.0]]]).double()
    basis = Basis()
    one, none = (execute(p, Oracle(), lambda f, u: basis(f, u)[:1], given=given) for p in plans)
    torch.testing.assert_close(one, none)


def test_noise_does_not_depend_on_the_batch_or_the_window() -> None:
    far, near = KeyedNoise((1, 2, 3, 4), (2,)), KeyedNoise((1, 2), (2,))
    assert torch.equal(far(5, 0)[:2], near(5, 0))
    plans = [staircase(sigmas(5), 4, lag=lag, window=w) for lag, w in ((5, 0), (5, 1), (2, 3), (0, 4))]
    dreams = [execute(plan, alone, far) for plan in plans]
    assert all(torch.allclose(dream, dreams[0], atol=1e-6) for dream in dreams)


def test_clips_that_overlap_are_drawn_anew_and_fused() -> None:
    """Two clips of two frames share frame 1: the second copy starts from the first, they end as one."""
    one, a, b = (
        (0.0, 0.5, 1.0),
        ForwardSpec((0, 1), (1.0, 1.0), (0, 0)),
        ForwardSpec((0, 1), (0.5, 0.5), (0, 0)),
    )
    c, d = ForwardSpec((2, 3), (0.5, 1.0), (0, 0)), ForwardSpec((2, 3), (0.5, 0.5), (0, 0))
    levels = (
        (2, 2, 2, 2),
        (1, 1, 2, 2),
        (0, 0, 2, 2),
        (0, 0, 1, 2),
        (0, 0, 1, 1),
        (0, 0, 0, 0),
        (0, 0, 0, 0),
    )
    rows = (Pass((a,)), Pass((b,)), Renoise((2,), (1,)), Pass((c,)), Pass((d,)), Fuse((1, 2)))
    with pytest.raises(ValueError, match="slot 2 to a level that is not higher"):
        Plan(one, (0, 1, 1, 2), (False,) * 4, (*levels[:3], (0, 0, 0, 2), *levels[4:]), rows)
    plan = Plan(one, (0, 1, 1, 2), (False,) * 4, levels, rows)
    dreamt = execute(plan, Oracle(), Basis())[..., 0]
    assert torch.equal(dreamt[:, 1], dreamt[:, 2])
    assert plan.show().splitlines()[-1].count("=") == 2 and plan.show().splitlines()[4].count("^") == 1


def test_drawing_anew_and_denoising_keeps_the_distribution() -> None:
    """Resampling: down, up again, down; the marginal stays that of the data."""
    steps = 128
    line = staircase(sigmas(steps), 1, lag=0, mask="bidirectional")
    half = steps // 2
    levels = (*line.levels, (half,), *line.levels[steps - half + 1 :])
    rows = (*line.rows, Renoise((0,), (0,)), *line.rows[steps - half :])
    plan = Plan(line.sigmas, line.frames, line.given, levels, rows)
    dreamt = execute(plan, Oracle(), Basis())[..., 0]
    assert float((dreamt.T @ dreamt).squeeze()) == pytest.approx(1.0, abs=0.02)


def test_the_real_time_path_is_the_same_plan_on_a_cache() -> None:
    """One frame after another: sessions with their ring cache give what the plan gives without one."""
    system, frames = toy_system(), 4
    actions = torch.randn(1, frames, 7)
    start = next(iter(Toy(clip_frames=1).clips(range(1))))
    clip = replace(batch([start]), actions=actions[:, :1])
    session = system.begin(clip, seed=5)
    walked = [system.encode(clip)] + [system.advance(session, actions[:, i]) for i in range(1, frames)]

    def script(frames: Sequence[int]) -> FrameInputs:
        return FrameInputs(system.actions(actions[:, list(frames)]))

    levels = shifted_sigmas(system.config.steps, shift_by=system.config.shift).tolist()
    plan = staircase(levels, frames - 1, lag=system.config.steps, history=1, history_sigma=0.02)
    noise = KeyedNoise((5,), session.shape)
    with torch.inference_mode():
        planned = execute(plan, FramePredictor(system.backbone, script), noise, given=walked[0])
    torch.testing.assert_close(planned, torch.cat(walked, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("guide", [unguided, guidance.history(1.5), guidance.conditions(2.0)])
@pytest.mark.parametrize(("lag", "chunk", "window"), [(3, 1, 0), (3, 2, 0), (1, 1, 0), (3, 1, 3)])
def test_cached_is_uncached_wherever_nothing_was_forgotten(
    lag: int, chunk: int, window: int, guide: Guide
) -> None:
    system, actions = toy_system(), torch.randn(2, 7, 7)
    for parameter in system.parameters():
        torch.nn.init.normal_(parameter, std=0.2)

    def script(frames: Sequence[int]) -> FrameInputs:
        return FrameInputs(system.actions(actions[:, list(frames)]))

    plan = staircase(
        sigmas(3), 5, lag=lag, chunk=chunk, history=2, window=window, history_sigma=0.05, mask="block"
    )
    plan = guided(plan, guide)
    noise, reader = KeyedNoise((1, 2), (16, 4, 4)), CachedFramePredictor(system.backbone, script)
    given = torch.randn(2, 2, 16, 4, 4)
    with torch.inference_mode():
        plain, cached = (
            execute(plan, r, noise, given=given) for r in (FramePredictor(system.backbone, script), reader)
        )
    forgot = any("forgot" in reason for reason in plan.approximate)
    assert forgot == bool(window)
    difference = float((plain - cached).abs().max() / plain.abs().max())
    assert difference > 1e-4 if forgot else difference < 1e-5
    assert reader.kept
