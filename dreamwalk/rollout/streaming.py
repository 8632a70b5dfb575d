"""Walks without an end, at constant memory, on any staircase.

Stride after stride the same small plan is executed: finished frames leave, a new chunk enters, and what is
under way is handed on as it is, with the state of its solver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from dreamwalk.rollout.execute import Noise, Predictor, State, Update, begin, euler, run
from dreamwalk.rollout.frame_predictor import CachedFramePredictor
from dreamwalk.schedules.guidance import Guide, guided, unguided
from dreamwalk.schedules.plans import Pass, Plan
from dreamwalk.schedules.staircase import HistorySigma, Schedule, stride


@dataclass(frozen=True)
class Moment:
    """What is in hand after a row: `levels` `(p,)` and latents `(b, p, c, h, w)` of `frames`."""

    frames: tuple[int, ...]
    levels: tuple[int, ...]
    x: Tensor
    finished: int
    """How many of the first frames are new and finished; they are handed out once."""


def endless(
    schedule: Schedule,
    grid: Sequence[float],
    history: Tensor,
    predictor: Predictor,
    noise: Noise,
    *,
    history_sigma: HistorySigma = 0.0,
    update: Update = euler,
    guide: Guide = unguided,
) -> Iterator[Moment]:
    """Go on after `history` `(b, k, c, h, w)`, frames 0 .. k-1, for as long as moments are asked for.

    One moment a row. `grid` are sigmas from 1 down to 0. Frames that the window loses live on in the cache of
    a `CachedFramePredictor` only by what later frames saw of them; a `FramePredictor` knows nothing of them.
    """
    keep, total = schedule.window - schedule.under_way * schedule.chunk, history.shape[1]
    x, known, committed = history[:, -keep:], min(keep, total), set[int]()
    moved: dict[int, tuple[Tensor, float]] = {}
    while True:
        under_way = (x.shape[1] - known) // schedule.chunk
        first = total - known
        fresh = sum(frame not in committed for frame in range(first, total))
        plan = stride(
            schedule, grid, history=known, under_way=under_way, fresh=fresh, history_sigma=history_sigma
        )
        plan = replace(guided(plan, guide), frames=tuple(first + frame for frame in plan.frames))
        state = begin(plan, noise, x)
        state.last_step = {plan.frames.index(frame): last for frame, last in moved.items()}
        for row in run(plan, state, predictor, noise, update=update):
            yield _moment(plan, state, row, known)
        moved = {plan.frames[p]: last for p, last in state.last_step.items() if plan.levels[-1][p]}
        committed = {f for f in committed if f >= first} | _committed(plan)
        done = known + sum(level == 0 for level in plan.levels[-1][known:])
        total = first + done
        known, x = min(keep, done), state.x[:, max(0, done - keep) :]
        if isinstance(predictor, CachedFramePredictor):
            predictor.forget(total - known)


def _moment(plan: Plan, state: State, row: int, known: int) -> Moment:
    """Finished frames count in the last row of a stride, when they leave it."""
    levels = plan.levels[row + 1]
    last = row + 1 == len(plan.rows)
    finished = sum(level == 0 for level in levels[known:]) if last else 0
    return Moment(plan.frames[known:], levels[known:], state.x[:, known:], finished)


def _committed(plan: Plan) -> set[int]:
    return {plan.frames[p] for row in plan.rows if isinstance(row, Pass) for p in row.commit}


def frames(moments: Iterator[Moment], count: int) -> Iterator[Tensor]:
    """The first `count` finished frames of a walk, as they come, `(b, k, c, h, w)`."""
    for moment in moments:
        if moment.finished:
            yield moment.x[:, : min(moment.finished, count)]
            count -= moment.finished
        if count <= 0:
            return
