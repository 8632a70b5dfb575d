"""Plans as data: when each frame is denoised, what each pass reads, and at which sigma.

A plan is a matrix of noise levels over rows and slots (the scheduling matrix of Diffusion Forcing), with one
row of instructions between each two of its lines. A slot is a copy of a frame under way: mostly there is one
per frame, two where clips overlap. Levels are indices into sigmas that rise from 0, clean, to pure noise.

    Pass       the backbone reads some slots and moves some of them down; it may commit finished ones
    Renoise    slots go up to a higher level, from themselves or from another slot of the same frame
    Fuse       copies of one frame, at equal level, become their mean

One matrix serves all of these: full sequences, next frame, the pyramid of Diffusion Forcing (arXiv
2407.01392), rolling and FIFO diffusion (2402.09470, 2405.11473), block-causal chunks (MAGI-1, 2505.13211),
clips that overlap, and known frames (keyframes, history, recalled ones) as columns that begin clean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from numbers import Integral, Real
from typing import Literal, get_args

from dreamwalk.errors import UserError

MaskName = Literal["causal", "block", "bidirectional"]
"""A frame sees those before it; those of its chunk too; all."""


def check_mask(mask: object) -> None:
    """UserError unless it is one of `MaskName`."""
    if mask not in get_args(MaskName):
        raise UserError(f"there is no mask '{mask}': known are {', '.join(get_args(MaskName))}")


def check_range(name: str, value: object, low: int, high: int | None = None) -> None:
    """UserError unless it is a whole number from `low` to `high`, or from `low` up."""
    if not isinstance(value, Integral) or value < low or (high is not None and value > high):
        end = "up" if high is None else f"to {high}"
        raise UserError(f"{name} must be a whole number from {low} {end}, got {value!r:.40}")


def check_sigma(what: str, sigma: object) -> None:
    """UserError unless it is a noise level in [0, 1]."""
    if not isinstance(sigma, Real) or not 0 <= sigma <= 1:
        raise UserError(f"{what} must lie between 0 and 1, got {sigma!r}")


@dataclass(frozen=True)
class Branch:
    """A guidance branch of a read; the velocities of its branches are mixed by weight before the step."""

    weight: float = 1.0
    conditional: bool = True
    """Whether the backbone gets the conditions (actions, text)."""
    input_sigma: tuple[tuple[int, float], ...] = ()
    """Slots with another input sigma than in the read; 1 hides a frame."""
    rescale: float = 0.0
    """Share by which the mixture takes the standard deviation of this branch's denoised frames."""

    def __post_init__(self) -> None:
        for number in (self.weight, self.rescale):
            if not math.isfinite(number):
                raise UserError(f"guidance weighs its branches by finite numbers, got {number}")

    @property
    def guides(self) -> bool:
        """Whether it has a weight and another input than the read."""
        return bool(self.weight and (self.input_sigma or not self.conditional))


@dataclass(frozen=True)
class ForwardSpec:
    """One forward pass of the backbone: slots in order, and their inputs."""

    slots: tuple[int, ...]
    input_sigma: tuple[float, ...]
    """Of each slot; a slot that moves has its own."""
    groups: tuple[int, ...]
    """Who sees whom: a slot sees the slots of its own group and of all smaller ones. One group is a
    bidirectional mask, a group per frame a causal one, a group per chunk a block-causal one."""
    branches: tuple[Branch, ...] = (Branch(),)

    def visible(self, group: int) -> set[int]:
        """The slots that a group sees."""
        return {p for p, own in zip(self.slots, self.groups, strict=True) if own <= group}


@dataclass(frozen=True)
class Pass:
    """One or more reads of the same state; a slot that several of them read moves by their mean."""

    reads: tuple[ForwardSpec, ...]
    commit: tuple[int, ...] = ()
    """Slots whose keys and values, as read here, stay valid from now on."""


