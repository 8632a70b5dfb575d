"""What stands in a room of a level from a seed: floors in steps, ceilings, blocks, and what hangs on its walls."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dreamwalk.worlds.drafts import Draft, grown
from dreamwalk.worlds.textures import CEILINGS, CRATES, FEATURES, FLOORS, GROUNDS, LAMPS, THEMES, Theme
from dreamwalk.worlds.udmf import Box, Cell

HEADROOM = 88
"""Units that are free above every floor of a room."""


@dataclass(frozen=True)
class Hall:
    """A room to be: its box in tiles, the style that it is painted with, and the name of its wall."""

    box: Box
    style: Cell
    wall: str
    theme: Theme
    outdoor: bool
    cut: tuple[int, int, int, int] = (0, 0, 0, 0)
    """A corner that is missing: its width and height in tiles, and whether it lies east and north."""

    @property
    def parts(self) -> tuple[Box, ...]:
        """The rectangles that the room is made of: one, or two if a corner is missing."""
        box, (width, height, east, north) = self.box, self.cut
        if not width:
            return (box,)
        split = box.y1 - height if north else box.y0 + height
        whole = replace(box, y1=split) if north else replace(box, y0=split)
        wing = replace(box, y0=split) if north else replace(box, y1=split)
        return whole, replace(wing, x1=box.x1 - width) if east else replace(wing, x0=box.x0 + width)


def pick(random: np.random.Generator, names: tuple[str, ...] | list[str]) -> str:
    """One of some names."""
    return names[int(random.integers(len(names)))]


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


def _size(box: Box) -> tuple[int, int]:
    return box.x1 - box.x0, box.y1 - box.y0


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
    draft.change(grown(hall.box, -inset), lambda s: replace(s, flat=flat))


def _stripe(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A way across, of another floor, as high or a little lower."""
    x = random.random() < 0.5
    length, width = _size(hall.box) if x else _size(hall.box)[::-1]
    start = int(random.integers(2, width - 5))
    way = _turned(hall, (0, length), (start, start + int(random.integers(2, 5))), x=x)
    flat, down = _flat(hall, random), int(random.choice([0, 8, 16]))
    draft.change(way, lambda s: replace(s, flat=flat, floor=s.floor - down))


