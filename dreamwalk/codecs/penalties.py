"""Penalties on latents, for the losses of codecs."""

from __future__ import annotations

from torch import Tensor


def outlier_penalty(latents: Tensor, r: float = 3.0) -> Tensor:
    """How far latents `(b, t, c, h, w)` lie beyond `r` stds of their frame and channel; 0 when none does.

    The outlier penalty loss of Movie Gen (arXiv 2410.13720, section 3.1.1): the mean of
    max(|x - mean| - r std, 0), where mean and std are taken over `(h, w)`. It keeps the encoder from storing
    a frame in a few loud places, which decode into spots; the paper weighs it with 1e5. Of n places none can
    lie beyond (n - 1) / sqrt(n) stds: with r = 3, frames of less than 11 latents are never penalised.
    """
    mean = latents.mean((-2, -1), keepdim=True)
    std = latents.std((-2, -1), keepdim=True, correction=0)
    return ((latents - mean).abs() - r * std).clamp(min=0).mean()
