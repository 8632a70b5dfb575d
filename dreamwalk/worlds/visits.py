"""A scripted walk for the examination of objects: put a pillar down, leave, and come back to where it was."""

from __future__ import annotations

import math

import numpy as np

from dreamwalk.world import Info
from dreamwalk.worlds import steering as steer
from dreamwalk.worlds.placers import PRESS, ROOM
from dreamwalk.worlds.placing import has_room
from dreamwalk.worlds.scenery import Level
from dreamwalk.worlds.steering import AHEAD, MOUSE_TURN, STAY, Part, Walker
from dreamwalk.worlds.walkers import WALKERS

STILL = 3
"""Steps of standing still before the press, so that frames before and after it are of one view."""
WATCHED = 12
"""Steps from the press to the second one, which takes the pillar away in the walks that have it."""


def visit(level: Level, random: np.random.Generator, *, before: int, away: int) -> Walker:
    """Look around for `before` steps, put a pillar down, look at it, leave for about `away` steps, come back.

    The press is at step `before + STILL`; whoever presses again `WATCHED` steps later takes it away.
    """
    info = yield STAY
    speed = float(random.uniform(12, MOUSE_TURN))
    info = yield from for_steps(info, _survey(info, random, speed), steps=before + STILL)
    start = tuple(steer.place_of(info).tolist())
    pose = info["world_from_camera"]
    spot = pose[:2, 3] + 64 * pose[:2, 2]
    info = yield PRESS
    info = yield from steer.hold(info, STAY, steps=WATCHED + STILL)
    side = random.choice([-1, 1]) * random.uniform(100, 180)
    info = yield from steer.turn_by(info, side, speed=speed)
    trail: list[tuple[float, float]] = [start]
    plan = WALKERS["tour"](level, random)
    next(plan)
    move = plan.send(info)
    for step in range(away // 2):
        info = yield move
        move = plan.send(info)
        if step % 4 == 3:
            trail.append(tuple(steer.place_of(info).tolist()))
    for place in trail[::-1]:
        info = yield from steer.go_to(info, place, random=random, speed=speed)
    while True:
        info = yield from steer.face(info, spot, speed=speed)
        info = yield from steer.hold(info, STAY, steps=5)
        info = yield from steer.turn_by(info, random.choice([-1, 1]) * random.uniform(60, 120), speed=speed)
        for _ in range(3):
            if steer.clearance(info, (0.3, 0.7)) > 100 and math.dist(steer.place_of(info), spot) > 90:
                info = yield AHEAD


def for_steps(info: Info, part: Part, *, steps: int) -> Part:
    """So many steps of a part; standing still where it ends sooner."""
    move = next(part, STAY)
    for _ in range(steps):
        info = yield move
        try:
            move = part.send(info)
        except StopIteration:
            move = STAY
    return info


def _survey(info: Info, random: np.random.Generator, speed: float) -> Part:
    """Once around, and on to where there is room for a pillar."""
    info = yield from steer.turn_by(info, random.choice([-360, 360]), speed=speed)
    for _ in range(12):
        if has_room(info) and steer.clearance(info, (0.35, 0.65)) > ROOM:
            break
        info = yield from steer.turn_by(info, 30, speed=15)
    return info
