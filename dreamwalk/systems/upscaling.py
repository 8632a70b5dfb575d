"""Inputs of an upsampler: clips resized in pixels, and degraded clips to train on.

Movie Gen's upsampler (arXiv 2410.13720, section 3.1.5) is conditioned on the small clip, bilinearly resized
to the size of the output. For training, the paper degrades clips as Real-ESRGAN does (arXiv 2107.10833), in
two rounds; here blur, downscaling and noise come once, and are mild.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dreamwalk.schedules.flow import expand_like
from dreamwalk.schedules.generator import KeyedGenerator

NOISE = 4.0
"""Highest std of the noise on small clips, of 255."""


def resized(video: Tensor, size: tuple[int, int]) -> Tensor:
    """Float video `(b, t, 3, h, w)` of another height and width, bilinear."""
    frames = video.float().flatten(0, 1)
    made = torch.nn.functional.interpolate(frames, size=size, mode="bilinear", antialias=True)
    return made.unflatten(0, video.shape[:2])


def degraded(video: Tensor, generator: KeyedGenerator, *, factor: int) -> Tensor:
    """uint8 `video` `(b, t, 3, h, w)` at 1 / `factor` of its height and width, with random blur and noise."""
    exact = video.float()
    blurred = torch.nn.functional.avg_pool2d(exact.flatten(0, 1), 3, 1, 1, count_include_pad=False)
    soft = torch.lerp(exact, blurred.unflatten(0, video.shape[:2]), expand_like(generator.uniform(1), exact))
    small = resized(soft, (video.shape[-2] // factor, video.shape[-1] // factor))
    noise = NOISE * expand_like(generator.uniform(1), small) * generator.normal(*small.shape[1:])
    return (small + noise).round().clamp(0, 255).byte()
