"""Noise levels of training: one per frame, one per clip, and what is mixed into them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dreamwalk.schedules.flow import logit_normal, shift
from dreamwalk.schedules.generator import KeyedGenerator

Density = Literal["uniform", "logit-normal"]
NEARLY_CLEAN = 0.1
"""Factor on the noise levels of a clean prefix."""


def draw_sigmas(
    generator: KeyedGenerator,
    frames: int,
    *,
    density: Density = "logit-normal",
    shift_by: float,
    pure_noise_prob: float = 0.0,
    clean_prefix_prob: float = 0.0,
) -> Tensor:
    """Independent noise levels `(b, frames)`, shifted towards noise by `shift_by`.

    With `clean_prefix_prob` the first frames of a clip, up to a drawn one, are nearly clean, as history is
    when sampling; with `pure_noise_prob` a frame is pure noise, where every frame starts when sampling.
    """
    uniform = density == "uniform"
    drawn = generator.uniform(frames) if uniform else logit_normal(generator.normal(frames))
    sigma = shift(drawn, shift_by)
    if clean_prefix_prob:
        index = torch.arange(frames, device=sigma.device)
        prefix = (generator.uniform(1) < clean_prefix_prob) & (index < frames * generator.uniform(1))
        sigma = torch.where(prefix, NEARLY_CLEAN * sigma, sigma)
    return torch.where(generator.uniform(frames) < pure_noise_prob, torch.ones_like(sigma), sigma)
