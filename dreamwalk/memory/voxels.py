"""Which point lies in which voxel: a hash table in tensors, searched for many voxels at once."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

WAYS = 4
"""Voxels that may share a row of the table."""
SPARSE = 4
"""Cells of the table for each point, at least: 4 in 1000 voxels find their row full when all are used."""
MIXING = (-7046029254386353131, -4417276706812531889, 1609587929392839161, -8796714831421723037)
"""Odd numbers of 64 bits (of xxHash) that spread neighbours over the whole range."""


def voxel_keys(position: Tensor, size: Tensor, layer: Tensor) -> Tensor:
    """One int64 `(n,)` for the voxel around each position `(3, n)`, in one of two layers `(n,)`.

    The voxel's side is the largest power of two not above `size` `(n,)`. Two of a million voxels share a
    key with a probability of 1e-7.
    """
    # A float's exponent is its binary logarithm; 254 less it is that of the inverse of the power.
    exponent = size.view(torch.int32) >> 23
    inverse = ((254 - exponent) << 23).view(torch.float32)
    place = (position * inverse).floor_().long()
    x, y, z = place.mul_(torch.tensor(MIXING[:3], device=place.device)[:, None])
    return x.add_(y).add_(z).add_((2 * exponent + layer).long().mul_(MIXING[3]))


class VoxelTable:
    """The slot of a point for the key of its voxel."""

    def __init__(self, slots: int, *, device: torch.device | str) -> None:
        rows = 1 << (max(SPARSE * slots // WAYS, 1) - 1).bit_length()
        self.keys = torch.zeros((rows, WAYS), dtype=torch.int64, device=device)
        self.slots = torch.full((rows, WAYS), -1, dtype=torch.int32, device=device)
        """-1 where no voxel is."""
        self.homes = torch.full((slots,), -1, dtype=torch.int64, device=device)
        """The cell of each slot; -1 for those that are not in the table."""

    def find(self, keys: Tensor) -> Tensor:
        """The slot of each key, both `(n,)`; -1 for those that are not there."""
        rows = self._rows(keys)
        there = self.keys.index_select(0, rows) == keys[:, None]
        slots = torch.where(there, self.slots.index_select(0, rows), -1)
        return reduce(torch.maximum, slots.unbind(1)).long()  # faster than `amax(1)`

    def put(self, keys: Tensor, slots: Tensor) -> Tensor:
        """Give slots to keys, both `(n,)`, all different and not in the table; says which found room."""
        flat_keys, flat_slots = self.keys.view(-1), self.slots.view(-1)
        first = self._rows(keys) * WAYS
        left = torch.arange(len(keys), device=keys.device)
        for way in range(WAYS):
            cells, wanted = first[left] + way, slots[left].int()
            free = flat_slots[cells] < 0
            # Of several that want a cell the last slot gets it, in whatever order they are written.
            flat_slots.scatter_reduce_(0, cells[free], wanted[free], "amax")
            won = flat_slots[cells] == wanted
            flat_keys[cells[won]] = keys[left[won]]
            self.homes[slots[left[won]]] = cells[won]
            left = left[~won]
        return torch.ones_like(keys, dtype=torch.bool).index_fill_(0, left, False)

    def has(self, slots: Tensor) -> Tensor:
        """Whether the voxels of these slots `(n,)`, -1 for none, are in the table."""
        return (slots >= 0) & (self.homes[slots] >= 0)

    def forget(self, slots: Tensor) -> None:
        """The voxels of these slots `(n,)` are in the table no more."""
        cells = self.homes[slots]
        cells = cells[cells >= 0]
        self.keys.view(-1)[cells] = 0
        self.slots.view(-1)[cells] = -1
        self.homes[slots] = -1

    def grown(self, slots: int) -> VoxelTable:
        """The same with room for more slots."""
        table = VoxelTable(slots, device=self.keys.device)
        known = self.has(torch.arange(len(self.homes), device=self.homes.device)).nonzero().squeeze(1)
        table.put(self.keys.view(-1)[self.homes[known]], known)
        return table

    def _rows(self, keys: Tensor) -> Tensor:
        """A sum of products is mixed in its high bits."""
        return (keys >> 32) & (len(self.keys) - 1)

    def to(self, device: torch.device | str) -> VoxelTable:
        """A copy on a device."""
        table = VoxelTable(0, device=device)
        rows = (row.to(device, copy=True) for row in (self.keys, self.slots, self.homes))
        table.keys, table.slots, table.homes = rows
        return table
