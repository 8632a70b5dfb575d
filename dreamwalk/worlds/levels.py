"""Levels to walk in: one fixed home that a small network can learn by heart, and one more for every seed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, Literal, get_args

from dreamwalk.errors import UserError
from dreamwalk.worlds.procedural import procedural
from dreamwalk.worlds.scenery import LANDMARKS, PLAYER_START, SKY, Door, Level, Room, actor_lumps, pack_level
from dreamwalk.worlds.udmf import Cell, Panel, Thing, write_wad

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
CLIPS_PER_LEVEL = 6
"""Clips walked in a procedural level before the next one."""
MAPS = {f"MAP{k:02}" for k in range(1, 33)} | {f"E{e}M{m}" for e in range(1, 5) for m in range(1, 10)}
"""Maps of Freedoom: the engine waits for ever for any other."""


@cache
def home() -> Level:
    """Four rooms in a ring and a courtyard: small, bright, every room told apart at a glance."""
    plan = [
        (Cell(0, 352, 320, 672, wall="DOKGRIR", flat="FLOOR0_2", top="AQF067"), "green marble", "blue torch"),
        (Cell(352, 352, 672, 672, flat="FLOOR4_8", top="CEIL3_3"), "sandstone", "green pillar"),
        (Cell(352, 0, 672, 320, wall="SHAWN2", flat="FLAT5", top="FLAT23"), "steel", "red pillar"),
        (Cell(0, 0, 320, 320, wall="REDWALL1", flat="AQF067", top="FLAT23"), "red metal", "tech lamp"),
        (Cell(704, 144, 1088, 528, wall="STARTAN1", flat="GRASS1", top=SKY), "stone", "leafy tree"),
    ]
    spots = [(90, 600), (590, 590), (590, 80), (90, 80), (980, 336)]
    pairs = [(0, 1), (1, 2), (2, 3), (3, 0), (1, 4), (4, 2)]
    between = [Cell(320, 448, 352, 576), Cell(448, 320, 576, 352), Cell(320, 96, 352, 224)]
    between += [Cell(96, 320, 224, 352), Cell(672, 384, 704, 496), Cell(672, 176, 704, 288)]
    panels = [Panel(0, 448, 0, 576, "AQLITE09"), Panel(448, 672, 576, 672, "BIGMURAL")]
    panels += [Panel(448, 0, 576, 0, "AQLITE07"), Panel(0, 96, 0, 224, "AQLITE11")]
    panels += [Panel(1088, 272, 1088, 400, "BIGDOOR1")]
    cells = [cell for cell, _, _ in plan]
    cells += [replace(c, ceiling=104, wall="SHAWN2", flat="FLAT23", top="FLAT23") for c in between]
    marks = tuple((x, y, mark) for (x, y), (_, _, mark) in zip(spots, plan, strict=True))
    things = [Thing(160, 512, PLAYER_START, 0)]
    things += [Thing(x, y, LANDMARKS[mark].kind) for x, y, mark in marks]
    rooms = tuple(Room(c.x0, c.y0, c.x1, c.y1, wall) for c, wall, _ in plan)
    cells = [replace(cell, light=255) for cell in cells]
    wad = pack_level(cells, things, panels=panels)
    doors = tuple(Door(*cell.middle, *pair) for cell, pair in zip(between, pairs, strict=True))
    obstacles = tuple((x, y, 16) for x, y in spots)
    starts = tuple((*room.middle, heading) for room in rooms for heading in (45.0, 180.0, 300.0))
    known: dict[str, Any] = {"rooms": rooms, "doors": doors, "obstacles": obstacles, "starts": starts}
    known["landmarks"] = marks
    return Level("home", wad, cells=tuple(cells), **known)


def level_named(name: str) -> Level:
    """The level of a name: "home", "procedural:<seed>", or a map shipped with ViZDoom, "map:MAP01"."""
    kind, _, rest = name.partition(":")
    if name == "home":
        return home()
    if kind == "procedural" and rest.isascii() and rest.isdigit() and len(rest) <= 40:
        return procedural(int(rest))
    if kind == "map" and rest in MAPS:
        game = "freedoom1.wad" if rest.startswith("E") else "freedoom2.wad"
        return Level(name, write_wad(actor_lumps()), map=rest, game=game)
    known = "home, procedural:<seed>, map:MAP01 .. map:MAP32, map:E1M1 .. map:E4M9"
    raise UserError(f"unknown level '{name:.80}': known are {known}")


def level_for(kind: str, *, split: str, seed: int, number: int) -> Level:
    """Level number `number` of a collection: a name of one level, or "procedural" for a new one each time."""
    if kind == "procedural":
        return level_named(f"procedural:{split_seed(split, seed=seed, number=number)}")
    return level_named(kind)


def split_seed(split: str, *, seed: int, number: int) -> int:
    """The seed of procedural level `number` of a split: no two splits share one."""
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}': known are {', '.join(SPLITS)}")
    if not 0 <= number < 1 << 24:
        raise UserError(f"a split has levels 0..{(1 << 24) - 1}, not {number}")
    return ((seed << 24) + number) * len(SPLITS) + SPLITS.index(split)
