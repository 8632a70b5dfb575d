"""SigLIP (arXiv 2303.15343), an image encoder, through `transformers`: a token for each patch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from dreamwalk.conditions.pretrained import open_part, open_whole
from dreamwalk.errors import UserError

VISION, SCALING = "image_encoder", "feature_extractor"
"""Where in a folder of diffusers the weights lie, and where its image processor is configured."""


@dataclass(eq=False)
class SiglipModel:
    """The states of its last layer, from a folder or `hf://` repository as diffusers lays it out.

    Opened when it is first asked; UserError then for what is not there, not SigLIP, or not in safetensors.
    """

    source: str
    interleave: int = 1
    """Stride over the tokens of an image."""
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.bfloat16

    @cached_property
    def processor(self) -> Any:
        """From uint8 images to what the model sees."""
        return open_scaling(self.source, SCALING)

    @cached_property
    def model(self) -> nn.Module:
        from transformers import SiglipVisionModel

        model = open_whole(SiglipVisionModel, self.source, VISION, dtype=self.dtype)
        return model.requires_grad_(False).eval().to(self.device)

    def describe(self) -> Any:
        """JSON-able; two with one description give the same embeddings."""
        about = {"encoder": "SigLIP", "source": self.source, "interleave": self.interleave}
        return about | {"dtype": str(self.dtype)}

    @torch.no_grad()
    def encode(self, images: Tensor | None) -> Tensor:
        """Images uint8 `(b, 3, h, w)` to tokens `(b, n, d)`, every so many-th; UserError without any."""
        if images is None:
            raise UserError("a picture is looked at beside the words: give it one")
        seen = scaled(self.processor, images).to(self.device, self.dtype)
        return self.model(pixel_values=seen).last_hidden_state[:, :: self.interleave]


def open_scaling(source: str, part: str) -> Any:
    """How a source says that images are scaled and cut; with Pillow, which gives the same everywhere."""
    from transformers import AutoImageProcessor

    return open_part(AutoImageProcessor, source, part, {"backend": "pil"})


def scaled(processor: Any, images: Tensor) -> Tensor:
    """Images uint8 `(b, 3, h, w)` as an encoder sees them, float32."""
    given = list(images.cpu().numpy())
    return processor(given, return_tensors="pt", input_data_format="channels_first").pixel_values
