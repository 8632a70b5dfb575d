"""The text encoders of published systems, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamwalk.conditions.llava import IMAGE, LlavaEncoder, LlavaText
from dreamwalk.conditions.text_encoders import (
    ClipText,
    DecoderText,
    Encoder,
    QuotedText,
    T5Text,
    TextEncoder,
    Widths,
)
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.validation import Count

SYSTEM = "<|start_header_id|>system<|end_header_id|>\n\n"
ASPECTS = (
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
)
USER = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
TEMPLATE = f"{SYSTEM}Describe the video by detailing the following aspects: {ASPECTS}{USER}"
"""What HunyuanVideo asks its language model, word for word, as in `DEFAULT_PROMPT_TEMPLATE` of diffusers
(pipelines/hunyuan_video/pipeline_hunyuan_video.py, Apache-2.0)."""
PICTURE_TEMPLATE = (
    f"{SYSTEM}{IMAGE}\nDescribe the video by detailing the following aspects according to the reference "
    f"image: {ASPECTS}\n\n{USER}<|start_header_id|>assistant<|end_header_id|>\n\n"
)
"""What HunyuanVideo-I2V asks of a picture, as there (pipeline_hunyuan_video_image2video.py)."""
CROP, PICTURE_CROP = 95, 103
"""Their tokens before the text; a picture counts as one."""
PATCHES = 576
"""Tokens of a picture: 24x24."""
LANGUAGE, CLIP = "text_encoder", "text_encoder_2"
"""Where the weights lie in a folder of diffusers."""


@dataclass(frozen=True)
class HunyuanTextConfig:
    """The pair of HunyuanVideo, as it was published: never trained, nor stored with a system."""

    source: str
    """A folder as diffusers lays it out, or `hf://owner/name`."""
    pictures: Count = 0
    """Every so many-th token of the first picture is told besides: in HunyuanVideo-I2V 2 where it is shown
    beside the latents and 4 where it takes the place of one; 0 where none is looked at."""

    @property
    def longest(self) -> int:
        """Tokens of a text and its picture, at most."""
        return 256 + (PATCHES // self.pictures if self.pictures else 0)


Reading = tuple[Sequence[str], Tensor | None]
"""Texts, and the pictures uint8 `(b or 1, 3, h, w)` that they are read with, if any."""


class HunyuanTextEncoder(nn.Module):
    """What `HunyuanTextConfig` describes: texts, perhaps with pictures, to `TextEmbedding`, and no weight in
    the state dict."""

    parts: tuple[str, ...] = (LANGUAGE, CLIP)
    """Where in the source the weights are."""
    here: Tensor

    def __init__(self, config: HunyuanTextConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("here", torch.empty(0, device="cpu"), persistent=False)
        self._known: dict[Any, TextEmbedding] = {}

    @cached_property
    def encoder(self) -> Any:
        """Opened when it is first asked; UserErrors as of `TextEncoder` and `LlavaEncoder`."""
        return hunyuan(self.config.source, every=self.config.pictures, device=self.here.device)

    @property
    def nbytes(self) -> int:
        """Of the encoders' weights, by the size of their files; 0 for those on the hub."""
        parts = (Path(self.config.source) / part for part in self.parts)
        return sum(path.stat().st_size for part in parts for path in part.glob("*.safetensors"))

    def against(self, picture: Tensor) -> Tensor:
        """The picture that words against a clip are read with, which begins with `picture`: a black one (as
        in diffusers' `HunyuanVideoImageToVideoPipeline`)."""
        return torch.zeros_like(picture)

    def close(self) -> None:
        """Give back the memory of the encoders; they are opened anew when they are asked again."""
        self.__dict__.pop("encoder", None)

    def read_ahead(self, readings: Sequence[Reading]) -> None:
        """Read and remember texts and their pictures, and close the encoders: what comes next has their
        memory."""
        self._known = {_key(*reading): self(*reading) for reading in readings}
        self.close()

    def check(self, text: str) -> None:
        """UserError for a text that is longer than the encoder of its tokens reads. CLIP, of which only the
        vector of the whole text is told, reads the first 77, as published."""
        self.encoder.check(text)

    def forward(self, texts: Sequence[str], pictures: Tensor | None = None) -> TextEmbedding:
        """`b` texts, and pictures uint8 `(b or 1, 3, h, w)`, to tokens `(b, n, d)` of the longest, and pooled
        `(b, p)`; in float32. UserErrors as of `check`."""
        words = self._known.get(_key(texts, pictures)) if self._known else None
        if words is None:
            for text in texts:
                self.check(text)
            words = self.encoder.encode(texts, pictures)
        return words.to(self.here.device, torch.float32)


def _key(texts: Sequence[str], pictures: Tensor | None) -> Any:
    seen = None if pictures is None else (pictures.shape, pictures.cpu().numpy().tobytes())
    return tuple(texts), seen


class Split:
    """The tokens of one encoder, which may look at pictures, with the pooled vector of another."""

    def __init__(self, tokens: Encoder, pooled: Encoder) -> None:
        self.tokens, self.pooled = tokens, pooled

    @property
    def widths(self) -> Widths:
        return Widths(self.tokens.widths.tokens, self.pooled.widths.pooled)

    def describe(self) -> Any:
        return {"tokens": self.tokens.describe(), "pooled": self.pooled.describe()}

    def check(self, text: str) -> None:
        self.tokens.check(text)

    def encode(self, texts: Sequence[str], pictures: Tensor | None = None) -> TextEmbedding:
        if isinstance(self.tokens, LlavaEncoder):
            words = self.tokens.encode(texts, pictures)
        else:
            words = self.tokens.encode(texts)
        return words._replace(pooled=self.pooled.encode(texts).pooled)


def hunyuan(
    source: str, *, every: int = 0, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16
) -> Split:
    """The pair of HunyuanVideo (arXiv 2412.03603) in a folder or `hf://` repository as diffusers lays it
    out: tokens of LLaMA, 4096 wide, and the pooled vector of CLIP-L, 768 wide.

    With `every`, the pair of HunyuanVideo-I2V: tokens of LLaVA, first every so many-th of its picture's.
    """
    clip = TextEncoder(ClipText(source, model=CLIP, tokenizer="tokenizer_2"), device=device, dtype=dtype)
    if not every:
        llama = DecoderText(source, template=TEMPLATE, crop=CROP, model=LANGUAGE, tokenizer="tokenizer")
        return Split(TextEncoder(llama, device=device, dtype=dtype), clip)
    llava = LlavaText(
        source,
        template=PICTURE_TEMPLATE,
        crop=PICTURE_CROP,
        model=LANGUAGE,
        tokenizer="tokenizer",
        processor="image_processor",
        every=every,
    )
    return Split(LlavaEncoder(llava, device=device, dtype=dtype), clip)


def moviegen(
    *,
    ul2: str,
    byt5: str,
    metaclip: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[TextEncoder, TextEncoder, TextEncoder]:
    """The three of Movie Gen (arXiv 2410.13720), each a folder or `hf://` repository, for `JointTextEncoder`.

    UL2 (4096 wide) and the long-prompt MetaCLIP read the prompt, ByT5 (1472) the letters to be shown.
    """
    configs = T5Text(ul2), QuotedText(byt5), ClipText(metaclip, longest=256)
    first, second, third = (TextEncoder(config, device=device, dtype=dtype) for config in configs)
    return first, second, third
