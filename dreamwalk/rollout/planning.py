"""Planning: frames with a high reward are favoured, also through futures that are still uncertain.

Diffusion Forcing (arXiv 2407.01392, section 3.4 and algorithm 2, "Monte Carlo guidance"). `RewardGuidance` is
a `Predictor` around another, so the executor runs guided plans like all others. Frames of one read depend on
each other: the reward of a late frame has a gradient with respect to an early one, through the backbone.

    score' = score + w g with g = grad_x log c, where score = -eps_hat / sigma and x = (1 - sigma) x_hat +
    sigma eps_hat stays: eps_hat' = eps_hat - w sigma g, x_hat' = x_hat + w sigma^2 / (1 - sigma) g, and so
    v' = eps_hat' - x_hat' = v - w sigma / (1 - sigma) g

    paper's word             our word
    guidance log c(x)        reward, of the denoised estimate of all frames of a read
    causal uncertainty       a staircase with a lag, `foreseen`
    Monte-Carlo guidance     `samples`

`c(x_hat)` stands for the mean of c over the posterior of x (DPS, arXiv 2209.14687): exact for a linear
reward, too strong by 1 + curvature * variance for a quadratic one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.rollout.execute import ModelInput, Noise, Predictor
from dreamwalk.schedules import flow
from dreamwalk.schedules.plans import ForwardSpec, Pass, Plan

Reward = Callable[[Tensor], Tensor]
"""Log c `(b,)` of clean frames `(b, k, c, h, w)`, those of a read in order; differentiable."""


@dataclass(frozen=True)
class RewardGuidance:
    """`Predictor` whose velocity follows the gradient of a reward; UserError for impossible numbers.

    With several `samples`, the first frame that moves follows the mean of gradients over futures: frames that
    are later and noisier than it are renoised each time, half way to pure noise. The others
    keep the gradient of the rollout itself. A full sequence has no uncertain future, so it takes one sample.
    """

    predictor: Predictor
    reward: Reward
    noise: Noise
    """For the futures: uses from 2^20 on, so it may be the noise of the rollout."""
    weight: float = 1.0
    samples: int = 1
    cap: float = 10.0
    """Of sigma / (1 - sigma): close to noise the gradient of a perfect model goes to 0 as fast as that factor
    grows, that of a trained one does not. At pure noise nothing is known and nothing guided."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError(f"guidance needs one future at least, got {self.samples} samples")
        if not self.cap > 0:
            raise UserError(f"the cap of the guidance must be above 0, got {self.cap:g}")
        if not math.isfinite(self.weight):
            raise UserError(f"the weight of the guidance must be a finite number, got {self.weight:g}")

    def __call__(self, branches: Sequence[ModelInput]) -> list[Tensor]:
        return [self._guided(branch) for branch in branches]

    def _guided(self, branch: ModelInput) -> Tensor:
        moving = zip(branch.moves, branch.input_sigma, strict=True)
        guided = [moves and sigma < 1 for moves, sigma in moving]
        if not self.weight or not any(guided):
            return self.predictor([branch])[0]
        v, gradient = self._gradient(branch)
        first = branch.moves.index(True)
        later = [i for i, s in enumerate(branch.input_sigma) if i > first and s > branch.input_sigma[first]]
        if later and self.samples > 1:
            futures = [self._gradient(self._future(branch, later, n))[1] for n in range(1, self.samples)]
            gradient[:, first] = torch.stack([gradient, *futures])[:, :, first].mean(0)
        factor = (branch.sigma / (1 - branch.sigma).clamp(min=1e-6)).clamp(max=self.cap)
        factor = factor * torch.tensor(guided, device=factor.device)
        return v - self.weight * flow.expand_like(factor, v) * gradient

    def _gradient(self, branch: ModelInput) -> tuple[Tensor, Tensor]:
        """Velocity, and the gradient of the reward with respect to the noisy frames."""
        with torch.inference_mode(False), torch.enable_grad():
            x = branch.x.clone().detach().requires_grad_()
            (v,) = self.predictor([replace(branch, x=x, commits=(False,) * len(branch.commits))])
            reward = self.reward(flow.denoised(x, v, branch.sigma.clone()))
            if reward.shape != (len(x),):
                raise UserError(f"a reward is one number a row, {len(x)}, got {tuple(reward.shape)}")
            (gradient,) = torch.autograd.grad(reward.sum(), x)
        return v.detach(), gradient

    def _future(self, branch: ModelInput, later: list[int], sample: int) -> ModelInput:
        """Another future of a read; sigmas are part of the key, so every row of a plan has its own."""
        use = 2**20 + sample + self.samples * round(2**16 * sum(branch.input_sigma))
        x, sigmas = branch.x.clone(), list(branch.input_sigma)
        for i in later:
            eps, low, high = self.noise(branch.frames[i], use), sigmas[i], (1 + sigmas[i]) / 2
            x[:, i], sigmas[i] = flow.renoise(x[:, i], eps, low, high) if high < 1 else eps, high
        return replace(branch, x=x, input_sigma=tuple(sigmas))


def foreseen(plan: Plan) -> Plan:
    """The same plan whose passes also read the frames that wait as noise, so that the reward sees all."""
    passes = [row for row in plan.rows if isinstance(row, Pass)]
    reads = [read for row in passes for read in row.reads]
    group = {p: own for read in reads for p, own in zip(read.slots, read.groups, strict=True)}

    def extended(read: ForwardSpec, levels: tuple[int, ...]) -> ForwardSpec:
        waiting = tuple(p for p in group if p > read.slots[-1] and levels[p] == plan.steps)
        sigmas = read.input_sigma + (plan.sigmas[-1],) * len(waiting)
        groups = read.groups + tuple(group[p] for p in waiting)
        return replace(read, slots=read.slots + waiting, input_sigma=sigmas, groups=groups)

    rows = list(plan.rows)
    for index, (row, levels) in enumerate(zip(plan.rows, plan.levels, strict=False)):
        if isinstance(row, Pass):
            rows[index] = replace(row, reads=tuple(extended(read, levels) for read in row.reads))
    return replace(plan, rows=tuple(rows))