def _rings(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A platform or a pit with steps all around."""
    box = grown(hall.box, -int(random.integers(3, 5)))
    rise = int(random.choice([-24, -16, -16, -8, 8, 16, 16, 24]))
    flats = _flat(hall, random), _flat(hall, random)
    most = (hall.style.ceiling - hall.style.floor - HEADROOM) // 24
    for k in range(min(int(random.integers(1, 5)), most if rise > 0 else 4)):
        if min(_size(box)) < 3:
            break
        floor = hall.style.floor + (k + 1) * rise
        draft.change(box, lambda s, f=floor, k=k: replace(s, floor=f, flat=flats[k % 2]))  # type: ignore[misc]
        box = grown(box, -int(random.integers(1, 3)))


def _stairs(hall: Hall, random: np.random.Generator, length: int) -> int:
    """How many steps of 16 units, each two tiles long, fit into a room on some length of tiles."""
    room = (hall.style.ceiling - hall.style.floor - HEADROOM) // 16
    return min(int(random.integers(2, 7)), room, (length - 5) // 2)


def _split(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """One part of the room higher or lower, with stairs from wall to wall."""
    x = random.random() < 0.5
    length, width = _size(hall.box) if x else _size(hall.box)[::-1]
    steps, rise = _stairs(hall, random, length // 2), int(random.choice([-16, 16]))
    start, flat = length // 2 - steps + int(random.integers(0, 3)), _flat(hall, random)
    for k in range(steps):
        part = _turned(hall, (start + 2 * k, length), (0, width), x=x)
        draft.change(part, lambda s: replace(s, floor=s.floor + rise, flat=flat))


def _gallery(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A raised strip along a wall, with stairs at one end of it."""
    x = random.random() < 0.5
    length, width = _size(hall.box) if x else _size(hall.box)[::-1]
    deep = int(random.integers(3, 6))
    steps = _stairs(hall, random, length - 3)
    across = (0, deep) if random.random() < 0.5 else (width - deep, width)
    back, flat, wall = random.random() < 0.5, _flat(hall, random), hall.theme.walls[pick(random, list(hall.theme.walls))]
    for k in range(steps if steps > 2 else 0):
        along = (0, length - 3 - 2 * k) if back else (3 + 2 * k, length)
        part = _turned(hall, along, across, x=x)
        draft.change(part, lambda s: replace(s, floor=s.floor + 16, flat=flat, wall=wall))


def _patch(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A bed, a pond or a heap outdoors."""
    width, height = _size(hall.box)
    w, h = (int(v) for v in random.integers(3, 8, 2))
    x, y = int(random.integers(2, max(3, width - w - 2))), int(random.integers(2, max(3, height - h - 2)))
    box = Box(hall.box.x0 + x, hall.box.y0 + y, min(hall.box.x0 + x + w, hall.box.x1 - 1), hall.box.y0 + y + h)
    box = replace(box, y1=min(box.y1, hall.box.y1 - 1))
    flat, rise = pick(random, (*GROUNDS, "FLAT14", "FLOOR6_2")), int(random.choice([-8, 0, 8]))
    if draft.level(box):
        draft.change(box, lambda s: replace(s, floor=s.floor + rise, flat=flat))


def _tray(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A ceiling that is higher in the middle, or lower."""
    rise, top = int(random.choice([-24, -16, 16, 24, 32, 48])), pick(random, CEILINGS)
    light = int(random.choice([-24, 0, 16, 32]))
    inset = int(random.integers(2, 5))
    draft.change(grown(hall.box, -inset), lambda s: _lit(_under(s, rise), light, top))


def _beams(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """Beams under the ceiling."""
    x, top, down = random.random() < 0.5, pick(random, CEILINGS), int(random.choice([8, 16, 24]))
    length, width = _size(hall.box) if x else _size(hall.box)[::-1]
    every, wide = int(random.integers(4, 8)), int(random.integers(1, 3))
    for start in range(int(random.integers(2, 5)), length - wide, every):
        draft.change(_turned(hall, (start, start + wide), (0, width), x=x), lambda s: _lit(_under(s, -down), 0, top))


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
    width, height = _size(hall.box)
    if min(width - size[0], height - size[1]) < 9:
        return None
    for _ in range(12):
        x = hall.box.x0 + int(random.integers(4, width - size[0] - 3))
        y = hall.box.y0 + int(random.integers(4, height - size[1] - 3))
        box = Box(x, y, x + size[0], y + size[1])
        if draft.level(grown(box, 2)):
            return box
    return None


def _pillars(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """One solid block, two or four, in symmetry."""
    width, height = _size(hall.box)
    side = int(random.integers(1, 4))
    texture = pick(random, (*hall.theme.trims, *hall.theme.walls.values()))
    x, y = int(random.integers(4, max(5, width // 2 - 2))), int(random.integers(4, max(5, height // 2 - 2)))
    if random.random() < 0.35:
        x, y = (width - side) // 2, (height - side) // 2
    for left in {x, width - side - x}:
        for low in {y, height - side - y}:
            corner = hall.box.x0 + left, hall.box.y0 + low
            box = Box(*corner, corner[0] + side, corner[1] + side)
            if draft.level(grown(box, 2)):
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
            high = int(random.choice([32, 48, 64, 64, 80]))
            raise_closed(draft, box, high, texture)


def raise_closed(draft: Draft, box: Box, high: int, texture: str, *, flat: str = "CRATOP2") -> None:
    """Lift the floor of a box beyond what one can climb."""
    style = draft.at(box.x0, box.y0)
    assert style is not None
    style = replace(style, floor=style.floor + min(high, style.ceiling - style.floor - 16), flat=flat, wall=texture)
    draft.paint(box, style, closed=True)
    draft.clad(box, texture)
    draft.block(box)


def _low_wall(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """A low wall in the room, that one can look over."""
    long = int(random.integers(4, 8))
    for _ in range(2):
        box = _spot(draft, hall, random, (long, 1) if random.random() < 0.5 else (1, long))
        if box is not None:
            wall = hall.theme.walls[pick(random, list(hall.theme.walls))]
            raise_closed(draft, box, int(random.choice([32, 40])), wall, flat=pick(random, FLOORS))
            draft.obstacles.pop()
            for k in range(0, long, 2):
                x, y = (box.x0 + k, box.y0) if box.x1 - box.x0 == long else (box.x0, box.y0 + k)
                draft.block(Box(x, y, x + 1, y + 1))


def dress(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """Textures along the four walls of a room: panels, pilasters, lights, pictures, or another wall."""
    box, theme = hall.box, hall.theme
    others = [texture for texture in theme.walls.values() if texture != hall.style.wall]
    other, trim, feature = pick(random, others), pick(random, theme.trims), pick(random, theme.features)
    same = random.random() < 0.45
    scheme = int(random.choice(6, p=SCHEMES))
    sides = [Box(box.x0, box.y0, box.x1, box.y0), Box(box.x0, box.y1, box.x1, box.y1)]
    sides += [Box(box.x0, box.y0, box.x0, box.y1), Box(box.x1, box.y0, box.x1, box.y1)]
    for side in sides:
        if not same:
            scheme = int(random.choice(6, p=SCHEMES))
            feature = pick(random, theme.features)
        _dress_side(draft, side, scheme, (other, trim, feature), random)


SCHEMES = (0.22, 0.13, 0.2, 0.15, 0.2, 0.1)
"""How often a wall is plain, other, with pilasters, in turns, with a picture, or with a row of pictures."""


def _dress_side(
    draft: Draft, side: Box, scheme: int, names: tuple[str, str, str], random: np.random.Generator
) -> None:
    other, trim, feature = names
    along = side.x1 > side.x0
    length = side.x1 - side.x0 if along else side.y1 - side.y0
    wide = FEATURES[feature][0] // 16

    def part(start: int, stop: int) -> Box:
        start, stop = max(start, 0), min(stop, length)
        if along:
            return Box(side.x0 + start, side.y0, side.x0 + stop, side.y0)
        return Box(side.x0, side.y0 + start, side.x0, side.y0 + stop)

    every = int(random.choice([4, 6, 8]))
    if scheme == 1:
        draft.panel(part(0, length), other)
    elif scheme == 2:
        for start in range(int(random.integers(0, every)), length, every):
            draft.panel(part(start, start + 1), trim, aligned=True)
    elif scheme == 3:
        for start in range(0, length, 2 * every):
            draft.panel(part(start, start + every), other)
    elif scheme in (4, 5) and length >= wide + 2:
        gap = wide + every if scheme == 5 else length
        starts = range((length - wide) % gap // 2, length - wide + 1, gap)
        for start in starts:
            draft.panel(part(start - 1, start), trim, aligned=True) if scheme == 4 else None
            draft.panel(part(start, start + wide), feature, aligned=True)
            draft.panel(part(start + wide, start + wide + 1), trim, aligned=True) if scheme == 4 else None


def theme_of(random: np.random.Generator, level: list[str]) -> Theme:
    """Mostly one of the level's own themes."""
    return THEMES[pick(random, level if random.random() < 0.8 else list(THEMES))]