@dataclass(frozen=True)
class Renoise:
    """Slots, and the source of each: itself, or another copy of its frame."""

    slots: tuple[int, ...]
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Fuse:
    """Copies of one frame that become their mean."""

    slots: tuple[int, ...]


Row = Pass | Renoise | Fuse


@dataclass(frozen=True)
class Plan:
    """`levels[m]` before row m, `levels[m + 1]` after it; UserError names the first rule that is broken."""

    sigmas: tuple[float, ...]
    """Sigmas, rising from 0 (clean) to pure noise: 1, or as near as a VP model was trained to."""
    frames: tuple[int, ...]
    """The frame of every slot."""
    given: tuple[bool, ...]
    """Slots that are known before, clean or at whatever level they begin; the others begin as noise."""
    levels: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]
    open: bool = False
    """A part of a longer rollout: it may end with frames under way."""
    approximate: tuple[str, ...] = field(init=False)
    """Why this plan, even with a perfect model, is not exact; empty when it is."""

    def __post_init__(self) -> None:
        check_plan(self)
        object.__setattr__(self, "approximate", _approximations(self))

    @property
    def steps(self) -> int:
        """Levels between noise and clean."""
        return len(self.sigmas) - 1

    @cached_property
    def moving(self) -> tuple[tuple[int, ...], ...]:
        """Slots that each row moves down."""
        lines = pairwise(self.levels)
        return tuple(tuple(p for p, old in enumerate(before) if after[p] < old) for before, after in lines)

    def marks(self, row: int) -> dict[int, str]:
        """What a row does to slots besides moving them: `*` commits, `^` renoises, `=` fuses."""
        kind = self.rows[row]
        slots = kind.commit if isinstance(kind, Pass) else kind.slots
        return dict.fromkeys(slots, {Pass: "*", Renoise: "^", Fuse: "="}[type(kind)])

    def show(self) -> str:
        """The plan as text: a line per row, a column per slot; `.` clean, `#` pure noise, else the level.

        Behind a level stand the `marks` of the row that led to it.
        """
        width, names = max(2, len(str(self.steps))), {0: ".", self.steps: "#"}
        lines = ["frame " + "".join(f"{frame:>{width}} " for frame in self.frames)]
        for index, levels in enumerate(self.levels):
            marks = self.marks(index - 1) if index else {}
            cells = (
                f"{names.get(level, level):>{width}}{marks.get(p, ' ')}" for p, level in enumerate(levels)
            )
            lines.append(f"{index:>5} " + "".join(cells))
        return "\n".join(line.rstrip() for line in lines)


def check_plan(plan: Plan) -> None:
    """UserError with one sentence naming the first rule that a plan breaks."""
    _check_shapes(plan)
    for slot in range(len(plan.frames)):
        if not plan.given[slot] and plan.levels[0][slot] != plan.steps:
            raise UserError(f"slot {slot} must begin at pure noise, not at {plan.levels[0][slot]}")
    last = {frame: slot for slot, frame in enumerate(plan.frames)}
    for frame, slot in last.items():
        if plan.levels[-1][slot] and not plan.open:
            raise UserError(f"frame {frame} ends at level {plan.levels[-1][slot]} and not clean")
    changes = [_check_row(plan, index, row) for index, row in enumerate(plan.rows)]
    _check_commits(plan, changes)


def _check_commits(plan: Plan, changes: list[set[int]]) -> None:
    """Committed slots and what they see stay as they are; a cache holds one copy of a frame."""
    seen: dict[int, int] = {}
    kept: dict[int, int] = {}
    for index, (row, changed) in enumerate(zip(plan.rows, changes, strict=True)):
        for slot in sorted(seen.keys() & changed):
            fate = "is committed" if slot in kept.values() else f"the committed slot {seen[slot]} has seen"
            raise UserError(f"row {index} changes slot {slot}, which {fate}")
        if not isinstance(row, Pass):
            continue
        for slot in row.commit:
            seen |= dict.fromkeys(_visible(row, slot) - seen.keys(), slot)
            kept.setdefault(plan.frames[slot], slot)
        for slot in (p for read in row.reads for p in read.slots):
            if kept.get(plan.frames[slot], slot) != slot:
                raise UserError(f"row {index} reads slot {slot}, of whose frame another copy is committed")


