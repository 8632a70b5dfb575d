"""Levels from seeds: halls and yards on a loose grid, doors, windows, stairs, galleries, niches, landmarks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from dreamwalk.worlds.drafts import TILE, Draft, grown
from dreamwalk.worlds.furnishing import Hall, dress, furnish, pick, theme_of
from dreamwalk.worlds.scenery import ALL_LANDMARKS, PLAYER_START, SKY, STEP, Door, Level, Room, pack_level
from dreamwalk.worlds.textures import CEILINGS, DOORS, FEATURES, FLOORS, GROUNDS, THEMES
from dreamwalk.worlds.udmf import Box, Cell, Thing

MARGIN = 10
"""Tiles around the grid of rooms, for niches and gardens."""
HEIGHTS = (96, 112, 128, 128, 128, 144, 160, 160, 192, 192, 224, 256, 320)


def procedural(seed: int) -> Level:
    """The level of a seed: 4 to 16 connected rooms, every floor within a step of its neighbours."""
    for attempt in itertools.count():
        level = _attempt(seed, np.random.default_rng((seed, 0xD00D, attempt)))
        if level is not None:
            return level
    raise AssertionError("unreachable")


def _attempt(seed: int, random: np.random.Generator) -> Level | None:
    """A level, or None if some of its floor cannot be reached."""
    columns, rows = (np.cumsum([MARGIN, *random.integers(20, 40, random.integers(2, 5))]).tolist() for _ in range(2))
    draft = Draft(columns[-1] + MARGIN, rows[-1] + MARGIN)
    themes = random.choice([name for name in THEMES if name != "tile"], 2).tolist()
    halls = {
        (column, row): _hall(random, themes, Box(columns[column], rows[row], columns[column + 1], rows[row + 1]))
        for column in range(len(columns) - 1)
        for row in range(len(rows) - 1)
        if random.random() > 0.12
    }
    if not 4 <= len(halls) <= 14:
        return None
    for hall in halls.values():
        furnish(draft, hall, random)
    places, parts = list(halls), list(halls.values())
    near = [
        (i, k)
        for i, k in itertools.permutations(range(len(places)), 2)
        if (places[k][0] - places[i][0], places[k][1] - places[i][1]) in ((1, 0), (0, 1))
    ]
    doors = _join(draft, parts, near, random)
    if doors is None:
        return None
    for i, k in near:
        if random.random() < 0.5:
            _window(draft, parts[i], parts[k], random)
    for hall in parts:
        _outlets(draft, hall, random)
        dress(draft, hall, random)
    if not draft.connected():
        return None
    rooms, doors = _rooms(parts, doors)
    marks = [mark for hall in parts for mark in _landmarks(draft, hall, doors, random)]
    return _level(seed, draft, rooms, doors, marks, random)


def _level(
    seed: int,
    draft: Draft,
    rooms: list[Room],
    doors: list[Door],
    marks: list[tuple[int, int, str]],
    random: np.random.Generator,
) -> Level:
    things = [Thing(x, y, ALL_LANDMARKS[name].kind) for x, y, name in marks]
    things.append(Thing(rooms[0].x0 + 40, (rooms[0].y0 + rooms[0].y1) // 2, PLAYER_START))
    cells = draft.cells()
    wad = pack_level(
        cells, things, panels=draft.panels, landmarks=ALL_LANDMARKS, weather=int(random.integers(1, 1 << 16))
    )
    return Level(
        f"procedural:{seed}",
        wad,
        rooms=tuple(rooms),
        doors=tuple(doors),
        obstacles=tuple(draft.obstacles),
        landmarks=tuple(marks),
        cells=tuple(cells),
    )


def _rooms(halls: list[Hall], doors: list[Door]) -> tuple[list[Room], list[Door]]:
    """All parts of the halls as rooms, and the doors between these."""
    rooms = [
        [Room(*(c * TILE for c in (p.x0, p.y0, p.x1, p.y1)), hall.wall) for p in hall.parts] for hall in halls
    ]
    every = [room for parts in rooms for room in parts]

    def nearest(door: Door, hall: int) -> int:
        return every.index(min(rooms[hall], key=lambda room: _distance(room, door)))

    known = [replace(d, first=nearest(d, d.first), second=nearest(d, d.second)) for d in doors]
    for whole, wing in (parts for parts in rooms if len(parts) == 2):
        y = whole.y0 if wing.y1 == whole.y0 else whole.y1
        known.append(Door(wing.middle[0], y, every.index(whole), every.index(wing)))
    return every, known


def _distance(room: Room, door: Door) -> float:
    """How far a door lies from a room."""
    x, y = min(max(door.x, room.x0), room.x1), min(max(door.y, room.y0), room.y1)
    return abs(door.x - x) + abs(door.y - y)


def _hall(random: np.random.Generator, themes: list[str], slot: Box) -> Hall:
    """A room that covers most of its slot, so that straight passages meet its neighbours."""
    small = min(slot.x1 - slot.x0, slot.y1 - slot.y0) >= 28 and random.random() < 0.25
    low_x, low_y, high_x, high_y = random.integers(1, 9 if small else 5, 4).tolist()
    box = Box(slot.x0 + low_x, slot.y0 + low_y, slot.x1 - high_x, slot.y1 - high_y)
    theme, outdoor = theme_of(random, themes), bool(random.random() < 0.24)
    wall = pick(random, list(theme.walls))
    floor = int(random.integers(-3, 4)) * 8
    high = int(random.choice([96, 128, 128, 160, 224] if outdoor else list(HEIGHTS)))
    light = 255 if outdoor else int(random.choice([152, 168, 184, 200, 216, 232, 248, 255]))
    flat, top = pick(random, GROUNDS if outdoor else FLOORS), SKY if outdoor else pick(random, CEILINGS)
    style = Cell(0, 0, 0, 0, floor, floor + high, light, theme.walls[wall], flat, top)
    cut = (0, 0, 0, 0)
    width, height = box.x1 - box.x0, box.y1 - box.y0
    if min(width, height) >= 20 and random.random() < 0.35:
        sizes = int(random.integers(9, width - 8)), int(random.integers(9, height - 8))
        cut = (*sizes, int(random.integers(2)), int(random.integers(2)))
    return Hall(box, style, wall, theme, outdoor, cut)


def _between(a: Box, b: Box) -> tuple[bool, tuple[int, int], tuple[int, int]]:
    """Whether `b` lies east of `a` (else north), the gap between them, and what their sides share."""
    if b.x0 >= a.x1:
        return True, (a.x1, b.x0), (max(a.y0, b.y0), min(a.y1, b.y1))
    return False, (a.y1, b.y0), (max(a.x0, b.x0), min(a.x1, b.x1))


def _across(east: bool, along: tuple[int, int], aside: tuple[int, int]) -> Box:
    return Box(along[0], aside[0], along[1], aside[1]) if east else Box(aside[0], along[0], aside[1], along[1])


def _join(
    draft: Draft, halls: list[Hall], near: list[tuple[int, int]], random: np.random.Generator
) -> list[Door] | None:
    """Doors that make a random tree over all rooms, and some more to close loops; None if it cannot be."""
    group, doors = list(range(len(halls))), []
    for i, k in random.permutation(near).tolist():
        if group[i] != group[k] or random.random() < 0.6:
            for _ in range(1 if random.random() < 0.88 else 2):
                door = _passage(draft, halls[i], halls[k], random)
                if door is not None:
                    doors.append(Door(*door, i, k))
                    group = [group[i] if g == group[k] else g for g in group]
    return doors if len(set(group)) == 1 else None


def _passage(
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
        assert near is not None
        assert far is not None
        steps = max(1, -(-abs(far.floor - near.floor) // 16) - 1)
        if steps > end - start:
            continue
        _dig(draft, (east, start, end, sides), (near, far, steps), (first, second), random)
        return tuple(c * TILE for c in _across(east, (start, end), sides).middle)  # type: ignore[return-value]
    return None


def _dig(
    draft: Draft,
    way: tuple[bool, int, int, tuple[int, int]],
    climb: tuple[Cell, Cell, int],
    halls: tuple[Hall, Hall],
    random: np.random.Generator,
) -> None:
    """Paint a passage and frame its ends; its sides may bear door leaves."""
    (east, start, end, sides), (near, far, steps) = way, climb
    theme = halls[random.integers(2)].theme
    trim = pick(random, theme.trims)
    wall = trim if random.random() < 0.6 else theme.walls[pick(random, list(theme.walls))]
    high = max(near.floor, far.floor)
    ceiling = min(high + int(random.choice([88, 96, 104, 128])), max(near.ceiling, high + 72), max(far.ceiling, high + 72))
    light = int(random.choice([144, 176, 208, 240]))
    style = Cell(0, 0, 0, 0, 0, ceiling, light, wall, pick(random, FLOORS), pick(random, CEILINGS))
    stops = np.linspace(start, end, steps + 1).round().astype(int).tolist()
    for k, along in enumerate(itertools.pairwise(stops)):
        floor = near.floor + 8 * round((far.floor - near.floor) * (k + 1) / (steps + 1) / 8)
        draft.paint(_across(east, along, sides), replace(style, floor=floor))
    if random.random() < 0.6:
        for along in (start, end):
            for aside in ((sides[0] - 1, sides[0]), sides, (sides[1], sides[1] + 1)):
                draft.panel(_across(east, (along, along), aside), trim, aligned=aside is not sides)
    door = pick(random, theme.doors)
    if end - start >= DOORS[door][0] // TILE and random.random() < 0.6:
        middle = (start + end - DOORS[door][0] // TILE) // 2
        for aside in sides:
            leaf = _across(east, (middle, middle + DOORS[door][0] // TILE), (aside, aside))
            draft.panel(leaf, door, aligned=True)


def _window(draft: Draft, first: Hall, second: Hall, random: np.random.Generator) -> None:
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
    styles = [draft.at(box.x0, box.y0) for box in (before, after)]
    known = [style for style in styles if style is not None]
    sill = max(style.floor for style in known) + int(random.choice([32, 32, 40]))
    top = min(*(style.ceiling for style in known), sill + int(random.choice([40, 56, 72, 96])))
    if top < sill + 32:
        return
    trim = pick(random, first.theme.trims)
    style = Cell(0, 0, 0, 0, sill, top, 224, trim, pick(random, FLOORS), pick(random, CEILINGS))
    draft.paint(_across(east, (start, end), sides), style, closed=True)


def _outlets(draft: Draft, hall: Hall, random: np.random.Generator) -> None:
    """Niches with a door or a picture at their end, alcoves, and windows onto gardens that nobody enters."""
    for side in random.permutation(4).tolist():
        for _ in range(2):
            kind = (_niche, _alcove, _garden, None)[random.choice(4, p=(0.4, 0.2, 0.2, 0.2))]
            if kind is not None:
                kind(draft, hall, side, random)


def _outside(hall: Hall, side: int, at: int, wide: int, depth: tuple[int, int]) -> Box:
    """A box beyond a wall of a room (0 east, 1 north, 2 west, 3 south), between two depths into it."""
    box = hall.box
    if side % 2 == 0:
        along = (box.x1 + depth[0], box.x1 + depth[1]) if side == 0 else (box.x0 - depth[1], box.x0 - depth[0])
        return Box(along[0], box.y0 + at, along[1], box.y0 + at + wide)
    along = (box.y1 + depth[0], box.y1 + depth[1]) if side == 1 else (box.y0 - depth[1], box.y0 - depth[0])
    return Box(box.x0 + at, along[0], box.x0 + at + wide, along[1])


def _room_for(
    draft: Draft, hall: Hall, side: int, wide: int, deep: int, random: np.random.Generator
) -> tuple[int, Cell] | None:
    """Where along a wall something so wide and deep fits outside, and the style of the room before it."""
    box = hall.box
    length = box.y1 - box.y0 if side % 2 == 0 else box.x1 - box.x0
    for _ in range(4 if length >= wide + 4 else 0):
        at = int(random.integers(2, length - wide - 1))
        whole, before = _outside(hall, side, at - 1, wide + 2, (0, deep + 1)), _outside(hall, side, at, wide, (-1, 0))
        style = draft.at(before.x0, before.y0)
        if draft.solid(whole) and draft.level(before) and style is not None:
            return at, style
    return None


def _niche(draft: Draft, hall: Hall, side: int, random: np.random.Generator) -> None:
    """A shallow recess, as high as the door or the picture at its end."""
    known = DOORS if random.random() < 0.6 else FEATURES
    name = pick(random, hall.theme.doors if known is DOORS else hall.theme.features)
    wide, high = known[name][0] // TILE, known[name][1]
    place = _room_for(draft, hall, side, wide, 1, random)
    if place is None:
        return
    at, style = place
    if style.ceiling - style.floor < high:
        return
    box, trim = _outside(hall, side, at, wide, (0, 1)), pick(random, hall.theme.trims)
    top = pick(random, CEILINGS)
    draft.paint(box, replace(style, ceiling=style.floor + high, wall=trim, top=top, light=max(style.light, 200)))
    draft.panel(_outside(hall, side, at, wide, (1, 1)), name, aligned=True)


def _alcove(draft: Draft, hall: Hall, side: int, random: np.random.Generator) -> None:
    """A deep recess that one can walk into."""
    wide, deep = int(random.integers(4, 10)), int(random.integers(3, 8))
    place = _room_for(draft, hall, side, wide, deep, random)
    if place is None:
        return
    at, style = place
    floor = style.floor + int(random.choice([0, 0, 8, 16, STEP, -16]))
    ceiling = min(style.ceiling, floor + int(random.choice([88, 104, 128])))
    wall, light = hall.theme.walls[pick(random, list(hall.theme.walls))], int(random.choice([144, 192, 255]))
    flat, top = pick(random, FLOORS), pick(random, CEILINGS)
    draft.paint(_outside(hall, side, at, wide, (0, deep)), Cell(0, 0, 0, 0, floor, ceiling, light, wall, flat, top))


def _garden(draft: Draft, hall: Hall, side: int, random: np.random.Generator) -> None:
    """A window onto a strip of garden under the sky."""
    wide, deep = int(random.integers(4, 9)), int(random.integers(3, 7))
    place = _room_for(draft, hall, side, wide + 4, deep + 1, random)
    if place is None:
        return
    at, style = place
    sill = style.floor + 32
    top = min(style.ceiling, sill + int(random.choice([56, 72, 96])))
    wall = pick(random, list(THEMES["rock"].walls) + list(THEMES["stone"].walls))
    texture = (THEMES["rock"].walls | THEMES["stone"].walls)[wall]
    ground = style.floor + int(random.choice([-32, -16, 0, 16]))
    garden = Cell(0, 0, 0, 0, ground, ground + int(random.choice([96, 128, 160])), 255, texture, pick(random, GROUNDS), SKY)
    draft.paint(_outside(hall, side, at, wide + 4, (1, deep + 1)), garden, closed=True)
    frame = Cell(0, 0, 0, 0, sill, top, 240, pick(random, hall.theme.trims), pick(random, FLOORS), pick(random, CEILINGS))
    draft.paint(_outside(hall, side, at + 2, wide, (0, 1)), frame, closed=True)


TREES = ("leafy tree", "bare tree", "hollow stump", "leafy tree")


def _landmarks(
    draft: Draft, hall: Hall, doors: list[Door], random: np.random.Generator
) -> list[tuple[int, int, str]]:
    """Some landmarks on free floor, away from doors and from one another."""
    marks: list[tuple[int, int, str]] = []
    names = pick(random, list(ALL_LANDMARKS)), pick(random, list(ALL_LANDMARKS))
    for _ in range(int(random.choice([3, 4, 6] if hall.outdoor else [0, 1, 1, 2, 3, 4]))):
        name = pick(random, TREES) if hall.outdoor and random.random() < 0.7 else pick(random, names)
        for _ in range(8):
            x = int(random.integers(hall.box.x0 + 2, hall.box.x1 - 1))
            y = int(random.integers(hall.box.y0 + 2, hall.box.y1 - 1))
            spot = grown(Box(x, y, x, y), 2)
            here = np.array([x, y]) * TILE
            clear = all(np.hypot(*(here - (door.x, door.y))) > 128 for door in doors)
            clear &= all(np.hypot(*(here - (a, b))) > r + 80 for a, b, r in draft.obstacles)
            if clear and draft.level(spot):
                marks.append((x * TILE, y * TILE, name))
                draft.obstacles.append((x * TILE, y * TILE, ALL_LANDMARKS[name].radius))
                break
    return marks
