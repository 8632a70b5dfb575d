"""Clips from words, pictures and other clips: the plan of a whole clip, and who is asked at each step.

Classifier-free guidance (arXiv 2207.12598) asks for both opinions in one batch, and may bring the spread of
the clean prediction back to that of the guided opinion (arXiv 2305.08891, section 3.4: on x, not on v).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamwalk.layers.words import Words
from dreamwalk.rollout.execute import Look

Velocity = Callable[[Tensor, Tensor, Words], Tensor]
"""`v` of noisy latents at levels, told some words."""


@dataclass(frozen=True)
class Told:
    """`execute.Predict` of a backbone of whole clips that is told words, and what not to show."""

    velocity: Velocity
    words: Words
    against: Words | None = None
    """Words to be guided away from; None for no guidance."""
    weight: float = 1.0
    rescale: float = 0.0
    """How far the spread of the guided clean prediction is brought back, 0 to 1."""

    def __call__(self, look: Look) -> Tensor:
        shared = len(set(look.shown)) == 1
        sigma = look.sigma[:, 0] if shared else look.sigma
        if self.against is None:
            return self.velocity(look.x, sigma, self.words)
        both = self.velocity(
            torch.cat([look.x] * 2), torch.cat([sigma] * 2), beside(self.words, self.against)
        )
        told, untold = both.chunk(2)
        v = untold + self.weight * (told - untold)
        return v if not self.rescale else self._rescaled(look, v, told)

    def _rescaled(self, look: Look, v: Tensor, told: Tensor) -> Tensor:
        level = look.sigma[:, :, None, None, None]
        guided, alone = look.x - level * v, look.x - level * told
        spread = alone.std((1, 2, 3, 4), keepdim=True) / guided.std((1, 2, 3, 4), keepdim=True).clamp(
            min=1e-6
        )
        scaled = guided * (1 + self.rescale * (spread - 1))
        return (look.x - scaled) / level.clamp(min=1e-6)


def beside(first: Words, second: Words) -> Words:
    """Two batches of words as one; the shorter are padded."""
    longest = max(first.tokens.shape[1], second.tokens.shape[1])
    tokens, masks = [], []
    for words in (first, second):
        b, n, _ = words.tokens.shape
        mask = words.tokens.new_ones(b, n, dtype=torch.bool) if words.mask is None else words.mask
        tokens.append(torch.nn.functional.pad(words.tokens, (0, 0, 0, longest - n)))
        masks.append(torch.nn.functional.pad(mask, (0, longest - n)))
    pooled = None
    if first.pooled is not None and second.pooled is not None:
        pooled = torch.cat([first.pooled, second.pooled])
    return Words(torch.cat(tokens), torch.cat(masks), pooled).trimmed()
