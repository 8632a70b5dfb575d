"""What levels are made of: rooms, doors, landmarks, our sky, and the WAD that holds them.

A level is a WAD file in memory with what a collector wants to know of it: where one may stand, what is there.
Headings are in degrees as Doom counts them: 0 is east, 90 is north. Lengths are map units.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from dreamwalk.worlds.udmf import Box, Cell, Panel, Thing, write_textmap, write_wad

SKY = "F_SKY1"
PLAYER_START = 1
BODY, STEP = 16, 24
"""Half the width of a player and the highest step that one can climb, in units."""


@dataclass(frozen=True)
class Room(Box):
    """A rectangle in which one may stand, and its walls in plain words."""

    wall: str


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
    landmarks: tuple[tuple[int, int, str], ...] = ()
    """Landmarks as (x, y, name)."""
    starts: tuple[tuple[float, float, float], ...] = ()
    """A gallery of poses (x, y, heading)."""
    cells: tuple[Cell, ...] = ()
    """The map, where it is known, which makes depth exact."""

    def room_at(self, x: float, y: float) -> Room | None:
        """The room that holds a point, or None (in a doorway)."""
        return next((room for room in self.rooms if room.holds(x, y)), None)

    def holds_body(self, x: float, y: float) -> bool:
        """Whether all floor under a body at a point is within a step; True where the map is not known."""
        around = Box(*(round(v) for v in (x - BODY, y - BODY, x + BODY, y + BODY)))
        below = [
            c
            for c in self.cells
            if c.x0 < around.x1 and c.x1 > around.x0 and c.y0 < around.y1 and c.y1 > around.y0
        ]
        floors = [cell.floor for cell in below]
        return not below or max(floors) - min(floors) <= STEP


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
_MORE = {"hollow stump": "TRE1", "yellow lantern": "COLU", "green stub": "COL2", "red stub": "COL4"}
_MORE |= {"fire bowl": "FCAN", "steel barrel": "BAR1", "short lamp": "TLP2", "small blue torch": "SMBT"}
_MORE |= {"small green torch": "SMGT", "small red torch": "SMRT", "grey statue": "SMT2", "white suit": "SUIT"}
_MORE |= {"skull pillar": "COL6", "green armour": "ARM1", "blue armour": "ARM2"}
ALL_LANDMARKS = LANDMARKS | {
    name: Landmark(15031 + k, name, sprite) for k, (name, sprite) in enumerate(_MORE.items())
}
"""Those of levels from seeds."""
PLACED = Landmark(15100, "golden pillar", "COL3", 24, 'Translation "168:191=160:167"')
PLACED_CLASSES = tuple(f"DreamPlaced{k}" for k in range(64))
"""One for each that can stand at a time: the engine takes things away by class."""


def actors(landmarks: Mapping[str, Landmark] = LANDMARKS) -> bytes:
    """The DECORATE lump: landmarks and what `place` puts down; nothing moves or flickers."""
    named = [(f"DreamMark{m.kind}", m) for m in landmarks.values()] + [("DreamPlaced", PLACED)]
    form = (
        "actor {0} {1.kind}\n{{\nRadius {1.radius}\nHeight 72\n+SOLID\n{1.options}\n"
        "States\n{{\nSpawn:\n{1.sprite} A -1 bright\nStop\n}}\n}}\n"
    )
    return "\n".join(form.format(name, mark) for name, mark in named).encode("ascii")


def actor_lumps(landmarks: Mapping[str, Landmark] = LANDMARKS) -> list[tuple[str, bytes]]:
    """Our actors: the second lump has a class for each thing that can be put down at a time."""
    copies = "".join(f"actor {name} : DreamPlaced {{}}\n" for name in PLACED_CLASSES)
    return [("DECORATE", actors(landmarks)), ("DECORATE", copies.encode("ascii"))]


@cache
def sky(weather: int = 0) -> bytes:
    """A sky with soft clouds and one sun, as PNG; it goes once around the horizon.

    Weather 0 is bright blue; any other number draws colours and clouds of its own.
    """
    y, x = np.mgrid[0:128, 0:1024] / np.array([128, 1024]).reshape(2, 1, 1)
    waves = [(2, 2, 0.3), (5, 3, 1.1), (9, 5, 4.2), (4, 7, 2.5)]
    zenith, horizon, cover, east = (70, 110, 255), (190, 200, 255), 0.6, 0.25
    if weather:
        random = np.random.default_rng(weather)
        zenith, horizon = SKIES[random.integers(len(SKIES))]
        waves = [(k + int(random.integers(0, 3)), m, random.uniform(0, 6)) for k, m, _ in waves]
        cover, east = random.uniform(-0.5, 1.5), random.uniform(0.05, 0.95)
    clouds = np.sum([np.sin(2 * np.pi * (k * x + m * y / 2) + shift) for k, m, shift in waves], axis=0)
    white = np.clip((clouds - cover) / 2, 0, 0.8)[..., None]
    blue = np.array(zenith) * (1 - y[..., None]) + np.array(horizon) * y[..., None]
    image = blue * (1 - white) + 255 * white
    sun = np.hypot((x - east) * 1024, (y - 0.6) * 128) < 12
    image[sun] = (255, 235, 60)
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


SKIES = [
    ((70, 110, 255), (190, 200, 255)),
    ((40, 90, 200), (170, 215, 245)),
    ((120, 150, 190), (215, 220, 225)),
]
SKIES += [
    ((90, 70, 150), (255, 170, 110)),
    ((150, 80, 90), (255, 200, 130)),
    ((40, 130, 170), (200, 240, 220)),
]
SKIES += [((110, 115, 130), (180, 180, 190)), ((30, 50, 120), (120, 150, 220))]
"""Colours above and at the horizon."""


def pack_level(
    cells: list[Cell],
    things: list[Thing],
    *,
    panels: Sequence[Panel] = (),
    landmarks: Mapping[str, Landmark] = LANDMARKS,
    weather: int = 0,
) -> bytes:
    """The WAD of a map with our actors and sky."""
    mapinfo = b'map MAP01 "dreamwalk" { sky1 = "DWSKY", 0 }\n'
    lumps = [*actor_lumps(landmarks), ("MAPINFO", mapinfo)]
    lumps += [("TX_START", b""), ("DWSKY", sky(weather)), ("TX_END", b"")]
    lumps += [("MAP01", b""), ("TEXTMAP", write_textmap(cells, things, panels=panels)), ("ENDMAP", b"")]
    return write_wad(lumps)
