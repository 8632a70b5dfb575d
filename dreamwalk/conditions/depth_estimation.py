"""The depth of a photograph by somebody else's model: Depth Anything and others, through transformers."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamwalk.errors import UserError, brief

NEAREST, FARTHEST = 0.5, 20.0
"""Metres that are assumed of the nearest and the farthest point where a model only tells which is nearer."""


@torch.inference_mode()
def estimate_depth(name: str, picture: Tensor, *, unit: float) -> Tensor:
    """Planar depth `(h, w)` in world units, `unit` a metre, of a picture in [-1, 1] `(3, h, w)`.

    `name`: a folder or hub name of a depth-estimation model. One that tells metres is believed; one of
    relative inverse depth is stretched from `NEAREST` to `FARTHEST`. UserError where there is no such model.
    """
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    try:
        processor = AutoImageProcessor.from_pretrained(name, use_fast=False)
        model = AutoModelForDepthEstimation.from_pretrained(name).eval()
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"'{name}' is no depth-estimation model that can be opened ({brief(error)}): give a folder or a "
            "hub name, such as depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf"
        ) from error
    image = ((picture + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    found = model(**processor(images=image, return_tensors="pt")).predicted_depth
    size = (picture.shape[1], picture.shape[2])
    depth = torch.nn.functional.interpolate(found[None].float(), size, mode="bilinear")[0, 0]
    if getattr(model.config, "depth_estimation_type", "relative") != "metric":
        low, high = depth.min(), depth.max()
        share = (depth - low) / (high - low).clamp(min=1e-9)
        depth = 1 / (1 / FARTHEST + share * (1 / NEAREST - 1 / FARTHEST))
    return depth.clamp(min=0) * unit
