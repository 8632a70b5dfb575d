"""Tokens of a clip made as wrong as a model's own, for it to learn what comes after those.

What a model draws is never quite what it learnt from, and a dream goes on from what it drew: without that it
falls apart within some frames (the noise that GameNGen, arXiv 2408.14837, section 3.2.1, adds to history). A
model learns the true tokens after these; where tokens tell the frame by itself, they mend it.
"""

from __future__ import annotations

import torch

from dreamwalk.codecs.delta import Disturb
from dreamwalk.codecs.quantizers import FSQ, Quantized
from dreamwalk.schedules.generator import KeyedGenerator

EXACT = 0.4
"""Share of clips that stay as they are."""
STRENGTHS = 0.1, 0.6
"""Least and greatest std of what is added to a value, in [-1, 1], to land on a code nearby."""
EXCHANGED = 0.2
"""For each token that is moved so, how many become that of a place beside."""


def disturbance(quantizer: FSQ, generator: KeyedGenerator, *, most: float) -> Disturb:
    """What a step of training decodes: in each clip another share of the tokens, up to `most`, is moved."""
    chance, (low, high) = generator.uniform(2, 1, 1), STRENGTHS
    rate = most * (chance[:, 0] - EXACT).clamp(min=0) / (1 - EXACT)
    strength = low + (high - low) * chance[:, 1, ..., None]

    def disturb(tokens: Quantized) -> Quantized:
        h, w, c = tokens.values.shape[1:]
        moved, exchanged = (generator.uniform(h, w)[..., None] for _ in range(2))
        near = (tokens.values + strength * generator.normal(h, w, c)).clamp(-1, 1)
        values = torch.where(moved < rate[..., None], near, tokens.values)
        values = torch.where(exchanged < EXCHANGED * rate[..., None], values.roll((1, 1), (1, 2)), values)
        indices = quantizer.index(values)
        return Quantized(quantizer.look_up(indices), indices, {})

    return disturb
