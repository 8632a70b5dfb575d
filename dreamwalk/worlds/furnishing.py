"""What is in a room of a level from a seed: floors in steps, ceilings, pillars, crates, low walls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dreamwalk.worlds.drafts import Draft, with_margin
from dreamwalk.worlds.halls import Hall, pick
from dreamwalk.worlds.textures import CEILINGS, CRATES, FLOORS, GROUNDS, LAMPS
from dreamwalk.worlds.udmf import Box, Cell

HEADROOM = 88
"""Units that are free above every floor of a room."""


def furnish(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """Paint a room with its floors, ceiling and blocks."""
    for part in hall.parts:
        draft.paint(part, hall.style)
    kinds = [_carpet, _rings, _split, _gallery, _stripe, None]
    shares = (0.12, 0.22, 0.14, 0.16, 0.1, 0.26)
    floor = kinds[random.choice(len(kinds), p=shares)]
    if floor is not None:
        floor(draft, hall, random)
    if hall.outdoor:
        for _ in range(int(random.integers(0, 4))):
            _patch(draft, hall, random)
    elif random.random() < 0.65:
        (_tray, _beams, _lamps)[random.integers(3)](draft, hall, random)
    blocks = [_pillars, _crates, _low_wall, None]
    block = blocks[random.choice(4, p=(0.24, 0.2, 0.08, 0.48))]
    if block is not None:
        block(draft, hall, random)


def _flat(hall: Hall, random: np.random.Generator) -> str:
    return pick(random, GROUNDS if hall.outdoor else FLOORS)


def _turned(hall: Hall, along: tuple[int, int], across: tuple[int, int], *, x: bool) -> Box:
    """A box by its ranges along and across an axis, from the room's corner."""
    (a, b), (c, d) = along, across
    left, low = hall.box.x0, hall.box.y0
    return Box(left + a, low + c, left + b, low + d) if x else Box(left + c, low + a, left + d, low + b)


