"""MMDiT conditioned by three encoders: a language model, a glyph encoder, and an image encoder.

The backbone of HunyuanVideo-1.5 (arXiv 2511.18870): only double-stream blocks, and beside the video the
tokens of three encoders, each projected in its own way and marked by a learned type embedding. These tokens
do not rotate and may stand in any order, so an encoder without output is left out.

    published                           ours
    MLLM hidden states                  `TextEmbedding.tokens`, through the refiner
    Glyph-ByT5 hidden states            the first of `TextEmbedding.others`
    SigLIP hidden states (I2V)          the second of `TextEmbedding.others`
    type embedding 0, 1, 2              `type_embedding`
    condition latents and mask (I2V)    `cond`; zeros without an image
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dreamwalk.backbones.mmdit import MMDiT, MMDiTConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding

HIDDEN = 2048
"""Width between the layers that project glyphs."""


@dataclass(frozen=True)
class MultiEncoderMMDiTConfig(MMDiTConfig):
    """Sizes of an MMDiT conditioned by three encoders."""

    glyph_dim: int = 1472
    """Width of the glyph encoder's output."""
    image_dim: int = 1152
    """Width of the image encoder's output."""

    def build(self) -> MultiEncoderMMDiT:
        """The backbone, with fresh weights."""
        return MultiEncoderMMDiT(self)


class MultiEncoderMMDiT(MMDiT):
    """`(x, sigma, text) -> v`, where `TextEmbedding.others` are of glyphs and of an image, or the former, or
    none."""

    config: MultiEncoderMMDiTConfig

    def __init__(self, config: MultiEncoderMMDiTConfig) -> None:
        super().__init__(config)
        width, glyphs, image = config.width, config.glyph_dim, config.image_dim
        mlp = nn.Linear(glyphs, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN)
        self.glyph = nn.Sequential(nn.LayerNorm(glyphs), *mlp, nn.GELU(), nn.Linear(HIDDEN, width))
        mlp = nn.Linear(image, image), nn.GELU(), nn.Linear(image, width)
        self.image = nn.Sequential(nn.LayerNorm(image), *mlp, nn.LayerNorm(width))
        self.type_embedding = nn.Embedding(3, width)

    def text_tokens(self, text: TextEmbedding, sigma: Tensor) -> TextEmbedding:
        """As of `MMDiT`, of all encoders; UserError for a vector of another width."""
        assert len(text.others) < 3, f"{len(text.others)} encoders beside the language model"
        parts = [super().text_tokens(text, sigma)]
        projections = ("glyph", self.glyph), ("image", self.image)
        for (name, project), other in zip(projections, text.others, strict=False):
            width, given = getattr(self.config, f"{name}_dim"), other.trimmed()
            if given.tokens.shape[-1] != width:
                raise UserError(f"{name} embeddings are {width} wide here, not {given.tokens.shape[-1]}")
            parts.append(given._replace(tokens=project(given.tokens.to(parts[0].tokens))))
        tokens = [part.tokens + mark for part, mark in zip(parts, self.type_embedding.weight, strict=False)]
        masked = any(part.mask is not None for part in parts)
        mask = torch.cat([part.present for part in parts], dim=1) if masked else None
        return TextEmbedding(torch.cat(tokens, dim=1), mask)


def hunyuan_8b() -> MultiEncoderMMDiTConfig:
    """HunyuanVideo-1.5 as published, for text and for images: 8,326,608,160 parameters."""
    config = MultiEncoderMMDiTConfig(32, 33, 2048, 16, (1, 1, 1), text_dim=3584, pooled_dim=0)
    return replace(config, double_blocks=54, single_blocks=0)
