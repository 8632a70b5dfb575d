"""Vector quantization with a codebook that follows the vectors.

VQ-VAE (arXiv 1711.00937) with the moving averages of its appendix A.1; codes that are no longer used begin
again (Jukebox, arXiv 2005.00341, section 3.1).

The codebook and its averages are buffers, and so are saved with the weights. Every step counts for as many
tokens as it has: what is averaged is the share of tokens of each code, and so nothing depends on the size of
a batch. Over several processes all have the same codebook.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamwalk.codecs.causal_layers import precise
from dreamwalk.codecs.codec import decay_at
from dreamwalk.codecs.quantizers import Quantizer, full_precision
from dreamwalk.distributed import mean_over_processes, of_first_process
from dreamwalk.validation import Share

SCORES = 2**24
"""Distances that are held at a time."""


@dataclass(frozen=True)
class VQConfig:
    """Sizes of a codebook, and how it follows."""

    channels: int = 8
    codes: int = 1024
    decay: Share = 0.99
    """Of the averages, a step; young ones forget faster."""
    restart: Share = 0.1
    """A code is dead, and begun again, below this part of an equal share of the tokens; 0: never, not even at
    first."""
    commitment: float = 0.25
    """Weight of the squared distance of a vector from its code."""

    @property
    def vocabulary(self) -> int:
        return self.codes

    def build(self) -> VQ:
        """With random codes, which `measure` replaces by vectors when it is first called."""
        return VQ(self)


class VQ(Quantizer):
    """The nearest of the codes `(k, c)`."""

    config: VQConfig
    codebook: Tensor
    share: Tensor
    total: Tensor
    steps: Tensor

    def __init__(self, config: VQConfig) -> None:
        super().__init__(config)
        codes = torch.randn(config.codes, config.channels)
        self.register_buffer("codebook", codes)
        self.register_buffer("share", torch.zeros(config.codes))
        """Of the tokens, for each code."""
        self.register_buffer("total", torch.zeros_like(codes))
        """Its vectors times that share."""
        self.register_buffer("steps", torch.zeros(()))

    def index(self, points: Tensor) -> Tensor:
        codes, flat = self.codebook.to(points), points.reshape(-1, self.channels)
        lengths, rows = codes.square().sum(1), max(1, SCORES // len(codes))
        with full_precision(points):
            nearest = [(lengths - 2 * part @ codes.T).argmin(1) for part in flat.split(rows)]
        return torch.cat(nearest).view(points.shape[:-1])

    def look_up(self, indices: Tensor) -> Tensor:
        return precise(self.codebook)[indices]

    def losses(self, points: Tensor, values: Tensor) -> dict[str, Tensor]:
        return {"commitment": self.config.commitment * (points - values).square().mean()}

    @torch.no_grad()
    def measure(self, z: Tensor) -> None:
        """Begin dead codes again at vectors of this step, then move codes towards those that take them."""
        flat = precise(z).reshape(-1, self.channels).to(self.codebook)
        self._revive(flat)
        indices = self.index(flat)
        counts = indices.bincount(minlength=self.vocabulary)
        ordered = flat[indices.argsort(stable=True)]  # sums in this order are the same on every processor
        sums = torch.segment_reduce(ordered, "sum", lengths=counts, initial=0.0)
        decay = decay_at(self.steps, self.config.decay)
        self.share.lerp_(mean_over_processes(counts / len(flat)).to(self.share), 1 - decay)
        self.total.lerp_(mean_over_processes(sums / len(flat)), 1 - decay)
        used = self.share > 0
        self.codebook[used] = self.total[used] / self.share[used, None]
        self.steps += 1

    def _revive(self, flat: Tensor) -> None:
        """Vectors at even distances, elsewhere at every step: no chance is needed."""
        dead = (self.share * self.vocabulary < self.config.restart).nonzero()[:, 0]
        if len(dead):
            place = torch.arange(len(dead), device=flat.device) * len(flat) // len(dead)
            fresh = of_first_process(flat[(place + self.steps.long()) % len(flat)])
            self.codebook[dead] = fresh
            self.share[dead] = 1 / self.vocabulary
            self.total[dead] = fresh / self.vocabulary
