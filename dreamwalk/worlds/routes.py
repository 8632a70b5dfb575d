"""Ways through a level whose rooms and doors are known."""

from __future__ import annotations

import math
from collections.abc import Generator

import numpy as np

from dreamwalk.world import Info
from dreamwalk.worlds import steering as steer
from dreamwalk.worlds.scenery import Door, Level, Room
from dreamwalk.worlds.steering import Move


def doors_of(level: Level, room: Room | None) -> list[Door]:
    """The doors of a room, or all if it has none."""
    near = [d for d in level.doors if room in (level.rooms[d.first], level.rooms[d.second])]
    return near or list(level.doors)


def through_door(
    level: Level, info: Info, door: Door, random: np.random.Generator, speed: float
) -> Generator[Move, Info, tuple[Info, Room]]:
    """Walk straight through a door, out of the room that one is in; also gives the room behind it."""
    near, far = level.rooms[door.first], level.rooms[door.second]
    if level.room_at(*steer.place_of(info)) is far:
        near, far = far, near
    for point in (before_door(door, near), (door.x, door.y), before_door(door, far)):
        info = yield from steer.go_to(info, point, random=random, speed=speed)
    return info, far


def before_door(door: Door, room: Room) -> tuple[float, float]:
    """The place in a room straight before a door."""
    x = min(max(door.x, room.x0 + 40), room.x1 - 40)
    return x, min(max(door.y, room.y0 + 40), room.y1 - 40)


def spot_in(
    level: Level, room: Room, random: np.random.Generator, *, inset: float = 0.3
) -> tuple[float, float]:
    """A point about the middle of a room, away from what stands there."""
    for _ in range(20):
        share_x, share_y = random.uniform(inset, 1 - inset, 2)
        x, y = room.x0 + share_x * (room.x1 - room.x0), room.y0 + share_y * (room.y1 - room.y0)
        if all(math.dist((x, y), (a, b)) > r + 56 for a, b, r in level.obstacles):
            break
    return x, y
