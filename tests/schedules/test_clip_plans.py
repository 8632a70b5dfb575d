"""Plans of published methods: their shape for all sizes, and what they dream with an exact denoiser."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from gaussian import FRAMES, RHO, Basis, Oracle, alone, covariance, each, error, sigmas
from hypothesis import given, settings
from hypothesis import strategies as st
from published_schedules import keyframes, resampled, rolling, stitched, trapezoid
from torch import Tensor
from toy import toy_system

from dreamwalk.backbones.frame_backbone import FrameInputs
from dreamwalk.rollout.execute import KeyedNoise, ModelInput, execute
from dreamwalk.rollout.frame_predictor import CachedFramePredictor, FramePredictor
from dreamwalk.schedules import guidance
from dreamwalk.schedules.clip_plans import overlapped, recalled
from dreamwalk.schedules.plans import Branch, ForwardSpec, Fuse, Pass, Plan, Renoise
from dreamwalk.schedules.staircase import staircase

sizes = settings(max_examples=40, deadline=None)
Makes = Callable[[int], Plan]


def moves(plan: Plan) -> list[int]:
    """How often each slot moves; each time by one level, so that between renoises it visits each once."""
    passes = [index for index, row in enumerate(plan.rows) if isinstance(row, Pass)]
    for index in passes:
        assert all(plan.levels[index][p] - plan.levels[index + 1][p] == 1 for p in plan.moving[index])
    return [sum(p in plan.moving[index] for index in passes) for p in range(len(plan.frames))]


def reads(plan: Plan) -> list[tuple[ForwardSpec, ...]]:
    """Of every pass."""
    return [row.reads for row in plan.rows if isinstance(row, Pass)]


@sizes
@given(steps=st.integers(1, 8), frames=st.integers(1, 9), share=st.floats(0, 1))
def test_a_trapezoid_is_symmetric_and_denoises_every_frame(steps: int, frames: int, share: float) -> None:
    lag = round(share * steps)
    plan = trapezoid(sigmas(steps), frames, lag=lag)
    assert moves(plan) == [steps] * frames and len(plan.rows) == steps + lag * ((frames - 1) // 2)
    for line in plan.levels:
        half = line[: (frames + 1) // 2]
        assert line == line[::-1] and list(half) == sorted(half)
    assert not plan.open and not any(plan.given) and not plan.approximate


@sizes
@given(
    steps=st.integers(1, 8),
    frames=st.integers(1, 6),
    share=st.floats(0, 1),
    history=st.integers(0, 2),
    window=st.sampled_from([0, 2, 3, 4, 8]),
)
def test_a_queue_lets_out_a_frame_every_few_rows(
    steps: int, frames: int, share: float, history: int, window: int
) -> None:
    lag = max(1, round(share * steps))
    plan = rolling(sigmas(steps), frames, lag=lag, history=history, window=window)
    width = -(-steps // lag)
    warm = tuple(lag * (p + 1) for p in range(width - 1))
    assert plan.levels[0][history:] == warm + (steps,) * frames
    assert plan.levels[-1] == (0,) * (history + frames) + warm
    assert sum(plan.given) == history + width - 1 and plan.open == (width > 1)
    assert all(list(line) == sorted(line) for line in plan.levels)
    assert moves(plan) == [a - b for a, b in zip(plan.levels[0], plan.levels[-1], strict=True)]
    out = [sum(level == 0 for level in line) - history for line in plan.levels]
    if not window:
        assert out == [m // lag for m in range(lag * frames + 1)]
    touched: set[int] = set()
    for row, (read,) in enumerate(reads(plan)):
        moving = set(plan.moving[row])
        touched = set() if max(moving) >= max(touched, default=-1) else touched
        assert not touched & set(read.slots)  # all of a tick read what was there before it
        touched |= moving
        assert len(read.slots) <= (window or history + width)


@sizes
@given(
    steps=st.integers(1, 6),
    clip=st.integers(1, 5),
    overlap=st.integers(0, 4),
    clips=st.integers(1, 3),
    level=st.integers(1, 6),
    smooth=st.integers(0, 5),
)
def test_clips_that_overlap(steps: int, clip: int, overlap: int, clips: int, level: int, smooth: int) -> None:
    overlap, level, smooth = overlap % clip, 1 + level % steps, smooth % steps
    frames = clip + (clips - 1) * (clip - overlap)
    plan = overlapped(sigmas(steps), frames, clip=clip, overlap=overlap, level=level, smooth=smooth)
    assert set(plan.frames) == set(range(frames)) and len(plan.frames) == clip * clips
    last = {frame: p for p, frame in enumerate(plan.frames)}
    drawn = {p for row in plan.rows if isinstance(row, Renoise) for p in row.slots if p not in row.sources}
    assert len(drawn) == overlap * (clips - 1) == sum(isinstance(row, Fuse) for row in plan.rows)
    extra = [smooth if p in last.values() else 0 for p in range(len(plan.frames))]
    assert moves(plan) == [(level if p in drawn else steps) + extra[p] for p in range(len(plan.frames))]
    assert all(len(read.slots) == clip for row in reads(plan) for read in row)
    dream = execute(plan, each(lambda branch: branch.x.sin()), KeyedNoise((1,), (2,)))
    for a, b in (row.slots for row in plan.rows if isinstance(row, Fuse)):
        settled = smooth or overlap > clip / 2  # the copies go on or are fused with another
        assert settled or torch.equal(dream[:, a], dream[:, b])


@sizes
@given(steps=st.integers(1, 6), window=st.integers(1, 5), overlap=st.integers(0, 4), count=st.integers(1, 4))
def test_stitched_windows_cover_all(steps: int, window: int, overlap: int, count: int) -> None:
    overlap %= window
    frames = window + (count - 1) * (window - overlap)
    plan = stitched(sigmas(steps), frames, window=window, overlap=overlap)
    assert moves(plan) == [steps] * frames and len(plan.rows) == steps
    assert all(len(row) == count for row in reads(plan))
    assert bool(plan.approximate) == (count > 1)


@sizes
@given(steps=st.integers(1, 6), every=st.integers(1, 4), gaps=st.integers(0, 3), known=st.integers(0, 4))
def test_keyframes_come_first(steps: int, every: int, gaps: int, known: int) -> None:
    known %= gaps + 2
    plan = keyframes(sigmas(steps), every * gaps + 1, every=every, known=known, key_sigma=0.02)
    keys = range(0, every * gaps + 1, every)
    assert moves(plan) == [0 if p in keys[:known] else steps for p in plan.frames]
    for line in plan.levels:
        assert all(line[k] == 0 for k in keys) or all(line[p] == steps for p in plan.frames if p % every)
    for row in reads(plan):
        for read in row:
            assert len(read.slots) <= max(gaps + 1, every + 1)
            between = any(p % every for p in read.slots)
            assert not between or read.input_sigma[0] == read.input_sigma[-1] == 0.02
    rows = steps * ((known <= gaps) + (every > 1 and gaps > 0))
    assert len(plan.rows) == rows


@sizes
@given(
    frames=st.integers(1, 3),
    times=st.integers(0, 3),
    history=st.integers(0, 2),
    jump=st.integers(1, 4),
    jumps=st.integers(1, 4),
    above=st.integers(0, 3),
)
def test_resampling_goes_up_and_down(
    frames: int, times: int, history: int, jump: int, jumps: int, above: int
) -> None:
    begin = jump * jumps
    steps = max(begin + above, jump + 1)
    plan = resampled(sigmas(steps), frames, jump=jump, times=times, begin=begin, history=history)
    ups = times * (begin // jump - (begin == steps))
    assert sum(isinstance(row, Renoise) for row in plan.rows) == ups
    assert moves(plan) == [0] * history + [begin + ups * jump] * frames
    assert plan.given == (True,) * history + (begin < steps,) * frames


@sizes
@given(
    memory=st.sets(st.integers(0, 9), max_size=4),
    mask=st.sampled_from(["causal", "bidirectional"]),
    lag=st.integers(0, 4),
    history=st.integers(0, 2),
)
def test_recalled_frames_are_seen_by_all_and_see_each_other(
    memory: set[int], mask: str, lag: int, history: int
) -> None:
    guide = guidance.history(1.5)
    walk = staircase(sigmas(4), 3, lag=lag, history=history, mask=mask)  # type: ignore[arg-type]
    walk = guidance.guided(walk, guide)
    plan, count = recalled(walk, sorted(memory), at=10, sigma=0.02), len(memory)
    assert plan.frames == (*sorted(memory), *(10 + frame for frame in walk.frames))
    assert [line[count:] for line in plan.levels] == list(walk.levels)
    noisier = {"finished frames are shown noisier than they are"} if memory else set()
    assert set(plan.approximate) == {*walk.approximate, *noisier}
    for (read,), (old,) in zip(reads(plan), reads(walk), strict=True):
        assert read.slots[:count] == tuple(range(count)) and read.input_sigma[:count] == (0.02,) * count
        assert all(g < min(old.groups) for g in read.groups[:count]) and read.groups[count:] == old.groups
    first, second = plan.rows[:2]
    assert isinstance(first, Pass) and set(range(count)) <= set(first.commit)
    assert isinstance(second, Pass) and not set(range(count)) & set(second.commit)


def test_recalling_keeps_what_a_plan_does_besides() -> None:
    plan = recalled(overlapped(sigmas(2), 3, clip=2, overlap=1, level=1, smooth=1), [0, 2], at=4)
    assert plan.frames == (0, 2, 4, 5, 5, 6)
    assert [row.slots for row in plan.rows if isinstance(row, Renoise)] == [(4,), (2, 4, 5)]
    assert [row.slots for row in plan.rows if isinstance(row, Fuse)] == [(3, 4)]


def test_recalled_frames_are_computed_once() -> None:
    """Cached is uncached, and recalled frames are cached from the first pass on."""
    system, actions = toy_system(), torch.randn(1, 20, 7)
    for parameter in system.parameters():
        torch.nn.init.normal_(parameter, std=0.2)

    def script(frames: Sequence[int]) -> FrameInputs:
        return FrameInputs(system.actions(actions[:, list(frames)]))

    plan = recalled(staircase(sigmas(2), 3, lag=2, history=1), [2, 5, 7], at=12, sigma=0.05)
    given, noise = torch.randn(1, 4, 16, 4, 4), KeyedNoise((1,), (16, 4, 4))
    reader = CachedFramePredictor(system.backbone, script)
    with torch.inference_mode():
        plain = execute(plan, FramePredictor(system.backbone, script), noise, given=given)
        cached = execute(plan, reader, noise, given=given)
    assert float((plain - cached).abs().max() / plain.abs().max()) < 1e-5
    assert {(frame, 0) for frame in (2, 5, 7)} < set(reader.kept)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: trapezoid(sigmas(4), 4, lag=5), "the lag must be a whole number from 0 to 4, got 5"),
        (lambda: trapezoid(sigmas(4), 0, lag=1), "frames must be a whole number from 1 up, got 0"),
        (lambda: rolling(sigmas(4), 2, lag=0), "the lag must be a whole number from 1 to 4, got 0"),
        (lambda: rolling(sigmas(4), 2, window=1), "a window has two halves, so at least 2 frames, got 1"),
        (
            lambda: overlapped(sigmas(4), 6, clip=3, overlap=3, level=2),
            "overlap of windows must .* from 0 to 2, got 3",
        ),
        (lambda: overlapped(sigmas(4), 6, clip=4, overlap=1, level=2), "share 1 fill 4 or 7 frames, not 6"),
        (lambda: overlapped(sigmas(4), 6, clip=4, overlap=2, level=5), "from 1 to 4, got 5"),
        (lambda: overlapped(sigmas(4), 6, clip=4, overlap=2, level=2, smooth=4), "from 0 to 3, got 4"),
        (lambda: stitched(sigmas(4), 3, window=4, overlap=1), "the window must .* from 1 to 3, got 4"),
        (lambda: keyframes(sigmas(4), 6, every=2), "the last of 6 frames is no keyframe"),
        (
            lambda: keyframes(sigmas(4), 5, every=2, known=4),
            "known keyframes must be a whole number from 0 to 3, got 4",
        ),
        (lambda: recalled(staircase(sigmas(4), 2, lag=4), [3], at=3), "before frame 3"),
        (lambda: recalled(staircase(sigmas(4), 2, lag=4), [1, 1], at=3), "named once, in order"),
        (lambda: recalled(staircase(sigmas(4), 2, lag=4), [-1], at=3), "frames are counted from 0"),
        (lambda: resampled(sigmas(4), 2, jump=3), "must divide the 4 levels"),
        (lambda: resampled(sigmas(4), 2, jump=4), "smaller than the 4 steps"),
        (lambda: resampled(sigmas(4), 2, jump=1, begin=5), "to begin at must .* from 1 to 4, got 5"),
    ],
)
def test_impossible_requests_are_refused(make: Callable[[], Plan], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("make", "bound"),
    [
        (lambda s: trapezoid(sigmas(s), FRAMES, lag=s // 4), 0.045),
        (lambda s: trapezoid(sigmas(s), FRAMES - 1, lag=s // 2), 0.045),
        (lambda s: rolling(sigmas(s), 2, lag=s // 4, history=1), 0.011),
        (lambda s: rolling(sigmas(s), 4, lag=s // 2, history=1), 0.027),
        (lambda s: rolling(sigmas(s), 4, lag=s // 2, history=1, window=4), 0.027),
        (lambda s: keyframes(sigmas(s), FRAMES, every=5), 0.045),
        (lambda s: keyframes(sigmas(s), FRAMES - 1, every=2, known=1), 0.026),
        (lambda s: keyframes(sigmas(s), FRAMES, every=5, known=2), 0.012),
        (lambda s: stitched(sigmas(s), FRAMES, window=6, overlap=0), 0.05),
        (lambda s: resampled(sigmas(s), FRAMES, jump=s // 2), 0.048),
        (lambda s: resampled(sigmas(s), FRAMES - 1, jump=s // 2, times=2, history=1), 0.03),
        (lambda s: resampled(sigmas(s), FRAMES, jump=s // 2, begin=s // 2), 0.02),
        (lambda s: recalled(staircase(sigmas(s), 4, lag=s // 4, mask="bidirectional"), [0, 1], at=2), 0.026),
        (lambda s: recalled(staircase(sigmas(s), 2, lag=s, history=1), [0, 1], at=3), 0.025),
    ],
)
def test_with_steps_the_error_vanishes(make: Makes, bound: float) -> None:
    """O(1 / steps), with given slots drawn from the data."""
    few, many = (error(make(steps), draws=64) for steps in (16, 64))
    assert many < bound and many < few / 3.2


@pytest.mark.parametrize(
    ("make", "bias"),
    [
        (lambda s: stitched(sigmas(s), FRAMES, window=5, overlap=4), 0.175),
        (lambda s: stitched(sigmas(s), FRAMES, window=4, overlap=2), 0.333),
        (lambda s: stitched(sigmas(s), FRAMES, window=2, overlap=1), 0.696),
        (lambda s: stitched(sigmas(s), FRAMES, window=2, overlap=0), RHO),
        (lambda s: overlapped(sigmas(s), FRAMES, clip=4, overlap=2, level=s // 8), 0.05),
        (lambda s: overlapped(sigmas(s), FRAMES, clip=4, overlap=2, level=s // 2), 0.219),
        (lambda s: overlapped(sigmas(s), FRAMES, clip=4, overlap=2, level=s // 2, smooth=s // 4), 0.189),
        (lambda s: rolling(sigmas(s), 2, lag=s // 4, history=1, window=2), 0.21),
        (lambda s: rolling(sigmas(s), 2, lag=s // 4, history=1, window=4), 0.036),
    ],
)
def test_what_does_not_see_all_errs_and_says_so(make: Makes, bias: float) -> None:
    plan = make(64)
    assert plan.approximate and error(plan, draws=64) == pytest.approx(bias, abs=0.015)


def test_a_queue_that_forgets_what_has_left_loses_it() -> None:
    """Frames are right one by one, but hang together less; one frame of history is all that AR(1) needs."""
    plan = rolling(sigmas(64), 5, lag=32)
    assert covariance(plan).diag()[:5].tolist() == pytest.approx([1] * 5, abs=0.05)
    assert error(plan) == pytest.approx(0.528, abs=0.02)


def test_strides_of_a_queue_join() -> None:
    """Two frames and then two more are four: the end of a walk is what the next is given."""
    noise = KeyedNoise((7,), (3,))
    whole = rolling(sigmas(8), 4, lag=2, history=1)
    start = torch.randn(1, sum(whole.given), 3, generator=torch.Generator().manual_seed(0))

    def predict(branch: ModelInput) -> Tensor:
        return branch.x.cumsum(1) / 3 + branch.sigma[..., None]

    half = rolling(sigmas(8), 2, lag=2, history=1)
    first = execute(half, each(predict), noise, given=start)
    second = execute(half, each(predict), lambda frame, use: noise(frame + 2, use), given=first[:, 2:])
    torch.testing.assert_close(
        torch.cat((first[:, :2], second), 1), execute(whole, each(predict), noise, given=start)
    )


@pytest.mark.parametrize("seed", range(3))
def test_frames_may_be_denoised_in_any_order(seed: int) -> None:
    """Random paths down to clean, one random subset of frames a row: all converge when all is seen."""

    def path(steps: int) -> Plan:
        rng, levels = random.Random(seed), [(steps,) * FRAMES]
        rising = tuple(reversed(sigmas(steps)))
        rows: list[Pass] = []
        while any(levels[-1]):
            noisy = [p for p in range(FRAMES) if levels[-1][p]]
            chosen = rng.sample(noisy, rng.randint(1, len(noisy)))
            slots, shown = tuple(range(FRAMES)), tuple(rising[level] for level in levels[-1])
            rows.append(Pass((ForwardSpec(slots, shown, (0,) * FRAMES),)))
            levels.append(tuple(level - (p in chosen) for p, level in enumerate(levels[-1])))
        return Plan(rising, tuple(range(FRAMES)), (False,) * FRAMES, tuple(levels), tuple(rows))

    few, many = error(path(16)), error(path(64))
    assert many < 0.05 and many < few / 3 and not path(4).approximate


@pytest.mark.parametrize(
    "plan",
    [
        trapezoid(sigmas(6), 5, lag=2),
        stitched(sigmas(6), 5, window=3, overlap=2),
        keyframes(sigmas(6), 5, every=2),
        staircase(sigmas(6), 5, lag=3, chunk=2),
    ],
)
def test_frames_that_know_nothing_of_each_other_do_not_feel_the_method(plan: Plan) -> None:
    noise = KeyedNoise((1, 2, 3), (4,))
    expected = execute(staircase(sigmas(6), 5, lag=0), alone, noise)
    torch.testing.assert_close(execute(plan, alone, noise), expected)
    torch.testing.assert_close(execute(plan, alone, KeyedNoise((2,), (4,))), expected[1:2])


def test_what_is_known_comes_back_bit_for_bit() -> None:
    values = torch.randn(2, 3, 4)
    plan = keyframes(sigmas(3), 3, every=1, known=3)
    assert not plan.rows and torch.equal(execute(plan, alone, KeyedNoise((0, 1), (4,)), given=values), values)
    for plan in (
        keyframes(sigmas(3), 5, every=2, known=3, key_sigma=0.1),
        recalled(resampled(sigmas(4), 2, jump=2, history=1), [2, 5], at=9, sigma=0.1),
    ):
        dream = execute(plan, each(lambda branch: branch.x.sin()), KeyedNoise((0, 1), (4,)), given=values)
        assert torch.equal(dream[:, [p for p, known in enumerate(plan.given) if known]], values)


def test_branches_mixed_before_a_step_are_steps_mixed_after_it() -> None:
    """True of one deterministic step, and so of what guidance is asked for; from then on states differ."""
    branches = (Branch(1.7), Branch(-0.4, conditional=False), Branch(-0.3, input_sigma=((0, 1.0),)))
    line = guidance.guided(
        staircase(sigmas(4), 2, lag=0, history=1, mask="bidirectional"), lambda past: branches
    )
    levels = line.levels[1:3]
    row = line.rows[1]
    assert isinstance(row, Pass)
    plan = Plan(line.sigmas, line.frames, (True,) * 3, levels, (row,), open=True)
    basis, start = Basis(), torch.randn(24, 3, 1).double()

    def predict(branch: ModelInput) -> Tensor:
        return Oracle().velocity(branch) * (1.0 if branch.conditional else 0.8)

    def step(branches: tuple[Branch, ...]) -> Tensor:
        one = replace(plan, rows=(Pass((replace(row.reads[0], branches=branches),)),))
        return execute(one, each(predict), basis, given=start)

    after = sum(branch.weight * step((replace(branch, weight=1.0),)) for branch in branches)
    assert isinstance(after, Tensor)
    torch.testing.assert_close(step(branches), after)
    assert not torch.allclose(step(branches), step((Branch(),)))
