"""Rooms of a level from a seed, before they are drawn: halls under a ceiling and yards under the sky."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dreamwalk.worlds.drafts import TILE
from dreamwalk.worlds.scenery import SKY, Door, Room
from dreamwalk.worlds.textures import CEILINGS, FLOORS, GROUNDS, THEMES, Theme
from dreamwalk.worlds.udmf import Box, Cell

HEIGHTS = (96, 112, 128, 128, 128, 144, 160, 160, 192, 192, 224, 256, 320)
YARD_WALLS = (96, 128, 128, 160, 224)
LIGHTS = (152, 168, 184, 200, 216, 232, 248, 255)


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
    def size(self) -> tuple[int, int]:
        """Width and height in tiles."""
        return self.box.x1 - self.box.x0, self.box.y1 - self.box.y0

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

    def some_wall(self, random: np.random.Generator) -> str:
        """The texture of any wall of its theme."""
        return self.theme.walls[pick(random, tuple(self.theme.walls))]


def pick(random: np.random.Generator, names: tuple[str, ...]) -> str:
    """One of some names."""
    return names[int(random.integers(len(names)))]


def draw_hall(random: np.random.Generator, themes: tuple[str, ...], slot: Box) -> Hall:
    """A room that covers most of its slot, so that straight passages meet its neighbours.

    Its theme is mostly one of the level's own.
    """
    small = min(slot.x1 - slot.x0, slot.y1 - slot.y0) >= 28 and random.random() < 0.25
    low_x, low_y, high_x, high_y = random.integers(1, 9 if small else 5, 4).tolist()
    box = Box(slot.x0 + low_x, slot.y0 + low_y, slot.x1 - high_x, slot.y1 - high_y)
    theme = THEMES[pick(random, themes if random.random() < 0.8 else tuple(THEMES))]
    outdoor = bool(random.random() < 0.24)
    wall = pick(random, tuple(theme.walls))
    floor = int(random.integers(-3, 4)) * 8
    high = int(random.choice(YARD_WALLS if outdoor else HEIGHTS))
    light = 255 if outdoor else int(random.choice(LIGHTS))
    flat, top = pick(random, GROUNDS if outdoor else FLOORS), SKY if outdoor else pick(random, CEILINGS)
    style = Cell(0, 0, 0, 0, floor, floor + high, light, theme.walls[wall], flat, top)
    hall = Hall(box, style, wall, theme, outdoor)
    if min(hall.size) < 20 or random.random() >= 0.35:
        return hall
    width, height = (int(random.integers(9, length - 8)) for length in hall.size)
    return replace(hall, cut=(width, height, int(random.integers(2)), int(random.integers(2))))


def rooms_of(halls: list[Hall], doors: list[Door]) -> tuple[list[Room], list[Door]]:
    """All parts of the halls as rooms, and the doors of the halls as doors between these."""
    rooms = [
        [Room(p.x0 * TILE, p.y0 * TILE, p.x1 * TILE, p.y1 * TILE, hall.wall) for p in hall.parts]
        for hall in halls
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
