"""Levels from seeds: rooms on a loose grid, corridors with steps, loops, pillars, platforms, open skies."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dreamwalk.worlds.scenery import LANDMARKS, PLAYER_START, SKY, Door, Level, Room, pack_level
from dreamwalk.worlds.udmf import Cell, Thing

PITCH = 512
GRID = 16

WALLS = {"sandstone": "STWALL", "carved sandstone": "BIGWALL", "green marble": "DOKGRIR"}
WALLS |= {"steel": "SHAWN2", "white steel": "SHAWN02", "red metal": "REDWALL1", "rusty red": "GRAYRED"}
WALLS |= {"stone": "STARTAN1", "mossy stone": "STARG1", "grey stone": "STARGR1", "orange stone": "STARBR1"}
WALLS |= {"painted stone": "STARG4", "bronze plate": "ESPIBR1", "tan plate": "ESPITAN1"}
WALLS |= {"green plate": "ESPIG1", "grey plate": "ESPIGR1", "blue tile": "AQLITE07"}
WALLS |= {"green tile": "AQLITE09", "orange tile": "AQLITE11", "red tile": "AQLITE13"}
WALLS |= {"red rock": "ROCKRED1", "red brick": "SP_HOT1", "wood panel": "WOOD3", "shingle": "A-MYWOOD"}
WALLS |= {"cobble": "BSTONE1", "brown brick": "BRICK6", "concrete": "AQCONC17", "crate": "CRATE1"}
WALLS |= {"blue light": "LITEBLU4", "pipe": "PIPES"}
FLOORS = ["FLOOR0_2", "FLOOR4_8", "FLAT5", "AQF067", "GRASS1", "FLAT23", "FLOOR0_1", "FLOOR0_3", "FLOOR0_6"]
FLOORS += ["FLOOR4_6", "FLOOR5_4", "FLAT8", "FLAT5_3", "FLOOR7_2", "CEIL3_3", "COMP01", "MFLR8_1", "RROCK12"]
FLOORS += ["AQF022", "FLOOR1_6", "FLOOR5_3", "CRATOP2"]
CEILINGS = ["AQF067", "FLAT23", "CEIL3_1", "CEIL3_2", "CEIL3_3", "CEIL3_5", "FLOOR0_3", "COMP01", "FLAT3"]
CEILINGS += ["FLOOR0_1", "AQF062", "TLITE6_4"]
TRIMS = ("SHAWN2", "STARGR1", "ESPIGR1", "WOOD3", "BRICK6", "SUPPORT2")


@dataclass(frozen=True)
class _Slot:
    """A room to be: its place on the grid and its cell."""

    column: int
    row: int
    cell: Cell
    wall: str


def procedural(seed: int) -> Level:
    """The level of a seed: 4 to 9 connected rooms, every floor within a step of its neighbours."""
    random = np.random.default_rng((seed, 0xD00D))
    columns, rows = int(random.integers(2, 4)), int(random.integers(2, 4))
    slots = [_slot(random, column, row) for row in range(rows) for column in range(columns)]
    cells: list[Cell] = []
    doors: list[Door] = []
    for first, second in _links(slots, random):
        corridor = _corridor(slots[first], slots[second], random)
        cells += corridor
        doors.append(Door(*corridor[len(corridor) // 2].middle, first, second))
    things: list[Thing] = []
    rooms: list[Room] = []
    obstacles: list[tuple[int, int, int]] = []
    for slot in slots:
        inside, blocked = _furnish(slot.cell, random)
        mark = str(random.choice(list(LANDMARKS))) if random.random() < 0.8 else ""
        if mark:
            x, y = _corner(slot.cell, random)
            things.append(Thing(x, y, LANDMARKS[mark].kind))
            obstacles.append((x, y, LANDMARKS[mark].radius))
        cells += inside
        obstacles += blocked
        c = slot.cell
        rooms.append(Room(c.x0, c.y0, c.x1, c.y1, slot.wall, mark))
    begin = slots[0].cell
    things.append(Thing(begin.x0 + 40, (begin.y0 + begin.y1) // 2, PLAYER_START))
    heights = {cell.floor for cell in cells} | {cell.ceiling for cell in cells if cell.top != SKY}
    known: dict[str, Any] = {"rooms": tuple(rooms), "doors": tuple(doors), "obstacles": tuple(obstacles)}
    return Level(f"procedural:{seed}", pack_level(cells, things), heights=tuple(sorted(heights)), **known)


def _slot(random: np.random.Generator, column: int, row: int) -> _Slot:
    """A room that covers the middle of its slot, so that a straight corridor meets its neighbours."""
    low_x, low_y, high_x, high_y = (random.integers(6, 14, 4) * GRID).tolist()
    x, y = column * PITCH, row * PITCH
    box = x - low_x, y - low_y, x + high_x, y + high_y
    floor = int(random.integers(-3, 4)) * 8
    wall = str(random.choice(list(WALLS)))
    open_air = random.random() < 0.25
    ceiling = floor + int(random.choice([112, 128, 128, 160, 192]))
    light = int(random.integers(160, 256)) if not open_air else 255
    flat = str(random.choice(FLOORS))
    top = SKY if open_air else str(random.choice(CEILINGS))
    return _Slot(column, row, Cell(*box, floor, ceiling, light, WALLS[wall], flat, top), wall)


def _links(slots: list[_Slot], random: np.random.Generator) -> list[tuple[int, int]]:
    """Which neighbours are joined: a random tree over all rooms, and some more to close loops."""
    away = lambda i, k: (slots[k].column - slots[i].column, slots[k].row - slots[i].row)
    every = itertools.product(range(len(slots)), repeat=2)
    pairs = [pair for pair in every if away(*pair) in ((1, 0), (0, 1))]
    group = list(range(len(slots)))
    links = []
    for i, k in random.permutation(pairs).tolist():
        if group[i] != group[k] or random.random() < 0.6:
            group = [group[i] if g == group[k] else g for g in group]
            links.append((i, k))
    return links


def _corridor(first: _Slot, second: _Slot, random: np.random.Generator) -> list[Cell]:
    """A straight corridor from a room to its neighbour, in steps that one can climb."""
    a, b = first.cell, second.cell
    across = second.column > first.column
    start, end = (a.x1, b.x0) if across else (a.y1, b.y0)
    centre = (first.row if across else first.column) * PITCH
    half = int(random.integers(3, 6)) * GRID
    steps = max(1, min((end - start) // 48, 6))
    stops = np.linspace(start, end, steps + 1).round().astype(int).tolist()
    rise = (b.floor - a.floor) / (steps + 1)
    ceiling = max(a.floor, b.floor) + int(random.choice([88, 104]))
    light = int(random.integers(176, 240))
    wall, flat, top = (str(random.choice(names)) for names in (TRIMS, FLOORS, CEILINGS))
    cells, aside = [], (centre - half, centre + half)
    for k, along in enumerate(itertools.pairwise(stops)):
        (x0, x1), (y0, y1) = (along, aside) if across else (aside, along)
        floor = a.floor + round(rise * (k + 1))
        cells.append(Cell(x0, y0, x1, y1, floor, ceiling, light, wall, flat, top))
    return cells


def _furnish(room: Cell, random: np.random.Generator) -> tuple[list[Cell], list[tuple[int, int, int]]]:
    """The room in pieces around a solid block or a platform, or whole; and what to keep clear of."""
    width, height = room.x1 - room.x0, room.y1 - room.y0
    kind = random.choice(["plain", "block", "platform"], p=[0.55, 0.2, 0.25])
    if kind == "plain" or min(width, height) < 288:
        return [room], []
    x = (room.x0 + room.x1) // 2 + int(random.integers(-1, 2)) * GRID
    y = (room.y0 + room.y1) // 2 + int(random.integers(-1, 2)) * GRID
    half = 24 if kind == "block" else 64
    x0, y0, x1, y1 = x - half, y - half, x + half, y + half
    middle = replace(room, x0=x0, x1=x1)
    pieces = [replace(room, x1=x0), replace(room, x0=x1), replace(middle, y1=y0), replace(middle, y0=y1)]
    if kind == "block":
        return pieces, [(x, y, 36)]
    raised = room.floor + int(random.choice([-16, -8, 8, 16]))
    flat = str(random.choice(FLOORS))
    return [*pieces, replace(middle, y0=y0, y1=y1, floor=raised, flat=flat)], []


def _corner(room: Cell, random: np.random.Generator) -> tuple[int, int]:
    """A place near one of the corners, out of the way of corridors."""
    x = room.x0 + 32 if random.random() < 0.5 else room.x1 - 32
    y = room.y0 + 32 if random.random() < 0.5 else room.y1 - 32
    return x, y
