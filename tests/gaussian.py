"""A world whose dreams can be reckoned: frames are numbers of a Gaussian process, its denoiser is exact."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dreamwalk.rollout.execute import ModelInput, Predictor, Update, euler, execute
from dreamwalk.schedules.plans import Plan
from dreamwalk.schedules.sigmas import shifted_sigmas

FRAMES, RHO = 6, 0.9
_APART = (torch.arange(FRAMES)[:, None] - torch.arange(FRAMES)[None]).abs().double()
TRUTH = RHO**_APART
"""Frames that know of the past only what the frame before them tells."""
LONG = 1 / (1 + _APART)
"""Frames of which each tells something that no other does."""


class Oracle:
    """The conditional mean of Gaussian data, given exactly what a frame sees."""

    def __init__(self, truth: Tensor = TRUTH) -> None:
        self.calls, self.truth = 0, truth

    def __call__(self, branches: Sequence[ModelInput]) -> list[Tensor]:
        return [self.velocity(branch) for branch in branches]

    def velocity(self, branch: ModelInput) -> Tensor:
        self.calls += 1
        x, sigma, frames, visible = branch.x, branch.sigma, list(branch.frames), branch.visible
        levels, truth = sigma[0].double(), self.truth[frames][:, frames]
        velocity = torch.zeros_like(x)
        for group in set(branch.groups):  # its frames see the same
            own = [i for i, g in enumerate(branch.groups) if g == group]
            seen = visible[own[0]].nonzero()[:, 0]
            keep = 1 - levels[seen]
            noisy = keep[:, None] * keep[None] * truth[seen][:, seen] + torch.diag(levels[seen] ** 2)
            gain = torch.linalg.solve(
                noisy + 1e-12 * torch.eye(len(seen)), keep[:, None] * truth[seen][:, own]
            )
            mean = torch.einsum("bk...,kn->bn...", x[:, seen], gain)
            for place, i in enumerate(own):
                velocity[:, i] = (x[:, i] - mean[:, place]) / levels[i] if levels[i] else 0.0
        return velocity


class Basis:
    """Every draw as a unit vector of its own: what is dreamt is then the linear map from all noise."""

    def __init__(self, draws: int = 4 * FRAMES) -> None:
        self.draws = draws
        self.known: dict[tuple[int, int], int] = {}

    def __call__(self, frame: int, use: int) -> Tensor:
        place = self.known.setdefault((frame, use), len(self.known))
        return torch.nn.functional.one_hot(torch.tensor(place), self.draws).double()[:, None]

    def given(self, plan: Plan, truth: Tensor = TRUTH) -> Tensor | None:
        """Values of a plan's given slots: true data, as noisy as the plan says."""
        data = torch.linalg.cholesky(truth) @ torch.stack([self(f, -1)[:, 0] for f in range(FRAMES)])
        levels = [plan.sigmas[level] for level in plan.levels[0]]
        values = [
            (1 - levels[p]) * data[plan.frames[p]][:, None] + levels[p] * self(plan.frames[p], 0)
            for p in range(len(levels))
            if plan.given[p]
        ]
        return torch.stack(values, dim=1) if values else None


def covariance(
    plan: Plan, update: Update = euler, *, draws: int = 4 * FRAMES, truth: Tensor = TRUTH
) -> Tensor:
    """Of all that a plan dreams, slot by slot; what it is given has the distribution of the data."""
    basis = Basis(draws)
    dreamt = execute(plan, Oracle(truth), basis, given=basis.given(plan, truth), update=update)[..., 0]
    return dreamt.T @ dreamt


def error(plan: Plan, update: Update = euler, *, draws: int = 4 * FRAMES, truth: Tensor = TRUTH) -> float:
    """Largest error of that covariance: of the last copies of frames, at the levels where the plan ends."""
    last = {frame: slot for slot, frame in enumerate(plan.frames)}
    slots, frames = list(last.values()), list(last)
    sigma = torch.tensor([plan.sigmas[plan.levels[-1][p]] for p in slots]).double()
    keep = 1 - sigma
    wanted = keep[:, None] * truth[frames][:, frames] * keep[None] + torch.diag(sigma**2)
    return float((covariance(plan, update, draws=draws, truth=truth)[slots][:, slots] - wanted).abs().max())


def each(velocity: Callable[[ModelInput], Tensor]) -> Predictor:
    """A predictor that knows every branch by itself."""
    return lambda branches: [velocity(branch) for branch in branches]


alone = each(lambda branch: branch.x)
"""Frames that know nothing of each other."""


def sigmas(steps: int) -> list[float]:
    """From noise to clean."""
    return shifted_sigmas(steps).tolist()
