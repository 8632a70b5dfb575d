"""What the page and the server say to each other over one WebSocket (`/walk?start=K&seed=N`).

From the page, JSON text with a `type`:

    input   seq, held [button names], pressed {button: presses, each for one frame}, moved {axis: distance
            since the last message: it adds up and is drained once per frame}, turning {axis: distance per
            frame for as long as it is held}; names are those of hello, axes are in their own units
    ack     serial of the newest frame that the page has decoded
    ping    t, which comes back in a pong
    reset   seed?, start? (index in the gallery), image? (base64 of a PNG, JPEG or WebP to dream from)
    view    "dream" | "game" | "both"
    pause   paused
    step    one frame, and pause
    steps   steps (denoising steps per frame)
    pace    unlocked
    record  on
    replay  walk (what a walk file holds, see dreamwalk.data.walks), or null to take over

From the server, JSON text: `hello` (what this world is), `queue` (position), `status` (the whole state, on
change), `recorded` (links), `pong`, `error` (one sentence); and binary frames, laid out in
`dreamwalk.serve.frames`.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from dreamwalk.data.walks import MOST_STEPS, Walk, parse_walk
from dreamwalk.errors import UserError
from dreamwalk.serve.frames import VIEWS

MAX_MESSAGE = 4 * 2**20
"""The longest message from a page, in bytes: room for a long walk or a picture."""
MAX_SEED = 2**31 - 1
MAX_NAMES = 256
"""Buttons or axes in one message, at most."""
MAX_DISTANCE = 1e5
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Input:
    """What is held and how far the mouse went; the newest state wins, distances add up."""

    seq: int
    held: tuple[str, ...] = ()
    pressed: dict[str, int] = field(default_factory=dict)
    """Presses per button since the last message, each for one frame."""
    moved: dict[str, float] = field(default_factory=dict)
    """Distance per axis since the last message, in the axis' units."""
    turning: dict[str, float] = field(default_factory=dict)
    """Distance per frame and axis for as long as it is held."""


@dataclass(frozen=True)
class Ack:
    """The page has decoded this frame."""

    serial: int


@dataclass(frozen=True)
class Ping:
    """To be sent back at once."""

    t: float


@dataclass(frozen=True)
class Reset:
    """Begin again; None keeps what is. `image` is uint8 `(h, w, 3)` of any size."""

    seed: int | None = None
    start: int | None = None
    image: np.ndarray | None = None


@dataclass(frozen=True)
class View:
    """Show the dream, the game, or both side by side."""

    view: str


@dataclass(frozen=True)
class Pause:
    """Stop or go on."""

    paused: bool


@dataclass(frozen=True)
class Step:
    """Make one frame and pause."""


@dataclass(frozen=True)
class Steps:
    """Denoising steps per frame from now on."""

    steps: int


@dataclass(frozen=True)
class Pace:
    """Run at the world's own rate, or as fast as it can."""

    unlocked: bool


@dataclass(frozen=True)
class Record:
    """Begin or end a film."""

    on: bool


@dataclass(frozen=True)
class Replay:
    """Walk a saved walk, or take over from it."""

    walk: Walk | None


Command = Reset | View | Pause | Step | Steps | Pace | Record | Replay
Message = Input | Ack | Ping | Command


def parse(text: str) -> Message:
    """One message from a page; UserError with one clear sentence when it is not understood."""
    if len(text) > MAX_MESSAGE:
        raise UserError(f"that message is too long: at most {MAX_MESSAGE // 2**20} MB are read")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("that message is not valid JSON") from None
    if not isinstance(content, dict) or not isinstance(content.get("type"), str):
        raise UserError('a message is a JSON object with a "type"')
    reader = _READERS.get(content["type"])
    if reader is None:
        raise UserError(f"unknown message type '{content['type']:.40}': known are {', '.join(_READERS)}")
    return reader(content)


def _number(content: dict[str, Any], key: str, bound: float = MAX_DISTANCE) -> float:
    value = content.get(key, 0.0)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not -bound <= value <= bound or not math.isfinite(value):
        raise UserError(f"{key:.40} must be a finite number, got {value!r:.40}")
    return float(value)


def read_whole(
    content: dict[str, Any], key: str, high: int, default: int | None = None, *, low: int = 0
) -> int:
    """A whole number from `low` to `high` of a message; UserError for anything else."""
    value = content.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{key:.40} must be a whole number from {low} to {high}, got {value!r:.40}")
    return value


def _flag(content: dict[str, Any], key: str) -> bool:
    value = content.get(key)
    if not isinstance(value, bool):
        raise UserError(f"{key} must be true or false, got {value!r:.40}")
    return value


def _input(content: dict[str, Any]) -> Input:
    held = content.get("held", [])
    if not isinstance(held, list) or len(held) > MAX_NAMES or not all(isinstance(name, str) for name in held):
        raise UserError(f"held must be a list of at most {MAX_NAMES} button names")
    pressed, moved, turning = (_by_name(content, key) for key in ("pressed", "moved", "turning"))
    return Input(
        seq=read_whole(content, "seq", 2**32 - 1, 0),
        held=tuple(held),
        pressed={name: read_whole(pressed, name, 1000) for name in pressed},
        moved={name: _number(moved, name) for name in moved},
        turning={name: _number(turning, name) for name in turning},
    )


def _by_name(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict) or len(value) > MAX_NAMES:
        raise UserError(f"{key} must be an object of at most {MAX_NAMES} names and numbers")
    return value


def _reset(content: dict[str, Any]) -> Reset:
    seed = None if content.get("seed") is None else read_whole(content, "seed", MAX_SEED)
    start = None if content.get("start") is None else read_whole(content, "start", 10_000)
    image = None if content.get("image") is None else read_picture(content["image"])
    return Reset(seed, start, image)


def read_picture(value: Any) -> np.ndarray:
    """uint8 `(h, w, 3)` of base64 text, perhaps a data URL; UserError for anything else."""
    if not isinstance(value, str):
        raise UserError("image must be the base64 text of a PNG, JPEG or WebP picture")
    try:
        data = base64.b64decode(value.rpartition(",")[2], validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            if max(picture.size) > 2048:
                raise UserError("that picture is too large: at most 2048 pixels a side")
            return np.asarray(picture.convert("RGB"))
    except (binascii.Error, OSError, SyntaxError, EOFError, *_BOMBS):
        raise UserError("that picture cannot be read: send a PNG, JPEG or WebP") from None


def _view(content: dict[str, Any]) -> View:
    if content.get("view") not in VIEWS:
        raise UserError(f"view must be one of {', '.join(VIEWS)}")
    return View(content["view"])


def _replay(content: dict[str, Any]) -> Replay:
    walk = content.get("walk")
    return Replay(None if walk is None else parse_walk(walk))


_READERS: dict[str, Callable[[dict[str, Any]], Message]] = {
    "input": _input,
    "ack": lambda content: Ack(read_whole(content, "serial", 2**32 - 1)),
    "ping": lambda content: Ping(_number(content, "t", 1e15)),
    "reset": _reset,
    "view": _view,
    "pause": lambda content: Pause(_flag(content, "paused")),
    "step": lambda content: Step(),
    "steps": lambda content: Steps(read_whole(content, "steps", MOST_STEPS, low=1)),
    "pace": lambda content: Pace(_flag(content, "unlocked")),
    "record": lambda content: Record(_flag(content, "on")),
    "replay": _replay,
}
