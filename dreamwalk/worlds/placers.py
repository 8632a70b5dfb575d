"""Walks that put things down, leave them and come back, and take some of them away again."""

from __future__ import annotations

import math

import numpy as np

from dreamwalk.world import Info
from dreamwalk.worlds import steering as steer
from dreamwalk.worlds.placing import close_ahead, has_room
from dreamwalk.worlds.routes import doors_of, spot_in, through_door
from dreamwalk.worlds.scenery import Level
from dreamwalk.worlds.steering import AHEAD, KEY_TURN, MOUSE_TURN, STAY, Move, Part, Walker

ROOM = 130.0
"""What must be free ahead before a pillar is put down, in units."""
PRESS = Move(("place",))
TAKEN = 0.35
"""Share of the visits to a pillar at which it is taken away."""


def place_and_return(level: Level, random: np.random.Generator) -> Walker:
    """Put a pillar down, turn or walk away, come back and look at it; take some away; and again."""
    info = yield STAY
    speed = KEY_TURN if random.random() < 0.2 else random.uniform(12, MOUSE_TURN)
    while True:
        info = yield from steer.hold(info, AHEAD, steps=int(random.integers(0, 4)))
        info = yield from put_down(info, random)
        if not len(info["placed"]):
            info = yield from steer.turn_by(info, random.uniform(60, 180), speed=speed)
            continue
        spot = info["placed"][-1]
        if random.random() < 0.4:
            side = random.choice([-1, 1]) * random.uniform(40, 120)
            info = yield from steer.turn_by(info, side, speed=speed)
            info = yield from put_down(info, random)
        for _ in range(1 if random.random() < 0.7 else 2):
            info = yield from _leave(level, info, spot, random, speed)
            if random.random() < 0.25:
                info = yield from _another_side(info, spot, random, speed)
            info = yield from steer.face(info, spot, speed=speed)
            info = yield from steer.hold(info, STAY, steps=int(random.integers(1, 4)))
            if random.random() < TAKEN:
                info = yield from take(info, spot, random=random, speed=speed)
                info = yield from _leave(level, info, spot, random, speed)
                info = yield from steer.face(info, spot, speed=speed)
                break
        side = random.choice([-1, 1]) * random.uniform(60, 180)
        info = yield from steer.turn_by(info, side, speed=speed)


def put_down(info: Info, random: np.random.Generator) -> Part:
    """Turn to where there is room and put a pillar down."""
    for _ in range(3):
        if has_room(info) and steer.clearance(info, (0.35, 0.65)) > ROOM:
            info = yield from steer.hold(info, PRESS, steps=int(random.integers(1, 3)))
            return (yield STAY)
        info = yield from steer.avoid(info, random, near=ROOM)
    return info


def take(info: Info, spot: np.ndarray, *, random: np.random.Generator, speed: float) -> Part:
    """Walk up to what stands at a spot and take it away; nothing where it cannot be reached."""
    info = yield from steer.face(info, spot, speed=speed)
    for _ in range(8):
        if close_ahead(info) is not None:
            info = yield PRESS
            return (yield from steer.hold(info, STAY, steps=int(random.integers(1, 3))))
        info = yield AHEAD
    return info


def _leave(level: Level, info: Info, spot: np.ndarray, random: np.random.Generator, speed: float) -> Part:
    """Turn away and back, walk off and come back, or go through the nearest door and back."""
    start = tuple(steer.place_of(info).tolist())
    way = random.choice(["turn", "walk", "door"], p=(0.5, 0.3, 0.2))
    side = float(random.choice([-1, 1]))
    if way == "turn" or not level.doors:
        info = yield from steer.turn_by(info, side * random.uniform(80, 190), speed=speed)
        info = yield from steer.hold(info, STAY, steps=int(random.integers(0, 3)))
    elif way == "walk":
        info = yield from steer.turn_by(info, side * random.uniform(100, 190), speed=speed)
        info = yield from steer.avoid(info, random, near=90)
        for _ in range(int(random.integers(3, 9))):
            if steer.clearance(info, (0.35, 0.65)) < 90:
                break
            info = yield AHEAD
        if random.random() < 0.5:
            info = yield from steer.go_to(info, start, random=random, speed=speed)
    else:
        doors = doors_of(level, level.room_at(*start))
        door = min(doors, key=lambda door: math.dist((door.x, door.y), start))
        info, room = yield from through_door(level, info, door, random, speed)
        if random.random() < 0.4:
            info = yield from steer.go_to(info, spot_in(level, room, random), random=random, speed=speed)
        info, _ = yield from through_door(level, info, door, random, speed)
    return info


def _another_side(info: Info, spot: np.ndarray, random: np.random.Generator, speed: float) -> Part:
    """Walk around a spot, to where it is seen from another side."""
    away = steer.place_of(info) - spot[:2]
    angle = math.atan2(away[1], away[0]) + random.choice([-1, 1]) * random.uniform(0.7, 2.2)
    reach = random.uniform(100, 220)
    goal = (float(spot[0]) + reach * math.cos(angle), float(spot[1]) + reach * math.sin(angle))
    return (yield from steer.go_to(info, goal, random=random, speed=speed))


def drops(plan: Walker, random: np.random.Generator) -> Walker:
    """The same walk with pillars put down on the way, mostly where it does not walk ahead; some are taken."""
    next(plan)
    info = yield STAY
    odds, left, takes = random.uniform(0.08, 0.3), int(random.integers(1, 4)), random.random() < 0.3
    while True:
        move = plan.send(info)
        near = close_ahead(info) is not None
        free = left and steer.clearance(info, (0.35, 0.65)) > ROOM
        rarely = 0.1 if "forward" in move.held else 1.0  # one would bump into it
        if (takes if near else free) and random.random() < odds * rarely:
            left, takes = left - (not near), takes and not near
            move = Move((*move.held, "place"), move.yaw, move.pitch)
        info = yield move
