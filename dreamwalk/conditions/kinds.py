"""The text encoders of HunyuanVideo-1.5 (arXiv 2511.18870): Qwen2.5-VL reads the prompt, and Glyph-ByT5 the
letters that a picture shall show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dreamwalk.conditions.published import CLIP, LANGUAGE, PublishedReader, PublishedWords
from dreamwalk.conditions.text import DecoderText, Encoder, QuotedText, TextEncoder, Widths
from dreamwalk.layers.words import Words

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
QUOTED = re.compile(r'"(.*?)"|“(.*?)”')


@dataclass(frozen=True)
class GlyphText(QuotedText):
    """ByT5 over what stands in double quotes, told as Glyph-ByT5 (arXiv 2403.09622) is: each once, and that
    it is a text."""

    def shown(self, text: str) -> str:
        parts = [first or second for first, second in QUOTED.findall(text)]
        return "".join(f'Text "{part}". ' for part in dict.fromkeys(parts))


@dataclass(frozen=True)
class PublishedKinds(PublishedWords):
    """The pair of HunyuanVideo-1.5, as it was published: never trained, nor stored with a system."""

    @property
    def longest(self) -> int:
        return 1256


class KindsReader(PublishedReader):
    """What `PublishedKinds` describes."""

    @cached_property
    def encoder(self) -> Encoder:
        return hunyuan15(self.config.source, device=self.here.device)


class WithLetters:
    """The tokens of one encoder, and beside them those of letters to be shown."""

    def __init__(self, language: Encoder, letters: Encoder) -> None:
        self.language, self.letters = language, letters

    @property
    def widths(self) -> Widths:
        return self.language.widths

    def describe(self) -> Any:
        return {"language": self.language.describe(), "letters": self.letters.describe()}

    def encode(self, texts: Sequence[str], pictures: Tensor | None = None) -> Words:
        """An empty text is read as a space, as published; pictures are not looked at."""
        words = self.language.encode([text or " " for text in texts])
        return words._replace(others=(self.letters.encode(texts),))


def hunyuan15(
    source: str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16
) -> WithLetters:
    """The pair of HunyuanVideo-1.5 in a folder or `hf://` repository as diffusers lays it out: tokens of
    Qwen2.5-VL, 3584 wide, and of Glyph-ByT5, 1472 wide."""
    qwen = DecoderText(
        source, longest=1000, template=TEMPLATE, crop=CROP, model=LANGUAGE, tokenizer="tokenizer"
    )
    glyphs = GlyphText(source, longest=256, model=LETTERS)
    return WithLetters(
        TextEncoder(qwen, device=device, dtype=dtype), TextEncoder(glyphs, device=device, dtype=dtype)
    )
