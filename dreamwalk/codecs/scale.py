"""The scale of latents: what they are multiplied by, so that they are as loud as noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamwalk.distributed import mean_over_processes

DECAY = 0.99
"""Of the running mean square; young ones forget faster."""


class Scale(nn.Module):
    """A published factor; or with None what brings latents to a mean square of one, as training measured it.

    What was measured lies in buffers, and so is saved with the weights of the codec.
    """

    power: Tensor
    steps: Tensor

    def __init__(self, factor: float | None) -> None:
        super().__init__()
        self.factor = factor
        if factor is None:
            self.register_buffer("power", torch.ones(()))
            self.register_buffer("steps", torch.zeros(()))

    @torch.no_grad()
    def measure(self, latents: Tensor) -> None:
        """Take unscaled latents of a training step into the running mean square."""
        if self.factor is None:
            decay = ((1 + self.steps) / (10 + self.steps)).clamp(max=DECAY) * (self.steps > 0)
            self.power.lerp_(mean_over_processes(latents.float().square().mean()).to(self.power), 1 - decay)
            self.steps += 1

    def forward(self, latents: Tensor) -> Tensor:
        """Unscaled latents to scaled ones."""
        return latents * (self.power.rsqrt() if self.factor is None else self.factor)

    def undo(self, latents: Tensor) -> Tensor:
        """And back."""
        return latents * self.power.sqrt() if self.factor is None else latents / self.factor
