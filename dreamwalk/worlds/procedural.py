"""Levels from seeds: halls and yards on a loose grid, doors, windows, stairs, galleries, landmarks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from dreamwalk.worlds.drafts import TILE, Draft, with_margin
from dreamwalk.worlds.furnishing import furnish
from dreamwalk.worlds.halls import Hall, draw_hall, pick, rooms_of
from dreamwalk.worlds.openings import dress, outlets, passage, window
from dreamwalk.worlds.scenery import ALL_LANDMARKS, PLAYER_START, Door, Level, pack_level
from dreamwalk.worlds.textures import THEMES
from dreamwalk.worlds.udmf import Box, Thing

MARGIN = 10
"""Tiles around the grid of rooms, for niches and gardens."""
OWN_THEMES = tuple(name for name in THEMES if name != "tile")
"""Of which a level has two."""
TREES = ("leafy tree", "bare tree", "hollow stump", "leafy tree")
Place = tuple[int, int]


def procedural(seed: int) -> Level:
    """The level of a seed: 4 to 14 connected halls and yards, all floors within a step of the next."""
    tries = (_draw(np.random.default_rng((seed, 0xD00D, attempt))) for attempt in itertools.count())
    return replace(next(level for level in tries if level is not None), name=f"procedural:{seed}")


def _draw(random: np.random.Generator) -> Level | None:
    """A level without a name, or None if some of its floor cannot be reached."""
    columns, rows = (
        np.cumsum([MARGIN, *random.integers(20, 40, random.integers(2, 5))]).tolist() for _ in range(2)
    )
    draft = Draft(columns[-1] + MARGIN, rows[-1] + MARGIN)
    themes = tuple(random.choice(OWN_THEMES, 2).tolist())
    grid: dict[Place, Hall] = {}
    for place in itertools.product(range(len(columns) - 1), range(len(rows) - 1)):
        if random.random() > 0.12:
            x, y = place
            grid[place] = draw_hall(random, themes, Box(columns[x], rows[y], columns[x + 1], rows[y + 1]))
    if not 4 <= len(grid) <= 14:
        return None
    halls, near = list(grid.values()), _neighbours(list(grid))
    for hall in halls:
        furnish(draft, hall, random)
    joined = _join(draft, halls, near, random)
    if joined is None:
        return None
    for i, k in near:
        if random.random() < 0.5:
            window(draft, halls[i], halls[k], random)
    for hall in halls:
        outlets(draft, hall, random)
        dress(draft, hall, random)
    if not draft.connected():
        return None
    rooms, doors = rooms_of(halls, joined)
    marks = [mark for hall in halls for mark in _landmarks(draft, hall, doors, random)]
    things = [Thing(x, y, ALL_LANDMARKS[name].kind) for x, y, name in marks]
    things.append(Thing(rooms[0].x0 + 40, (rooms[0].y0 + rooms[0].y1) // 2, PLAYER_START))
    cells, weather = draft.cells(), int(random.integers(1, 1 << 16))
    wad = pack_level(cells, things, panels=draft.panels, landmarks=ALL_LANDMARKS, weather=weather)
    level = Level("", wad, rooms=tuple(rooms), doors=tuple(doors), cells=tuple(cells))
    return replace(level, obstacles=tuple(draft.obstacles), landmarks=tuple(marks))


def _neighbours(places: list[Place]) -> list[tuple[int, int]]:
    """Which places lie beside one another, the western or southern one first."""
    pairs = itertools.permutations(range(len(places)), 2)
    away = lambda i, k: (places[k][0] - places[i][0], places[k][1] - places[i][1])
    return [pair for pair in pairs if away(*pair) in ((1, 0), (0, 1))]


def _join(
    draft: Draft, halls: list[Hall], near: list[tuple[int, int]], random: np.random.Generator
) -> list[Door] | None:
    """Doors that make a random tree over all rooms, and some more to close loops; None if it cannot be."""
    group, doors = list(range(len(halls))), []
    for i, k in random.permutation(near).tolist():
        if group[i] != group[k] or random.random() < 0.6:
            for _ in range(1 if random.random() < 0.88 else 2):
                door = passage(draft, halls[i], halls[k], random)
                if door is not None:
                    doors.append(Door(*door, i, k))
                    group = [group[i] if g == group[k] else g for g in group]
    return doors if len(set(group)) == 1 else None


def _landmarks(
    draft: Draft, hall: Hall, doors: list[Door], random: np.random.Generator
) -> list[tuple[int, int, str]]:
    """Some landmarks on free floor, away from doors and from one another."""
    marks: list[tuple[int, int, str]] = []
    names = pick(random, tuple(ALL_LANDMARKS)), pick(random, tuple(ALL_LANDMARKS))
    for _ in range(int(random.choice([3, 4, 6] if hall.outdoor else [0, 1, 1, 2, 3, 4]))):
        name = pick(random, TREES) if hall.outdoor and random.random() < 0.7 else pick(random, names)
        for _ in range(8):
            x = int(random.integers(hall.box.x0 + 2, hall.box.x1 - 1))
            y = int(random.integers(hall.box.y0 + 2, hall.box.y1 - 1))
            spot = with_margin(Box(x, y, x, y), 2)
            here = np.array([x, y]) * TILE
            clear = all(np.hypot(*(here - (door.x, door.y))) > 128 for door in doors)
            clear &= all(np.hypot(*(here - (a, b))) > r + 80 for a, b, r in draft.obstacles)
            if clear and draft.level(spot):
                marks.append((x * TILE, y * TILE, name))
                draft.obstacles.append((x * TILE, y * TILE, ALL_LANDMARKS[name].radius))
                break
    return marks
