"""Where a generated video loses against the truth: in its vocabulary, or in the model that predicts tokens.

A generator of tokens cannot be nearer to the truth than its codec. So the true video that went through the
codec stands between: truth to reconstruction is what the vocabulary loses, reconstruction to generation what
the model loses (the gap of gFVD over rFVD, with PSNR by the frame in place of FVD).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.evaluation.fidelity import psnr


@dataclass(frozen=True)
class GenerationGap:
    """PSNR in dB against the truth at every frame of the horizon, mean over clips."""

    reconstructed: tuple[float, ...]
    """The ceiling that the vocabulary sets."""
    generated: tuple[float, ...]

    @property
    def modelling(self) -> tuple[float, ...]:
        """What the model loses below that ceiling, in dB."""
        return tuple(a - b for a, b in zip(self.reconstructed, self.generated, strict=True))

    def told(self) -> dict[str, Any]:
        """As a part of a report."""
        return asdict(self) | {"modelling": self.modelling}


def generation_gap(truth: Tensor, reconstructed: Tensor, generated: Tensor) -> GenerationGap:
    """Of uint8 videos `(b, t, 3, h, w)`, whose frame 0 is the first that was generated; UserError where they
    have different shapes."""
    if not truth.shape == reconstructed.shape == generated.shape:
        shapes = ", ".join(str(tuple(video.shape)) for video in (truth, reconstructed, generated))
        raise UserError(
            f"truth, reconstruction and generation are of one shape, not {shapes}: cut them alike"
        )
    curves = (_rounded(psnr(video, truth).mean(0)) for video in (reconstructed, generated))
    return GenerationGap(*curves)


def _rounded(curve: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in curve)
