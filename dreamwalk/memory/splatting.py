"""Placeholder of the renderer's types."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rendering:
    rgb: Tensor
    depth: Tensor
    mask: Tensor
    dreamed: Tensor
