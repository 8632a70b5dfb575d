"""Walk files: who walked where, exactly enough to walk it again.

A walk is a seed, a start and one action vector per step. With the same weights it gives the same frames, so
it is the small file that people share instead of a film, and what `dreamwalk sample <system> --actions
walk.json` reads:

    {"format": "dreamwalk.walk/1", "system": "nextframe.doom", "seed": 7, "start": {"start": 3}, "steps": 4,
     "fps": 11.67, "buttons": ["forward", ...], "axes": ["yaw", "pitch"], "actions": [[1, 0, 0, 0, 0, 0.25,
     0], ...]}

`actions` are in the form of `ActionSchema.pack`: buttons 0 or 1, axes in [-1, 1] (divided by their limits). A
start from a picture is `{"image": {"height": h, "width": w, "rgb": base64 of zlib of the bytes}}`, without
loss. This module needs no torch.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamwalk.data.tables import read_text
from dreamwalk.errors import UserError
from dreamwalk.validation import MOST_STEPS, parse_json

if TYPE_CHECKING:
    from dreamwalk.world import ActionSchema

FORMAT = "dreamwalk.walk/1"
KEYS = ("format", "system", "seed", "start", "steps", "fps", "buttons", "axes", "actions")
MAX_ACTIONS = 100_000
"""The longest walk that is read, in steps: more than two hours at 12 frames a second."""
MAX_SIDE = 4096
"""The tallest and widest start picture, in pixels."""


@dataclass(frozen=True)
class Walk:
    """One walk from its reset onwards; `actions[i]` leads into frame `i + 1`, frame 0 is what the reset
    shows."""

    system: str
    """Name of what was walked in, such as `nextframe.doom`; a note, not checked."""
    seed: int
    buttons: tuple[str, ...]
    axes: tuple[str, ...]
    actions: np.ndarray
    """float32 `(t, len(buttons) + len(axes))`."""
    start: dict[str, Any] = field(default_factory=dict)
    """The options given to `World.reset`; an `image` in it is uint8 `(h, w, 3)`."""
    steps: int = 0
    """Denoising steps per frame; 0 where there is no such thing."""
    fps: float = 10.0

    def __len__(self) -> int:
        """Steps walked."""
        return len(self.actions)

    def check(self, schema: ActionSchema) -> None:
        """Raise UserError unless the walk's buttons and axes are those of `schema`, in order."""
        theirs, ours = self.buttons + self.axes, schema.buttons + schema.axes
        if theirs != ours:
            raise UserError(
                f"this walk's actions are {', '.join(theirs) or 'none'} and this world knows "
                f"{', '.join(ours)}: replay it where it was recorded ({self.system})"
            )


def check_steps(steps: int) -> None:
    """UserError unless one can denoise in so many steps."""
    if not isinstance(steps, Integral) or not 1 <= steps <= MOST_STEPS:
        raise UserError(f"steps must be a whole number from 1 to {MOST_STEPS}, got {steps!r:.40}")


def write_walk(path: str | Path, walk: Walk) -> None:
    """Write a walk as JSON; reading it back gives an equal walk."""
    Path(path).write_text(dump_walk(walk), encoding="utf-8")


def read_walk(path: str | Path) -> Walk:
    """Read a walk file. UserError with one sentence when it is missing or is not a walk."""
    if not Path(path).is_file():
        raise UserError(f"there is no walk file at {path}")
    text = read_text(Path(path))
    try:
        return parse_walk(text)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from None


def dump_walk(walk: Walk) -> str:
    """The JSON text of a walk, with every float in the fewest digits that give the same float32 back."""
    start = {name: _dump_option(value) for name, value in walk.start.items()}
    content = {
        "format": FORMAT,
        "system": walk.system,
        "seed": walk.seed,
        "start": start,
        "steps": walk.steps,
        "fps": walk.fps,
        "buttons": list(walk.buttons),
        "axes": list(walk.axes),
    }
    head = json.dumps(content, indent=1, allow_nan=False)
    rows = ",\n  ".join(json.dumps([_short(value) for value in row]) for row in walk.actions)
    return f'{head[:-2]},\n "actions": [\n  {rows}\n ]\n}}\n'


