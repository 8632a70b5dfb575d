"""LLaVA (arXiv 2304.08485), a language model that reads an image with a text, through `transformers`.

The patches of the image stand in the template in place of `<image>`. HunyuanVideo-I2V takes the states of
every second or fourth of them, then those of the text; of the template after the text only its last token is
kept. So does diffusers' `HunyuanVideoImageToVideoPipeline` (Apache-2.0), whose padding is left out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from dreamwalk.conditions import pretrained
from dreamwalk.conditions.siglip import open_scaling, scaled
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding

IMAGE = "<image>"
ENDING = 4
"""Tokens of the template after the text that are left out; the one after them is kept."""


@dataclass(frozen=True)
class LlavaTextConfig(pretrained.DecoderTextConfig):
    """The states of LLaVA's language model, of an image and of a text about it."""

    interleave: int = 1
    """Stride over the tokens of the image."""
    processor: str = "image_processor"
    """Where in the source the image processor is configured."""


class LlavaTextModel(pretrained.PretrainedTextModel):
    """A `PretrainedTextModel` that reads each text with an image."""

    config: LlavaTextConfig

    @cached_property
    def processor(self) -> Any:
        """From uint8 images to what the model sees."""
        return open_scaling(self.config.source, self.config.processor)

    @cached_property
    def model(self) -> nn.Module:
        from transformers import AutoConfig, LlavaForConditionalGeneration

        source = self.config.source
        if pretrained.open_part(AutoConfig, source, self.config.model).model_type != "llava":
            raise UserError(f"the language model in '{source}' looks at no pictures: take LLaVA's folder")
        kind, part = LlavaForConditionalGeneration, self.config.model
        model = pretrained.open_whole(kind, source, part, dtype=self.dtype).model
        pretrained.cut(model.language_model, self.config)
        return model.requires_grad_(False).eval().to(self.device)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], images: Tensor | None = None) -> TextEmbedding:
        """`b` texts with images, uint8 `(b or 1, 3, h, w)`, to tokens `(b, n, d)`, the image's first.

        UserError without images, and for a text that holds `<image>` itself.
        """
        if images is None:
            raise UserError("this text encoder looks at a picture while it reads: give it one")
        seen = scaled(self.processor, images).to(self.device, self.dtype).expand(len(texts), -1, -1, -1)
        return pretrained.padded([self._states(*each) for each in zip(texts, seen, strict=True)], None)

    def _states(self, text: str, seen: Tensor) -> Tensor:
        if IMAGE in text:
            raise UserError(f"'{IMAGE}' is where the template has its picture: leave it out of the text")
        model: Any = self.model
        patches, most = model.config.image_seq_length, self.crop + self.config.max_length
        symbols = self.tokenizer(self.config.template.replace("{}", text)).input_ids
        end = min(len(symbols) - 1, most)
        kept = [*range(self.crop, end - ENDING), *range(end, min(len(symbols), most))]
        at = symbols.index(self.tokenizer.convert_tokens_to_ids(IMAGE))
        symbols[at : at + 1] = [model.config.image_token_index] * patches
        rows = torch.tensor(symbols[: most + patches - 1], device=self.device)
        states = model(input_ids=rows[None], pixel_values=seen[None]).last_hidden_state[0]
        image, rest = states[at : at + patches : self.config.interleave], states[patches - 1 :][kept]
        return torch.cat([image, rest]).to(self.dtype)
