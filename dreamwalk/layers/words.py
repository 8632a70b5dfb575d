"""Words as a network sees them: a sequence of vectors for each text, and perhaps one vector for all of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Words(NamedTuple):
    """What text encoders give and backbones take, for a batch of `b` texts."""

    tokens: Tensor
    """`(b, n, d)`; what is masked may hold anything finite."""
    mask: Tensor | None = None
    """bool `(b, n)`, True where a text has a token; None where all of them do."""
    pooled: Tensor | None = None
    """`(b, p)`, one vector for a whole text, for the modulation."""

    def trimmed(self) -> Words:
        """Without the columns that no text has a token in, and without a mask that hides nothing."""
        if self.mask is None:
            return self
        used = torch.nonzero(self.mask.any(0)).flatten()
        tokens, mask = self.tokens[:, used], self.mask[:, used]
        return Words(tokens, None if bool(mask.all()) else mask, self.pooled)


def beside(first: Words, second: Words) -> Words:
    """Two batches as one, the first before the second; the shorter texts are padded."""
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