def _carpet(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """Another floor in the middle or at the edge, of the same height."""
    flat, inset = _flat(hall, random), int(random.integers(1, 4))
    draft.change(with_margin(hall.box, -inset), lambda s: replace(s, flat=flat))


def _stripe(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A way across, of another floor, as high or a little lower."""
    x = random.random() < 0.5
    length, width = hall.size if x else hall.size[::-1]
    start = int(random.integers(2, width - 5))
    way = _turned(hall, (0, length), (start, start + int(random.integers(2, 5))), x=x)
    flat, down = _flat(hall, random), int(random.choice([0, 8, 16]))
    draft.change(way, lambda s: replace(s, flat=flat, floor=s.floor - down))


def _rings(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A platform or a pit with steps all around."""
    box = with_margin(hall.box, -int(random.integers(3, 5)))
    rise = int(random.choice([-24, -16, -16, -8, 8, 16, 16, 24]))
    flats = _flat(hall, random), _flat(hall, random)
    most = (hall.style.ceiling - hall.style.floor - HEADROOM) // 24
    for k in range(min(int(random.integers(1, 5)), most if rise > 0 else 4)):
        if min(box.x1 - box.x0, box.y1 - box.y0) < 3:
            break
        ring = {"floor": hall.style.floor + (k + 1) * rise, "flat": flats[k % 2]}
        draft.change(box, lambda s, ring=ring: replace(s, **ring))
        box = with_margin(box, -int(random.integers(1, 3)))


def _stairs(hall: Hall, random: np.random.Generator, length: int) -> int:
    """How many steps of 16 units, each two tiles long, fit into a room on some length of tiles."""
    room = (hall.style.ceiling - hall.style.floor - HEADROOM) // 16
    return min(int(random.integers(2, 7)), room, (length - 5) // 2)


def _split(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """One part of the room higher or lower, with stairs from wall to wall."""
    x = random.random() < 0.5
    length, width = hall.size if x else hall.size[::-1]
    steps, rise = _stairs(hall, random, length // 2), int(random.choice([-16, 16]))
    start, flat = length // 2 - steps + int(random.integers(0, 3)), _flat(hall, random)
    for k in range(steps):
        part = _turned(hall, (start + 2 * k, length), (0, width), x=x)
        draft.change(part, lambda s: replace(s, floor=s.floor + rise, flat=flat))


def _gallery(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A raised strip along a wall, with stairs at one end of it."""
    x = random.random() < 0.5
    length, width = hall.size if x else hall.size[::-1]
    deep = int(random.integers(3, 6))
    steps = _stairs(hall, random, length - 3)
    across = (0, deep) if random.random() < 0.5 else (width - deep, width)
    back, flat, wall = random.random() < 0.5, _flat(hall, random), hall.some_wall(random)
    for k in range(steps if steps > 2 else 0):
        along = (0, length - 3 - 2 * k) if back else (3 + 2 * k, length)
        part = _turned(hall, along, across, x=x)
        draft.change(part, lambda s: replace(s, floor=s.floor + 16, flat=flat, wall=wall))


def _patch(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A bed, a pond or a heap outdoors."""
    width, height = hall.size
    w, h = (int(v) for v in random.integers(3, 8, 2))
    x, y = int(random.integers(2, max(3, width - w - 2))), int(random.integers(2, max(3, height - h - 2)))
    x, y = hall.box.x0 + x, hall.box.y0 + y
    box = Box(x, y, min(x + w, hall.box.x1 - 1), min(y + h, hall.box.y1 - 1))
    flat, rise = pick(random, (*GROUNDS, "FLAT14", "FLOOR6_2")), int(random.choice([-8, 0, 8]))
    if draft.level(box):
        draft.change(box, lambda s: replace(s, floor=s.floor + rise, flat=flat))


def _tray(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A ceiling that is higher in the middle, or lower."""
    rise, top = int(random.choice([-24, -16, 16, 24, 32, 48])), pick(random, CEILINGS)
    light = int(random.choice([-24, 0, 16, 32]))
    inset = int(random.integers(2, 5))
    draft.change(with_margin(hall.box, -inset), lambda s: _lit(_under(s, rise), light, top))


def _beams(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """Beams under the ceiling."""
    x, top, down = random.random() < 0.5, pick(random, CEILINGS), int(random.choice([8, 16, 24]))
    length, width = hall.size if x else hall.size[::-1]
    every, wide = int(random.integers(4, 8)), int(random.integers(1, 3))
    for start in range(int(random.integers(2, 5)), length - wide, every):
        beam = _turned(hall, (start, start + wide), (0, width), x=x)
        draft.change(beam, lambda s: _lit(_under(s, -down), 0, top))


def _lamps(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """Lamps in the ceiling, on the grid of the flats, with light below them."""
    top, every = pick(random, LAMPS), 4 * int(random.integers(2, 4))
    rise, light = int(random.choice([0, 0, 8, -8])), int(random.choice([16, 32, 48]))
    for x in range(-(-(hall.box.x0 + 2) // 4) * 4, hall.box.x1 - 5, every):
        for y in range(-(-(hall.box.y0 + 2) // 4) * 4, hall.box.y1 - 5, every):
            draft.change(Box(x, y, x + 4, y + 4), lambda s: _lit(_under(s, rise), light, top))


def _under(style: Cell, rise: int) -> Cell:
    """With the ceiling moved, as far as there is headroom."""
    return replace(style, ceiling=max(style.ceiling + rise, min(style.ceiling, style.floor + HEADROOM)))


def _lit(style: Cell, light: int, top: str) -> Cell:
    return replace(style, light=min(255, max(128, style.light + light)), top=top)


def _spot(draft: Draft, hall: Hall, random: np.random.Generator, size: tuple[int, int]) -> Box | None:
    """A box of a size in the open middle of a room, on one height, away from what stands there."""
    width, height = hall.size
    if min(width - size[0], height - size[1]) < 9:
        return None
    for _ in range(12):
        x = hall.box.x0 + int(random.integers(4, width - size[0] - 3))
        y = hall.box.y0 + int(random.integers(4, height - size[1] - 3))
        box = Box(x, y, x + size[0], y + size[1])
        if draft.level(with_margin(box, 2)):
            return box
    return None


def _pillars(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """One solid block, two or four, in symmetry."""
    width, height = hall.size
    side = int(random.integers(1, 4))
    texture = pick(random, (*hall.theme.trims, *hall.theme.walls.values()))
    x, y = int(random.integers(4, max(5, width // 2 - 2))), int(random.integers(4, max(5, height // 2 - 2)))
    if random.random() < 0.35:
        x, y = (width - side) // 2, (height - side) // 2
    for left in {x, width - side - x}:
        for low in {y, height - side - y}:
            corner = hall.box.x0 + left, hall.box.y0 + low
            box = Box(*corner, corner[0] + side, corner[1] + side)
            if draft.level(with_margin(box, 2)):
                draft.wall_up(box)
                draft.clad(box, texture)
                draft.block(box)


def _crates(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """Boxes of one texture, too high to climb."""
    texture = pick(random, CRATES)
    for _ in range(int(random.integers(1, 5))):
        side = int(random.choice([2, 3, 4]))
        box = _spot(draft, hall, random, (side, side))
        if box is not None:
            _raise(draft, box, int(random.choice([32, 48, 64, 64, 80])), texture, "CRATOP2")
            draft.block(box)


def _raise(draft: Draft, box: Box, high: int, texture: str, flat: str) -> None:
    """Lift the floor of a box beyond what one can climb."""
    style = draft.at(box.x0, box.y0)
    floor = min(style.floor + high, style.ceiling - 16)
    draft.paint(box, replace(style, floor=floor, flat=flat, wall=texture), closed=True)
    draft.clad(box, texture)


def _low_wall(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A low wall in the room, that one can look over."""
    long = int(random.integers(4, 8))
    for _ in range(2):
        box = _spot(draft, hall, random, (long, 1) if random.random() < 0.5 else (1, long))
        if box is not None:
            wall, high = hall.some_wall(random), int(random.choice([32, 40]))
            _raise(draft, box, high, wall, pick(random, FLOORS))
            for k in range(0, long, 2):
                x, y = (box.x0 + k, box.y0) if box.x1 - box.x0 == long else (box.x0, box.y0 + k)
                draft.block(Box(x, y, x + 1, y + 1))
