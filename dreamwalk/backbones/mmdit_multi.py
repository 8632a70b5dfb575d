"""MMDiT that is told by three encoders: of language, of letters to be shown, and of a picture.

The backbone of HunyuanVideo-1.5 (arXiv 2511.18870): only blocks with weights for each stream, and beside the
video tokens of three kinds, each projected in its own way and marked by a learnt vector. Tokens that do not
turn may stand in any order, so what is missing is left out.

    published                           ours
    MLLM hidden states                  `TextEmbedding.tokens`, through the refiner
    Glyph-ByT5 hidden states            the first of `TextEmbedding.others`
    SigLIP hidden states (I2V)          the second of `TextEmbedding.others`
    type embedding 0, 1, 2              `kinds`
    condition latents and mask (I2V)    `extra`; zeros when there is no picture
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamwalk.backbones.mmdit import MMDiT, MMDiTConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding

BETWEEN = 2048
"""Width between the layers that project letters."""


@dataclass(frozen=True)
class MultiEncoderMMDiTConfig(MMDiTConfig):
    """Sizes of an MMDiT that is told by three encoders."""

    letters: int = 1472
    """Width of a letter's vector."""
    picture: int = 1152
    """Width of the vector of a patch of the picture."""


class MultiEncoderMMDiT(MMDiT):
    """`(x, sigma, words) -> v`, where `TextEmbedding.others` are those of letters and of a picture, or the
    former, or none."""

    def __init__(self, config: MultiEncoderMMDiTConfig) -> None:
        super().__init__(config)
        width, letters, picture = config.width, config.letters, config.picture
        self.letters = nn.Sequential(
            nn.LayerNorm(letters),
            nn.Linear(letters, BETWEEN),
            nn.GELU(),
            nn.Linear(BETWEEN, BETWEEN),
            nn.GELU(),
            nn.Linear(BETWEEN, width),
        )
        self.picture = nn.Sequential(
            nn.LayerNorm(picture),
            nn.Linear(picture, picture),
            nn.GELU(),
            nn.Linear(picture, width),
            nn.LayerNorm(width),
        )
        self.kinds = nn.Embedding(3, width)

    def told(self, words: TextEmbedding, sigma: Tensor) -> TextEmbedding:
        """As `MMDiT.told`, of all kinds; UserError for a vector of another width."""
        assert len(words.others) < 3, f"{len(words.others)} kinds of words beside those of language"
        kinds = [super().told(words, sigma)]
        for name, other in zip(("letters", "picture"), words.others, strict=False):
            width, given = getattr(self.config, name), other.trimmed()
            if given.tokens.shape[-1] != width:
                raise UserError(f"vectors of {name} are {width} wide here, not {given.tokens.shape[-1]}")
            tokens = getattr(self, name)(given.tokens.to(kinds[0].tokens))
            kinds.append(given._replace(tokens=tokens))
        tokens = [each.tokens + mark for each, mark in zip(kinds, self.kinds.weight, strict=False)]
        masked = any(each.mask is not None for each in kinds)
        mask = torch.cat([each.present for each in kinds], dim=1) if masked else None
        return TextEmbedding(torch.cat(tokens, dim=1), mask)


def hunyuan_8b() -> MultiEncoderMMDiTConfig:
    """HunyuanVideo-1.5 as published, for words and for pictures: 8,326,608,160 parameters."""
    return MultiEncoderMMDiTConfig(
        channels=32, extra=33, width=2048, heads=16, dual=54, single=0, patch=(1, 1, 1), text=3584, pooled=0
    )
