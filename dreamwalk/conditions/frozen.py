"""Text encoders as a part of a system: the interface of any, and published models that are never trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dreamwalk.conditions.embedding_cache import CachedTextModel
from dreamwalk.conditions.pretrained import TextModel
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.validation import Count

TextInputs = tuple[Sequence[str], Tensor | None]
"""Texts, and the images uint8 `(b or 1, 3, h, w)` that they are read with, if any."""


class TextEncoder(nn.Module):
    """Called with `b` texts, and perhaps images uint8 `(b or 1, 3, h, w)`, it gives a `TextEmbedding`.

    `check(text)` raises UserError for a text that is longer than what is read; so does a call.
    """

    max_bytes: int | None = None
    """Of a text; None where another unit is counted."""

    def negative_image(self, image: Tensor) -> Tensor | None:
        """The image that a negative prompt is read with, for clips that begin with `image`."""
        return None

    def precompute(self, inputs: Sequence[TextInputs]) -> None:
        """Encode ahead of time where that frees memory for what comes next."""

    @property
    def nbytes(self) -> int:
        """Of weights that are loaded for encoding only, by the size of files; 0 for those on the hub."""
        return 0


@dataclass(frozen=True)
class FrozenTextConfig:
    """Published text models in one folder: never trained, nor stored with a system."""

    source: str
    """A folder as diffusers lays it out, or `hf://owner/name`."""
    image_interleave: Count = 0
    """Stride over the tokens of the first image; 0: no image is read."""
    cache: str = ""
    """Folder of embeddings (`embedding_cache`), so that training encodes each text once; empty: none."""

    text_tokens: ClassVar[int]
    """Of a text, at most."""
    image_tokens: ClassVar[int] = 0
    parts: ClassVar[tuple[str, ...]]
    """Folders of the weights within `source`."""
    black_negative: ClassVar[bool] = False
    """Whether negative prompts are read with a black image, not with the clip's first one."""

    @property
    def max_length(self) -> int:
        """Tokens of a text and its image, at most."""
        return self.text_tokens + (self.image_interleave and self.image_tokens // self.image_interleave)

    @property
    def folders(self) -> list[Path]:
        """Where the weights are."""
        return [Path(self.source) / part for part in self.parts]

    def open(self, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> TextModel:
        """The model, whose weights stay closed until it is first asked."""
        raise NotImplementedError

    def build(self) -> FrozenTextEncoder:
        """The encoder; its model stays closed until it is first asked."""
        return FrozenTextEncoder(self)


class FrozenTextEncoder(TextEncoder):
    """Published text models, without a weight in the state dict."""

    here: Tensor

    def __init__(self, config: FrozenTextConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("here", torch.empty(0, device="cpu"), persistent=False)
        self._precomputed: dict[Any, TextEmbedding] = {}

    @cached_property
    def model(self) -> TextModel:
        """Opened when it is first asked; UserErrors as of `PretrainedTextModel`."""
        model, folder = self.config.open(self.here.device), self.config.cache
        if folder and self.training:  # a weight file that is opened writes nowhere
            return CachedTextModel(model, Path(folder), self.here.device)
        return model

    @property
    def nbytes(self) -> int:
        files = (file for folder in self.config.folders for file in folder.glob("*.safetensors"))
        return sum(file.stat().st_size for file in files)

    def negative_image(self, image: Tensor) -> Tensor:
        return torch.zeros_like(image) if self.config.black_negative else image

    def precompute(self, inputs: Sequence[TextInputs]) -> None:
        """Encode and remember texts and their images, and close the model: what comes next has its memory."""
        self._precomputed = {_key(*each): FrozenTextEncoder.forward(self, *each) for each in inputs}
        self.__dict__.pop("model", None)

    def check(self, text: str) -> None:
        self.model.check(text)

    def forward(self, texts: Sequence[str], images: Tensor | None = None) -> TextEmbedding:
        """`b` texts, and images uint8 `(b or 1, 3, h, w)`, to tokens `(b, n, d)` of the longest, and pooled
        `(b, p)`; in float32. UserErrors as of `check`."""
        found = self._precomputed.get(_key(texts, images)) if self._precomputed else None
        if found is None:
            for text in texts:
                self.check(text)
            found = self.model.encode(texts, images)
        return found.to(self.here.device, torch.float32)


def _key(texts: Sequence[str], images: Tensor | None) -> Any:
    seen = None if images is None else (images.shape, images.cpu().numpy().tobytes())
    return tuple(texts), seen
