"""What levels are made of: rooms, doors, landmarks, our sky, and the WAD that holds them.

A level is a WAD file in memory with what a collector wants to know of it: where one may stand, what is there.
Headings are in degrees as Doom counts them: 0 is east, 90 is north. Lengths are map units.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from dreamwalk.worlds.udmf import Box, Cell, Panel, Thing, write_textmap, write_wad

SKY = "F_SKY1"
PLAYER_START = 1


@dataclass(frozen=True)
class Room(Box):
    """A rectangle in which one may stand, and what there is to see, in plain words."""

    wall: str
    landmark: str = ""


@dataclass(frozen=True)
class Door:
    """The middle of an opening between two rooms (their places in `Level.rooms`)."""

    x: float
    y: float
    first: int
    second: int


@dataclass(frozen=True)
class Level:
    """A level and what is known about it."""

    name: str
    wad: bytes
    map: str = "MAP01"
    game: str = "freedoom2.wad"
    rooms: tuple[Room, ...] = ()
    doors: tuple[Door, ...] = ()
    obstacles: tuple[tuple[int, int, int], ...] = ()
    """Solid things as (x, y, radius)."""
    starts: tuple[tuple[float, float, float], ...] = ()
    """A gallery of poses (x, y, heading)."""
    heights: tuple[int, ...] = ()
    """Heights of all the floors and ceilings that are not sky, which make depth exact there."""

    def room_at(self, x: float, y: float) -> Room | None:
        """The room that holds a point, or None (in a doorway)."""
        return next((room for room in self.rooms if room.holds(x, y)), None)


@dataclass(frozen=True)
class Landmark:
    """A solid thing that stands still: our own actor class over one sprite frame of Freedoom."""

    kind: int
    name: str
    sprite: str
    radius: int = 16
    options: str = ""


_SPRITES = {"leafy tree": "SMIT", "bare tree": "TRE2", "blue torch": "TBLU", "green torch": "TGRN"}
_SPRITES |= {"red torch": "TRED", "tech lamp": "TLMP", "tech column": "ELEC", "green pillar": "COL1"}
_SPRITES |= {"red pillar": "COL3", "candelabra": "CBRA"}
LANDMARKS = {
    name: Landmark(15001 + k, name, sprite, radius=24 if name == "bare tree" else 16)
    for k, (name, sprite) in enumerate(_SPRITES.items())
}
PLACED = Landmark(15100, "golden pillar", "COL3", 24, 'Translation "168:191=160:167"')
PLACED_CLASS = "DreamPlaced"


def actors() -> bytes:
    """The DECORATE lump: every landmark and the object that `place` puts down; nothing moves or flickers."""
    named = [(f"DreamMark{m.kind}", m) for m in LANDMARKS.values()] + [(PLACED_CLASS, PLACED)]
    form = (
        "actor {0} {1.kind}\n{{\nRadius {1.radius}\nHeight 72\n+SOLID\n{1.options}\n"
        "States\n{{\nSpawn:\n{1.sprite} A -1 bright\nStop\n}}\n}}\n"
    )
    return "\n".join(form.format(name, mark) for name, mark in named).encode("ascii")


@cache
def sky() -> bytes:
    """A bright blue sky with soft clouds and one sun, as PNG; it goes once around the horizon."""
    y, x = np.mgrid[0:128, 0:1024] / np.array([128, 1024]).reshape(2, 1, 1)
    waves = [(2, 2, 0.3), (5, 3, 1.1), (9, 5, 4.2), (4, 7, 2.5)]
    clouds = np.sum([np.sin(2 * np.pi * (k * x + m * y / 2) + shift) for k, m, shift in waves], axis=0)
    white = np.clip((clouds - 0.6) / 2, 0, 0.8)[..., None]
    blue = np.array([70, 110, 255]) * (1 - y[..., None]) + np.array([190, 200, 255]) * y[..., None]
    image = blue * (1 - white) + 255 * white
    sun = np.hypot((x - 0.25) * 1024, (y - 0.6) * 128) < 12
    image[sun] = (255, 235, 60)
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def pack_level(cells: list[Cell], things: list[Thing], *, panels: Sequence[Panel] = ()) -> bytes:
    """The WAD of a map with our actors and sky."""
    mapinfo = b'map MAP01 "dreamwalk" { sky1 = "DWSKY", 0 }\n'
    lumps = [("DECORATE", actors()), ("MAPINFO", mapinfo)]
    lumps += [("TX_START", b""), ("DWSKY", sky()), ("TX_END", b"")]
    lumps += [("MAP01", b""), ("TEXTMAP", write_textmap(cells, things, panels=panels)), ("ENDMAP", b"")]
    return write_wad(lumps)
