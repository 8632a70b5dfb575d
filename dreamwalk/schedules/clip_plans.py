"""Plans of whole clips: all frames together, clips that overlap, frames recalled from long ago.

Masks are bidirectional. `sigmas` go from 1 down to 0; levels are indices into them that count from clean, 0.
Every function raises a UserError for what is impossible. More plans of published methods, made with the same
`PlanDraft`, are in `examples/published_schedules.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dreamwalk.errors import UserError
from dreamwalk.schedules import plans
from dreamwalk.schedules.plans import ForwardSpec, Fuse, Pass, Plan, Renoise, Row, check_range


@dataclass
class PlanDraft:
    """A plan that grows row by row, from the `levels` that its slots begin at."""

    sigmas: Sequence[float]
    levels: Sequence[int]
    frames: Sequence[int] = ()
    """Of the slots; default: 0, 1, 2, ..."""
    clean_sigma: float = 0.0
    """Input sigma of finished and known frames."""
    lines: list[tuple[int, ...]] = field(init=False)
    rows: list[Row] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        plans.check_sigma("the sigma of known frames", self.clean_sigma)
        self.sigmas = [float(sigma) for sigma in reversed(self.sigmas)]
        self.frames = tuple(self.frames or range(len(self.levels)))
        self.lines = [tuple(self.levels)]

    def add(self, row: Row, levels: Mapping[int, int]) -> None:
        """A row, and the levels of the slots that it changes."""
        self.rows.append(row)
        self.lines.append(tuple(levels.get(p, level) for p, level in enumerate(self.lines[-1])))

    def move(self, slots: Iterable[int], windows: Sequence[Sequence[int]]) -> None:
        """One pass: `slots` go down a level; every window is a read."""
        now = self.lines[-1]
        inputs = [self.sigmas[level] if level else self.clean_sigma for level in now]
        reads = (ForwardSpec(tuple(w), tuple(inputs[p] for p in w), (0,) * len(w)) for w in windows)
        self.add(Pass(tuple(reads)), {p: now[p] - 1 for p in slots})

    def descend(self, slots: Sequence[int], windows: Sequence[Sequence[int]], *, to: int = 0) -> None:
        """As many passes as it takes to bring all slots to a level, the noisiest first."""
        while (top := max((self.lines[-1][p] for p in slots), default=to)) > to:
            self.move([p for p in slots if self.lines[-1][p] == top], windows)

    def renoise(self, slots: Sequence[int], sources: Sequence[int], level: int) -> None:
        self.add(Renoise(tuple(slots), tuple(sources)), dict.fromkeys(slots, level))

    def plan(self) -> Plan:
        """The plan; slots that did not begin as noise are given."""
        given, lines = tuple(level < len(self.sigmas) - 1 for level in self.levels), tuple(self.lines)
        unfinished = any(lines[-1])
        return Plan(tuple(self.sigmas), tuple(self.frames), given, lines, tuple(self.rows), open=unfinished)


def count_steps(sigmas: Sequence[float], frames: int, *, history: int = 0) -> int:
    """Steps of a plan; UserError without a step or a frame."""
    steps = len(sigmas) - 1
    for name, value, low in (("steps", steps, 1), ("frames", frames, 1), ("history", history, 0)):
        check_range(name, value, low)
    return steps


def overlapping_windows(frames: int, window: int, overlap: int) -> list[range]:
    """Windows of `window` frames, each sharing `overlap` with the one before, that end where frames end."""
    check_range("the window", window, 1, frames)
    check_range("the overlap of windows", overlap, 0, window - 1)
    stride = window - overlap
    if rest := (frames - window) % stride:
        raise UserError(
            f"windows of {window} frames that share {overlap} fill {frames - rest} or "
            f"{frames - rest + stride} frames, not {frames}"
        )
    return [range(start, start + window) for start in range(0, frames - overlap, stride)]


def together(
    sigmas: Sequence[float], frames: int, *, known: Iterable[int] = (), begin: int | None = None
) -> Plan:
    """All frames at once, as a model of whole clips was trained; those of `known` are given, clean.

    With `begin`, a level, the others are given too, as noisy as that: a clip that is dreamt anew from there
    on (SDEdit, arXiv 2108.01073).
    """
    steps = count_steps(sigmas, frames)
    start, fixed = steps if begin is None else begin, set(known)
    check_range("the level to begin at", start, 1, steps)
    if not fixed < set(range(frames)):
        raise UserError(f"known frames lie among the {frames} and leave some to dream, got {sorted(fixed)}")
    draft = PlanDraft(sigmas, [0 if p in fixed else start for p in range(frames)])
    draft.descend([p for p in range(frames) if p not in fixed], [range(frames)])
    return draft.plan()


def overlapped(
    sigmas: Sequence[float], frames: int, *, clip: int, overlap: int, level: int, smooth: int = 0
) -> Plan:
    """Clip after clip; the frames that two clips share are renoised from the first, and fused at the end.

    After the smooth video sampling of Voyager (arXiv 2506.04225): a clip begins with its `overlap` as the
    clip before left it, renoised to `level`, and when it is clean the two copies become their mean. With
    `smooth`, all frames then go up to that level and down again in windows whose predictions are averaged:
    it mends what the mean of very different copies lacks, and is no gain where `level` is low. A frame's last
    slot is the one that counts.
    """
    steps = count_steps(sigmas, frames)
    clips = overlapping_windows(frames, clip, overlap)
    check_range("the level of the overlap", level, 1, steps)
    check_range("the level of smoothing", smooth, 0, steps - 1)
    owners = [frame for window in clips for frame in window]
    draft = PlanDraft(sigmas, [steps] * len(owners), owners)
    for begin in range(0, len(owners), clip):
        copies, sources = range(begin, begin + overlap), range(begin - overlap, begin)
        if begin and overlap:
            draft.renoise(copies, sources, level)
        draft.descend(range(begin, begin + clip), [range(begin, begin + clip)])
        for pair in zip(sources, copies, strict=True) if begin else ():
            draft.add(Fuse(pair), {})
    if smooth:
        last = {frame: slot for slot, frame in enumerate(owners)}
        slots = list(last.values())
        draft.renoise(slots, slots, smooth)
        draft.descend(slots, [[last[frame] for frame in window] for window in clips])
    return draft.plan()


def recalled(plan: Plan, memory: Sequence[int], *, at: int, sigma: float = 0.0) -> Plan:
    """A plan whose reads all hold frames of long ago, as in WorldMem (arXiv 2504.12369).

    `memory` names them, in order, and `at` is where the plan's frame 0 lies, both counted from the beginning
    of the rollout. They are given before all else, with input sigma `sigma`. They see only one another, so
    they are committed in the first pass.
    """
    plans.check_sigma("the sigma of recalled frames", sigma)
    count, first = len(memory), at + min(plan.frames)
    if list(memory) != sorted(set(memory)) or any(frame >= first for frame in memory):
        raise UserError(f"recalled frames are named once, in order, before frame {first}, got {list(memory)}")
    fresh = recall = tuple(range(count))

    def moved(slots: Iterable[int]) -> tuple[int, ...]:
        return tuple(p + count for p in slots)

    def extended(read: ForwardSpec) -> ForwardSpec:
        inputs = [tuple((p + count, own) for p, own in branch.input_sigma) for branch in read.branches]
        branches = (replace(b, input_sigma=own) for b, own in zip(read.branches, inputs, strict=True))
        groups = (min(read.groups) - 1,) * count + read.groups
        slots, sigmas = recall + moved(read.slots), (sigma,) * count + read.input_sigma
        return ForwardSpec(slots, sigmas, groups, tuple(branches))

    rows: list[Row] = []
    for row in plan.rows:
        match row:
            case Pass():
                rows.append(Pass(tuple(map(extended, row.reads)), fresh + moved(row.commit)))
                fresh = ()
            case Renoise():
                rows.append(Renoise(moved(row.slots), moved(row.sources)))
            case Fuse():
                rows.append(Fuse(moved(row.slots)))
    frames, given = (*memory, *(at + frame for frame in plan.frames)), (True,) * count + plan.given
    levels = tuple((0,) * count + line for line in plan.levels)
    return Plan(plan.sigmas, frames, given, levels, tuple(rows), open=plan.open)
