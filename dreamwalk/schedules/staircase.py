"""Staircases: chunk after chunk, each a fixed number of rows behind the one before.

One number, the lag, leads from a full sequence (0) over the pyramids of Diffusion Forcing, rolling diffusion
and MAGI-1 to one frame after another (all steps). `staircase` is the plan of a whole rollout, `stride` that
part of an endless one that is run again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from dreamwalk.errors import UserError
from dreamwalk.schedules import plans
from dreamwalk.schedules.plans import ForwardSpec, MaskName, Pass, Plan, check_range

HistorySigma = float | Literal["alike"]
"""Input sigma of finished frames; `alike`: that of the noisiest frame in the same read, the only one that a
model knows that was trained with one sigma a clip."""


@dataclass(frozen=True)
class Schedule:
    """An endless staircase, and the number of frames that it reads at once."""

    steps: int
    lag: int
    """Rows between a chunk and the next; 0 counts as all steps: chunk after chunk."""
    chunk: int
    window: int
    """Frames read at once: history, and those under way."""
    mask: MaskName = "causal"

    def __post_init__(self) -> None:
        plans.check_mask(self.mask)
        check_range("window", self.window, 1)
        _check_sizes(self.steps, self.lag, self.chunk)
        if self.window <= (least := self.under_way * self.chunk):
            raise UserError(
                f"a window of {self.window} frames is too small for the {least} that are under way at once "
                "and one of history: use a larger lag, a smaller chunk or fewer steps"
            )

    @property
    def under_way(self) -> int:
        """Chunks under way at once, at most."""
        return -(-self.steps // (self.lag or self.steps))


SCHEDULES = ("full", "pyramid", "chunks", "next-frame")


def named_schedule(name: str, *, steps: int, window: int, mask: MaskName = "causal") -> Schedule:
    """A schedule by its name: half a window together, a pyramid of four frames, chunks of four, or one frame
    after another. UserError for another name."""
    if name not in SCHEDULES:
        raise UserError(f"there is no schedule '{name}': known are {', '.join(SCHEDULES)}")
    check_range("steps", steps, 1)
    check_range("window", window, 1)
    together = max(1, min(4, window - 1))
    chunk = {"full": max(1, window // 2), "chunks": together}.get(name, 1)
    lag = -(-steps // together) if name == "pyramid" else steps
    return Schedule(steps, lag, chunk, window, mask)


def staircase(
    sigmas: Sequence[float],
    frames: int,
    *,
    lag: int,
    chunk: int = 1,
    history: int = 0,
    window: int = 0,
    history_sigma: HistorySigma = 0.0,
    mask: MaskName = "causal",
) -> Plan:
    """The plan in which each chunk of `frames` new frames starts `lag` rows after the chunk before.

    `sigmas` go from 1 down to 0 (`schedules.sigmas`). A lag of 0 denoises all frames together, one of all
    steps chunk after chunk; MAGI-1 has lag = steps / window. `history` known frames come before. Finished
    frames have the input sigma `history_sigma`; `window` limits how many frames are read, with the new ones
    (0: all). UserError for what is impossible.
    """
    steps = len(sigmas) - 1
    _check_sizes(steps, lag, chunk)
    check_range("frames", frames, 1)
    check_range("window", window, 0)
    chunks = -(-frames // chunk)
    active = chunks if lag == 0 else min(chunks, -(-steps // lag))
    if window and window < (least := active * chunk):
        raise UserError(
            f"a window of {window} frames is too small for the {least} that are under way at once"
        )
    done = [-lag * (p // chunk) for p in range(frames)]
    reads = _Reads(history, chunk, history_sigma, mask, window)
    return reads.plan(sigmas, done, steps + lag * (chunks - 1))


def stride(
    schedule: Schedule,
    sigmas: Sequence[float],
    *,
    history: int = 0,
    under_way: int = 0,
    fresh: int = 0,
    history_sigma: HistorySigma = 0.0,
) -> Plan:
    """One stride of an endless staircase: `under_way` chunks go on, a new one starts, `lag` rows pass.

    The last `fresh` of the `history` frames are not committed yet. The rest is as in `staircase`.
    """
    chunk, lag = schedule.chunk, schedule.lag
    steps = len(sigmas) - 1
    _check_sizes(steps, lag, chunk)
    count = lag or steps
    done = [count * (under_way - p // chunk) for p in range(chunk * (under_way + 1))]
    reads = _Reads(history, chunk, history_sigma, schedule.mask)
    return reads.plan(sigmas, done, count, committed=history - fresh)


def _check_sizes(steps: int, lag: int, chunk: int) -> None:
    check_range("steps", steps, 1)
    check_range("the lag", lag, 0, steps)
    check_range("chunk", chunk, 1)


@dataclass(frozen=True)
class _Reads:
    """What the reads of a staircase hold."""

    history: int
    chunk: int
    history_sigma: HistorySigma
    mask: MaskName
    window: int = 0

    def __post_init__(self) -> None:
        plans.check_mask(self.mask)
        check_range("history", self.history, 0)
        if self.history_sigma != "alike":
            plans.check_sigma("history_sigma", self.history_sigma)

    def plan(self, sigmas: Sequence[float], done: list[int], count: int, *, committed: int = 0) -> Plan:
        """`count` rows from where new frames have `done` so many steps, or have that many to wait."""
        rising, steps = tuple(float(sigma) for sigma in reversed(sigmas)), len(sigmas) - 1
        known = (0,) * self.history
        levels = [(*known, *(min(max(steps - d - m, 0), steps) for d in done)) for m in range(count + 1)]
        rows: list[Pass] = []
        for now, after in pairwise(levels):
            moving = [p for p in range(len(now)) if after[p] < now[p]] or [len(now)]
            finished, last = moving[0], min(moving[-1] + 1, len(now))
            slots = range(max(0, last - self.window) if self.window else 0, last)
            fresh = tuple(p for p in slots if committed <= p < finished)
            committed = max(committed, finished)
            commit = fresh if self.mask != "bidirectional" else ()
            rows.append(Pass((self._read(rising, now, slots),), commit))
        given, unfinished = (*(True for _ in known), *(d > 0 for d in done)), any(levels[-1])
        return Plan(rising, tuple(range(len(given))), given, tuple(levels), tuple(rows), open=unfinished)

    def _read(self, rising: Sequence[float], now: Sequence[int], slots: Sequence[int]) -> ForwardSpec:
        past = self.history_sigma
        if past == "alike":
            past = rising[max(now[p] for p in slots)]
        sigma = tuple(rising[now[p]] if now[p] else past for p in slots)
        groups = (attention_group(p, self.history, chunk=self.chunk, mask=self.mask) for p in slots)
        return ForwardSpec(tuple(slots), sigma, tuple(groups))


def attention_group(slot: int, history: int, *, chunk: int, mask: MaskName) -> int:
    """The group of a slot, which sees its own and all smaller ones.

    Chunks are counted from the first new frame, backwards through the `history` too, so that a chunk remains
    one when it is finished and the next stride takes it for history.
    """
    return {"causal": slot, "block": (slot - history) // chunk, "bidirectional": 0}[mask]
