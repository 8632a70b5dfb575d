"""The text encoders of published systems, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from dreamwalk.conditions.text import ClipText, DecoderText, Encoder, QuotedText, Split, T5Text, TextEncoder
from dreamwalk.layers.words import Words

TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
"""What HunyuanVideo asks its language model, word for word, as in `DEFAULT_PROMPT_TEMPLATE` of diffusers
(pipelines/hunyuan_video/pipeline_hunyuan_video.py, Apache-2.0)."""
CROP = 95
"""Its tokens before the text."""
LANGUAGE, CLIP = "text_encoder", "text_encoder_2"
"""Where the weights lie in a folder of diffusers."""


@dataclass(frozen=True)
class PublishedWords:
    """The pair of HunyuanVideo, as it was published: never trained, nor stored with a system."""

    source: str
    """A folder as diffusers lays it out, or `hf://owner/name`."""
    longest: ClassVar[int] = 256
    """Tokens of a text, at most."""


class PublishedReader(nn.Module):
    """What `PublishedWords` describes: texts to `Words`, without a weight in the state dict."""

    here: Tensor

    def __init__(self, config: PublishedWords) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("here", torch.empty(0, device="cpu"), persistent=False)
        self._known: dict[tuple[str, ...], Words] = {}

    @cached_property
    def encoder(self) -> Encoder:
        """Opened when it is first asked; ValueErrors as of `TextEncoder`."""
        return hunyuan(self.config.source, device=self.here.device)

    @property
    def nbytes(self) -> int:
        """Of the encoders' weights, by the size of their files; 0 for those on the hub."""
        parts = (Path(self.config.source) / part for part in (LANGUAGE, CLIP))
        return sum(path.stat().st_size for part in parts for path in part.glob("*.safetensors"))

    def close(self) -> None:
        """Give back the memory of the encoders; they are opened anew when they are asked again."""
        self.__dict__.pop("encoder", None)

    def read_ahead(self, batches: Sequence[Sequence[str]]) -> None:
        """Read and remember batches of texts, and close the encoders: what comes next has their memory."""
        self._known = {tuple(texts): self(texts) for texts in batches}
        self.close()

    def forward(self, texts: Sequence[str]) -> Words:
        """`b` texts to tokens `(b, n, d)` of the longest, and pooled `(b, p)`; in float32."""
        words = self._known.get(tuple(texts)) or self.encoder.encode(texts)
        return words.to(self.here.device, torch.float32)


def hunyuan(source: str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16) -> Split:
    """The pair of HunyuanVideo (arXiv 2412.03603) in a folder or `hf://` repository as diffusers lays it
    out: tokens of LLaMA, 4096 wide, and the pooled vector of CLIP-L, 768 wide."""
    llama = DecoderText(source, template=TEMPLATE, crop=CROP, model=LANGUAGE, tokenizer="tokenizer")
    clip = ClipText(source, model=CLIP, tokenizer="tokenizer_2")
    return Split(
        TextEncoder(llama, device=device, dtype=dtype), TextEncoder(clip, device=device, dtype=dtype)
    )


def moviegen(
    *, ul2: str, byt5: str, metaclip: str, device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[TextEncoder, TextEncoder, TextEncoder]:  # fmt: skip
    """The three of Movie Gen (arXiv 2410.13720), each a folder or `hf://` repository, for `Joined`.

    UL2 (4096 wide) and the long-prompt MetaCLIP read the prompt, ByT5 (1472) the letters to be shown.
    """
    configs = T5Text(ul2), QuotedText(byt5), ClipText(metaclip, longest=256)
    first, second, third = (TextEncoder(config, device=device, dtype=dtype) for config in configs)
    return first, second, third