def parse_walk(source: str | dict[str, Any]) -> Walk:
    """A walk from JSON text, or from what JSON gave; UserError with one sentence when it is not one."""
    content = parse_json(source, "the walk file") if isinstance(source, str) else source
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f'this is not a walk file: it lacks "format": "{FORMAT}"')
    if unknown := [key for key in content if key not in KEYS]:
        raise UserError(f"the walk file has an unknown key '{unknown[0]:.40}': known are {', '.join(KEYS)}")
    buttons, axes = _names(content, "buttons"), _names(content, "axes")
    if len(set(buttons + axes)) != len(buttons + axes):
        raise UserError("the walk file names a button or an axis twice")
    start = content.get("start", {})
    if not isinstance(start, dict):
        raise UserError("the walk file's start must be an object of options")
    system = content.get("system", "")
    if not isinstance(system, str):
        raise UserError("the walk file's system must be a text")
    return Walk(
        system=system,
        seed=_whole(content, "seed", 0, 2**63 - 1),
        start={name: _parse_option(name, value) for name, value in start.items()},
        steps=_whole(content, "steps", 0, MOST_STEPS),
        fps=_rate(content.get("fps")),
        buttons=buttons,
        axes=axes,
        actions=_actions(content.get("actions"), buttons, axes),
    )


def _short(value: np.float32) -> float | int:
    number = float(str(np.float32(value)))
    return int(number) if number.is_integer() else number


def _dump_option(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
        raise UserError(f"a start picture is uint8 (h, w, 3), got {value.dtype} {value.shape}")
    rgb = base64.b64encode(zlib.compress(np.ascontiguousarray(value).tobytes(), 9)).decode("ascii")
    return {"height": value.shape[0], "width": value.shape[1], "rgb": rgb}


def _parse_option(name: str, value: Any) -> Any:
    """An option of `World.reset`; those that no world here knows are a game's own and stay as they are."""
    if name == "image":
        return _parse_image(value)
    if name == "start":
        return _whole({"start": value}, "start", 0, 2**31 - 1)
    if name == "pose" and not _numbers(value, 3):
        raise UserError(f"the walk file's pose must be x, y and heading, three numbers, got {value!r:.40}")
    if name == "world_from_camera" and not (
        isinstance(value, list) and len(value) == 4 and all(_numbers(row, 4) for row in value)
    ):
        raise UserError(f"the walk file's world_from_camera must be 4x4 numbers, got {value!r:.40}")
    return value


def _numbers(value: Any, count: int) -> bool:
    """Whether this is a list of so many numbers, neither infinite nor too large for float32."""
    return isinstance(value, list) and len(value) == count and all(_is_number(v, 1e30) for v in value)


def _parse_image(value: Any) -> np.ndarray:
    if not isinstance(value, dict) or not isinstance(value.get("rgb"), str):
        raise UserError("the walk file's start picture needs height, width and rgb")
    height, width = _whole(value, "height", 1, MAX_SIDE), _whole(value, "width", 1, MAX_SIDE)
    size = height * width * 3
    unpack = zlib.decompressobj()
    try:
        raw = unpack.decompress(base64.b64decode(value["rgb"], validate=True), size + 1)
    except (binascii.Error, zlib.error, ValueError):
        raise UserError("the walk file's start picture cannot be unpacked") from None
    if len(raw) != size:
        raise UserError(f"the walk file's start picture does not have {height} x {width} pixels")
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3).copy()


def _names(content: dict[str, Any], key: str) -> tuple[str, ...]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(f"the walk file's {key} must be a list of names")
    return tuple(value)


def _whole(content: dict[str, Any], key: str, low: int, high: int) -> int:
    value = content.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(
            f"the walk file's {key} must be a whole number from {low} to {high}, got {value!r:.40}"
        )
    return value


def _rate(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1000:
        raise UserError(f"the walk file's fps must be a number from 0 to 1000, got {value!r:.40}")
    return float(value)


def _actions(value: Any, buttons: tuple[str, ...], axes: tuple[str, ...]) -> np.ndarray:
    size = len(buttons) + len(axes)
    if not isinstance(value, list) or len(value) > MAX_ACTIONS:
        raise UserError(f"the walk file's actions must be a list of at most {MAX_ACTIONS} vectors")
    for index, row in enumerate(value):
        if not isinstance(row, list) or len(row) != size or not all(_is_number(number, 1) for number in row):
            raise UserError(f"action {index} of the walk file must be {size} numbers from -1 to 1")
    actions = np.asarray(value, np.float32).reshape(-1, size)
    wrong = np.flatnonzero(~np.isin(actions[:, : len(buttons)], (0.0, 1.0)).all(axis=1))
    if wrong.size:
        raise UserError(f"action {wrong[0]} of the walk file has a button that is neither 0 nor 1")
    return actions


def _is_number(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most
