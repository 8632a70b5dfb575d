"""Doom maps from rectangles, in pure Python: cells in, the bytes of a WAD file out.

A map is a set of axis-parallel rectangles. Where two touch one can walk through; every other edge is a solid
wall. The engine builds its own search trees, so a map is nothing but text (UDMF specification v1.1).
"""

from __future__ import annotations

import itertools
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A rectangle, in map units."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def middle(self) -> tuple[float, float]:
        """The point `(x, y)` in its middle."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in it or on its edge."""
        return self.x0 <= x <= self.x1 and self.y0 <= y <= self.y1


@dataclass(frozen=True)
class Cell(Box):
    """A rectangle of floor (a player is 32 wide, 56 tall, and steps up to 24)."""

    floor: int = 0
    ceiling: int = 128
    light: int = 240
    wall: str = "STWALL"
    flat: str = "FLOOR0_1"
    top: str = "CEIL3_5"


@dataclass(frozen=True)
class Panel(Box):
    """A stretch of wall or of steps, on an edge of some cell, with a texture of its own.

    Of several, the first counts.
    """

    wall: str
    aligned: bool = False
    """Whether the texture begins where the panel does and stands on the floor."""


@dataclass(frozen=True)
class Thing:
    """Something that stands on the floor; `kind` is an editor number, `heading` in degrees (0 is east)."""

    x: int
    y: int
    kind: int
    heading: int = 0


Point = tuple[int, int]
Line = tuple[int, int]
"""All points with one x (0, x), or one y (1, y)."""


def write_wad(lumps: Sequence[tuple[str, bytes]]) -> bytes:
    """A PWAD of named lumps, in order."""
    body, directory, offset = b"", b"", 12
    for name, data in lumps:
        directory += struct.pack("<ii8s", offset, len(data), name.encode("ascii"))
        body += data
        offset += len(data)
    return struct.pack("<4sii", b"PWAD", len(lumps), offset) + body + directory


def write_textmap(cells: Sequence[Cell], things: Sequence[Thing], *, panels: Sequence[Panel] = ()) -> bytes:
    """The TEXTMAP lump of cells that do not overlap."""
    text = _Textmap()
    for cell in cells:
        heights = {"heightfloor": cell.floor, "heightceiling": cell.ceiling, "lightlevel": cell.light}
        text.add("sector", **heights, texturefloor=cell.flat, textureceiling=cell.top)
    cells_on, panels_on = _by_line(cells), _by_line(panels)
    for index, cell in enumerate(cells):
        for side in _sides(cell):
            beside = [k for k in cells_on[_line(*side)] if k != index]
            along = [panels[k] for k in panels_on[_line(*side)]]
            for start, end in _split(*side, [*(cells[k] for k in beside), *along]):
                back = next((k for k in beside if cells[k].holds(*_middle(start, end))), None)
                panel = next((p for p in along if p.holds(*start) and p.holds(*end)), None)
                if back is None:
                    text.wall(start, end, index, panel or Panel(*start, *end, cell.wall))
                elif index < back:
                    walls = (panel.wall, panel.wall) if panel else (cell.wall, cells[back].wall)
                    text.opening(start, end, (index, back), walls)
    for thing in things:
        every = {f"skill{k}": True for k in range(1, 6)} | {"single": True, "coop": True, "dm": True}
        text.add("thing", x=thing.x, y=thing.y, type=thing.kind, angle=thing.heading, **every)
    return text.bytes()


class _Textmap:
    """Accumulates the blocks of a TEXTMAP, sharing vertices."""

    def __init__(self) -> None:
        self.blocks = ['namespace = "ZDoom";']
        self.vertices: dict[Point, int] = {}
        self.sides = 0

    def add(self, kind: str, /, **values: int | str | bool) -> None:
        body = "".join(f"{key}={_literal(value)};" for key, value in values.items())
        self.blocks.append(f"{kind}{{{body}}}")

    def vertex(self, point: Point) -> int:
        if point not in self.vertices:
            self.vertices[point] = len(self.vertices)
            self.add("vertex", x=point[0], y=point[1])
        return self.vertices[point]

    def side(self, sector: int, offset: int, texture: dict[str, str]) -> int:
        self.add("sidedef", sector=sector, offsetx=offset, **texture)
        self.sides += 1
        return self.sides - 1

    def wall(self, start: Point, end: Point, sector: int, panel: Panel) -> None:
        offset, pegged = _offset(start, end), {}
        if panel.aligned:
            low, high = (panel.x0, panel.y0), (panel.x1, panel.y1)
            offset, pegged = _offset(start, end, origin=low if start < end else high), {"dontpegbottom": True}
        side = self.side(sector, offset, {"texturemiddle": panel.wall})
        v1, v2 = self.vertex(start), self.vertex(end)
        self.add("linedef", v1=v1, v2=v2, sidefront=side, blocking=True, **pegged)

    def opening(self, start: Point, end: Point, sectors: tuple[int, int], walls: tuple[str, str]) -> None:
        names = [{"texturetop": wall, "texturebottom": wall} for wall in walls]
        front = self.side(sectors[0], _offset(start, end), names[0])
        back = self.side(sectors[1], _offset(end, start), names[1])
        v1, v2 = self.vertex(start), self.vertex(end)
        self.add("linedef", v1=v1, v2=v2, sidefront=front, sideback=back, twosided=True)

    def bytes(self) -> bytes:
        return ("\n".join(self.blocks) + "\n").encode("ascii")


def _literal(value: int | str | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _offset(start: Point, end: Point, *, origin: Point = (0, 0)) -> int:
    """Texture offset that lines a wall's pattern up with the world, so that split walls show no seam.

    With an origin on the line, the pattern begins there.
    """
    x, y = start[0] - origin[0], start[1] - origin[1]
    along = x if end[0] > start[0] else -x if end[0] < start[0] else 0
    along += y if end[1] > start[1] else -y if end[1] < start[1] else 0
    return along % 1024


def _sides(cell: Cell) -> list[tuple[Point, Point]]:
    """The four sides clockwise: the cell lies to the right."""
    around = [(cell.x0, cell.y0), (cell.x0, cell.y1), (cell.x1, cell.y1), (cell.x1, cell.y0)]
    return list(zip(around, around[1:] + around[:1], strict=True))


def _line(start: Point, end: Point) -> Line:
    return (0, start[0]) if start[0] == end[0] else (1, start[1])


def _by_line(boxes: Sequence[Box]) -> dict[Line, list[int]]:
    """Which boxes have a side on a line, so that not all must be looked at."""
    found: defaultdict[Line, list[int]] = defaultdict(list)
    for index, box in enumerate(boxes):
        for line in {(0, box.x0), (0, box.x1), (1, box.y0), (1, box.y1)}:
            found[line].append(index)
    return found


def _split(start: Point, end: Point, boxes: Sequence[Box]) -> Iterator[tuple[Point, Point]]:
    """A side in parts, between the corners that boxes have on it."""
    axis = 1 if start[0] == end[0] else 0
    low, high = min(start, end), max(start, end)
    corners = {(x, y) for box in boxes for x in (box.x0, box.x1) for y in (box.y0, box.y1)}
    inside = {p for p in corners if p[1 - axis] == low[1 - axis] and low[axis] < p[axis] < high[axis]}
    return itertools.pairwise(sorted({low, high} | inside, reverse=start > end))


def _middle(start: Point, end: Point) -> tuple[float, float]:
    return (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
