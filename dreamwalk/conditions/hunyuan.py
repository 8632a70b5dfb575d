"""The text encoders of HunyuanVideo (arXiv 2412.03603): LLaMA for tokens, CLIP for the pooled vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dreamwalk.conditions import pretrained
from dreamwalk.conditions.frozen import FrozenTextConfig
from dreamwalk.conditions.llava import IMAGE, LlavaTextConfig, LlavaTextModel
from dreamwalk.conditions.pretrained import EmbeddingDims, PretrainedTextModel
from dreamwalk.layers.text import TextEmbedding

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
IMAGE_TEMPLATE = (
    f"{SYSTEM}{IMAGE}\nDescribe the video by detailing the following aspects according to the reference "
    f"image: {ASPECTS}\n\n{USER}<|start_header_id|>assistant<|end_header_id|>\n\n"
)
"""What HunyuanVideo-I2V asks of an image, as there (pipeline_hunyuan_video_image2video.py)."""
CROP, IMAGE_CROP = 95, 103
"""Their tokens before the text; an image counts as one."""
LANGUAGE, CLIP = "text_encoder", "text_encoder_2"
"""Where the weights lie in a folder of diffusers."""


@dataclass(frozen=True)
class HunyuanTextConfig(FrozenTextConfig):
    """The pair of HunyuanVideo. `image_interleave` of HunyuanVideo-I2V is 2 where the first image is given by
    latent concatenation and 4 where it is given by token replacement."""

    text_tokens, image_tokens, parts = 256, 24 * 24, (LANGUAGE, CLIP)
    black_negative = True  # as in diffusers' `HunyuanVideoImageToVideoPipeline`
    tokenizers, processor = ("tokenizer", "tokenizer_2"), "image_processor"

    def open(self, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> PairedTextModel:
        """Tokens of LLaMA, 4096 wide, and the pooled vector of CLIP-L, 768 wide. With `image_interleave` as
        in HunyuanVideo-I2V: tokens of LLaVA, its image's first."""
        (language, second), (words, pieces) = self.parts, self.tokenizers
        clip = pretrained.ClipTextConfig(self.source, model=second, tokenizer=pieces)
        pooled, every = PretrainedTextModel(clip, device, dtype), self.image_interleave
        where = self.source, self.text_tokens, language, words
        if not every:
            llama = pretrained.DecoderTextConfig(*where, TEMPLATE, CROP)
            return PairedTextModel(PretrainedTextModel(llama, device, dtype), pooled)
        llava = LlavaTextConfig(
            *where, IMAGE_TEMPLATE, IMAGE_CROP, interleave=every, processor=self.processor
        )
        return PairedTextModel(LlavaTextModel(llava, device, dtype), pooled)


@dataclass(frozen=True)
class TencentTextConfig(HunyuanTextConfig):
    """The same in the layout of its authors: each model and what goes with it in one folder."""

    parts = tokenizers = ("text_encoder_i2v", "text_encoder_2")
    processor = "text_encoder_i2v"


@dataclass(eq=False)
class PairedTextModel:
    """The tokens of one model, which may read images, with the pooled vector of another.

    A text that is too long for the first is refused; CLIP reads the first 77 tokens, as published."""

    tokens: PretrainedTextModel
    pooled: PretrainedTextModel

    @property
    def dims(self) -> EmbeddingDims:
        return EmbeddingDims(self.tokens.dims.tokens, self.pooled.dims.pooled)

    def describe(self) -> Any:
        return {"tokens": self.tokens.describe(), "pooled": self.pooled.describe()}

    def check(self, text: str) -> None:
        self.tokens.check(text)

    def encode(self, texts: Sequence[str], images: Tensor | None = None) -> TextEmbedding:
        return self.tokens.encode(texts, images)._replace(pooled=self.pooled.encode(texts).pooled)
