"""What systems are told and shown in tests, drawn by a seed."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dreamwalk.conditions.pretrained import EmbeddingDims
from dreamwalk.layers.text import TextEmbedding


class Drawn:
    """Texts to words that were drawn before, 12 wide: of two texts the second is shorter, and has no letters.

    `pooled` and `letters` are the widths of what there is besides.
    """

    def __init__(self, *, pooled: int = 0, letters: int = 0) -> None:
        draw = torch.Generator().manual_seed(1)
        self.dims = EmbeddingDims(12, pooled or None)
        self.words = {
            text: TextEmbedding(
                torch.randn(2, 7, 12, generator=draw),
                torch.arange(7) < torch.tensor([[max_length], [3]]),
                torch.randn(2, pooled, generator=draw) if pooled else None,
                (_letters(letters, draw),) if letters else (),
            )
            for text, max_length in (("", 7), ("ugly", 5))
        }

    def describe(self) -> Any:
        return "drawn"

    def check(self, text: str) -> None:
        assert text in self.words

    def encode(self, texts: Sequence[str], pictures: Tensor | None = None) -> TextEmbedding:
        return self.words[texts[0]].trimmed()


def _letters(width: int, draw: torch.Generator) -> TextEmbedding:
    return TextEmbedding(torch.randn(2, 5, width, generator=draw), torch.arange(5) < torch.tensor([[4], [0]]))


def picture(size: tuple[int, int]) -> Tensor:
    """Uint8 `(1, 1, 3, h, w)`."""
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (1, 1, 3, *size), dtype=torch.uint8, generator=draw)


def image(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture[0, 0].permute(1, 2, 0).numpy())


def wide_pictures() -> Tensor:
    """Two, uint8 `(2, 3, 40, 60)`: wider than high, so that their sides are cut."""
    drawn = torch.randint(0, 256, (2, 3, 8, 12), generator=torch.Generator().manual_seed(1))
    return drawn.byte().repeat_interleave(5, 2).repeat_interleave(5, 3)
