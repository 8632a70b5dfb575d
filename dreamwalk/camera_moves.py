"""The moves of camera paths, and strings of them.

A path string (`parse_path`) has moves one after another, each with an amount: `orbit:30,forward:2,pan:-45`.
With `@24` a move takes 24 frames; the others share what is left. Amounts are degrees or world units; a
negative amount goes the other way, and `pan-left:45` is `pan:-45`. Cameras are OpenCV (`cameras`), and what a
move refers to is that of the first camera:

    subject     the point at `depth` in the centre of the first picture
    vertical    the y axis of the first camera; turns about it keep the horizon level

    forward, back, left, right, up, down   along the camera's own axes, world units
    pan, tilt, roll     turns on the spot: to the right, upwards, clockwise as the camera goes; degrees
    orbit, arc          about the subject, which stays where it is in the picture: to its right about the
                        vertical, upwards about the camera's x axis; degrees
    spiral, lemniscate  two turns that open and close; a figure of eight; of a radius in world units, back
                        to where they began, the subject kept in its place
    zoom                the focal length times the amount
    dolly-zoom          forward by world units, while the focal length keeps the size of the subject
    look-at             turns to a point `x/y/z` as seen from the first camera; without one, to the subject

`w-8, right-4` is a string of keys as HY-WorldPlay takes it (w s a d step, left right up down turn): steps of
four frames, of `key_step` world units or 3 degrees.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dreamwalk.cameras import rotation_from_quaternion, slerp
from dreamwalk.errors import UserError

KEY_FRAMES, KEY_STEP, KEY_TURN = 4, 0.08, 3.0
"""Frames, world units and degrees of a step of a string of keys, as HY-WorldPlay has them."""
KEYS = {"w": "forward", "s": "back", "a": "left", "d": "right"}
KEYS |= {"left": "pan-left", "right": "pan-right", "up": "tilt-up", "down": "tilt-down"}


class CameraMove(NamedTuple):
    """A part of a path."""

    name: str
    amount: float
    frames: int | None = None
    """How many it takes, or None for a share of what is left."""
    point: tuple[float, float, float] | None = None
    """Where `look-at` turns to, as seen from the first camera; None is the subject."""


class MoveStart(NamedTuple):
    """Where a move begins, all as seen from the first camera."""

    pose: np.ndarray
    """float64 `(4, 4)`."""
    subject: np.ndarray
    """float64 `(3,)`."""


Step = Callable[[MoveStart, float, float], tuple[np.ndarray, float]]
"""From where a move begins, its amount and how much of it is done, in [0, 1], to the pose `(4, 4)` and a
factor of the focal length."""


def _turn(axis: Sequence[float] | np.ndarray, degrees: float) -> np.ndarray:
    """A rotation (3, 3) about an axis."""
    half = math.radians(degrees) / 2
    axis = np.asarray(axis, np.float64)
    return rotation_from_quaternion(
        np.concatenate([[math.cos(half)], math.sin(half) * axis / np.linalg.norm(axis)])
    )


def _placed(turn: np.ndarray, place: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, place
    return pose


def _along(axis: Sequence[float]) -> Step:
    return lambda at, amount, done: (at.pose @ _placed(np.eye(3), done * amount * np.asarray(axis)), 1)


def _about(axis: Sequence[float]) -> Step:
    """On the spot, about an axis of the camera's own."""
    return lambda at, amount, done: (at.pose @ _placed(_turn(axis, done * amount), np.zeros(3)), 1)


def _pan(at: MoveStart, amount: float, done: float) -> tuple[np.ndarray, float]:
    return _placed(_turn((0, 1, 0), done * amount) @ at.pose[:3, :3], at.pose[:3, 3]), 1


def _around(at: MoveStart, axis: np.ndarray, degrees: float) -> np.ndarray:
    """Camera and picture turned about the subject."""
    turn = _turn(axis, degrees)
    return _placed(turn, at.subject - turn @ at.subject) @ at.pose


def _orbit(at: MoveStart, amount: float, done: float) -> tuple[np.ndarray, float]:
    return _around(at, np.array([0.0, -1, 0]), done * amount), 1


def _arc(at: MoveStart, amount: float, done: float) -> tuple[np.ndarray, float]:
    return _around(at, -at.pose[:3, 0], done * amount), 1


def _facing(at: MoveStart, aside: Sequence[float]) -> np.ndarray:
    """The camera moved by `aside` of its own axes, with the subject where it was in the picture."""
    place = at.pose[:3, :3] @ np.asarray(aside) + at.pose[:3, 3]
    before, after = at.subject - at.pose[:3, 3], at.subject - place
    axis, cosine = np.cross(before, after), before @ after
    angle = math.degrees(math.atan2(np.linalg.norm(axis), cosine))
    turn = _turn(axis, angle) if np.linalg.norm(axis) > 0 else np.eye(3)
    return _placed(turn @ at.pose[:3, :3], place)


def _spiral(at: MoveStart, amount: float, done: float) -> tuple[np.ndarray, float]:
    radius, angle = amount * math.sin(math.pi * done), 4 * math.pi * done
    return _facing(at, (radius * math.sin(angle), -radius * math.cos(angle), 0)), 1


def _lemniscate(at: MoveStart, amount: float, done: float) -> tuple[np.ndarray, float]:
    """Bernoulli's, from its crossing on."""
    sine, cosine = math.sin(2 * math.pi * done), math.cos(2 * math.pi * done)
    share = amount / (1 + cosine * cosine)
    return _facing(at, (sine * share, -sine * cosine * share, 0)), 1


