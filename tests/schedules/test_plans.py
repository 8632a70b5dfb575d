"""Plans: what the front door makes is legal, and every broken rule is named."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_schedules import keyframes, rolling, trapezoid

from dreamwalk.errors import UserError
from dreamwalk.schedules import guidance
from dreamwalk.schedules.clip_plans import recalled
from dreamwalk.schedules.plans import Branch, ForwardSpec, Fuse, Pass, Plan, Renoise
from dreamwalk.schedules.sigmas import shifted_sigmas
from dreamwalk.schedules.staircase import Schedule, named_schedule, staircase, stride
from dreamwalk.systems.forcing import ForcingConfig


@settings(max_examples=80, deadline=None)
@given(
    steps=st.integers(1, 9),
    frames=st.integers(1, 7),
    share=st.floats(0, 1),
    chunk=st.integers(1, 8),
    history=st.integers(0, 3),
    tight=st.booleans(),
    mask=st.sampled_from(["causal", "block", "bidirectional"]),
)
def test_every_staircase_is_legal(
    steps: int, frames: int, share: float, chunk: int, history: int, tight: bool, mask: str
) -> None:
    lag = round(share * steps)
    chunks = -(-frames // chunk)
    active = chunk * (chunks if lag == 0 else min(chunks, -(-steps // lag)))
    plan = staircase(
        shifted_sigmas(steps).tolist(),
        frames,
        lag=lag,
        chunk=chunk,
        history=history,
        window=active if tight else 0,
        mask=mask,
        history_sigma=0.02,  # type: ignore[arg-type]
    )
    assert len(plan.rows) == steps + lag * (chunks - 1)
    for slot in range(history, history + frames):
        assert sum(slot in plan.moving[row] for row in range(len(plan.rows))) == steps
    for line in plan.levels:
        assert list(line) == sorted(line)  # streaming: what comes first is finished first
    for row in plan.rows:
        assert isinstance(row, Pass) and (not tight or len(row.reads[0].slots) <= active)
    commits = [p for row in plan.rows if isinstance(row, Pass) for p in row.commit]
    assert len(commits) == len(set(commits))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lag": 5}, "the lag must be a whole number from 0 to 4, got 5"),
        ({"lag": -1}, "the lag must be a whole number from 0 to 4, got -1"),
        ({"lag": 1, "window": 3}, "a window of 3 frames is too small for the 4 that are under way at once"),
        ({"lag": 4, "chunk": 3, "window": 2}, "a window of 2 frames is too small for the 3"),
        ({"lag": 4, "chunk": 0}, "chunk must be a whole number from 1 up, got 0"),
    ],
)
def test_impossible_staircases_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        staircase(shifted_sigmas(4).tolist(), 6, **options)


LEGAL = staircase(shifted_sigmas(2).tolist(), 2, lag=2)
FIRST = LEGAL.rows[0]
assert isinstance(FIRST, Pass)
HIDES = (Branch(input_sigma=((1, 1.0),)),)


def first_reads(slots: tuple[int, ...], shown: tuple[float, ...], groups: tuple[int, ...]) -> dict:
    """Another read in the first row."""
    return {"rows": (Pass((ForwardSpec(slots, shown, groups),)), *LEGAL.rows[1:])}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sigmas": (0.0, 0.5, 0.5)}, "sigmas must rise from 0 to 1"),
        ({"given": (False,)}, "2 slots need as many entries"),
        ({"levels": LEGAL.levels[:-1]}, "4 rows lie between 5 lines, not 4"),
        ({"levels": ((2, 3), *LEGAL.levels[1:])}, "indices into the sigmas, 0 to 2"),
        ({"levels": ((1, 2), *LEGAL.levels[1:])}, "slot 0 must begin at pure noise, not at 1"),
        ({"levels": (*LEGAL.levels[:-1], (0, 1))}, "frame 1 ends at level 1 and not clean"),
        ({"levels": (*LEGAL.levels[:2], (2, 2), *LEGAL.levels[3:])}, "noise rises in row 1 in slot 0"),
        (first_reads((1,), (1.0,), (0,)), "row 0 moves slot 0, which it does not read"),
        ({"rows": (replace(FIRST, commit=(0,)), *LEGAL.rows[1:])}, "row 0 commits slot 0, which must be"),
        (first_reads((0,), (0.5,), (0,)), "so its input sigma must be its own, 1"),
        (first_reads((1, 0), (1.0, 1.0), (0, 0)), "reads frames out of their order"),
        (first_reads((0, 0), (1.0, 1.0), (0, 0)), "reads a slot twice"),
        ({"rows": (*LEGAL.rows[:3], Fuse((0, 1)))}, "row 3 fuses slots, so no level may change"),
        ({"rows": (*LEGAL.rows[:3], Renoise((1,), (0,)))}, "slot 1 from slot 0, another frame"),
        ({"rows": (*LEGAL.rows[:3], Fuse((1,)))}, "row 3 fuses slots, so no level may change"),
        ({"rows": (*LEGAL.rows[:3], Renoise((1, 1), (0, 1)))}, "row 3 names a slot twice"),
        ({"rows": (*LEGAL.rows[:3], Renoise((2,), (2,)))}, "row 3 names a slot that is none of the 2"),
        ({"frames": (-1, 0)}, "frames are counted from 0, got -1"),
        ({"rows": (Pass(FIRST.reads * 2), *LEGAL.rows[1:])}, "row 0 reads the same twice"),
        (
            {"rows": (Pass((*FIRST.reads, ForwardSpec((1,), (1.0,), (0,)))), *LEGAL.rows[1:])},
            r"row 0 reads slots \(1,\) and neither moves nor commits any",
        ),
        (
            {"rows": (Pass((replace(FIRST.reads[0], branches=HIDES),)), *LEGAL.rows[1:])},
            "row 0 has an input sigma for slot 1, which its read does not hold",
        ),
    ],
)
def test_the_broken_rule_is_named(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(LEGAL, **changes)


def test_what_is_committed_is_not_touched_again() -> None:
    last = Renoise((0,), (0,))
    rows = (*LEGAL.rows, last, LEGAL.rows[0], LEGAL.rows[1])
    with pytest.raises(ValueError, match="row 4 changes slot 0, which is committed"):
        replace(LEGAL, levels=(*LEGAL.levels, (2, 0), (1, 0), (0, 0)), rows=rows)


def test_what_a_committed_frame_has_seen_is_not_touched_either() -> None:
    """Frames 0 and 1 are known; frame 1 is committed, having seen frame 0, which is then drawn anew."""
    both = ForwardSpec((0, 1), (0.0, 0.0), (0, 0))
    rows = (Pass((both,), commit=(1,)), Renoise((0,), (0,)))
    with pytest.raises(ValueError, match="row 1 changes slot 0, which the committed slot 1 has seen"):
        Plan((0.0, 1.0), (0, 1), (True, True), ((0, 0), (0, 0), (1, 0)), rows, open=True)


def test_a_cache_knows_one_copy_of_a_frame() -> None:
    rows = (Pass((ForwardSpec((0,), (0.0,), (0,)),), commit=(0,)), Pass((ForwardSpec((1,), (1.0,), (0,)),)))
    with pytest.raises(ValueError, match="row 1 reads slot 1, of whose frame another copy is committed"):
        Plan((0.0, 1.0), (0, 0), (True, False), ((0, 1), (0, 1), (0, 0)), rows)


@pytest.mark.parametrize(
    ("guide", "count"),
    [
        (guidance.conditions(2.0), 2),
        (guidance.history(1.5), 2),
        (guidance.fractional(1.5, sigma=0.4), 3),
        (guidance.temporal([(1, 0.7), (2, 0.5)]), 3),
        (guidance.temporal([(1, 0.5), (2, 0.5)]), 2),
    ],
)
def test_guides_give_legal_plans(guide: guidance.Guide, count: int) -> None:
    plan = guidance.guided(staircase(shifted_sigmas(3).tolist(), 3, lag=3, history=3), guide)
    assert all(isinstance(row, Pass) and len(row.reads[0].branches) == count for row in plan.rows)


def test_temporal_guidance_hides_what_is_older() -> None:
    near, none = guidance.temporal([(2, 0.8)])((3, 4, 5))
    assert near == Branch(0.8, input_sigma=((3, 1.0),))
    assert none.weight == pytest.approx(0.2) and none.input_sigma == ((3, 1.0), (4, 1.0), (5, 1.0))


def test_impossible_guidance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weights that sum to 0\.5, not to 1"):
        guidance.guided(staircase(shifted_sigmas(4).tolist(), 6, lag=4), lambda past: (Branch(0.5),))
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        guidance.fractional(2.0, sigma=1.5)
    with pytest.raises(ValueError, match="sees the last 1, 2"):
        guidance.temporal([(0, 1.0)])


def test_a_plan_shows_itself() -> None:
    assert LEGAL.show().splitlines() == [
        "frame  0  1",
        "    0  #  #",
        "    1  1  #",
        "    2  .  #",
        "    3  .* 1",
        "    4  .  .",
    ]


def test_a_window_that_slides_is_called_approximate() -> None:
    sigmas = shifted_sigmas(2).tolist()
    assert not staircase(sigmas, 4, lag=2).approximate
    forgets = "frames under way do not see all that are finished"
    for mask in ("causal", "block", "bidirectional"):
        for window in (1, 2, 3, 4):
            assert forgets in staircase(sigmas, 5, lag=2, window=window, mask=mask).approximate
        assert not staircase(sigmas, 5, lag=2, window=5, mask=mask).approximate
    assert any("live on" in reason for reason in staircase(sigmas, 5, lag=2, window=3).approximate)
    assert forgets in rolling(sigmas, 3, history=1).approximate


@pytest.mark.parametrize(
    "guide", [guidance.history, guidance.conditions, lambda w: guidance.fractional(w, sigma=0.5)]
)
def test_guidance_is_no_longer_the_data(guide: Callable[[float], guidance.Guide]) -> None:
    sigmas, reason = shifted_sigmas(2).tolist(), "guidance leads away from the data"
    plan = staircase(sigmas, 2, lag=2, history=1)
    assert guidance.guided(plan, guide(1.5)).approximate == (reason,)
    assert not guidance.guided(plan, guide(1.0)).approximate


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: staircase([1, 0], 2, lag=1.5), "lag must be a whole number .*, got 1.5"),
        (lambda: staircase([1, 0], 2, lag=None), "lag must be a whole number .*, got None"),
        (lambda: Schedule(4, "2", 1, 8), "lag must be a whole number .*, got '2'"),
        (lambda: Schedule(4, 4, 1, 8.5), "window must be a whole number .*, got 8.5"),
        (lambda: stride(Schedule(1, 1, 1.0, 8), [1, 0]), "chunk must be a whole number .*, got 1.0"),
        (lambda: named_schedule("full", steps=None, window=8), "steps must be a whole number .* got None"),
        (lambda: shifted_sigmas(2.5), "steps must be a whole number .*, got 2.5"),
        (lambda: trapezoid([1, 0], 2, lag=0.5), "the lag must be a whole number from .*, got 0.5"),
        (lambda: rolling([1, 0], 2, window="2"), "window must be a whole number .*, got '2'"),
        (lambda: staircase([1, 0], 2, lag=1, mask="blok"), "no mask 'blok': known are causal, block, bi"),
        (lambda: Schedule(4, 4, 1, 8, "all"), "no mask 'all'"),
        (lambda: ForcingConfig(None, None, 7, mask="all"), "no mask 'all'"),
        (
            lambda: staircase([1, 0], 2, lag=1, history=1, history_sigma=1.5),
            "history_sigma must lie between 0 and 1, got 1.5",
        ),
        (lambda: staircase([1, 0], 2, lag=1, history_sigma="like"), "between 0 and 1, got 'like'"),
        (lambda: keyframes([1, 0], 3, every=1, key_sigma=math.nan), "between 0 and 1, got nan"),
        (lambda: recalled(LEGAL, [], at=1, sigma=-1), "between 0 and 1, got -1"),
        (lambda: guidance.conditions(math.nan), "by finite numbers, got nan"),
        (lambda: guidance.history(math.inf), "by finite numbers, got inf"),
        (lambda: guidance.fractional(-math.inf, sigma=0.5), "by finite numbers, got -inf"),
        (lambda: guidance.temporal([(1, math.nan)]), "by finite numbers, got nan"),
    ],
)
def test_what_no_plan_can_mean_is_refused(make: Callable, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()
