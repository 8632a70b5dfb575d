"""The executor of plans: row after row, every slot with its own level and its own solver state.

It knows no network: what a view of a read predicts it asks of a `Predictor`, plain or on a cache
(`rollout.frame_predictor`). Opinions are mixed before anything moves, never after. Walks in real time
(`rollout.realtime`) and endless ones (`rollout.streaming`) are plans executed here, one after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.schedules.flow import renoise
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.plans import ForwardSpec, Fuse, Pass, Plan, Renoise

Solver = Literal["euler", "heun", "multistep"]
"""One pass a step, two, or one that goes on as the step before did; the latter two are of second order.

Where a frame under way rests, or has rested in the row before, what was before does not tell how to go on:
`multistep` takes two passes there, as `heun` does.
"""


@dataclass(frozen=True)
class ModelInput:
    """One view of one read, as a backbone is asked about it: `k` frames in order."""

    x: Tensor
    """`(b, k, c, h, w)`, as noisy as they are shown."""
    shown: tuple[float, ...]
    """At which sigma each is shown."""
    frames: tuple[int, ...]
    groups: tuple[int, ...]
    """Who sees whom, as in `ForwardSpec`."""
    told: bool = True
    """Whether conditions are told."""
    view: int = 0
    """Which of the views of its read this is."""
    moves: tuple[bool, ...] = ()
    """Of which frames the velocity is asked."""
    commits: tuple[bool, ...] = ()
    """Whose keys and values, as read here, stay valid from now on."""

    @property
    def sigma(self) -> Tensor:
        """`(b, k)`."""
        return torch.tensor(self.shown, dtype=self.x.dtype, device=self.x.device).expand(len(self.x), -1)

    @property
    def visible(self) -> Tensor:
        """`(k, k)`: row sees column."""
        groups = torch.tensor(self.groups, device=self.x.device)
        return groups[:, None] >= groups[None, :]


class Predictor(Protocol):
    """Velocity `(b, k, c, h, w)` of the frames of a look; where a frame does not move, anything."""

    def __call__(self, look: ModelInput) -> Tensor: ...


class Noise(Protocol):
    """Standard normal draws `(b, ...)`, the same for the same frame and use, whatever is asked before."""

    def __call__(self, frame: int, use: int) -> Tensor: ...


@dataclass(frozen=True)
class KeyedNoise:
    """Noise keyed by a seed per row, the frame and the use: batch, window and order do not change it."""

    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    """Of one frame."""
    device: torch.device | str = "cpu"

    def __call__(self, frame: int, use: int) -> Tensor:
        return KeyedGenerator([(seed, frame, use) for seed in self.seeds], device=self.device).normal(
            *self.shape
        )


@dataclass
class State:
    """Slots `(b, p, ...)` under way, and of each the last velocity and stride for multistep solvers."""

    x: Tensor
    moved: dict[int, tuple[Tensor, float]] = field(default_factory=dict)


def execute(
    plan: Plan, predict: Predictor, noise: Noise, *, given: Tensor | None = None, solver: Solver = "euler"
) -> Tensor:
    """Walk a plan; gives the final value of every slot, `(b, p, ...)`.

    `given` `(b, k, ...)` are the values of the plan's given slots, in order; UserError when there are more
    or fewer. A frame's noise is `noise(frame, 0)`; it is shown noisier than it is by `noise(frame, 1)`,
    always the same; later uses are for drawing anew.
    """
    state = begin(plan, noise, given)
    for _ in rows(plan, state, predict, noise, solver=solver):
        pass
    return state.x


def begin(plan: Plan, noise: Noise, given: Tensor | None) -> State:
    """The state before the first row."""
    known = () if given is None else given.unbind(1)
    if sum(plan.given) != len(known):
        raise UserError(f"the plan is given {sum(plan.given)} frames, got {len(known)}")
    values = iter(known)
    slots = [
        next(values) if is_given else plan.grid[-1] * noise(frame, 0)
        for frame, is_given in zip(plan.frames, plan.given, strict=True)
    ]
    return State(torch.stack(slots, dim=1))


def rows(
    plan: Plan, state: State, predict: Predictor, noise: Noise, *, solver: Solver = "euler"
) -> Iterator[int]:
    """Walk a plan from a state, in place; yields the index of every row when it is done."""
    for index, row in enumerate(plan.rows):
        match row:
            case Pass():
                _pass(_Walk(plan, index, predict, noise), row, state, solver)
            case Renoise():
                _renoise(plan, index, row, state, noise)
            case Fuse():
                state.x[:, list(row.slots)] = state.x[:, list(row.slots)].mean(dim=1, keepdim=True)
        if not isinstance(row, Pass):  # what changed without moving begins anew with its solver
            state.moved = {p: last for p, last in state.moved.items() if p not in row.slots}
        yield index


@dataclass(frozen=True)
class _Walk:
    """A row of a plan, and who is asked."""

    plan: Plan
    index: int
    predict: Predictor
    noise: Noise

    def sigma(self, slot: int, *, after: bool = False) -> float:
        return self.plan.grid[self.plan.levels[self.index + after][slot]]

    @property
    def rested(self) -> bool:
        """Whether a slot under way moves either here or in the row before, and not in both."""
        if not self.index or not isinstance(self.plan.rows[self.index - 1], Pass):
            return False
        either = set(self.plan.moving(self.index)) ^ set(self.plan.moving(self.index - 1))
        return any(0 < self.plan.levels[self.index][p] < self.plan.steps for p in either)


def _pass(walk: _Walk, row: Pass, state: State, solver: Solver) -> None:
    moving = walk.plan.moving(walk.index)
    v = _velocities(walk, row, state.x)
    stride = {p: walk.sigma(p, after=True) - walk.sigma(p) for p in moving}
    noisy = [p for p in moving if walk.sigma(p, after=True)]  # at clean there is no velocity to ask for
    steps = dict(v)
    twice = solver == "heun" or (solver == "multistep" and walk.rested)
    if twice and noisy:
        ahead = state.x.clone()
        for p in moving:
            ahead[:, p] += stride[p] * v[p]
        following = _velocities(walk, row, ahead, after=moving)
        steps |= {p: (v[p] + following[p]) / 2 for p in noisy}
    elif solver == "multistep" and not twice:
        for p, (before, length) in state.moved.items():
            if p in v:
                steps[p] = v[p] + stride[p] / length / 2 * (v[p] - before)
    for p in moving:
        state.x[:, p] = state.x[:, p] + stride[p] * steps[p]
        state.moved[p] = v[p], stride[p]


def _velocities(walk: _Walk, row: Pass, x: Tensor, *, after: Sequence[int] = ()) -> dict[int, Tensor]:
    """Of every slot that moves, the mean over the reads that hold it; `after` are already a step further."""
    found: dict[int, list[Tensor]] = {p: [] for p in walk.plan.moving(walk.index)}
    for read in row.reads:
        commit = () if after else row.commit
        looks = [_look(walk, read, index, commit, x, after) for index in range(len(read.views))]
        mixed = sum(view.weight * walk.predict(look) for view, look in zip(read.views, looks, strict=True))
        assert isinstance(mixed, Tensor)
        for place, p in enumerate(read.slots):
            if p in found:
                found[p].append(mixed[:, place])
    return {p: torch.stack(values).mean(0) if len(values) > 1 else values[0] for p, values in found.items()}


def _look(
    walk: _Walk, read: ForwardSpec, index: int, commit: tuple[int, ...], x: Tensor, after: Sequence[int]
) -> ModelInput:
    """What one view of a read is shown."""
    view, frames = read.views[index], walk.plan.frames
    hidden = dict(view.shown)
    sigmas, slots = [], []
    for p, shown in zip(read.slots, read.shown, strict=True):
        own = walk.sigma(p, after=p in after)
        sigma = own if p in after else hidden.get(p, shown)
        raised = sigma > own
        slots.append(renoise(x[:, p], walk.noise(frames[p], 1), own, sigma) if raised else x[:, p])
        sigmas.append(sigma)
    moving = walk.plan.moving(walk.index)
    return ModelInput(
        torch.stack(slots, dim=1),
        tuple(sigmas),
        tuple(frames[p] for p in read.slots),
        read.groups,
        told=view.told,
        view=index,
        moves=tuple(p in moving for p in read.slots),
        commits=tuple(p in commit for p in read.slots),
    )


def _renoise(plan: Plan, index: int, row: Renoise, state: State, noise: Noise) -> None:
    before = state.x.clone()
    for slot, source in zip(row.slots, row.sources, strict=True):
        low, high = plan.grid[plan.levels[index][source]], plan.grid[plan.levels[index + 1][slot]]
        state.x[:, slot] = renoise(before[:, source], noise(plan.frames[slot], 2 + index), low, high)
