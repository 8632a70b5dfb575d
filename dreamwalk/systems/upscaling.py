"""A small clip made larger in pixels, and small clips to learn from.

What Movie Gen's upsampler is shown (arXiv 2410.13720, section 3.1.5): a clip, bilinearly made as large as
the one that is to come. To train it, clips are made small first. The paper degrades them as Real-ESRGAN does
(arXiv 2107.10833), in two rounds; here blur, shrinking and noise come once, and are mild.
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


def degraded(video: Tensor, generator: KeyedGenerator, *, enlarges: int) -> Tensor:
    """Clips from which uint8 `video` `(b, t, 3, h, w)` is to be made again, uint8 of its size by `enlarges`.

    Each is as blurred and as noisy as chance says.
    """
    exact = video.float()
    blurred = torch.nn.functional.avg_pool2d(exact.flatten(0, 1), 3, 1, 1, count_include_pad=False)
    soft = torch.lerp(exact, blurred.unflatten(0, video.shape[:2]), expand_like(generator.uniform(1), exact))
    small = resized(soft, (video.shape[-2] // enlarges, video.shape[-1] // enlarges))
    noise = NOISE * expand_like(generator.uniform(1), small) * generator.normal(*small.shape[1:])
    return (small + noise).round().clamp(0, 255).byte()