def _check_shapes(plan: Plan) -> None:
    sigmas, slots = plan.sigmas, len(plan.frames)
    if len(sigmas) < 2 or sigmas[0] != 0 or sigmas[-1] > 1 or any(a >= b for a, b in pairwise(sigmas)):
        raise UserError(f"sigmas must rise from 0 to 1, got {sigmas}")
    if slots == 0 or len(plan.given) != slots or any(len(line) != slots for line in plan.levels):
        raise UserError(f"{slots} slots need as many entries in `given` and in every line of `levels`")
    if any(frame < 0 for frame in plan.frames):
        raise UserError(f"frames are counted from 0, got {min(plan.frames)}")
    rows, lines = len(plan.rows), len(plan.levels)
    if lines != rows + 1:
        raise UserError(f"{rows} rows lie between {rows + 1} lines, not {lines}")
    if any(not 0 <= level <= plan.steps for line in plan.levels for level in line):
        raise UserError(f"levels are indices into the sigmas, 0 to {plan.steps}")


def _visible(row: Pass, slot: int) -> set[int]:
    """The slots that a slot sees in a row."""
    reads = [read for read in row.reads if slot in read.slots]
    return {q for read in reads for q in read.visible(read.groups[read.slots.index(slot)])}


def _check_row(plan: Plan, index: int, row: Row) -> set[int]:
    """The slots that a row changes."""
    before, after = plan.levels[index], plan.levels[index + 1]
    named = [row.commit, *(read.slots for read in row.reads)] if isinstance(row, Pass) else [row.slots]
    if any(not 0 <= p < len(before) for slots in named for p in slots):
        raise UserError(f"row {index} names a slot that is none of the {len(before)} of the plan")
    if len(set(named[0])) < len(named[0]):
        raise UserError(f"row {index} names a slot twice")
    changed = {p for p in range(len(before)) if before[p] != after[p]}
    match row:
        case Pass():
            _check_pass(plan, index, row, changed)
            return changed
        case Renoise():
            if len(row.slots) != len(row.sources) or changed - set(row.slots):
                raise UserError(f"row {index} renoises, so it names every slot that changes and its source")
            for slot, source in zip(row.slots, row.sources, strict=True):
                if plan.frames[slot] != plan.frames[source]:
                    raise UserError(f"row {index} renoises slot {slot} from slot {source}, another frame")
                if after[slot] <= before[source]:
                    raise UserError(f"row {index} renoises slot {slot} to a level that is not higher")
        case Fuse():
            if changed:
                raise UserError(f"row {index} fuses slots, so no level may change")
            copies = {(plan.frames[p], before[p]) for p in row.slots}
            if len(copies) != 1 or len(row.slots) < 2:
                raise UserError(f"row {index} fuses two or more copies of one frame at one level only")
            if before[row.slots[0]] and before[row.slots[0]] != plan.steps:
                raise UserError(
                    f"row {index} fuses noisy slots: the mean of two noises is too quiet, fuse clean ones"
                )
    return set(row.slots)


def _check_pass(plan: Plan, index: int, row: Pass, changed: set[int]) -> None:
    before, after = plan.levels[index], plan.levels[index + 1]
    if not changed and not row.commit:
        raise UserError(f"row {index} changes nothing")
    for slot in sorted(changed):
        if after[slot] > before[slot]:
            raise UserError(f"noise rises in row {index} in slot {slot}: only a Renoise row may do that")
        if not any(slot in read.slots for read in row.reads):
            raise UserError(f"row {index} moves slot {slot}, which it does not read")
    for slot in row.commit:
        seen = _visible(row, slot)
        if before[slot] or not seen:
            raise UserError(f"row {index} commits slot {slot}, which must be clean and read there")
        noisy = sorted(q for q in seen if before[q])
        if noisy:
            raise UserError(f"row {index} commits slot {slot} while it sees the noisy slot {noisy[0]}")
    if len(set(row.reads)) < len(row.reads):
        raise UserError(f"row {index} reads the same twice")
    for read in row.reads:
        if not set(read.slots) & (changed | set(row.commit)):
            raise UserError(f"row {index} reads slots {read.slots} and neither moves nor commits any")
        _check_read(plan, index, read, changed)


