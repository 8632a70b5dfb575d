"""A level while it is drawn: floors on a grid of tiles, one painted over the other, then cut into rectangles.

What is never painted stays solid, so cells cannot overlap. All boxes here are in tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dreamwalk.worlds.scenery import STEP
from dreamwalk.worlds.udmf import Box, Cell, Panel

TILE = 16


class Draft:
    """Tiles `(height, width)` of floor styles; a style is a `Cell` whose box means nothing."""

    def __init__(self, width: int, height: int) -> None:
        self.tiles = np.full((height, width), -1)
        self.closed = np.zeros((height, width), bool)
        """Where nobody can stand: sills, crates, gardens behind windows."""
        self.panels: list[Panel] = []
        self.obstacles: list[tuple[int, int, int]] = []
        self._styles: list[Cell] = []
        self._known: dict[Cell, int] = {}

    def paint(self, box: Box, style: Cell, *, closed: bool = False) -> None:
        """Make a box open, with a style."""
        self.tiles[_inside(box)] = self._index(style)
        self.closed[_inside(box)] = closed

    def wall_up(self, box: Box) -> None:
        """Make a box solid."""
        self.tiles[_inside(box)] = -1

    def change(self, box: Box, edit: Callable[[Cell], Cell]) -> None:
        """Edit the styles of what is open in a box."""
        part = self.tiles[_inside(box)]
        for index in np.unique(part[part >= 0]).tolist():
            part[part == index] = self._index(edit(self._styles[index]))

    def panel(self, line: Box, wall: str, *, aligned: bool = False) -> None:
        """Put a texture on a stretch of wall, or of steps; what was put there before goes first."""
        self.panels.append(Panel(*_units(line), wall, aligned))

    def clad(self, box: Box, wall: str) -> None:
        """Put a texture on the edges of a box."""
        for line in (replace(box, y1=box.y0), replace(box, y0=box.y1)):
            self.panel(line, wall)
        for line in (replace(box, x1=box.x0), replace(box, x0=box.x1)):
            self.panel(line, wall)

    def block(self, box: Box, *, margin: int = 4) -> None:
        """Note that one cannot walk where a box is."""
        x, y = (round(c * TILE) for c in box.middle)
        half = max(box.x1 - box.x0, box.y1 - box.y0) * TILE / 2
        self.obstacles.append((x, y, round(half * 1.2) + margin))

    def at(self, x: int, y: int) -> Cell:
        """The style of a tile that is open."""
        index = int(self.tiles[y, x])
        assert index >= 0
        return self._styles[index]

    def solid(self, box: Box) -> bool:
        """Whether a box lies on the grid and nothing in it is open."""
        height, width = self.tiles.shape
        on = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        return on and bool((self.tiles[_inside(box)] < 0).all())

    def level(self, box: Box) -> bool:
        """Whether one can stand everywhere in a box and its floor has one height."""
        part = self.tiles[_inside(box)]
        if not part.size or (part < 0).any() or self.closed[_inside(box)].any():
            return False
        return len({self._styles[k].floor for k in np.unique(part).tolist()}) == 1

    def cells(self) -> list[Cell]:
        """Rectangles that cover every open tile once."""
        left, cells = self.tiles.copy(), []
        for y, x in np.argwhere(self.tiles >= 0).tolist():
            index = left[y, x]
            if index < 0:
                continue
            right, top = x + 1, y + 1
            while right < left.shape[1] and left[y, right] == index:
                right += 1
            while top < left.shape[0] and (left[top, x:right] == index).all():
                top += 1
            left[y:top, x:right] = -1
            x0, y0, x1, y1 = _units(Box(x, y, right, top))
            cells.append(replace(self._styles[index], x0=x0, y0=y0, x1=x1, y1=y1))
        return cells

    def connected(self) -> bool:
        """Whether every floor where one may stand can be walked to from any other, and back."""
        walkable = (self.tiles >= 0) & ~self.closed
        floors = np.array([style.floor for style in self._styles])[self.tiles]
        reached = np.zeros_like(walkable)
        reached[tuple(np.argwhere(walkable)[0])] = True
        flat = [abs(np.diff(floors, axis=axis)) <= STEP for axis in (0, 1)]
        before = 0
        while (count := int(reached.sum())) > before:
            before = count
            for _ in range(8):
                reached[1:] |= reached[:-1] & flat[0]
                reached[:-1] |= reached[1:] & flat[0]
                reached[:, 1:] |= reached[:, :-1] & flat[1]
                reached[:, :-1] |= reached[:, 1:] & flat[1]
                reached &= walkable
        return before == int(walkable.sum())

    def _index(self, style: Cell) -> int:
        style = replace(style, x0=0, y0=0, x1=0, y1=0)
        if style not in self._known:
            self._known[style] = len(self._styles)
            self._styles.append(style)
        return self._known[style]


def _inside(box: Box) -> tuple[slice, slice]:
    return slice(box.y0, box.y1), slice(box.x0, box.x1)


def _units(box: Box) -> tuple[int, int, int, int]:
    return box.x0 * TILE, box.y0 * TILE, box.x1 * TILE, box.y1 * TILE


def with_margin(box: Box, by: int) -> Box:
    """A box with a margin of tiles all around (or, below 0, without)."""
    return Box(box.x0 - by, box.y0 - by, box.x1 + by, box.y1 + by)
