"""The encoders of HunyuanVideo-1.5 (arXiv 2511.18870): Qwen2.5-VL reads the prompt, Glyph-ByT5 the letters
that a picture shall show, and SigLIP, in the one for pictures, sees the first of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dreamwalk.conditions.hunyuan import CLIP, LANGUAGE, HunyuanTextConfig, HunyuanTextEncoder
from dreamwalk.conditions.siglip import PICTURES, PictureEncoder
from dreamwalk.conditions.text_encoders import DecoderText, Encoder, QuotedText, TextEncoder, Widths
from dreamwalk.layers.text import TextEmbedding

TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant. Describe the video by detailing the following aspects:"
    "         1. The main content and theme of the video."
    "         2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "         3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "         4. background environment, light, style and atmosphere."
    "         5. camera angles, movements, and transitions used in the video.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""What it asks its language model, word for word and space for space, as in diffusers
(pipelines/hunyuan_video1_5/pipeline_hunyuan_video1_5.py, Apache-2.0), in Qwen's form of a conversation."""
CROP, LETTERS = 108, CLIP
"""Its tokens before the text; and where the encoder of letters lies in a folder of diffusers."""
PATCHES = 729
"""Tokens of a picture: 27x27."""
QUOTED = re.compile(r'"(.*?)"|“(.*?)”')


@dataclass(frozen=True)
class GlyphText(QuotedText):
    """ByT5 over what stands in double quotes, told as Glyph-ByT5 (arXiv 2403.09622) is: each once, and that
    it is a text."""

    def shown(self, text: str) -> str:
        parts = [first or second for first, second in QUOTED.findall(text)]
        return "".join(f'Text "{part}". ' for part in dict.fromkeys(parts))


@dataclass(frozen=True)
class Hunyuan15TextConfig(HunyuanTextConfig):
    """The encoders of HunyuanVideo-1.5, as they were published: never trained, nor stored with a system.

    `pictures` is 1 for pictures: all tokens of the first one are told.
    """

    @property
    def longest(self) -> int:
        return 1256 + (PATCHES // self.pictures if self.pictures else 0)


class Hunyuan15TextEncoder(HunyuanTextEncoder):
    """What `Hunyuan15TextConfig` describes."""

    parts = LANGUAGE, LETTERS, PICTURES

    @cached_property
    def encoder(self) -> Encoder:
        return hunyuan15(self.config.source, every=self.config.pictures, device=self.here.device)

    def against(self, picture: Tensor) -> Tensor:
        """The same (as in diffusers' `HunyuanVideo15ImageToVideoPipeline`)."""
        return picture


class WithLetters:
    """The tokens of one encoder, and beside them those of letters to be shown and, perhaps, of a picture."""

    def __init__(self, language: Encoder, letters: Encoder, picture: PictureEncoder | None = None) -> None:
        self.language, self.letters, self.picture = language, letters, picture

    @property
    def widths(self) -> Widths:
        return self.language.widths

    def describe(self) -> Any:
        parts = {"language": self.language, "letters": self.letters, "picture": self.picture}
        return {name: part.describe() for name, part in parts.items() if part}

    def check(self, text: str) -> None:
        self.language.check(text)
        self.letters.check(text)

    def encode(self, texts: Sequence[str], pictures: Tensor | None = None) -> TextEmbedding:
        """`b` texts, an empty one read as a space, as published, and pictures uint8 `(b or 1, 3, h, w)`."""
        others: tuple[TextEmbedding, ...] = (self.letters.encode(texts),)
        if self.picture:
            seen = self.picture.encode(pictures).tokens
            others += (TextEmbedding(seen.expand(len(texts), -1, -1)),)
        return self.language.encode([text or " " for text in texts])._replace(others=others)


def hunyuan15(
    source: str, *, every: int = 0, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16
) -> WithLetters:
    """The pair of HunyuanVideo-1.5 in a folder or `hf://` repository as diffusers lays it out: tokens of
    Qwen2.5-VL, 3584 wide, and of Glyph-ByT5, 1472 wide.

    With `every`, the three of the one for pictures: also every so many-th token of SigLIP, 1152 wide.
    """
    qwen = DecoderText(
        source, longest=1000, template=TEMPLATE, crop=CROP, model=LANGUAGE, tokenizer="tokenizer"
    )
    glyphs = GlyphText(source, longest=256, model=LETTERS)
    return WithLetters(
        TextEncoder(qwen, device=device, dtype=dtype),
        TextEncoder(glyphs, device=device, dtype=dtype),
        PictureEncoder(source, every=every, device=device, dtype=dtype) if every else None,
    )
