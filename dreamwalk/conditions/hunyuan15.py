"""The text encoders of HunyuanVideo-1.5 (arXiv 2511.18870): Qwen2.5-VL reads the prompt, Glyph-ByT5 the text
to be rendered, and SigLIP, for image to video, the first image."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from dreamwalk.conditions.frozen import FrozenTextConfig
from dreamwalk.conditions.hunyuan import CLIP, LANGUAGE
from dreamwalk.conditions.multi import MultiTextModel
from dreamwalk.conditions.pretrained import DecoderTextConfig, PretrainedTextModel, QuotedTextConfig
from dreamwalk.conditions.siglip import VISION, SiglipModel

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
CROP, GLYPHS = 108, CLIP
"""Its tokens before the text; and where Glyph-ByT5 lies in a folder of diffusers."""
QUOTED = re.compile(r'"(.*?)"|“(.*?)”')


@dataclass(frozen=True)
class GlyphTextConfig(QuotedTextConfig):
    """ByT5 over what stands in double quotes, as Glyph-ByT5 (arXiv 2403.09622) takes it: each once,
    introduced as a text."""

    def prompt(self, text: str) -> str:
        parts = [first or second for first, second in QUOTED.findall(text)]
        return "".join(f'Text "{part}". ' for part in dict.fromkeys(parts))


@dataclass(frozen=True)
class Hunyuan15TextConfig(FrozenTextConfig):
    """The encoders of HunyuanVideo-1.5. `image_interleave` is 1 for image to video: all tokens of it."""

    text_tokens, image_tokens, parts = 1000 + 256, 27 * 27, (LANGUAGE, GLYPHS, VISION)

    def open(self, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> MultiTextModel:
        """Tokens of Qwen2.5-VL, 3584 wide, of Glyph-ByT5, 1472 wide, and with `image_interleave` of SigLIP,
        1152 wide."""
        qwen = DecoderTextConfig(self.source, 1000, LANGUAGE, "tokenizer", TEMPLATE, CROP)
        glyphs, every = GlyphTextConfig(self.source, 256, GLYPHS), self.image_interleave
        models = [PretrainedTextModel(config, device, dtype) for config in (qwen, glyphs)]
        vision = SiglipModel(self.source, every, device, dtype) if every else None
        return MultiTextModel(models, vision, blank=" ")
