"""The text encoders of published systems, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True)
class PublishedWords:
    """The pair of HunyuanVideo, as it was published: never trained, nor stored with a system."""

    source: str
    """A folder as diffusers lays it out, or `hf://owner/name`."""


class PublishedReader(nn.Module):
    """What `PublishedWords` describes: texts to `Words`, without a weight in the state dict."""

    here: Tensor

    def __init__(self, config: PublishedWords) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("here", torch.empty(0, device="cpu"), persistent=False)

    @cached_property
    def encoder(self) -> Encoder:
        """Opened when it is first asked; ValueErrors as of `TextEncoder`."""
        return hunyuan(self.config.source, device=self.here.device)

    def close(self) -> None:
        """Give back the memory of the encoders; they are opened anew when they are asked again."""
        self.__dict__.pop("encoder", None)

    def forward(self, texts: Sequence[str]) -> Words:
        """`b` texts to tokens `(b, n, d)` of the longest, and pooled `(b, p)`; in float32."""
        tokens, mask, pooled = self.encoder.encode(texts)
        return Words(tokens.float(), mask, None if pooled is None else pooled.float())


def hunyuan(source: str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16) -> Split:
    """The pair of HunyuanVideo (arXiv 2412.03603) in a folder or `hf://` repository as diffusers lays it
    out: tokens of LLaMA, 4096 wide, and the pooled vector of CLIP-L, 768 wide."""
    llama = DecoderText(source, template=TEMPLATE, crop=CROP, model="text_encoder", tokenizer="tokenizer")
    clip = ClipText(source, model="text_encoder_2", tokenizer="tokenizer_2")
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
