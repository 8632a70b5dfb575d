"""Keyed randomness: every row of a batch draws from a generator of its own.

A row's noise depends on its key (seed, step, row, or seed, frame) and on nothing else, so it is the same on
one process or eight, in any batch, in any window, and after a resume.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
import torch
from torch import Tensor

MANY = 1_000_000
"""Normal numbers from which on the rows are drawn by several threads."""


class KeyedGenerator:
    """Draws for `b` rows; the same keys and the same order of calls give the same numbers on every device."""

    def __init__(self, keys: Sequence[tuple[int, ...]], *, device: torch.device | str = "cpu") -> None:
        self.device = device
        self.generators = []
        for key in keys:
            state = np.random.SeedSequence([abs(part) for part in key]).generate_state(1, np.uint64)
            self.generators.append(torch.Generator().manual_seed(int(state[0] >> np.uint64(1))))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal `(b, *shape)`."""
        if len(self.generators) * prod(shape) < MANY:
            rows = [torch.randn(shape, generator=g) for g in self.generators]
        else:  # a card would wait longer for these numbers than for all that it does with them
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                rows = list(pool.map(lambda g: torch.randn(shape, generator=g), self.generators))
        return torch.stack(rows).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), `(b, *shape)`."""
        return torch.stack([torch.rand(shape, generator=g) for g in self.generators]).to(self.device)
