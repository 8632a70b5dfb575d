"""Several text models side by side, of which a backbone is given each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dreamwalk.conditions.pretrained import EmbeddingDims, PretrainedTextModel
from dreamwalk.conditions.siglip import SiglipModel
from dreamwalk.layers.text import TextEmbedding


@dataclass(eq=False)
class MultiTextModel:
    """The embedding of one model, and as `others` those of further models and, perhaps, of an image."""

    models: list[PretrainedTextModel]
    vision: SiglipModel | None = None
    blank: str = ""
    """Stands for an empty text, for the first model."""

    @property
    def dims(self) -> EmbeddingDims:
        return self.models[0].dims

    def describe(self) -> Any:
        return [part.describe() for part in (*self.models, self.vision) if part]

    def check(self, text: str) -> None:
        for model in self.models:
            model.check(text)

    def encode(self, texts: Sequence[str], images: Tensor | None = None) -> TextEmbedding:
        """`b` texts, and images uint8 `(b or 1, 3, h, w)`; UserError where an image is missing."""
        first, *further = self.models
        others = [model.encode(texts) for model in further]
        if self.vision:
            others.append(TextEmbedding(self.vision.encode(images).expand(len(texts), -1, -1)))
        return first.encode([text or self.blank for text in texts])._replace(others=tuple(others))
