"""The front door to plans: chunk after chunk, each so many rows behind the one before.

One number, the lag, leads from a full sequence (0) over the pyramids of Diffusion Forcing, rolling diffusion
and MAGI-1 to one frame after another (all steps). `staircase` is a whole walk, `stride` the piece of an
endless one that is walked again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from dreamwalk.errors import UserError
from dreamwalk.schedules.plans import (
    Branch,
    ForwardSpec,
    Mask,
    Pass,
    Plan,
    check_counts,
    check_mask,
    check_sigma,
)

Guide = Callable[[tuple[int, ...]], tuple[Branch, ...]]
Shown = float | Literal["alike"]
"""At which sigma finished frames are shown; `alike`: as noisy as the noisiest frame beside them, which is all
that a model knows whose clips had one level each."""


def unguided(past: tuple[int, ...]) -> tuple[Branch, ...]:
    """One branch, as the read says."""
    return (Branch(),)


@dataclass(frozen=True)
class Schedule:
    """A staircase that goes on for ever, and how many frames it reads at once."""

    steps: int
    lag: int
    """Rows between a chunk and the next; 0 is the same as all steps: chunk after chunk."""
    chunk: int
    window: int
    """Frames read at once: history, and those under way."""
    mask: Mask = "causal"

    def __post_init__(self) -> None:
        check_mask(self.mask)
        check_counts({"steps": self.steps, "window": self.window})
        _sizes(self.steps, self.chunk, lag=self.lag, chunk=self.chunk, history=0)
        if self.window <= self.under_way * self.chunk:
            least = self.under_way * self.chunk
            raise UserError(
                f"a window of {self.window} frames is too small for the {least} that are under way at once "
                "and one of history: use a larger lag, a smaller chunk or fewer steps"
            )

    @property
    def under_way(self) -> int:
        """Chunks under way at once, at most."""
        return -(-self.steps // (self.lag or self.steps))


NAMED = ("full", "pyramid", "chunks", "next-frame")


def named(name: str, *, steps: int, window: int, mask: Mask = "causal") -> Schedule:
    """A schedule of `NAMED`: half a window together, four frames in a pyramid, chunks of four, or each alone.

    UserError for another name.
    """
    if name not in NAMED:
        raise UserError(f"there is no schedule '{name}': known are {', '.join(NAMED)}")
    check_counts({"steps": steps, "window": window})
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
    history_sigma: Shown = 0.0,
    mask: Mask = "causal",
    guide: Guide = unguided,
) -> Plan:
    """The plan in which each chunk of `frames` new frames starts `lag` rows after the chunk before.

    `sigmas` are sigmas from 1 down to 0, as `sigma_grid` gives them. A lag of 0 denoises all frames together,
    one of all steps chunk after chunk; MAGI-1 has lag = steps / window. `history` known frames lie before.
    Finished frames are shown at `history_sigma`; `window` limits how many frames, with the new ones, are
    read (0: all). `mask` says who sees whom; `guide` gives the branches of a row from its
    finished slots (`schedules.guidance`). UserError for what is impossible.
    """
    check_counts({"window": window})
    steps, chunks = _sizes(len(sigmas) - 1, frames, lag=lag, chunk=chunk, history=history)
    active = chunks if lag == 0 else min(chunks, -(-steps // lag))
    if window and window < active * chunk:
        least = active * chunk
        raise UserError(
            f"a window of {window} frames is too small for the {least} that are under way at once"
        )
    done = [-lag * (p // chunk) for p in range(frames)]
    return _walk(
        sigmas,
        done,
        steps + lag * (chunks - 1),
        chunk=chunk,
        history=history,
        window=window,
        history_sigma=history_sigma,
        mask=mask,
        guide=guide,
    )


def stride(
    sigmas: Sequence[float],
    *,
    lag: int,
    chunk: int = 1,
    history: int = 0,
    under_way: int = 0,
    history_sigma: Shown = 0.0,
    mask: Mask = "causal",
    guide: Guide = unguided,
    fresh: int = 0,
) -> Plan:
    """One stride of an endless staircase: `under_way` chunks go on, a new one starts, `lag` rows pass.

    A lag of 0 is taken as one of all steps: chunk after chunk. The last `fresh` of the `history` frames are
    not committed yet. The rest is as in `staircase`.
    """
    steps, _ = _sizes(len(sigmas) - 1, chunk, lag=lag, chunk=chunk, history=history)
    rows = lag or steps
    done = [rows * (under_way - p // chunk) for p in range(chunk * (under_way + 1))]
    return _walk(
        sigmas,
        done,
        rows,
        chunk=chunk,
        history=history,
        window=0,
        history_sigma=history_sigma,
        mask=mask,
        guide=guide,
        committed=history - fresh,
    )


def _sizes(steps: int, frames: int, *, lag: int, chunk: int, history: int) -> tuple[int, int]:
    """Steps and chunks."""
    check_counts({"lag": lag, "chunk": chunk, "frames": frames, "history": history})
    if steps < 1 or frames < 1 or chunk < 1 or history < 0:
        raise UserError("a plan needs at least one step, one frame and one frame a chunk")
    if not 0 <= lag <= steps:
        raise UserError(f"the lag must lie between 0 and the {steps} steps, got {lag}")
    return steps, -(-frames // chunk)


def _walk(
    sigmas: Sequence[float],
    done: list[int],
    count: int,
    *,
    chunk: int,
    history: int,
    window: int,
    history_sigma: Shown,
    mask: Mask,
    guide: Guide,
    committed: int = 0,
) -> Plan:
    """`count` rows from where new frames have `done` so many steps, or have that many to wait."""
    check_mask(mask)
    if history_sigma != "alike":
        check_sigma("history_sigma", history_sigma)
    rising, steps, total = (
        tuple(float(sigma) for sigma in reversed(sigmas)),
        len(sigmas) - 1,
        history + len(done),
    )
    levels = tuple(
        (0,) * history + tuple(min(max(steps - d - m, 0), steps) for d in done) for m in range(count + 1)
    )
    rows: list[Pass] = []
    for now, after in pairwise(levels):
        moving = [p for p in range(total) if after[p] < now[p]]
        finished = moving[0] if moving else total
        last = moving[-1] + 1 if moving else total
        slots = tuple(range(max(0, last - window) if window else 0, last))
        past = rising[max(now[p] for p in slots)] if history_sigma == "alike" else history_sigma
        shown = tuple(rising[now[p]] if now[p] else past for p in slots)
        groups = tuple(group(p, history=history, chunk=chunk, mask=mask) for p in slots)
        fresh = tuple(p for p in slots if committed <= p < finished) if mask != "bidirectional" else ()
        committed = max(committed, finished)
        rows.append(
            Pass((ForwardSpec(slots, shown, groups, guide(tuple(p for p in slots if not now[p]))),), fresh)
        )
    given = (True,) * history + tuple(d > 0 for d in done)
    unfinished = any(levels[-1])
    return Plan(rising, tuple(range(total)), given, levels, tuple(rows), open=unfinished)


def group(slot: int, *, history: int, chunk: int, mask: Mask) -> int:
    """The group of a slot: it sees its own and all smaller ones.

    Chunks are counted from the first new frame, backwards through the `history` too, so that a chunk remains
    one when it is finished and the next stride takes it for history.
    """
    return {"causal": slot, "block": (slot - history) // chunk, "bidirectional": 0}[mask]
