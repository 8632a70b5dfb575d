"""Executor of plans.

    for row in plan:
        Pass      v = mix(predictor(branches of a read)), the mean over the reads of a slot
                  x = update(x, v), for the slots that the row moves
        Renoise   x = renoise(x, noise), up to a higher sigma
        Fuse      x = mean of the copies of a frame

The executor knows no network: a `Predictor` gives the velocities, with or without a cache (`frame_predictor`,
`clip_predictor`). Real-time walks (`realtime`) and endless ones (`streaming`) are plans as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.schedules import flow
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.plans import Branch, ForwardSpec, Fuse, Pass, Plan, Renoise


def euler(step: PlanStep) -> Tensor:
    """One pass a step, first order."""
    return step.x + step.dsigma * step.v


def heun(step: PlanStep) -> Tensor:
    """Two passes a step, second order: the mean of the velocities at both ends."""
    return step.x + step.dsigma * ((step.v + step.v_ahead(euler(step))) / 2)


def multistep(step: PlanStep) -> Tensor:
    """One pass a step, second order (Adams-Bashforth): the velocity is extrapolated from the step before.

    Where a frame rests now or rested in the row before, its last velocity is of another state: `heun`.
    """
    if step.rested:
        return heun(step)
    v_before, ratio = step.before
    return step.x + step.dsigma * (step.v + ratio / 2 * (step.v - v_before))


Update = Callable[["PlanStep"], Tensor]
Solver = Literal["euler", "heun", "multistep"]
UPDATES: dict[Solver, Update] = {"euler": euler, "heun": heun, "multistep": multistep}


@dataclass(frozen=True)
class ModelInput:
    """Input of a backbone for one branch of one read: `k` frames in order."""

    x: Tensor
    """`(b, k, c, h, w)`, noised to `input_sigma`."""
    input_sigma: tuple[float, ...]
    """Of each frame."""
    frames: tuple[int, ...]
    groups: tuple[int, ...]
    """The attention mask, as in `ForwardSpec`."""
    conditional: bool = True
    """Whether the backbone gets the conditions."""
    index: int = 0
    """Of the branch in its read."""
    moves: tuple[bool, ...] = ()
    """Frames whose velocity is used."""
    commits: tuple[bool, ...] = ()
    """Frames whose keys and values, as computed here, stay valid from now on."""

    @property
    def sigma(self) -> Tensor:
        """`input_sigma` as `(b, k)`."""
        sigma = torch.tensor(self.input_sigma, dtype=self.x.dtype, device=self.x.device)
        return sigma.expand(len(self.x), -1)

    @property
    def visible(self) -> Tensor:
        """`(k, k)`: row sees column."""
        groups = torch.tensor(self.groups, device=self.x.device)
        return groups[:, None] >= groups[None, :]

    def window(self, part: slice) -> ModelInput:
        """A part of the frames."""
        names = "input_sigma", "frames", "groups", "moves", "commits"
        return replace(self, x=self.x[:, part], **{name: getattr(self, name)[part] for name in names})


class Predictor(Protocol):
    """Velocities `(b, k, c, h, w)`, one for each branch of a read; frames that do not move get any value.

    UserError for a mask or a guidance that the predictor cannot honour.
    """

    def __call__(self, branches: Sequence[ModelInput]) -> list[Tensor]: ...


class Noise(Protocol):
    """Standard normal draws `(b, ...)`, a function of frame and use alone."""

    def __call__(self, frame: int, use: int) -> Tensor: ...


@dataclass(frozen=True)
class KeyedNoise:
    """Noise keyed by a seed per row, the frame and the use: batch, window and order do not change it."""

    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    """Of one frame."""
    device: torch.device | str = "cpu"

    def __call__(self, frame: int, use: int) -> Tensor:
        keys = [(seed, frame, use) for seed in self.seeds]
        return KeyedGenerator(keys, device=self.device).normal(*self.shape)


@dataclass
class State:
    """Values of all slots `(b, p, ...)`, and the velocity and dsigma of the last step of each, where it
    moved."""

    x: Tensor
    last_step: dict[int, tuple[Tensor, float]] = field(default_factory=dict)

    def reset(self, slots: Sequence[int], values: Sequence[Tensor]) -> None:
        """Give slots values to which no velocity led, so that none is extrapolated."""
        for p, value in zip(slots, values, strict=True):
            self.x[:, p] = value
            self.last_step.pop(p, None)


def execute(
    plan: Plan, predictor: Predictor, noise: Noise, *, given: Tensor | None = None, update: Update = euler
) -> Tensor:
    """Run a plan: the final value of every slot, `(b, p, ...)`.

    `given` `(b, k, ...)` are the values of the plan's given slots, in order; UserError when there are more
    or fewer. A frame begins as `noise(frame, 0)`; an input sigma above its own adds `noise(frame, 1)`, always
    the same; later uses are for renoising.
    """
    state = begin(plan, noise, given)
    for _ in run(plan, state, predictor, noise, update=update):
        pass
    return state.x


def begin(plan: Plan, noise: Noise, given: Tensor | None) -> State:
    """The state before the first row."""
    known = () if given is None else given.unbind(1)
    if sum(plan.given) != len(known):
        raise UserError(f"the plan is given {sum(plan.given)} frames, got {len(known)}")
    values = iter(known)
    slots = [
        next(values) if is_given else plan.sigmas[-1] * noise(frame, 0)
        for frame, is_given in zip(plan.frames, plan.given, strict=True)
    ]
    return State(torch.stack(slots, dim=1))


def run(
    plan: Plan, state: State, predictor: Predictor, noise: Noise, *, update: Update = euler
) -> Iterator[int]:
    """Run a plan from a state, in place; yields the index of every row when it is done."""
    for index, row in enumerate(plan.rows):
        match row:
            case Pass():
                PlanStep(plan, index, row, state, predictor, noise).take(update)
            case Renoise():
                state.reset(row.slots, list(_renoised(plan, index, row, state.x, noise)))
            case Fuse():
                mean = state.x[:, list(row.slots)].mean(dim=1)
                state.reset(row.slots, [mean] * len(row.slots))
        yield index


def _renoised(plan: Plan, index: int, row: Renoise, x: Tensor, noise: Noise) -> Iterator[Tensor]:
    for slot, source in zip(row.slots, row.sources, strict=True):
        low, high = plan.sigmas[plan.levels[index][source]], plan.sigmas[plan.levels[index + 1][slot]]
        yield flow.renoise(x[:, source], noise(plan.frames[slot], 2 + index), low, high)


@dataclass(frozen=True)
class PlanStep:
    """One step of the `k` slots that a row moves, for an `Update`; their numbers are `(k, 1, ...)`."""

    plan: Plan
    index: int
    row: Pass
    state: State
    predictor: Predictor
    noise: Noise

    @property
    def slots(self) -> tuple[int, ...]:
        return self.plan.moving[self.index]

    @property
    def x(self) -> Tensor:
        """Values before the step, `(b, k, ...)`."""
        return self._stack([self.state.x[:, p] for p in self.slots])

    @cached_property
    def v(self) -> Tensor:
        """Their velocity, `(b, k, ...)`."""
        return self._velocity(self.state.x)

    @property
    def dsigma(self) -> Tensor:
        """Next sigma minus sigma: negative."""
        return self._numbers([self._dsigma(p) for p in self.slots])

    def v_ahead(self, x: Tensor) -> Tensor:
        """Velocity of `x` at the next sigma, `(b, k, ...)`; where that is clean, there is none, and `v`."""
        following = [self._sigma(p, after=True) for p in self.slots]
        if not any(following):
            return self.v
        ahead = self.state.x.clone()
        for p, value in zip(self.slots, x.unbind(1), strict=True):
            ahead[:, p] = value
        return torch.where(self._numbers(following) > 0, self._velocity(ahead, ahead=True), self.v)

    @property
    def before(self) -> tuple[Tensor, Tensor]:
        """Velocity of the step before, and the ratio of dsigma to its; `v` and 1 where there was none."""
        last = self.state.last_step
        steps = [last.get(p, (self.v[:, i], self._dsigma(p))) for i, p in enumerate(self.slots)]
        ratios = [self._dsigma(p) / before for p, (_, before) in zip(self.slots, steps, strict=True)]
        return self._stack([v for v, _ in steps]), self._numbers(ratios)

    @property
    def rested(self) -> bool:
        """Whether a slot under way moves either here or in the row before, and not in both."""
        if not self.index or not isinstance(self.plan.rows[self.index - 1], Pass):
            return False
        either = set(self.slots) ^ set(self.plan.moving[self.index - 1])
        return any(0 < self.plan.levels[self.index][p] < self.plan.steps for p in either)

    def take(self, update: Update) -> None:
        """Move the slots, and keep their velocities for the next step."""
        for i, (p, value) in enumerate(zip(self.slots, update(self).unbind(1), strict=True)):
            self.state.x[:, p] = value
            self.state.last_step[p] = self.v[:, i], self._dsigma(p)

    def _sigma(self, slot: int, *, after: bool = False) -> float:
        return self.plan.sigmas[self.plan.levels[self.index + after][slot]]

    def _dsigma(self, slot: int) -> float:
        return self._sigma(slot, after=True) - self._sigma(slot)

    def _stack(self, values: list[Tensor]) -> Tensor:
        return torch.stack(values, 1) if values else self.state.x[:, :0]  # a row may commit and move nothing

    def _numbers(self, values: list[float]) -> Tensor:
        x = self.state.x
        numbers = torch.tensor(values, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 2))
        return numbers.to(x.device, non_blocking=True)  # does not wait for the pass

    def _velocity(self, x: Tensor, *, ahead: bool = False) -> Tensor:
        """Of every slot that moves, the mean over its reads; `ahead`: the slots are one step further."""
        found: dict[int, list[Tensor]] = {p: [] for p in self.slots}
        for read in self.row.reads:
            for p, v in zip(read.slots, self._guided(read, x, ahead=ahead).unbind(1), strict=True):
                if p in found:
                    found[p].append(v)
        return self._stack([torch.stack(vs).mean(0) if len(vs) > 1 else vs[0] for vs in found.values()])

    def _guided(self, read: ForwardSpec, x: Tensor, *, ahead: bool) -> Tensor:
        """Velocity of all slots of a read; branches without a weight are not asked for."""
        live = [(index, branch) for index, branch in enumerate(read.branches) if branch.weight]
        inputs = [self._input(read, index, branch, x, ahead=ahead) for index, branch in live]
        return mix([branch for _, branch in live], inputs, self.predictor(inputs))

    def _input(self, read: ForwardSpec, index: int, branch: Branch, x: Tensor, *, ahead: bool) -> ModelInput:
        frames, other = tuple(self.plan.frames[p] for p in read.slots), dict(branch.input_sigma)
        values, sigmas = [], []
        for p, frame, planned in zip(read.slots, frames, read.input_sigma, strict=True):
            own, value = self._sigma(p, after=ahead), x[:, p]
            sigma = own if p in self.slots else other.get(p, planned)
            values.append(flow.renoise(value, self.noise(frame, 1), own, sigma) if sigma > own else value)
            sigmas.append(sigma)
        x, moves = torch.stack(values, dim=1), tuple(p in self.slots for p in read.slots)
        commits = tuple(p in self.row.commit and not ahead for p in read.slots)
        return ModelInput(x, tuple(sigmas), frames, read.groups, branch.conditional, index, moves, commits)


def mix(branches: Sequence[Branch], inputs: Sequence[ModelInput], velocities: Sequence[Tensor]) -> Tensor:
    """Guidance: `v_last + sum_i w_i (v_i - v_last)`; for two branches `uncond + w (cond - uncond)`."""
    *others, last = velocities
    if not others:
        return last
    v = last + sum(branch.weight * (one - last) for branch, one in zip(branches, others, strict=False))
    for branch, one, own in zip(branches, inputs, velocities, strict=True):
        if branch.rescale:
            v = flow.rescale(one.x, one.sigma, v, own, share=branch.rescale)
    return v
