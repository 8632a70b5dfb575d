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

    The voxel's side is the largest power of two not above `size` `(n,)`.
    """
    # A float's exponent is its binary logarithm; 254 less it is that of the inverse of the power.
    exponent = size.view(torch.int32) >> 23
    inverse = ((254 - exponent) << 23).view(torch.float32)
    place = (position * inverse).floor_().long()
    x, y, z = place.mul_(torch.tensor(MIXING[:3], device=place.device)[:, None])
    return x.add_(y).add_(z).add_((2 * exponent + layer).long().mul_(MIXING[3]))


class VoxelTable:
    """The slot of a point for the key of its voxel.

    Of a key the table keeps 32 bits beside its row: in a million searches, one finds another's voxel.
    """

    def __init__(self, slots: int, *, device: torch.device | str) -> None:
        rows = 1 << (max(SPARSE * slots // WAYS, 1) - 1).bit_length()
        self.cells = torch.full((rows, 2 * WAYS), -1, dtype=torch.int32, device=device)
        """Bits of keys, then their slots, -1 where there is none: a search reads one line of memory."""
        self.homes = torch.full((slots,), -1, dtype=torch.int64, device=device)
        """The cell of each slot; -1 for those that are not in the table."""

    def find(self, keys: Tensor) -> Tensor:
        """The slot of each key, both `(n,)`; -1 for those that are not there."""
        return self._search(*self._parts(keys))[0].long()

    def claim(self, keys: Tensor) -> Tensor:
        """Cells for keys, both `(n,)`, that are not in the table, until `assign` gives them slots.

        -1 where the row is full, and for all but one of equal keys.
        """
        flat, claimed = self.cells.view(-1), torch.full_like(keys, -1)
        (rows, bits), left = self._parts(keys), torch.arange(len(keys), device=keys.device)
        for _ in range(WAYS):
            found, way = self._search(rows, bits)
            open_ = ((found < 0) & (way >= 0)).nonzero().squeeze(1)
            if not len(open_):
                break
            left, rows, bits, way = left[open_], rows[open_], bits[open_], way[open_]
            cells = rows * (2 * WAYS) + WAYS + way
            # Of several that want a cell the last key gets it, in whatever order they are written.
            wanted = left.int()
            flat.scatter_reduce_(0, cells, wanted, "amax")
            won = flat[cells] == wanted
            flat[cells[won] - WAYS], claimed[left[won]] = bits[won], cells[won]
            left, rows, bits = left[~won], rows[~won], bits[~won]
        return claimed

    def assign(self, cells: Tensor, slots: Tensor) -> None:
        """Give the slots `(n,)` to cells `(n,)` that were claimed."""
        self.cells.view(-1)[cells] = slots.int()
        self.homes[slots] = cells

    def forget(self, slots: Tensor) -> None:
        """The voxels of these slots `(n,)` are in the table no more."""
        cells = self.homes[slots]
        self.cells.view(-1)[cells[cells >= 0]] = -1
        self.homes[slots] = -1

    def to(self, device: torch.device | str) -> VoxelTable:
        """A copy on a device."""
        table = VoxelTable(0, device=device)
        table.cells, table.homes = (row.to(device, copy=True) for row in (self.cells, self.homes))
        return table

    def _parts(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Row and bits of keys; sums of products are mixed in their high bits only."""
        return (keys >> 36) & (len(self.cells) - 1), (keys >> 8).int()

    def _search(self, rows: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
        """Slots `(n,)`, or -1, and a way that is free, or -1."""
        there = self.cells.index_select(0, rows)
        slots, ways = there[:, WAYS:], torch.arange(WAYS, dtype=torch.int32, device=rows.device)
        found = torch.where(there[:, :WAYS] == bits[:, None], slots, -1)
        free = torch.where(slots < 0, ways, -1)
        # Faster than `amax(1)`.
        return reduce(torch.maximum, found.unbind(1)), reduce(torch.maximum, free.unbind(1))
