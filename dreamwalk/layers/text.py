"""Words as a network sees them: a sequence of vectors for each text, and perhaps one vector for all of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TextEmbedding(NamedTuple):
    """What text encoders give and backbones take, for a batch of `b` texts."""

    tokens: Tensor
    """`(b, n, d)`; what is masked may hold anything finite."""
    mask: Tensor | None = None
    """bool `(b, n)`, True where a text has a token; None where all of them do."""
    pooled: Tensor | None = None
    """`(b, p)`, one vector for a whole text, for the modulation."""
    others: tuple[TextEmbedding, ...] = ()
    """What other encoders give for the same texts, each of a width of its own."""

    @property
    def present(self) -> Tensor:
        """`mask`, of ones where there is none."""
        if self.mask is not None:
            return self.mask
        return torch.ones(self.tokens.shape[:2], dtype=torch.bool, device=self.tokens.device)

    def to(self, device: torch.device, dtype: torch.dtype) -> TextEmbedding:
        """The same on a device, and its vectors in a precision."""
        return TextEmbedding(
            self.tokens.to(device, dtype),
            None if self.mask is None else self.mask.to(device),
            None if self.pooled is None else self.pooled.to(device, dtype),
            tuple(other.to(device, dtype) for other in self.others),
        )

    def trimmed(self) -> TextEmbedding:
        """Without the columns that no text has a token in, and without a mask that hides nothing."""
        if self.mask is None:
            return self
        used = torch.nonzero(self.mask.any(0)).flatten()
        tokens, mask = self.tokens[:, used], self.mask[:, used]
        return self._replace(tokens=tokens, mask=None if bool(mask.all()) else mask)


def attendable(tokens: Tensor, text: TextEmbedding) -> tuple[Tensor, Tensor | None]:
    """What cross-attention takes of a text whose vectors became `tokens` `(b, m, d)`: these and a mask bool
    `(b, 1, 1, m)`; an empty text is one zero vector."""
    if tokens.shape[1] == 0:
        return tokens.new_zeros(tokens.shape[0], 1, tokens.shape[2]), None
    if text.mask is None:
        return tokens, None
    empty = ~text.mask.any(1, keepdim=True)
    return tokens.masked_fill(empty[..., None], 0), (text.mask | empty)[:, None, None]


def beside(first: TextEmbedding, second: TextEmbedding) -> TextEmbedding:
    """Two batches as one, the first before the second; the shorter texts are padded."""
    longest = max(first.tokens.shape[1], second.tokens.shape[1])
    tokens, masks = [], []
    for words in (first, second):
        missing = longest - words.tokens.shape[1]
        tokens.append(torch.nn.functional.pad(words.tokens, (0, 0, 0, missing)))
        masks.append(torch.nn.functional.pad(words.present, (0, missing)))
    pooled = None
    if first.pooled is not None and second.pooled is not None:
        pooled = torch.cat([first.pooled, second.pooled])
    others = tuple(beside(*each) for each in zip(first.others, second.others, strict=True))
    return TextEmbedding(torch.cat(tokens), torch.cat(masks), pooled, others).trimmed()
