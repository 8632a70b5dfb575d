"""What leads out of the rooms of a level from a seed, passages, windows and niches; and what walls bear."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from dreamwalk.worlds.drafts import TILE, Draft
from dreamwalk.worlds.halls import Hall, pick
from dreamwalk.worlds.scenery import SKY, STEP
from dreamwalk.worlds.textures import CEILINGS, FLOORS, GROUNDS, THEMES, size_of
from dreamwalk.worlds.udmf import Box, Cell

GARDEN_WALLS = (*THEMES["rock"].walls.values(), *THEMES["stone"].walls.values())
SCHEMES = (0.22, 0.13, 0.2, 0.15, 0.2, 0.1)
"""How often a wall is plain, other, with pilasters, in turns, with a picture, or with a row of pictures."""


def _between(a: Box, b: Box) -> tuple[bool, tuple[int, int], tuple[int, int]]:
    """Whether `b` lies east of `a` (else north), the gap between them, and what their sides share."""
    if b.x0 >= a.x1:
        return True, (a.x1, b.x0), (max(a.y0, b.y0), min(a.y1, b.y1))
    return False, (a.y1, b.y0), (max(a.x0, b.x0), min(a.x1, b.x1))


def _across(east: bool, along: tuple[int, int], aside: tuple[int, int]) -> Box:
    (a, b), (c, d) = along, aside
    return Box(a, c, b, d) if east else Box(c, a, d, b)


def passage(
    draft: Draft, first: Hall, second: Hall, random: np.random.Generator
) -> tuple[float, float] | None:
    """A straight passage in steps that one can climb, where both rooms have floor before it; its middle."""
    east, (start, end), (low, high) = _between(first.box, second.box)
    for _ in range(16):
        wide = int(random.integers(4, 9))
        if high - low < wide + 2:
            continue
        at = int(random.integers(low + 1, high - wide))
        sides = (at, at + wide)
        before, after = _across(east, (start - 3, start), sides), _across(east, (end, end + 3), sides)
        way = _across(east, (start, end), (at - 1, at + wide + 1))
        if not (draft.level(before) and draft.level(after) and draft.solid(way)):
            continue
        near, far = draft.at(before.x0, before.y0), draft.at(after.x0, after.y0)
        steps = max(1, -(-abs(far.floor - near.floor) // 16) - 1)
        if steps > end - start:
            continue
        hall = (first, second)[random.integers(2)]
        _dig(draft, (east, (start, end), sides), (near, far, steps), hall, random)
        x, y = _across(east, (start, end), sides).middle
        return x * TILE, y * TILE
    return None


def _dig(
    draft: Draft,
    way: tuple[bool, tuple[int, int], tuple[int, int]],
    climb: tuple[Cell, Cell, int],
    hall: Hall,
    random: np.random.Generator,
) -> None:
    """Paint a passage, in the theme of a hall, and frame its ends; its sides may bear door leaves."""
    (east, (start, end), sides), (near, far, steps) = way, climb
    trim = pick(random, hall.theme.trims)
    wall = trim if random.random() < 0.6 else hall.some_wall(random)
    high = max(near.floor, far.floor)
    ceiling = high + int(random.choice([88, 96, 104, 128]))
    ceiling = min(ceiling, max(near.ceiling, high + 72), max(far.ceiling, high + 72))
    light = int(random.choice([144, 176, 208, 240]))
    style = Cell(0, 0, 0, 0, 0, ceiling, light, wall, pick(random, FLOORS), pick(random, CEILINGS))
    stops = np.linspace(start, end, steps + 1).round().astype(int).tolist()
    for k, along in enumerate(itertools.pairwise(stops)):
        floor = near.floor + 8 * round((far.floor - near.floor) * (k + 1) / (steps + 1) / 8)
        draft.paint(_across(east, along, sides), replace(style, floor=floor))
    if random.random() < 0.6:
        for at in (start, end):
            for aside in ((sides[0] - 1, sides[0]), sides, (sides[1], sides[1] + 1)):
                draft.panel(_across(east, (at, at), aside), trim, aligned=aside is not sides)
    door = pick(random, hall.theme.doors)
    wide = size_of(door)[0] // TILE
    if end - start >= wide and random.random() < 0.6:
        middle = (start + end - wide) // 2
        for at in sides:
            draft.panel(_across(east, (middle, middle + wide), (at, at)), door, aligned=True)


def window(draft: Draft, first: Hall, second: Hall, random: np.random.Generator) -> None:
    """An opening above a sill, where the wall between two rooms is thin and solid."""
    east, (start, end), (low, high) = _between(first.box, second.box)
    wide = int(random.integers(2, 9))
    if end - start > 6 or high - low < wide + 4:
        return
    at = int(random.integers(low + 2, high - wide - 1))
    sides = (at, at + wide)
    before, after = _across(east, (start - 1, start), sides), _across(east, (end, end + 1), sides)
    if not draft.solid(_across(east, (start, end), (at - 1, at + wide + 1))):
        return
    if not (draft.level(before) and draft.level(after)):
        return
    near, far = draft.at(before.x0, before.y0), draft.at(after.x0, after.y0)
    sill = max(near.floor, far.floor) + int(random.choice([32, 32, 40]))
    top = min(near.ceiling, far.ceiling, sill + int(random.choice([40, 56, 72, 96])))
    if top < sill + 32:
        return
    trim = pick(random, first.theme.trims)
    style = Cell(0, 0, 0, 0, sill, top, 224, trim, pick(random, FLOORS), pick(random, CEILINGS))
    draft.paint(_across(east, (start, end), sides), style, closed=True)


def outlets(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """Niches with a door or a picture at their end, alcoves, and windows onto gardens that nobody enters."""
    for side in random.permutation(4).tolist():
        for _ in range(2):
            kind = (_niche, _alcove, _garden, None)[random.choice(4, p=(0.4, 0.2, 0.2, 0.2))]
            if kind is not None:
                kind(draft, hall, side, random)


def _outside(hall: Hall, side: int, at: int, wide: int, depth: tuple[int, int]) -> Box:
    """A box beyond a wall of a room (0 east, 1 north, 2 west, 3 south), between two depths into it."""
    box, east = hall.box, side % 2 == 0
    low, high = (box.x0, box.x1) if east else (box.y0, box.y1)
    along = (low - depth[1], low - depth[0]) if side > 1 else (high + depth[0], high + depth[1])
    start = (box.y0 if east else box.x0) + at
    return _across(east, along, (start, start + wide))


def _room_for(
    draft: Draft, hall: Hall, side: int, size: tuple[int, int], random: np.random.Generator
) -> tuple[int, Cell] | None:
    """Where along a wall something so wide and deep fits outside, and the style of the room before it."""
    (wide, deep), length = size, hall.size[1 - side % 2]
    for _ in range(4 if length >= wide + 4 else 0):
        at = int(random.integers(2, length - wide - 1))
        before = _outside(hall, side, at, wide, (-1, 0))
        if draft.solid(_outside(hall, side, at - 1, wide + 2, (0, deep + 1))) and draft.level(before):
            return at, draft.at(before.x0, before.y0)
    return None


def _niche(draft: Draft, hall: Hall, side: int, random: np.random.Generator) -> None:
    """A shallow recess, as high as the door or the picture at its end."""
    name = pick(random, hall.theme.doors if random.random() < 0.6 else hall.theme.features)
    wide, high = size_of(name)[0] // TILE, size_of(name)[1]
    place = _room_for(draft, hall, side, (wide, 1), random)
    if place is None:
        return
    at, style = place
    if style.ceiling - style.floor < high:
        return
    trim, top = pick(random, hall.theme.trims), pick(random, CEILINGS)
    style = replace(style, ceiling=style.floor + high, wall=trim, top=top, light=max(style.light, 200))
    draft.paint(_outside(hall, side, at, wide, (0, 1)), style)
    draft.panel(_outside(hall, side, at, wide, (1, 1)), name, aligned=True)


def _alcove(draft: Draft, hall: Hall, side: int, random: np.random.Generator) -> None:
    """A deep recess that one can walk into."""
    wide, deep = int(random.integers(4, 10)), int(random.integers(3, 8))
    place = _room_for(draft, hall, side, (wide, deep), random)
    if place is None:
        return
    at, style = place
    floor = style.floor + int(random.choice([0, 0, 8, 16, STEP, -16]))
    ceiling = min(style.ceiling, floor + int(random.choice([88, 104, 128])))
    wall, light = hall.some_wall(random), int(random.choice([144, 192, 255]))
    flat, top = pick(random, FLOORS), pick(random, CEILINGS)
    alcove = Cell(0, 0, 0, 0, floor, ceiling, light, wall, flat, top)
    draft.paint(_outside(hall, side, at, wide, (0, deep)), alcove)


def _garden(draft: Draft, hall: Hall, side: int, random: np.random.Generator) -> None:
    """A window onto a strip of garden under the sky."""
    wide, deep = int(random.integers(4, 9)), int(random.integers(3, 7))
    place = _room_for(draft, hall, side, (wide + 4, deep + 1), random)
    if place is None:
        return
    at, style = place
    sill = style.floor + 32
    top = min(style.ceiling, sill + int(random.choice([56, 72, 96])))
    wall = pick(random, GARDEN_WALLS)
    ground = style.floor + int(random.choice([-32, -16, 0, 16]))
    ceiling = ground + int(random.choice([96, 128, 160]))
    garden = Cell(0, 0, 0, 0, ground, ceiling, 255, wall, pick(random, GROUNDS), SKY)
    draft.paint(_outside(hall, side, at, wide + 4, (1, deep + 1)), garden, closed=True)
    trim, flat, under = pick(random, hall.theme.trims), pick(random, FLOORS), pick(random, CEILINGS)
    frame = Cell(0, 0, 0, 0, sill, top, 240, trim, flat, under)
    draft.paint(_outside(hall, side, at + 2, wide, (0, 1)), frame, closed=True)


def dress(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """Textures along the four walls of a room: panels, pilasters, lights, pictures, or another wall."""
    box, theme = hall.box, hall.theme
    others = tuple(texture for texture in theme.walls.values() if texture != hall.style.wall)
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


def _dress_side(
    draft: Draft, side: Box, scheme: int, names: tuple[str, str, str], random: np.random.Generator
) -> None:
    other, trim, feature = names
    east = side.x1 > side.x0
    low, high = (side.x0, side.x1) if east else (side.y0, side.y1)
    length, wide = high - low, size_of(feature)[0] // TILE

    def put(start: int, width: int, texture: str, *, aligned: bool = False) -> None:
        along = low + start, min(low + start + width, high)
        line = _across(east, along, (side.y0, side.y0) if east else (side.x0, side.x0))
        draft.panel(line, texture, aligned=aligned)

    every = int(random.choice([4, 6, 8]))
    if scheme == 1:
        put(0, length, other)
    elif scheme == 2:
        for start in range(int(random.integers(0, every)), length, every):
            put(start, 1, trim, aligned=True)
    elif scheme == 3:
        for start in range(0, length, 2 * every):
            put(start, every, other)
    elif scheme in (4, 5) and length >= wide + 2:
        gap = wide + every if scheme == 5 else length
        for start in range((length - wide) % gap // 2, length - wide + 1, gap):
            put(start, wide, feature, aligned=True)
            for beside in (start - 1, start + wide) if scheme == 4 else ():
                put(beside, 1, trim, aligned=True)
