"""Noise levels in training, and loss weights for them.

All draws come from a `KeyedGenerator`, in a fixed order, so a clip has the same sigmas in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dreamwalk.schedules import flow
from dreamwalk.schedules.generator import KeyedGenerator

Density = Literal["uniform", "logit-normal"]
NEARLY_CLEAN = 0.1
"""Factor of the sigmas of a clean prefix."""


def draw_sigmas(
    generator: KeyedGenerator,
    frames: int,
    shift: float,
    *,
    density: Density = "logit-normal",
    pure_noise_prob: float = 0.0,
    clean_prefix_prob: float = 0.0,
) -> Tensor:
    """An independent sigma for every frame, `(b, frames)` (Diffusion Forcing, arXiv 2407.01392, algorithm 1).

    They have a `density`, shifted towards noise; a share is pure noise, where every frame starts in sampling.
    A share `clean_prefix_prob` of the clips begins with nearly clean frames up to a drawn one, as history is
    in sampling. For one sigma a clip, draw one and expand it.
    """
    uniform = density == "uniform"
    drawn = generator.uniform(frames) if uniform else flow.logit_normal(generator.normal(frames))
    sigma = flow.shift(drawn, shift)
    if clean_prefix_prob:
        place = torch.arange(frames, device=sigma.device)
        prefix = (generator.uniform(1) < clean_prefix_prob) & (place < frames * generator.uniform(1))
        sigma = torch.where(prefix, NEARLY_CLEAN * sigma, sigma)
    return sigma.masked_fill(generator.uniform(frames) < pure_noise_prob, 1.0)


def weighted_loss(error: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """`loss` and the unweighted `error`, from the squared error and the weight of every frame `(b, t)`."""
    return {"loss": (weight * error).mean(), "error": error.mean().detach()}


def snr_weight(sigma: Tensor, *, floor: float) -> Tensor:
    """Weight `1 / max(sigma, floor)^2` of a squared error of the clean prediction.

    Above the floor this is the unweighted velocity loss, since `v` errs by the error of `x` over sigma; below
    it the weight stays bounded, so that nearly clean frames, where there is nothing to learn, do not drown
    the rest.
    """
    return sigma.clamp(min=floor) ** -2


@dataclass(frozen=True)
class FusedSNR:
    """Fused SNR reweighting (Diffusion Forcing, arXiv 2407.01392): the loss weight of a frame by its sigma
    and those of the frames that it sees, all `(b, t)`."""

    cap: float
    """Of the signal-to-noise ratio `((1 - sigma) / sigma)^2`."""
    decay: float
    """Of the running mean over frames: a new one counts by `1 - decay`."""

    def running(self, sigma: Tensor) -> Tensor:
        """Running mean of the capped ratio over frames 0 .. i, as a share of the cap."""
        share = self._share(sigma)
        running = [share[:, 0]]
        for i in range(1, sigma.shape[1]):
            running.append(self.decay * running[-1] + (1 - self.decay) * share[:, i])
        return torch.stack(running, dim=1)

    def before(self, sigma: Tensor) -> Tensor:
        """`running` of the frames before each; 0 for the first."""
        return nn.functional.pad(self.running(sigma)[:, :-1], (1, 0))

    def around(self, sigma: Tensor) -> Tensor:
        """The mean of `before` in both directions, for a bidirectional mask."""
        return (self.before(sigma) + self.before(sigma.flip(1)).flip(1)) / 2

    def weight(self, sigma: Tensor, visible: Tensor) -> Tensor:
        """Weight of a squared error of the clean prediction, beside frames with the running ratio `visible`.

        `cap (1 - (1 - decay visible) (1 - share))`: min-SNR weighting (arXiv 2303.09556) when no other frame
        is visible, and more for a noisy frame beside clean ones, from which it can be inferred.
        """
        return self.cap * (1 - (1 - self.decay * visible) * (1 - self._share(sigma)))

    def _share(self, sigma: Tensor) -> Tensor:
        return ((1 - sigma) / sigma.clamp(min=1e-4)).square().clamp(max=self.cap) / self.cap
