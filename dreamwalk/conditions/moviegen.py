"""The text encoders of Movie Gen (arXiv 2410.13720, section 3.1.3): UL2 and the long-prompt MetaCLIP read the
prompt, ByT5 the letters to be shown. The models are frozen, their projection into one space is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dreamwalk.conditions import pretrained
from dreamwalk.conditions.frozen import FrozenTextConfig, FrozenTextEncoder
from dreamwalk.conditions.multi import MultiTextModel
from dreamwalk.conditions.pretrained import EmbeddingDims
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding


@dataclass(frozen=True)
class MovieGenTextConfig(FrozenTextConfig):
    """UL2 in the folder or `hf://` repository `source`, beside ByT5 and MetaCLIP."""

    byt5: str = ""
    metaclip: str = ""
    """Folders, or `hf://owner/name`, as `source`."""
    width: int = 6144
    """Of the joint embedding."""
    pooled_dim: int | None = None
    """Size that MetaCLIP's pooled vector is projected to; None: as it is."""
    widths: tuple[int, int, int] = (4096, 1472, 1024)
    """Of the three models."""
    lengths: tuple[int, int, int] = (512, 100, 256)
    """Tokens that each reads, at most."""

    @property
    def max_length(self) -> int:
        return sum(self.lengths)

    @property
    def folders(self) -> list[Path]:
        return [Path(source) for source in (self.source, self.byt5, self.metaclip)]

    def open(self, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> MultiTextModel:
        """UserError for a model of another width."""
        kinds = pretrained.T5TextConfig, pretrained.QuotedTextConfig, pretrained.ClipTextConfig
        rows = zip(kinds, (self.source, self.byt5, self.metaclip), self.lengths, strict=True)
        configs = [kind(source, length) for kind, source, length in rows]
        models = [pretrained.PretrainedTextModel(config, device, dtype) for config in configs]
        for model, width in zip(models, self.widths, strict=True):
            if model.dims.tokens != width:
                raise UserError(
                    f"the text encoder in '{model.config.source}' is {model.dims.tokens} wide, and this "
                    f"system is for one of {width}: give the one that it was trained with"
                )
        return MultiTextModel(models)

    def build(self) -> JointTextEncoder:
        return JointTextEncoder(self)


class JointTextEncoder(FrozenTextEncoder):
    """What `MovieGenTextConfig` describes: the embeddings of three models as those of one."""

    def __init__(self, config: MovieGenTextConfig) -> None:
        super().__init__(config)
        *widths, clip = config.widths
        dims = [*(EmbeddingDims(width, None) for width in widths), EmbeddingDims(clip, clip)]
        self.projection = JointProjection(dims, width=config.width, pooled=config.pooled_dim)

    def forward(self, texts: Sequence[str], images: Tensor | None = None) -> TextEmbedding:
        first = super().forward(texts)
        return self.projection([first._replace(others=()), *first.others])


class JointProjection(nn.Module):
    """Embeddings of several encoders as those of one of `width`: each has a linear layer and a norm of its
    own, and one follows the other along the sequence.

    `pooled` is the size that their pooled vectors are projected to together; None leaves them side by side.
    """

    def __init__(self, dims: Sequence[EmbeddingDims], *, width: int, pooled: int | None = None) -> None:
        super().__init__()
        projections = [nn.Sequential(nn.Linear(each.tokens, width), nn.LayerNorm(width)) for each in dims]
        self.tokens = nn.ModuleList(projections)
        given = sum(each.pooled or 0 for each in dims)
        if pooled and not given:
            raise UserError("none of these text encoders gives a pooled vector: ask for none, or add CLIP")
        self.pooled = nn.Linear(given, pooled) if pooled else None
        self.dims = EmbeddingDims(width, pooled or given or None)

    def forward(self, embeddings: Sequence[TextEmbedding]) -> TextEmbedding:
        """Embeddings of the same `b` texts, in the order of `dims`, to tokens `(b, n1 + n2 + ..., width)`."""
        like = next(self.parameters())
        tokens = [part(each.tokens.to(like)) for part, each in zip(self.tokens, embeddings, strict=True)]
        present = [each.present.to(like.device) for each in embeddings]
        vectors = [each.pooled.to(like) for each in embeddings if each.pooled is not None]
        pooled = torch.cat(vectors, dim=-1) if vectors else None
        if self.pooled is not None:
            pooled = self.pooled(pooled)
        return TextEmbedding(torch.cat(tokens, dim=1), torch.cat(present, dim=1), pooled).trimmed()
