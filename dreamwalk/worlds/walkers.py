"""Walkers: policies that explore a world the way people do, one clip at a time.

A walker is a generator: it yields a `Move` and is sent the info that followed. People at a keyboard hold keys
(the page turns 8 degrees per step); people with a mouse turn by varying amounts; both are here.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from dreamwalk.worlds import steering as steer
from dreamwalk.worlds.placers import drops, place_and_return
from dreamwalk.worlds.routes import doors_of, spot_in, through_door
from dreamwalk.worlds.scenery import Door, Level
from dreamwalk.worlds.steering import AHEAD, KEY_TURN, MOUSE_TURN, STAY, WALL_NEAR, Move, Walker


@dataclass(frozen=True)
class Mix:
    """How often each kind of walk is drawn for a level kind, and how much it looks up and down (degrees)."""

    shares: dict[str, float]
    pitch: float = 0.0
    drops: float = 0.0
    """Share of the other walks that put pillars down on their way."""


HOME_SHARES = {"tour": 0.24, "keys": 0.26, "mouse": 0.15, "retrace": 0.08, "look": 0.07, "push": 0.12}
HOME = Mix(HOME_SHARES | {"place": 0.08})
WILD_SHARES = {"tour": 0.2, "keys": 0.1, "mouse": 0.14, "retrace": 0.12, "look": 0.12, "place": 0.02}
WILD_SHARES |= {"shuttle": 0.16, "circuit": 0.14, "furnish": 0.32}
WILD = Mix(WILD_SHARES, pitch=12.0, drops=0.26)
PLACERS = ("place", "furnish")
MAP = Mix({"keys": 0.35, "mouse": 0.4, "retrace": 0.1, "look": 0.05, "place": 0.1}, pitch=12.0)


def walk(level: Level, random: np.random.Generator) -> Walker:
    """A walker of a kind that suits the level, drawn by its share; it never ends.

    Start it with `next` (that move means nothing), then send it the info of every frame for the move that
    follows.
    """
    mix = HOME if level.name == "home" else WILD if level.doors else MAP
    names, shares = list(mix.shares), np.array(list(mix.shares.values()))
    kind = names[random.choice(len(names), p=shares / sum(mix.shares.values()))]
    plan = WALKERS[kind](level, random)
    if kind not in PLACERS and mix.drops and random.random() < mix.drops:
        plan = drops(plan, random)
    return _glance(plan, random, mix.pitch) if mix.pitch and kind != "place" else plan


def _keys(level: Level, random: np.random.Generator) -> Walker:
    """Keys held and let go at random; careful people turn before a wall, others bump into it first."""
    info = yield STAY
    near = 20.0 if random.random() < 0.25 else random.uniform(50, 90)
    ahead, still = ("forward",), ()
    patterns: list[tuple[tuple[str, ...], float, float]] = [(ahead, 0, 5), (ahead, 1, 4), (still, 1, 1.5)]
    patterns += [((*ahead, "left"), 0, 0.5), ((*ahead, "right"), 0, 0.5)]
    patterns += [(("left",), 0, 1.2), (("right",), 0, 1.2), (("back",), 0, 2.0), (("back",), 1, 0.8)]
    patterns += [(("left",), 1, 0.3), (("right",), -1, 0.3), (still, 0, 1.0)]
    odds = np.array([weight for *_, weight in patterns])
    while True:
        held, turning, _ = patterns[random.choice(len(patterns), p=odds / odds.sum())]
        move = Move(held, turning * random.choice([-KEY_TURN, KEY_TURN]))
        bumps, before = 0, np.full(2, np.inf)
        for _ in range(random.integers(2, 14)):
            if "forward" in held or not held:
                stopped = bool(held) and math.dist(before, steer.place_of(info)) < 1
                bumps = bumps + 1 if stopped or steer.clearance(info, (0.35, 0.65)) < near else 0
                if bumps > (4 if near < 40 else 0):
                    info = yield from steer.avoid(info, random, near=near)
                    break
            before = steer.place_of(info)
            info = yield move


def _mouse(level: Level, random: np.random.Generator) -> Walker:
    """Walking with a mouse: the turn per step drifts smoothly, away from walls."""
    info = yield STAY
    rate, target, walks, before = 0.0, 0.0, False, steer.place_of(info)
    while True:
        if random.random() < 0.12:
            target = float(np.clip(random.normal(0, 8), -MOUSE_TURN, MOUSE_TURN))
        ahead = steer.clearance(info, (0.3, 0.7))
        if walks and math.dist(before, steer.place_of(info)) < 1:  # by something lower than the eyes
            aside = steer.freer_side(info) * random.uniform(60, 140)
            info = yield from steer.turn_by(info, aside, speed=MOUSE_TURN)
        if ahead < 110:
            target = steer.freer_side(info) * random.uniform(8, MOUSE_TURN)
        elif random.random() < 0.1:
            target = 0.0
        rate = float(np.clip(0.6 * rate + 0.4 * target + random.normal(0, 0.7), -MOUSE_TURN, MOUSE_TURN))
        walks, before = ahead > WALL_NEAR and random.random() < 0.93, steer.place_of(info)
        info = yield Move(("forward",) if walks else (), rate)


def _tour(level: Level, random: np.random.Generator) -> Walker:
    """From room to room through the doors, rarely straight back, so that loops are closed."""
    info = yield STAY
    if not level.doors:
        yield from _keys(level, random)
    last: Door | None = None
    speed = KEY_TURN if random.random() < 0.75 else 14.0
    while True:
        room = level.room_at(*steer.place_of(info))
        near = doors_of(level, room)
        choices = [d for d in near if d is not last] or near
        last = choices[random.integers(len(choices))]
        info, there = yield from through_door(level, info, last, random, speed)
        info = yield from steer.go_to(info, spot_in(level, there, random), random=random, speed=speed)
        if random.random() < 0.3:
            info = yield from steer.turn_by(info, random.choice([-1, 1]) * random.uniform(60, 200))
        if random.random() < 0.2:
            info = yield from steer.hold(info, STAY, steps=int(random.integers(1, 5)))


def _shuttle(level: Level, random: np.random.Generator) -> Walker:
    """Through a near door, a look around in the room behind it, and back to where one stood."""
    info = yield STAY
    speed = KEY_TURN if random.random() < 0.3 else random.uniform(12, MOUSE_TURN)
    while True:
        start = tuple(steer.place_of(info).tolist())
        doors = doors_of(level, level.room_at(*start))
        doors.sort(key=lambda door: math.dist((door.x, door.y), start))
        door = doors[0 if random.random() < 0.75 else random.integers(len(doors))]
        info, _ = yield from through_door(level, info, door, random, speed)
        for _ in range(int(random.integers(0, 4))):
            info = yield AHEAD
        info = yield from steer.turn_by(info, random.choice([-1, 1]) * random.uniform(40, 220), speed=speed)
        info, _ = yield from through_door(level, info, door, random, speed)
        info = yield from steer.go_to(info, start, random=random, speed=speed)
        info = yield from steer.turn_by(info, random.choice([-1, 1]) * random.uniform(90, 360), speed=speed)


def _circuit(level: Level, random: np.random.Generator) -> Walker:
    """Round and round through a few points of one room, with looks to the side."""
    info = yield STAY
    speed = KEY_TURN if random.random() < 0.5 else random.uniform(12, MOUSE_TURN)
    x, y = steer.place_of(info)
    room = level.room_at(x, y) or min(level.rooms, key=lambda room: math.dist(room.middle, (x, y)))
    points = [spot_in(level, room, random, inset=0.2) for _ in range(int(random.integers(3, 5)))]
    middle = room.middle
    points.sort(key=lambda p: math.atan2(p[1] - middle[1], p[0] - middle[0]))
    for point in itertools.cycle(points if random.random() < 0.5 else points[::-1]):
        info = yield from steer.go_to(info, point, random=random, speed=speed)
        if random.random() < 0.35:
            aside = random.choice([-1, 1]) * random.uniform(40, 180)
            info = yield from steer.turn_by(info, aside, speed=speed)
            info = yield from steer.turn_by(info, -aside, speed=speed)


def _look(level: Level, random: np.random.Generator) -> Walker:
    """Stand and look around, one way or both."""
    info = yield STAY
    while True:
        speed = KEY_TURN if random.random() < 0.7 else random.uniform(4, MOUSE_TURN)
        info = yield from steer.turn_by(info, random.choice([-1, 1]) * random.uniform(90, 400), speed=speed)
        info = yield from steer.hold(info, STAY, steps=int(random.integers(1, 5)))
        if steer.clearance(info, (0.3, 0.7)) > 150 and random.random() < 0.5:
            info = yield from steer.hold(info, AHEAD, steps=int(random.integers(2, 6)))


def _push(level: Level, random: np.random.Generator) -> Walker:
    """Keys held whatever is in the way, as people do: into walls, along them, and off again."""
    yield STAY
    while True:
        held = [("forward",), ("forward", "left"), ("forward", "right"), ("left",), ("right",), ("back",)]
        move = Move(held[random.choice(6, p=(0.5, 0.1, 0.1, 0.1, 0.1, 0.1))])
        for _ in range(random.integers(4, 20)):
            yield Move(move.held, random.choice([0.0, -KEY_TURN, KEY_TURN], p=(0.8, 0.1, 0.1)))
        for _ in range(random.integers(0, 12)):
            yield Move((), KEY_TURN if move.held[-1] != "right" else -KEY_TURN)


def _retrace(level: Level, random: np.random.Generator) -> Walker:
    """Walk a path, turn around, and come back the same way."""
    info = yield STAY
    while True:
        trail = [steer.place_of(info)]
        for step in range(random.integers(10, 24)):
            if steer.clearance(info, (0.35, 0.65)) < 90:
                info = yield from steer.avoid(info, random, near=90)
            info = yield AHEAD
            if step % 6 == 5:
                trail.append(steer.place_of(info))
        info = yield from steer.turn_by(info, random.choice([-180, 180]))
        for x, y in trail[::-1]:
            info = yield from steer.go_to(info, (float(x), float(y)), random=random, speed=KEY_TURN)
        info = yield from steer.turn_by(info, random.choice([-180, 180]))


def _place(level: Level, random: np.random.Generator) -> Walker:
    """Find room, put the pillar down, look away or walk off, and come back to it."""
    info = yield STAY
    for _ in range(int(random.integers(0, 6))):
        if steer.clearance(info, (0.3, 0.7)) > 130:
            info = yield AHEAD
    info = yield from steer.avoid(info, random, near=110)
    info = yield from steer.hold(info, Move(("place",)), steps=int(random.integers(1, 4)))
    info = yield from steer.hold(info, STAY, steps=int(random.integers(1, 4)))
    side = float(random.choice([-1, 1]))
    if random.random() < 0.5:
        info = yield from steer.hold(info, Move(("back",)), steps=int(random.integers(2, 5)))
    if random.random() < 0.7:
        away = random.uniform(80, 180)
        info = yield from steer.turn_by(info, side * away)
        info = yield from steer.hold(info, STAY, steps=int(random.integers(0, 3)))
        info = yield from steer.turn_by(info, -side * away)
    else:
        info = yield from steer.turn_by(info, side * 352)
    yield from _keys(level, random)


def _glance(plan: Walker, random: np.random.Generator, most: float) -> Walker:
    """The same walk with small looks up and down, always coming back to level."""
    next(plan)
    info = yield STAY
    pitch, goal = 0.0, 0.0
    while True:
        if random.random() < 0.06:
            goal = float(random.uniform(-most, most)) if goal == 0.0 else 0.0
        change = float(np.clip(goal - pitch, -3, 3))
        pitch += change
        move = plan.send(info)
        info = yield Move(move.held, move.yaw, change)


_ALL = (_tour, _keys, _mouse, _retrace, _look, _push, _place, _shuttle, _circuit)
WALKERS = {walker.__name__[1:]: walker for walker in _ALL} | {"furnish": place_and_return}
"""By the kinds of a `Mix`."""