def _zoom(at: MoveStart, amount: float, done: float) -> tuple[np.ndarray, float]:
    if amount <= 0:
        raise UserError(f"zoom multiplies the focal length by a factor above 0, got {amount:g}")
    return at.pose, amount**done


def _dolly_zoom(at: MoveStart, amount: float, done: float) -> tuple[np.ndarray, float]:
    away = (at.subject - at.pose[:3, 3]) @ at.pose[:3, 2]
    if away <= max(amount, 0):
        raise UserError(
            f"dolly-zoom:{amount:g} reaches the subject, which is {away:g} ahead: give a smaller amount"
        )
    return at.pose @ _placed(np.eye(3), np.array([0, 0, done * amount])), (away - done * amount) / away


MOVES: dict[str, Step] = {
    "forward": _along((0, 0, 1)),
    "back": _along((0, 0, -1)),
    "left": _along((-1, 0, 0)),
    "right": _along((1, 0, 0)),
    "up": _along((0, -1, 0)),
    "down": _along((0, 1, 0)),
    "pan": _pan,
    "tilt": _about((1, 0, 0)),
    "roll": _about((0, 0, 1)),
    "orbit": _orbit,
    "arc": _arc,
    "spiral": _spiral,
    "lemniscate": _lemniscate,
    "zoom": _zoom,
    "dolly-zoom": _dolly_zoom,
}
"""All but `look-at`, which is made for its point (`step_of`)."""
_SIDES, _HEIGHTS = (("left", -1), ("right", 1)), (("down", -1), ("up", 1))
_WAYS = {"pan": _SIDES, "orbit": _SIDES, "roll": _SIDES, "tilt": _HEIGHTS, "arc": _HEIGHTS}
OPPOSITES = {f"{name}-{way}": (name, sign) for name, ways in _WAYS.items() for way, sign in ways}
"""`pan-left` and the like, with the move and the sign that they stand for."""
NEED_DEPTH = ("orbit", "arc", "spiral", "lemniscate", "dolly-zoom")
"""Moves that need to know how far the subject is."""


def parse_path(text: str, *, key_step: float = KEY_STEP) -> tuple[CameraMove, ...]:
    """The moves of a path string, or of a string of keys; UserError for the first part that is neither."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UserError("a camera path has one move at least, such as orbit:30")
    keys = [re.fullmatch(r"([a-z]+)-(\d+)", part) for part in parts]
    moves = [
        _pressed(key[1], int(key[2]), key_step) if key and key[1] in KEYS else _move(part)
        for key, part in zip(keys, parts, strict=True)
    ]
    return tuple(moves)


def _pressed(key: str, steps: int, key_step: float) -> CameraMove:
    name, sign = OPPOSITES.get(KEYS[key], (KEYS[key], 1))
    each = key_step if key in "wsad" else KEY_TURN
    return CameraMove(name, sign * steps * each, steps * KEY_FRAMES)


def _move(part: str) -> CameraMove:
    """One part of a path string."""
    found = re.fullmatch(r"([a-z-]+)(?::([^@]*))?(?:@(\d{1,9}))?", part)
    name = found[1] if found else part
    if not found or name not in (*MOVES, *OPPOSITES, "look-at"):
        known = ", ".join([*MOVES, "look-at"])
        raise UserError(f"'{part:.60}' is no move of a camera: write one such as orbit:30, known are {known}")
    name, sign = OPPOSITES.get(name, (name, 1))
    frames = None if found[3] is None else int(found[3])
    if frames == 0:
        raise UserError(f"'{part}' must take 1 frame at least")
    wanted = 3 if name == "look-at" else 1
    try:
        numbers = [float(number) for number in found[2].split("/")] if found[2] is not None else []
    except ValueError:
        numbers = [math.nan]
    if name == "look-at" and not numbers:
        return CameraMove(name, 0, frames)
    if len(numbers) != wanted or not all(map(math.isfinite, numbers)):
        form = "look-at:x/y/z" if wanted == 3 else f"{name}:2"
        raise UserError(f"'{part:.60}' needs {'a point' if wanted == 3 else 'an amount'}: write {form}")
    if name == "look-at":
        return CameraMove(name, 0, frames, (numbers[0], numbers[1], numbers[2]))
    return CameraMove(name, sign * numbers[0], frames)


def needs_depth(move: CameraMove) -> bool:
    """Whether a move is about the subject."""
    return move.name in NEED_DEPTH or (move.name == "look-at" and move.point is None)


def step_of(move: CameraMove, at: MoveStart) -> Step:
    """What makes the poses of a move that begins there; UserError where it cannot."""
    if move.name != "look-at":
        return MOVES[move.name]
    way = (at.subject if move.point is None else np.asarray(move.point, np.float64)) - at.pose[:3, 3]
    right = np.cross([0.0, 1, 0], way)
    if np.linalg.norm(right) <= 1e-9 * max(1.0, float(np.linalg.norm(way))):
        raise UserError(
            "look-at needs a point that is not straight above or below the camera: choose another"
        )
    columns = [right, np.cross(way, right), way]
    end = np.stack([column / np.linalg.norm(column) for column in columns], axis=1)
    return lambda at, amount, done: (_placed(slerp(at.pose[:3, :3], end, done), at.pose[:3, 3]), 1)
