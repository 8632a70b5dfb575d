"""A map from above of what a cloud of points knows: floors in their colours, and the walls between them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dreamwalk.memory.point_cloud import PointCloud

SIDE = 128
"""Pixels of a map down and across."""
MOST = 50_000
"""Points that are looked at; of more, evenly as many."""
REACH = 4096.0
"""World units from the eyes beyond which nothing is drawn: the sky is there."""
FINEST = 3.0
"""World units of a pixel at least; larger maps double them by halves."""
MARGIN = 32.0
"""World units around what is known."""
FEW = 3
"""Points of a pixel that make a wall."""
SOME = 12
"""Points of 64 units square that make it a part of the level: fewer may be mistakes."""
BLOCK = 4
"""Pixels of the square whose floor is looked for together."""
BIN, BINS = 8.0, 96
"""World units of a bin of heights, and bins, half of them below the eyes."""
FLOOR_SHARE = 0.1
"""Of the points of a square, as many lie lower than its floor is taken to be: mistakes."""
STEP = 14.0
"""Height above a floor up to which a point belongs to it."""
KNEE, HEAD = 24.0, 56.0
"""Heights above a floor between which a point is of a wall."""
EYES_ABOVE = 8.0
"""A floor was seen from above: higher than that below the highest that the eyes were, it is a ceiling."""
WALL = (224, 219, 242)
Place = tuple[float, float, float]
"""x and y of a map's upper left corner, and the side of its pixels, in world units."""
DIM = 0.95
"""Brightness of floors, so that walls stand out."""


@torch.no_grad()
def draw_map(cloud: PointCloud, eyes: Tensor, *, highest: float) -> tuple[np.ndarray, Place]:
    """What is known around `eyes` `(3,)`, which have been as high as `highest`; +y of the world is up.

    Gives uint8 `(h, w, 4)`, transparent where nothing is known, and where that lies.
    """
    position, rgb, _ = cloud.sample(max(1, -(-cloud.slots // MOST)) | 1)
    offset = position - eyes[:, None]
    low = offset[2].abs() < BIN * (BINS // 2 - 1)
    seen = (low & (offset[:2].abs() < REACH).all(0)).nonzero().squeeze(1)
    x, y, z = offset.index_select(1, seen)
    below = z < highest - eyes[2]  # what lies higher is seen from afar, and would make the map small
    west, south, scale = _frame(x[below], y[below])
    # Whole pixels of the world, so that a point stays in its pixel while the map grows.
    west, south = (
        math.floor((edge + at) / scale) * scale - at
        for edge, at in zip((west, south), eyes[:2].tolist(), strict=True)
    )
    column, row = ((x - west) / scale).long(), ((south + SIDE * scale - y) / scale).long()
    inside = ((column >= 0) & (column < SIDE) & (row >= 0) & (row < SIDE)).nonzero().squeeze(1)
    column, row, z, seen = (part.index_select(0, inside) for part in (column, row, z, seen))
    cell, block = row * SIDE + column, (row // BLOCK) * (SIDE // BLOCK) + column // BLOCK
    floor = _floors(block, z).index_select(0, block)
    height, walkable = z - floor, floor < highest - float(eyes[2]) - EYES_ABOVE
    picture = _painted(cell, rgb.index_select(1, seen), height, walkable)
    left, top = float(eyes[0]) + west, float(eyes[1]) + south + SIDE * scale
    return picture, (left, top, scale)


def _frame(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """West and south edge of what points `(n,)` show, as seen from the eyes, and units of a pixel."""
    count, unit = int(2 * REACH / 64), 64.0
    cells = ((y + REACH) / unit).long() * count + ((x + REACH) / unit).long()
    known = torch.bincount(cells, minlength=count * count).view(count, count) > SOME
    edges = []
    for axis in (0, 1):
        places = known.any(axis).nonzero().squeeze(1)
        ends = places[[0, -1]].tolist() if len(places) else None
        low, high = (ends[0] * unit - REACH, (ends[1] + 1) * unit - REACH) if ends else (0.0, 0.0)
        edges.append((min(low, 0.0), max(high, 0.0)))
    span = max(high - low for low, high in edges) + 2 * MARGIN
    scale = FINEST * 2 ** (math.ceil(2 * max(0.0, math.log2(span / SIDE / FINEST))) / 2)
    west, south = ((low + high - SIDE * scale) / 2 for low, high in edges)
    return west, south, scale


def _floors(block: Tensor, z: Tensor) -> Tensor:
    """Height of the floor of every square, by points in squares `(n,)` at heights `(n,)`."""
    count = (SIDE // BLOCK) ** 2
    height = (z / BIN).floor().long() + BINS // 2
    found = torch.bincount(block * BINS + height, minlength=count * BINS).view(count, BINS).cumsum(1)
    lowest = (found > FLOOR_SHARE * found[:, -1:]).long().argmax(1)
    return (lowest - BINS // 2) * BIN


def _painted(cell: Tensor, rgb: Tensor, height: Tensor, walkable: Tensor) -> np.ndarray:
    """The picture, by the points' cells, colours `(3, n)`, and heights above floors that are `walkable`."""
    area = SIDE * SIDE
    ground = (walkable & (height > -BIN) & (height < STEP)).nonzero().squeeze(1)
    wall = (walkable & (height > KNEE) & (height < HEAD)).nonzero().squeeze(1)
    on_floor = cell.index_select(0, ground)
    floors = torch.bincount(on_floor, minlength=area).float()
    walls = torch.bincount(cell.index_select(0, wall), minlength=area)
    tints = rgb.index_select(1, ground).double()
    colours = torch.stack([torch.bincount(on_floor, tint, minlength=area).float() for tint in tints])
    solid = (walls >= FEW) & (walls > 0.2 * floors)
    open_floor = torch.cat([colours, floors[None]]) * ~solid
    # A pixel without a point between some with floor is floor: points far away lie wide.
    around = avg_pool2d(open_floor.view(1, 4, SIDE, SIDE), 3, 1, 1)[0].flatten(1)
    sums = torch.where(open_floor[3] > 0, open_floor, around)
    known = sums[3] > (FEW - 1) / 9
    painted = sums.new_zeros(4, area)
    painted[:3] = DIM * sums[:3] / sums[3].clamp(min=1e-3)
    painted[3] = 255.0
    painted = torch.where(known, painted, 0.0)
    painted = torch.where(solid, sums.new_tensor([*WALL, 255.0])[:, None], painted)
    return painted.round().byte().T.reshape(SIDE, SIDE, 4).contiguous().cpu().numpy()
