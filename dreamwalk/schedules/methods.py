"""Plans of published methods that are no staircase: both ends first, queues, clips that overlap, keyframes.

The mask is bidirectional. `sigmas` go from 1 down to 0, as `sigma_grid` gives them; levels are indices into
them that count from clean, 0. Every function raises a UserError for what is impossible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from dreamwalk.errors import UserError
from dreamwalk.schedules.plans import ForwardSpec, Fuse, Pass, Plan, Renoise, Row, check_counts, check_sigma


@dataclass
class _Draft:
    """A plan up to now."""

    sigmas: tuple[float, ...]
    frames: tuple[int, ...]
    lines: list[tuple[int, ...]]
    clean_sigma: float = 0.0
    """At which sigma finished and known frames are shown."""
    rows: list[Row] = field(default_factory=list)

    def _add(self, row: Row, levels: Mapping[int, int]) -> None:
        self.rows.append(row)
        self.lines.append(tuple(levels.get(p, level) for p, level in enumerate(self.lines[-1])))

    def move(self, slots: Iterable[int], windows: Sequence[Sequence[int]]) -> None:
        """One pass: `slots` go down a level; every window is a read."""
        now = self.lines[-1]
        shown = [self.sigmas[level] if level else self.clean_sigma for level in now]
        reads = (ForwardSpec(tuple(w), tuple(shown[p] for p in w), (0,) * len(w)) for w in windows)
        self._add(Pass(tuple(reads)), {p: now[p] - 1 for p in slots})

    def descend(self, slots: Sequence[int], windows: Sequence[Sequence[int]], *, to: int = 0) -> None:
        """As many passes as it takes to bring all slots to a level, the noisiest first."""
        while (top := max((self.lines[-1][p] for p in slots), default=to)) > to:
            self.move([p for p in slots if self.lines[-1][p] == top], windows)

    def renoise(self, slots: Sequence[int], sources: Sequence[int], level: int) -> None:
        self._add(Renoise(tuple(slots), tuple(sources)), dict.fromkeys(slots, level))

    def plan(self) -> Plan:
        """The plan; slots that did not begin as noise are given."""
        given = tuple(level < len(self.sigmas) - 1 for level in self.lines[0])
        return Plan(
            self.sigmas, self.frames, given, tuple(self.lines), tuple(self.rows), open=any(self.lines[-1])
        )


def _steps(sigmas: Sequence[float], frames: int, *, history: int = 0) -> int:
    check_counts({"frames": frames, "history": history})
    if len(sigmas) < 2 or frames < 1 or history < 0:
        raise UserError("a plan needs at least one step and one frame, and no less than no history")
    return len(sigmas) - 1


def _draft(
    sigmas: Sequence[float], levels: Sequence[int], *, frames: Sequence[int] = (), clean_sigma: float = 0.0
) -> _Draft:
    """A draft that begins at `levels`, of frames 0, 1, 2, ... if nothing else is said."""
    check_sigma("the sigma of known frames", clean_sigma)
    rising = tuple(float(sigma) for sigma in reversed(sigmas))
    return _Draft(rising, tuple(frames or range(len(levels))), [tuple(levels)], clean_sigma)


def _within(name: str, value: int, low: int, high: int) -> None:
    check_counts({name: value})
    if not low <= value <= high:
        raise UserError(f"{name} must lie between {low} and {high}, got {value}")


def _windows(frames: int, window: int, overlap: int) -> list[range]:
    """Windows of `window` frames, each sharing `overlap` with the one before, that end where frames end."""
    check_counts({"window": window, "overlap": overlap})
    if not 0 <= overlap < window <= frames:
        raise UserError(
            f"windows must be longer than their overlap and no longer than the {frames} frames, "
            f"got {window} with an overlap of {overlap}"
        )
    stride = window - overlap
    rest = (frames - window) % stride
    if rest:
        raise UserError(
            f"windows of {window} frames that share {overlap} fill {frames - rest} or "
            f"{frames - rest + stride} frames, not {frames}"
        )
    return [range(start, start + window) for start in range(0, frames - overlap, stride)]


def trapezoid(sigmas: Sequence[float], frames: int, *, lag: int) -> Plan:
    """Both ends begin and every frame further inwards starts `lag` rows later: the middle comes last.

    The trapezoid of the public code of Diffusion Forcing (arXiv 2407.01392), mended: there the last frame
    never leads, and the middle of an even number of frames is never denoised.
    """
    steps = _steps(sigmas, frames)
    _within("the lag", lag, 0, steps)
    waits = [lag * min(p, frames - 1 - p) for p in range(frames)]
    draft = _draft(sigmas, [steps] * frames)
    for row in range(steps + max(waits)):
        draft.move((p for p in range(frames) if waits[p] <= row < waits[p] + steps), [range(frames)])
    return draft.plan()


def rolling(
    sigmas: Sequence[float],
    frames: int,
    *,
    lag: int = 1,
    history: int = 0,
    window: int = 0,
    history_sigma: float = 0.0,
) -> Plan:
    """A queue from which a clean frame leaves every `lag` rows while noise enters: `frames` leave.

    Rolling diffusion (arXiv 2402.09470) and FIFO-Diffusion (2405.11473). The plan is open: it is given
    `history` clean frames and a warm diagonal, ceil(steps / lag) - 1 frames at levels lag, 2 lag, ... (a clip
    noised to these, or the end of a walk), and ends with such a diagonal, which the next plan is given. The
    last `history` clean frames stay in view; without any, what has left is forgotten.

    A `window` (0: the whole queue) is FIFO's lookahead denoising: windows of so many frames, of which the
    second half moves, in rows of their own from the noisiest on, so that each reads what was there before.
    """
    steps = _steps(sigmas, frames, history=history)
    _within("the lag", lag, 1, steps)
    check_counts({"window": window})
    if window == 1 or window < 0:
        raise UserError(f"a window has two halves, so at least 2 frames, got {window}")
    waits = [lag * (p + 1) - steps for p in range(frames + -(-steps // lag) - 1)]
    levels = [0] * history + [min(steps, steps + wait) for wait in waits]
    draft = _draft(sigmas, levels, clean_sigma=history_sigma)
    for row in range(lag * frames):
        moving = [history + p for p, wait in enumerate(waits) if wait <= row < wait + steps]
        first, last = moving[0], moving[-1] + 1
        half = window // 2 or len(moving)
        for end in range(last, first, -half):
            begin = end - window if window else first - history
            draft.move(range(max(first, end - half), end), [range(max(0, begin), end)])
    return draft.plan()


def overlapped(
    sigmas: Sequence[float], frames: int, *, clip: int, overlap: int, level: int, smooth: int = 0
) -> Plan:
    """Clip after clip; the frames that two clips share are drawn anew from the first, and fused at the end.

    After the smooth video sampling of Voyager (arXiv 2506.04225): a clip begins with its `overlap` as the
    clip before left it, drawn anew at `level`, and when it is clean the two copies become their mean. With
    `smooth`, all frames then go up to that level and down again in windows whose predictions are averaged:
    it mends what the mean of very different copies lacks, and is no gain where `level` is low. A frame's last
    slot is the one that counts.
    """
    steps = _steps(sigmas, frames)
    clips = _windows(frames, clip, overlap)
    _within("the level of the overlap", level, 1, steps)
    _within("the level of smoothing", smooth, 0, steps - 1)
    owners = [frame for window in clips for frame in window]
    draft = _draft(sigmas, [steps] * len(owners), frames=owners)
    for begin in range(0, len(owners), clip):
        copies, sources = range(begin, begin + overlap), range(begin - overlap, begin)
        if begin and overlap:
            draft.renoise(copies, sources, level)
        draft.descend(range(begin, begin + clip), [range(begin, begin + clip)])
        for pair in zip(sources, copies, strict=True) if begin else ():
            draft._add(Fuse(pair), {})
    if smooth:
        last = {frame: slot for slot, frame in enumerate(owners)}
        draft.renoise(list(last.values()), list(last.values()), smooth)
        draft.descend(list(last.values()), [[last[frame] for frame in window] for window in clips])
    return draft.plan()


def stitched(sigmas: Sequence[float], frames: int, *, window: int, overlap: int) -> Plan:
    """All frames together, in windows that overlap; what several windows say of a frame is averaged.

    MultiDiffusion (arXiv 2302.08113) along time: no window waits for another, and frames that share none know
    of each other only through those between them.
    """
    steps = _steps(sigmas, frames)
    draft = _draft(sigmas, [steps] * frames)
    draft.descend(range(frames), _windows(frames, window, overlap))
    return draft.plan()


def together(
    sigmas: Sequence[float], frames: int, *, known: Iterable[int] = (), begin: int | None = None
) -> Plan:
    """All frames at once, as a model of whole clips was trained; those of `known` are given, clean.

    With `begin`, a level, the others are given too, as noisy as that: a clip that is dreamt anew from there
    on (SDEdit, arXiv 2108.01073).
    """
    steps = _steps(sigmas, frames)
    start, fixed = steps if begin is None else begin, set(known)
    _within("the level to begin at", start, 1, steps)
    if not fixed < set(range(frames)):
        raise UserError(f"known frames lie among the {frames} and leave some to dream, got {sorted(fixed)}")
    draft = _draft(sigmas, [0 if p in fixed else start for p in range(frames)])
    draft.descend([p for p in range(frames) if p not in fixed], [range(frames)])
    return draft.plan()


def keyframes(
    sigmas: Sequence[float], frames: int, *, every: int, known: int = 0, key_sigma: float = 0.0
) -> Plan:
    """Frames 0, `every`, 2 `every`, ... first, together; then those between, each gap with its two keyframes.

    Long videos of the Diffusion Forcing Transformer (arXiv 2502.06764). The first `known` keyframes are
    given, and keyframes are shown at `key_sigma` to the frames between them. A read holds the keyframes, or
    one gap; all gaps are denoised at once.
    """
    steps = _steps(sigmas, frames)
    check_counts({"every": every})
    if every < 1 or (frames - 1) % every:
        raise UserError(
            f"the last of {frames} frames is no keyframe: with one every {every}, take a multiple and 1"
        )
    keys = range(0, frames, every)
    _within("the number of known keyframes", known, 0, len(keys))
    draft = _draft(sigmas, [0 if p in keys[:known] else steps for p in range(frames)], clean_sigma=key_sigma)
    draft.descend(keys, [keys])
    draft.descend([p for p in range(frames) if p % every], [range(a, b + 1) for a, b in pairwise(keys)])
    return draft.plan()


def recalled(plan: Plan, memory: Sequence[int], *, at: int, sigma: float = 0.0) -> Plan:
    """A plan with frames of long ago in view of every read, as in WorldMem (arXiv 2504.12369).

    `memory` names them, in order, and `at` is where the plan's frame 0 lies, both counted from the beginning
    of the walk. They are given before all else and shown at `sigma`. They see only one another, so they are
    committed in the first pass.
    """
    check_sigma("the sigma of recalled frames", sigma)
    count, first = len(memory), at + min(plan.frames)
    if list(memory) != sorted(set(memory)) or any(frame >= first for frame in memory):
        raise UserError(f"recalled frames are named once, in order, before frame {first}, got {list(memory)}")
    recall = tuple(range(count))

    def moved(slots: Iterable[int]) -> tuple[int, ...]:
        return tuple(p + count for p in slots)

    def read(old: ForwardSpec) -> ForwardSpec:
        branches = (
            replace(v, input_sigma=tuple((p + count, shown) for p, shown in v.input_sigma))
            for v in old.branches
        )
        below = (min(old.groups) - 1,) * count
        return ForwardSpec(
            recall + moved(old.slots), (sigma,) * count + old.input_sigma, below + old.groups, tuple(branches)
        )

    rows: list[Row] = []
    fresh = recall
    for row in plan.rows:
        match row:
            case Pass():
                rows.append(Pass(tuple(read(old) for old in row.reads), fresh + moved(row.commit)))
                fresh = ()
            case Renoise():
                rows.append(Renoise(moved(row.slots), moved(row.sources)))
            case Fuse():
                rows.append(Fuse(moved(row.slots)))
    return Plan(
        plan.sigmas,
        tuple(memory) + tuple(at + frame for frame in plan.frames),
        (True,) * count + plan.given,
        tuple((0,) * count + line for line in plan.levels),
        tuple(rows),
        open=plan.open,
    )


def resampled(
    sigmas: Sequence[float],
    frames: int,
    *,
    jump: int,
    times: int = 1,
    begin: int | None = None,
    history: int = 0,
    history_sigma: float = 0.0,
) -> Plan:
    """Down by `jump` levels, then `times` times up again and down, and so on until clean.

    The resampling of RePaint (arXiv 2201.09865, section 4.2), which brings what is dreamt into harmony with
    the `history` that is known. `begin` is the level of a video that is given partly noised, as in SDEdit
    (2108.01073); without it frames begin as noise. Nothing goes up to pure noise, which would begin anew.
    """
    steps = _steps(sigmas, frames, history=history)
    top = steps if begin is None else begin
    _within("the level to begin at", top, 1, steps)
    check_counts({"jump": jump, "times": times})
    if jump < 1 or top % jump or (jump == steps and times):
        raise UserError(
            f"a jump must divide the {top} levels and be smaller than the {steps} steps, got {jump}"
        )
    slots = range(history, history + frames)
    draft = _draft(sigmas, [0] * history + [top] * frames, clean_sigma=history_sigma)
    for low in range(top - jump, -1, -jump):
        draft.descend(slots, [range(history + frames)], to=low)
        for _ in range(times if low + jump < steps else 0):
            draft.renoise(slots, slots, low + jump)
            draft.descend(slots, [range(history + frames)], to=low)
    return draft.plan()