def _check_read(plan: Plan, index: int, read: ForwardSpec, changed: set[int]) -> None:
    if not len(set(read.slots)) == len(read.slots) == len(read.input_sigma) == len(read.groups):
        raise UserError(f"row {index} reads a slot twice, or lacks the input sigma or the group of one")
    order = [plan.frames[p] for p in read.slots]
    if order != sorted(order):
        raise UserError(f"row {index} reads frames out of their order")
    weight = sum(branch.weight for branch in read.branches)
    if abs(weight - 1) > 1e-6:
        raise UserError(f"the branches of row {index} have weights that sum to {weight:g}, not to 1")
    overrides = [dict(branch.input_sigma) for branch in read.branches]
    strange = sorted({p for override in overrides for p in override} - set(read.slots))
    if strange:
        raise UserError(f"row {index} has an input sigma for slot {strange[0]}, which its read does not hold")
    for slot, sigma in zip(read.slots, read.input_sigma, strict=True):
        own = plan.sigmas[plan.levels[index][slot]]
        inputs = [override.get(slot, sigma) for override in overrides]
        if slot in changed and any(value != own for value in inputs):
            raise UserError(f"row {index} moves slot {slot}, so its input sigma must be its own, {own:g}")
        for value in inputs:
            check_sigma(f"the input sigma of slot {slot} in row {index}", value)
        if any(value < own for value in inputs):
            raise UserError(f"row {index} has an input sigma for slot {slot} below its own")


def _approximations(plan: Plan) -> tuple[str, ...]:
    """Why a plan is not exact with a perfect model."""
    found: list[str] = []
    seen_by: dict[int, set[int]] = {}
    for index, row in enumerate(plan.rows):
        if isinstance(row, Fuse):
            found.append("the mean of two dreams of a frame varies less than a dream")
        if not isinstance(row, Pass):
            continue
        for read in row.reads:
            found += _unseen(plan, index, read)
            if any(branch.guides for branch in read.branches):
                found.append("guidance leads away from the data")
            for p, group in zip(read.slots, read.groups, strict=True):
                if p in row.commit:
                    seen_by[p] = read.visible(group)
                if not seen_by.get(p, set()) <= set(read.slots):
                    found.append("frames that the window forgot live on in what committed frames saw of them")
    return tuple(dict.fromkeys(found))


def _unseen(plan: Plan, index: int, read: ForwardSpec) -> Iterator[str]:
    """Frames that the slots that a read moves would have to see, and do not, or only with more noise.

    A step is exact for a frame that sees a copy of every other frame that is not pure noise.
    """
    levels, moving = plan.levels[index], set(plan.moving[index])
    known = {p for p, level in enumerate(levels) if level < plan.steps} | moving
    sigma = dict(zip(read.slots, read.input_sigma, strict=True))
    for group in {g for p, g in zip(read.slots, read.groups, strict=True) if p in moving}:
        visible = read.visible(group)
        frames = {plan.frames[p] for p in visible}
        for p in known:
            if plan.frames[p] in frames:
                continue
            if not levels[p]:
                yield "frames under way do not see all that are finished"
            elif p in read.slots:
                yield "noisy frames do not see the later ones that are under way with them"
            else:
                yield "frames under way do not all see one another"
        if any(sigma[p] > plan.sigmas[levels[p]] for p in visible):
            yield "finished frames are shown noisier than they are"
