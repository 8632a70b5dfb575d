"""What several text encoders give, side by side as one (Movie Gen, arXiv 2410.13720)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dreamwalk.conditions.text_encoders import Widths
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding


class JointTextEncoder(nn.Module):
    """Words of several encoders as those of one of `width`: each has a linear layer and a norm of its own,
    and one follows the other along the sequence.

    `pooled` is the size that their pooled vectors are projected to together; None leaves them side by side.
    """

    def __init__(self, widths: Sequence[Widths], *, width: int, pooled: int | None = None) -> None:
        super().__init__()
        self.tokens = nn.ModuleList(
            nn.Sequential(nn.Linear(each.tokens, width), nn.LayerNorm(width)) for each in widths
        )
        given = sum(each.pooled or 0 for each in widths)
        if pooled and not given:
            raise UserError("none of these text encoders gives a pooled vector: ask for none, or add CLIP")
        self.pooled = nn.Linear(given, pooled) if pooled else None
        self.widths = Widths(width, pooled or given or None)

    def forward(self, words: Sequence[TextEmbedding]) -> TextEmbedding:
        """Words of the same `b` texts, in the order of `widths`, to tokens `(b, n1 + n2 + ..., width)`."""
        like = next(self.parameters())
        tokens = [part(each.tokens.to(like)) for part, each in zip(self.tokens, words, strict=True)]
        present = [each.present.to(like.device) for each in words]
        vectors = [each.pooled.to(like) for each in words if each.pooled is not None]
        pooled = torch.cat(vectors, dim=-1) if vectors else None
        if self.pooled is not None:
            pooled = self.pooled(pooled)
        return TextEmbedding(torch.cat(tokens, dim=1), torch.cat(present, dim=1), pooled).trimmed()
