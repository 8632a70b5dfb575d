"""Steering: the small moves that walks are made of, decided from depth and pose alone.

A part of a walk is a generator that yields moves, is sent the info that followed each, and returns the last.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from dreamwalk.world import Info

KEY_TURN = 8.0
MOUSE_TURN = 20.0
WALL_NEAR = 64.0
FAR = 2000.0


@dataclass(frozen=True)
class Move:
    """One step of a walker: buttons held, degrees turned (positive right, up)."""

    held: tuple[str, ...] = ()
    yaw: float = 0.0
    pitch: float = 0.0


STAY = Move()
AHEAD = Move(("forward",))
Walker = Generator[Move, Info, None]
Part = Generator[Move, Info, Info]


def clearance(info: Info, span: tuple[float, float]) -> float:
    """The least depth at eye height between two fractions of the picture's width; sky is far."""
    depth = info["depth"]
    low, high = span
    height, width = depth.shape
    row = int(np.clip(info["intrinsics"][1, 2], 4, height - 5))
    band = depth[row - 4 : row + 2, int(low * width) : max(int(high * width), int(low * width) + 1)]
    return float(np.where(band > 0, band, FAR).min())


def heading(info: Info) -> float:
    """Degrees, 0 east and 90 north."""
    pose = info["world_from_camera"]
    return math.degrees(math.atan2(pose[1, 2], pose[0, 2]))


def place_of(info: Info) -> np.ndarray:
    """Where the walker stands, (x, y)."""
    return info["world_from_camera"][:2, 3]


def _wrap(angle: float) -> float:
    return (angle + 180) % 360 - 180


def hold(info: Info, move: Move, *, steps: int) -> Part:
    """The same move again and again."""
    for _ in range(steps):
        info = yield move
    return info


def turn_by(info: Info, degrees: float, *, speed: float = KEY_TURN) -> Part:
    """Turn right by whole steps of `speed`, to within half a step."""
    steps = round(abs(degrees) / speed)
    return (yield from hold(info, Move((), math.copysign(speed, degrees)), steps=steps))


def face(info: Info, spot: np.ndarray, *, speed: float = KEY_TURN) -> Part:
    """Turn in place towards a point (x, y, ..), to within half a step of `speed`."""
    away = np.asarray(spot)[:2] - place_of(info)
    aside = -_wrap(math.degrees(math.atan2(away[1], away[0])) - heading(info))
    return (yield from turn_by(info, aside, speed=speed))


def freer_side(info: Info) -> float:
    """+1 when there is more room to the right, else -1."""
    return 1.0 if clearance(info, (0.6, 0.95)) > clearance(info, (0.05, 0.4)) else -1.0


def avoid(info: Info, random: np.random.Generator, *, near: float) -> Part:
    """Turn away from what is ahead until there is room."""
    side = freer_side(info) * (1 if random.random() < 0.85 else -1)
    enough = near + random.uniform(60, 200)
    for _ in range(24):
        if clearance(info, (0.35, 0.65)) > enough:
            break
        info = yield Move((), side * KEY_TURN)
    return info


def go_to(info: Info, goal: tuple[float, float], *, random: np.random.Generator, speed: float) -> Part:
    """Walk to a point: turn in place if it is far aside, then walk and correct.

    At `KEY_TURN` degrees per step every turn is a whole key press, otherwise turns are as small as needed.
    """
    lately: list[np.ndarray] = []
    for _ in range(60):
        here = place_of(info)
        away = np.asarray(goal) - here
        if np.hypot(*away) < 48:
            break
        lately = [*lately[-5:], here]
        stuck = len(lately) == 6 and np.ptp(np.stack(lately), axis=0).max() < 3
        if stuck:
            blind = clearance(info, (0.3, 0.7)) >= 60  # by something lower than the eyes
            info = yield from turn_by(info, freer_side(info) * 64) if blind else avoid(info, random, near=60)
            info = yield from hold(info, AHEAD, steps=6)
            lately = []
        aside = -_wrap(math.degrees(math.atan2(away[1], away[0])) - heading(info))
        turn = math.copysign(KEY_TURN if speed == KEY_TURN else min(speed, abs(aside)), aside)
        held = ("forward",) if abs(aside) < 40 else ()
        info = yield Move(held, turn if abs(aside) > 0.6 * KEY_TURN else 0.0)
    return info
