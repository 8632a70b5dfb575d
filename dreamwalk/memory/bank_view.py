"""What a walker is told of a bank of frames: what is recalled and why, and where frames were kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dreamwalk.memory.contract import Memory
from dreamwalk.memory.level_map import MARGIN, SIDE
from dreamwalk.memory.points_and_bank import CloudsAndBanks
from dreamwalk.memory.session_rows import SessionBanks

MOST_STANDS = 600
"""Frames whose places are told; of more, evenly as many."""
APART = 8.0, 15.0
"""Frames that are closer, in world units and in degrees, are told as one."""
FINEST_SCALE = 6.0
"""World units of a pixel of an empty map at least: it is `SIDE` pixels wide."""


@dataclass(frozen=True)
class RecalledUnit:
    """A frame that is recalled for the newest frame."""

    latent: Tensor
    """`(c, h, w)`."""
    pose: Tensor
    """`world_from_camera`, `(4, 4)`."""
    age: int
    """Frames since it was shown."""
    covers: float
    """Share of the newest frame that it shows; by a bank with depth, of what those before it do not."""
    dreamed: bool
    """Whether it was made by the system, and not given."""


def banks_of(memory: Memory) -> SessionBanks | None:
    """The banks of a session's memory, or None."""
    if isinstance(memory, CloudsAndBanks):
        return memory.banks
    return memory if isinstance(memory, SessionBanks) else None


def recalled_units(memory: Memory) -> list[RecalledUnit | None]:
    """What the first row of a session recalls for its newest frame, in the order in which frames were picked;
    always as many, None where there is none."""
    banks = banks_of(memory)
    assert banks is not None and isinstance(memory, CloudsAndBanks | SessionBanks)
    units, count = banks.recalled, banks.model.config.frames
    if units is None or banks.picked is None or banks.shares is None or not memory.recalling:
        return [None] * count
    ages, shares = banks.found[0].age[banks.picked[0]].tolist(), banks.shares[0].tolist()
    told = zip(units.valid[0].tolist(), ages, shares, units.dreamed[0].tolist(), strict=True)
    return [
        RecalledUnit(units.latents[0, i], units.cameras.pose[0, i], age, covers, dreamed) if valid else None
        for i, (valid, age, covers, dreamed) in enumerate(told)
    ]


def kept_stands(banks: SessionBanks) -> np.ndarray:
    """x, y and heading in degrees, float32 `(n, 3)`, of where frames of the first row were kept."""
    if not banks.rows:
        return np.zeros((0, 3), np.float32)
    stands = stands_of(banks.rows[0].cameras().pose)
    apart = APART[0] * unit_of(banks)
    cells = (stands / [apart, apart, APART[1]]).round().astype(np.int64)
    _, first = np.unique(cells @ [1 << 40, 1 << 20, 1], return_index=True)
    if len(first) > MOST_STANDS:
        first = first[np.linspace(0, len(first) - 1, MOST_STANDS).round().astype(int)]
    return stands[first]


def unit_of(banks: SessionBanks | None) -> float:
    """World units of 3 cm: 1 in Doom, less where a block is 1."""
    return 1.0 if banks is None else banks.model.config.budget.place / 64


def stands_of(poses: Tensor) -> np.ndarray:
    """x, y and heading in degrees, float32 `(n, 3)`, of cameras `(n, 4, 4)`."""
    poses = poses.float()
    heading = torch.atan2(poses[:, 1, 2], poses[:, 0, 2]).rad2deg()
    return torch.cat([poses[:, :2, 3], heading[:, None]], 1).cpu().numpy()


def empty_map(stands: np.ndarray, unit: float = 1.0) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A map without a cloud that has room for stands `(n, 3)`: as `level_map.draw_map` gives it; `unit` is
    that of `unit_of`.

    It moves by eighths of its side and grows by halves, so that it mostly stands still.
    """
    low, high = stands[:, :2].min(0), stands[:, :2].max(0)
    span = float((high - low).max()) + 2 * MARGIN * unit
    finest = FINEST_SCALE * unit
    grown = max(0.0, math.log2(span * 8 / 7 / SIDE / finest))
    scale = finest * 2 ** (math.ceil(2 * grown) / 2)
    step = SIDE * scale / 8
    west, south = (((low + high - SIDE * scale) / 2 / step).round() * step).tolist()
    return np.zeros((SIDE, SIDE, 4), np.uint8), (west, south + SIDE * scale, scale)
