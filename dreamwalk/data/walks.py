"""Walk files: who walked where, exactly enough to walk it again.

A walk is a seed, a start and one action vector per step. With the same weights it gives the same frames, so
it is the small file that people share instead of a film, and what `dreamwalk sample <system> --actions
walk.json` reads:

    {"format": "dreamwalk.walk/1", "system": "nextframe.doom", "seed": 7, "start": {"start": 3}, "steps": 4,
     "fps": 11.67, "buttons": ["forward", ...], "axes": ["yaw", "pitch"], "actions": [[1, 0, 0, 0, 0, 0.25,
     0], ...]}

`actions` are in the form of `ActionSchema.pack`: buttons 0 or 1, axes in [-1, 1] (divided by their limits). A
start from a picture is `{"image": {"height": h, "width": w, "rgb": base64 of zlib of the bytes}}`, without
loss, and its `depth` is packed alike, as `float32`. This module needs no torch.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from dreamwalk.data.tables import read_text
from dreamwalk.errors import UserError
from dreamwalk.validation import MOST_STEPS, Signed, conform, decode_json, required, shorten
from dreamwalk.world import ActionSchema

FORMAT = "dreamwalk.walk/1"
MAX_ACTIONS = 100_000
"""The longest walk that is read, in steps: more than two hours at 12 frames a second."""
Pixels = Annotated[int, Meta(ge=1, le=4096)]
"""Height or width of a start picture."""
Row = tuple[Signed, Signed, Signed, Signed]
Three = tuple[Signed, Signed, Signed]
OPTIONS: dict[str, Any] = {"start": (Annotated[int, Meta(ge=0, le=2**31 - 1)], "a whole number from 0 up")}
OPTIONS |= {"pose": (Three, "x, y and heading, three numbers")}
OPTIONS |= {"level": (Annotated[int, Meta(ge=0, le=2**31 - 1)], "a whole number from 0 up")}
OPTIONS |= {"intrinsics": (tuple[Three, Three, Three], "3x3 numbers")}
OPTIONS |= {"world_from_camera": (tuple[Row, Row, Row, Row], "4x4 numbers")}
"""Options of `World.reset` that are checked; others are a game's own and stay as they are."""
PACKED: dict[str, tuple[str, np.dtype, tuple[int, ...]]] = {
    "image": ("rgb", np.dtype(np.uint8), (3,)),
    "depth": ("float32", np.dtype("<f4"), ()),
}
"""Options that are arrays: their field in a file, type, and shape after height and width."""
Vector = tuple[Annotated[float, Meta(ge=-1, le=1)], ...]
Vectors = Annotated[tuple[Vector, ...], Meta(max_length=MAX_ACTIONS)]
Passes = Annotated[int, Meta(ge=0, le=MOST_STEPS)]
FramesPerSecond = Annotated[float, Meta(ge=1e-9, le=1000)]
Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Walk(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One walk from its reset onwards: `actions[i]` leads into frame `i + 1`, frame 0 is that of the reset.

    UserError when its fields do not go together.
    """

    system: str = ""
    """Name of what was walked in, such as `nextframe.doom`; a note, not checked."""
    seed: Whole
    buttons: tuple[str, ...]
    axes: tuple[str, ...]
    actions: np.ndarray
    """float32 `(t, len(buttons) + len(axes))`."""
    start: dict[str, Any] = {}
    """The options given to `World.reset`; an `image` in it is uint8 `(h, w, 3)`, its `depth` float32;
    `around` are more of them, with their cameras."""
    steps: Passes = 0
    """Denoising steps per frame; 0 where there is no such thing."""
    fps: FramesPerSecond = 10.0

    def __post_init__(self) -> None:
        names = self.buttons + self.axes
        if not len(self.actions):
            msgspec.structs.force_setattr(self, "actions", np.zeros((0, len(names)), np.float32))
        if len(set(names)) < len(names):
            raise UserError("the walk names a button or an axis twice")
        size = self.actions.shape[1]
        if size != len(names):
            raise UserError(f"action 0 must be {len(names)} numbers from -1 to 1, got {size}")
        wrong = np.flatnonzero(~np.isin(self.actions[:, : len(self.buttons)], (0.0, 1.0)).all(axis=1))
        if wrong.size:
            raise UserError(f"action {wrong[0]} has a button that is neither 0 nor 1")
        start, around = _checked(self.start), self.start.get("around")
        if around is not None:
            if not isinstance(around, list) or not all(isinstance(view, dict) for view in around):
                raise UserError(
                    f"around must be a list of pictures with their cameras, got {shorten(around)}"
                )
            start |= {"around": [_checked(view) for view in around]}
        msgspec.structs.force_setattr(self, "start", start)

    def __len__(self) -> int:
        """Steps walked."""
        return len(self.actions)

    def check(self, schema: ActionSchema) -> None:
        """Raise UserError unless the walk's buttons and axes are those of `schema`, in order."""
        theirs, ours = self.buttons + self.axes, schema.buttons + schema.axes
        if theirs != ours:
            known = f"{', '.join(theirs) or 'none'} and this world knows {', '.join(ours)}"
            mend = f"replay it where it was recorded ({self.system})"
            raise UserError(f"this walk's actions are {known}: {mend}")


class Actions(np.ndarray):
    """float32 `(t, a)`, which came as lists of numbers from -1 to 1."""

    @staticmethod
    def from_json(value: Any) -> np.ndarray:
        """Decode what a walk file holds; UserError names the action that is not as it should be."""
        try:
            vectors = msgspec.convert(value, Vectors)
        except msgspec.ValidationError as error:
            if row := re.search(r"\$\[(\d+)\]", str(error)):  # for all of a long walk it would take seconds
                conform(Vector, value[int(row[1])], f"actions[{row[1]}]")
            conform(Vectors, value, "actions")
            raise
        size = len(vectors[0]) if vectors else 0
        if wrong := [index for index, vector in enumerate(vectors) if len(vector) != size]:
            raise UserError(f"action {wrong[0]} has not {size} numbers as those before it")
        return np.asarray(vectors, np.float32).view(Actions)


class WalkFile(Walk, frozen=True, kw_only=True, eq=False, forbid_unknown_fields=True):
    """A walk as its file holds it: all but the name and the start must be there."""

    format: Literal["dreamwalk.walk/1"]
    actions: Actions
    steps: Passes
    fps: FramesPerSecond


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
    content = {"format": FORMAT, "system": walk.system, "seed": walk.seed, "start": walk.start}
    content |= {"steps": walk.steps, "fps": walk.fps, "buttons": walk.buttons, "axes": walk.axes}
    head = json.dumps(content, indent=1, allow_nan=False, default=_pack)
    rows = ",\n  ".join(json.dumps([_short(value) for value in row]) for row in walk.actions)
    return f'{head[:-2]},\n "actions": [\n  {rows}\n ]\n}}\n'


def parse_walk(text: str | bytes) -> Walk:
    """A walk from JSON text; UserError with one sentence when it is not one."""
    return decode_json(WalkFile, text, "the walk file", of="the walk file's ")


def _checked(start: dict[str, Any]) -> dict[str, Any]:
    """The options of a reset, or of a picture around it, with arrays unpacked; UserError for wrong ones."""
    for name in OPTIONS.keys() & start:
        kind, what = OPTIONS[name]
        try:
            conform(kind, start[name], name)
        except UserError:
            raise UserError(f"{name} must be {what}, got {shorten(start[name])}") from None
    packed = [name for name in PACKED if not isinstance(start.get(name, np.zeros(0)), np.ndarray)]
    return start | {name: _unpack(start[name], name) for name in packed}


def _short(value: np.float32) -> float | int:
    number = float(str(np.float32(value)))
    return int(number) if number.is_integer() else number


def _pack(array: Any) -> dict[str, Any]:
    """A picture or its depth, without loss."""
    kind = getattr(array, "dtype", type(array)), getattr(array, "shape", ())[2:]
    name = next((name for name, (_, *of) in PACKED.items() if kind == (of[0], of[1])), None)
    if name is None:
        raise UserError(f"a start picture is uint8 (h, w, 3) and its depth float32 (h, w), got {kind[0]}")
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode("ascii")
    return {"height": array.shape[0], "width": array.shape[1], PACKED[name][0]: data}


def _unpack(value: Any, name: str) -> np.ndarray:
    field, kind, rest = PACKED[name]
    what = "the walk's start picture" if name == "image" else "the depth of the walk's start picture"
    height, width, data = required({"height": Pixels, "width": Pixels, field: str}, value, what).values()
    size = height * width * kind.itemsize * math.prod(rest)
    try:
        raw = zlib.decompressobj().decompress(base64.b64decode(data, validate=True), size + 1)
    except (binascii.Error, zlib.error, ValueError):
        raise UserError(f"{what} cannot be unpacked") from None
    if len(raw) != size:
        raise UserError(f"{what} does not have {height} x {width} pixels")
    return np.frombuffer(raw, kind).reshape(height, width, *rest).copy()
