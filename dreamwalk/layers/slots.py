"""Slots as a network sees them: some groups of an order of tokens (`schedules.orders`), as tensors."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from dreamwalk.layers.attention import Mask


class Slots(NamedTuple):
    """The `s` slots of groups that are computed together, and the `m` tokens that they predict."""

    order: str
    """Name of the order that weights must have been trained in."""
    length: int
    """Tokens of a whole clip."""
    places: Tensor
    """Frame, row and column `(s, 3)`, float64, in cells of the finest grid; a coarse slot has its centre."""
    frames: tuple[int, ...]
    """The frames that the slots lie in, ascending."""
    frame: Tensor
    """Of each slot `(s,)`, an index into `frames`."""
    scales: Tensor
    """Which learned vector of its scale a slot adds, `(s,)`."""
    fillers: Tensor
    """Which learned vector stands for an input that there is none of, `(s,)`; 0 for none."""
    sources: Tensor
    """The `u` tokens that inputs are made of, `(u,)`."""
    weights: Tensor
    """The input map `(s, u)`, sparse, float64: inputs are weighted sums of the embeddings of `sources`."""
    tokens: Tensor
    """What is predicted, `(m,)`."""
    targets: Tensor
    """The slots that predict `tokens`, `(m,)`."""
    mask: Mask | None
    """Which slot (row) sees which of the kept slots and of these, `(s, kept + s)`; None where it is all."""
