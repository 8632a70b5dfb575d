"""Learnt features on a grid over the floor of a level, read by interpolation (Neural Map, arXiv 1702.08360;
feature grids as in Instant NGP, arXiv 2201.05989)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamwalk.validation import Positive, Signed


@dataclass(frozen=True)
class FloorConfig:
    """The part of the floor that a grid covers."""

    origin: tuple[Signed, Signed]
    """Its corner of least x and y, in world units."""
    extent: tuple[Positive, Positive]
    """Its size along x and y."""
    cell: Positive = 16.0
    """World units of a cell."""


class FeatureGrid(nn.Module):
    """Learned features over the floor, read by bilinear interpolation."""

    GAIN = 4.0
    """Features learn so much faster than weights."""

    def __init__(self, floor: FloorConfig, *, channels: int, cell: float) -> None:
        super().__init__()
        (x, y), (width, height) = floor.origin, floor.extent
        self.features = nn.Parameter(
            0.5 / self.GAIN * torch.randn(channels, math.ceil(height / cell) + 1, math.ceil(width / cell) + 1)
        )
        self.register_buffer("origin", torch.tensor([x, y]), persistent=False)
        self.register_buffer(
            "span", torch.tensor(self.features.shape[:0:-1]).float() * cell - cell, persistent=False
        )

    def forward(self, points: Tensor) -> Tensor:
        """Features `(..., c)` at floor points `(..., 2)`; outside, those of the nearest edge."""
        spots = (2 * (points - self.origin) / self.span - 1).reshape(1, 1, -1, 2)
        read = nn.functional.grid_sample(
            self.GAIN * self.features[None], spots, align_corners=True, padding_mode="border"
        )
        return read[0, :, 0].T.reshape(*points.shape[:-1], -1)
