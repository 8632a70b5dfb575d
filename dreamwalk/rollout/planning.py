"""Planning: what a model dreams is drawn to where a reward is high, also through futures still uncertain.

Diffusion Forcing (arXiv 2407.01392, section 3.4 and algorithm 2, "Monte Carlo guidance"). `Guided` wraps any
`Predictor`, so the executor walks guided plans like all others. Frames of one look hang together: the reward
of a late frame has a gradient with respect to an early one, by way of what the model makes of both.

    score' = score + w g with g = grad_x log c, where score = -eps_hat / sigma and x = (1 - sigma) x_hat +
    sigma eps_hat stays: eps_hat' = eps_hat - w sigma g, x_hat' = x_hat + w sigma^2 / (1 - sigma) g, and so
    v' = eps_hat' - x_hat' = v - w sigma / (1 - sigma) g

    paper's word             our word
    guidance log c(x)        reward, asked of the clean estimate of all frames of a look
    causal uncertainty       a staircase with a lag, `foreseen`
    Monte-Carlo guidance     `samples`

`c(x_hat)` stands for the mean of c over all that x may become (DPS, arXiv 2209.14687): exact for a linear
reward, too strong by 1 + curvature * variance for a quadratic one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.rollout.execute import ModelInput, Noise, Predictor
from dreamwalk.schedules import flow
from dreamwalk.schedules.plans import ForwardSpec, Pass, Plan

Reward = Callable[[Tensor], Tensor]
"""Log c `(b,)` of clean frames `(b, k, c, h, w)`, those of a look in order; differentiable."""


@dataclass(frozen=True)
class Guided:
    """`execute.Predictor` whose velocity climbs a reward; UserError for numbers that cannot be.

    With several `samples`, the first frame that moves climbs the mean of gradients over futures: those later
    and noisier than it are drawn anew each time, half as far from noise as they are. The others keep the
    gradient of the walk itself. A full sequence has no uncertain future, so there one sample is taken.
    """

    predict: Predictor
    reward: Reward
    noise: Noise
    """For the futures: uses from 2^20 on, so it may be the noise of the walk."""
    weight: float = 1.0
    samples: int = 1
    most: float = 10.0
    """Cap of sigma / (1 - sigma): close to noise the gradient of a perfect model goes to 0 as fast as that
    factor grows, that of a trained one does not. At noise itself nothing is known and nothing guided."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError(f"guidance looks at one future at least, got {self.samples} samples")
        if not self.most > 0:
            raise UserError(f"the cap of the guidance must be above 0, got {self.most:g}")
        if not math.isfinite(self.weight):
            raise UserError(f"the weight of the guidance must be a finite number, got {self.weight:g}")

    def __call__(self, look: ModelInput) -> Tensor:
        guided = [moves and sigma < 1 for moves, sigma in zip(look.moves, look.shown, strict=True)]
        if not self.weight or not any(guided):
            return self.predict(look)
        v, gradient = self._climb(look)
        first, later = look.moves.index(True), self._later(look)
        if later and self.samples > 1:
            futures = [self._climb(self._future(look, later, n))[1] for n in range(1, self.samples)]
            gradient[:, first] = torch.stack([gradient, *futures])[:, :, first].mean(0)
        factor = (look.sigma / (1 - look.sigma).clamp(min=1e-6)).clamp(max=self.most)
        factor = factor * torch.tensor(guided, device=factor.device)
        return v - self.weight * flow.spread(factor, v) * gradient

    def _climb(self, look: ModelInput) -> tuple[Tensor, Tensor]:
        """Velocity, and the gradient of the reward with respect to the noisy frames."""
        with torch.inference_mode(False), torch.enable_grad():
            x = look.x.clone().detach().requires_grad_()
            v = self.predict(replace(look, x=x, commits=(False,) * len(look.commits)))
            reward = self.reward(flow.clean(x, v, look.sigma.clone()))
            if reward.shape != (len(x),):
                raise UserError(f"a reward is one number a row, {len(x)}, got {tuple(reward.shape)}")
            (gradient,) = torch.autograd.grad(reward.sum(), x)
        return v.detach(), gradient

    def _later(self, look: ModelInput) -> list[int]:
        """Places of the uncertain future."""
        first = look.moves.index(True)
        return [i for i in range(first + 1, len(look.shown)) if look.shown[i] > look.shown[first]]

    def _future(self, look: ModelInput, later: list[int], sample: int) -> ModelInput:
        """A look at another future; the levels are part of the key, so every row of a plan has its own."""
        use = 2**20 + sample + self.samples * round(2**16 * sum(look.shown))
        x, shown = look.x.clone(), list(look.shown)
        for i in later:
            noise, shown[i] = self.noise(look.frames[i], use), (1 + look.shown[i]) / 2
            x[:, i] = flow.renoise(x[:, i], noise, look.shown[i], shown[i]) if shown[i] < 1 else noise
        return replace(look, x=x, shown=tuple(shown))


def foreseen(plan: Plan) -> Plan:
    """The same plan, but every pass also reads the frames that wait as noise, so a reward is asked of all."""
    group = {
        slot: own
        for row in plan.rows
        if isinstance(row, Pass)
        for read in row.reads
        for slot, own in zip(read.slots, read.groups, strict=True)
    }

    def further(read: ForwardSpec, levels: tuple[int, ...]) -> ForwardSpec:
        waiting = tuple(p for p in group if p > read.slots[-1] and levels[p] == plan.steps)
        shown = read.shown + (plan.grid[-1],) * len(waiting)
        groups = read.groups + tuple(group[p] for p in waiting)
        return replace(read, slots=read.slots + waiting, shown=shown, groups=groups)

    rows = tuple(
        replace(row, reads=tuple(further(read, levels) for read in row.reads))
        if isinstance(row, Pass)
        else row
        for row, levels in zip(plan.rows, plan.levels, strict=False)
    )
    return replace(plan, rows=rows)
