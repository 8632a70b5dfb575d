"""The executor of plans: row after row, every slot with its own level and its own solver state.

This is the plain form, which reads all that a plan reads in every pass. `rollout.denoise` is its special case
for one frame after another, on a cache and of static shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from dreamwalk.schedules.draws import Draws
from dreamwalk.schedules.flow import raise_level
from dreamwalk.schedules.plans import Fuse, Pass, Plan, Read, Renoise, View

Solver = Literal["euler", "heun", "multistep"]


class Predict(Protocol):
    """Velocity `(b, k, c, h, w)` of `k` frames shown at `sigma` `(b, k)`; `visible` `(k, k)` says who sees
    whom, `told` whether conditions are told."""

    def __call__(
        self, x: Tensor, sigma: Tensor, *, frames: Tensor, visible: Tensor, told: bool
    ) -> Tensor: ...


@dataclass
class _State:
    """Slots `(b, p, c, h, w)` under way, and the last velocity and stride of each for multistep solvers."""

    x: Tensor
    velocity: dict[int, Tensor]
    stride: dict[int, float]


class Noise(Protocol):
    """Standard normal draws `(b, ...)`, the same for the same frame and use, whatever is asked before."""

    def __call__(self, frame: int, use: int) -> Tensor: ...


@dataclass(frozen=True)
class KeyedNoise:
    """Noise of a seed: it depends on the row of the batch, the frame and the use, not on batch or window."""

    seed: int
    batch: int
    shape: tuple[int, ...]
    device: torch.device | str = "cpu"

    def __call__(self, frame: int, use: int) -> Tensor:
        keys = [(self.seed, row, frame, use) for row in range(self.batch)]
        return Draws(keys, device=self.device).normal(*self.shape)


def execute(
    plan: Plan, predict: Predict, noise: Noise, *, given: Tensor | None = None, solver: Solver = "euler"
) -> Tensor:  # fmt: skip
    """Walk a plan; gives the final value of every slot, `(b, p, ...)`.

    `given` `(b, k, ...)` are the clean values of the plan's given slots, in order; ValueError when there are
    more or fewer. A frame's noise is `noise(frame, 0)`; it is shown noisier than it is by `noise(frame, 1)`,
    always the same; later uses are for drawing anew.
    """
    known = [p for p, is_given in enumerate(plan.given) if is_given]
    count = 0 if given is None else given.shape[1]
    if len(known) != count:
        raise ValueError(f"the plan is given {len(known)} frames, got {count}")
    x = torch.stack([noise(frame, 0) for frame in plan.frames], dim=1)
    if given is not None:
        x[:, known] = given
    state = _State(x, {}, {})
    for index, row in enumerate(plan.rows):
        match row:
            case Pass():
                _pass(plan, index, row, predict, state, noise, solver)
            case Renoise():
                _renoise(plan, index, row, state, noise)
            case Fuse():
                state.x[:, list(row.slots)] = state.x[:, list(row.slots)].mean(dim=1, keepdim=True)
                _forget(state, row.slots)
    return state.x


def _pass(
    plan: Plan, index: int, row: Pass, predict: Predict, state: _State, noise: Noise, solver: Solver
) -> None:
    moving = plan.moving(index)
    v = _velocities(plan, index, row, predict, state.x, noise)
    stride = {p: plan.grid[plan.levels[index + 1][p]] - plan.grid[plan.levels[index][p]] for p in moving}
    noisy = [p for p in moving if plan.levels[index + 1][p]]  # at clean there is no velocity to ask for
    if solver == "heun" and noisy:
        ahead = state.x.clone()
        for p in moving:
            ahead[:, p] += stride[p] * v[p]
        following = _velocities(plan, index, row, predict, ahead, noise, after=moving)
        v |= {p: (v[p] + following[p]) / 2 for p in noisy}
    for p in moving:
        step = v[p]
        if solver == "multistep" and p in state.velocity:
            ratio = stride[p] / state.stride[p]
            step = (1 + ratio / 2) * v[p] - ratio / 2 * state.velocity[p]
        state.x[:, p] = state.x[:, p] + stride[p] * step
        state.velocity[p], state.stride[p] = v[p], stride[p]


def _velocities(
    plan: Plan, index: int, row: Pass, predict: Predict, x: Tensor, noise: Noise,
    *, after: tuple[int, ...] = (),
) -> dict[int, Tensor]:  # fmt: skip
    """Of every slot that moves, the mean over the reads that hold it; `after` are already a step further."""
    level = [plan.levels[index + (p in after)][p] for p in range(len(plan.frames))]
    found: dict[int, list[Tensor]] = {p: [] for p in plan.moving(index)}
    for read in row.reads:
        mixed = sum(
            view.weight * _look(plan, read, view, level, predict, x, noise, after) for view in read.views
        )
        assert isinstance(mixed, Tensor)
        for place, p in enumerate(read.slots):
            if p in found:
                found[p].append(mixed[:, place])
    return {p: torch.stack(values).mean(0) for p, values in found.items()}


def _look(
    plan: Plan, read: Read, view: View, level: list[int], predict: Predict, x: Tensor, noise: Noise,
    after: tuple[int, ...],
) -> Tensor:  # fmt: skip
    """What one view of a read predicts."""
    hidden = dict(view.shown)
    shown, sigmas = [], []
    for p, sigma in zip(read.slots, read.shown, strict=True):
        own = plan.grid[level[p]]
        wanted = own if p in after else hidden.get(p, sigma)
        raised = wanted > own
        shown.append(raise_level(x[:, p], noise(plan.frames[p], 1), own, wanted) if raised else x[:, p])
        sigmas.append(wanted)
    groups = torch.tensor(read.groups, device=x.device)
    frames = torch.tensor([plan.frames[p] for p in read.slots], device=x.device)
    levels = torch.tensor(sigmas, dtype=x.dtype, device=x.device).expand(len(x), -1)
    visible = groups[:, None] >= groups[None, :]
    return predict(torch.stack(shown, dim=1), levels, frames=frames, visible=visible, told=view.told)


def _renoise(plan: Plan, index: int, row: Renoise, state: _State, noise: Noise) -> None:
    before = state.x.clone()
    for slot, source in zip(row.slots, row.sources, strict=True):
        low, high = plan.grid[plan.levels[index][source]], plan.grid[plan.levels[index + 1][slot]]
        state.x[:, slot] = raise_level(before[:, source], noise(plan.frames[slot], 2 + index), low, high)
    _forget(state, row.slots)


def _forget(state: _State, slots: tuple[int, ...]) -> None:
    """A slot that was not moved but changed begins anew with its solver."""
    for slot in slots:
        state.velocity.pop(slot, None)
        state.stride.pop(slot, None)
