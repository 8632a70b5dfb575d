"""What the page and the server say to each other over one WebSocket (`/walk?start=K&seed=N`).

From the page, JSON text with a `type`:

    input   seq, held [button names], pressed {button: presses, each for one frame}, moved {axis: distance
            since the last message: it adds up and is drained once per frame}, turning {axis: distance per
            frame for as long as it is held}; names are those of hello, axes are in their own units
    ack     serial of the newest frame that the page has decoded
    ping    t, which comes back in a pong
    reset   seed?, start? (index in the gallery), image? (base64 of a PNG, JPEG or WebP to dream from); where
            seeds make levels, one without the others begins there
    view    "dream" | "game" | "both"
    pause   paused
    step    one frame, and pause
    steps   steps (denoising steps per frame)
    pace    unlocked
    record  on
    memory  recalling (whether the dream is told what it has shown)
    map     shown (whether maps are wanted)
    strip   shown (whether it is wanted what is recalled)
    cloud   shown (whether the points that the dream keeps are wanted)
    replay  walk (what a walk file holds, see dreamwalk.data.walks), or null to take over

From the server, JSON text: `hello` (what this world is), `queue` (position), `status` (the whole state, on
change), `recorded` (links), `pong`, `error` (one sentence); for a page that wants them, both of one frame and
two and a half times a second at most,

    map     what the dream knows from above: png in base64, left, top, scale, and of a bank of frames places
            ([x, y, heading] of frames that were kept) and recalled (those of the frames of the strip)
    strip   what is recalled for the newest frame: frame (its number), recalled (for each slot null or jpeg in
            base64, age in frames, covers: the share of the view that it adds, dreamed), kept (frames in the
            bank), budget (or null)

and in binary frames, laid out in `dreamwalk.serve.frames`, and for a page that wants them, as often as maps,
what has changed of the points that the dream keeps, laid out in `dreamwalk.serve.cloud_stream`.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct
from PIL import Image

from dreamwalk.data.walks import WalkFile
from dreamwalk.errors import UserError
from dreamwalk.validation import Steps, decode_json

MAX_MESSAGE = 4 * 2**20
"""The longest message from a page, in bytes: room for a long walk or a picture."""
MAX_SEED = 2**31 - 1
MAX_START = 10_000
Serial = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED)]
Distance = Annotated[float, Meta(ge=-1e5, le=1e5)]
Presses = Annotated[int, Meta(ge=0, le=1000)]
FEW = Meta(max_length=256)
"""So many buttons or axes in one message, at most."""
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class Picture(np.ndarray):
    """uint8 `(h, w, 3)` of any size, which came as the base64 text of a PNG, JPEG or WebP."""

    @staticmethod
    def from_json(value: Any) -> Picture:
        """Decode what a message holds; UserError for anything else than such a text, perhaps a data URL."""
        if not isinstance(value, str):
            raise UserError("image must be the base64 text of a PNG, JPEG or WebP picture")
        try:
            data = base64.b64decode(value.rpartition(",")[2].encode(), validate=True)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
                if max(picture.size) > 2048:
                    raise UserError("that picture is too large: at most 2048 pixels a side")
                return np.asarray(picture.convert("RGB")).view(Picture)
        except (binascii.Error, OSError, SyntaxError, EOFError, *_BOMBS):
            raise UserError("that picture cannot be read: send a PNG, JPEG or WebP") from None


class Input(Struct, frozen=True, tag_field="type", tag="input"):
    """What is held and how far the mouse went; the newest state wins, distances add up."""

    seq: Serial = 0
    held: Annotated[tuple[str, ...], FEW] = ()
    pressed: Annotated[dict[str, Presses], FEW] = {}
    """Presses per button since the last message, each for one frame."""
    moved: Annotated[dict[str, Distance], FEW] = {}
    """Distance per axis since the last message, in the axis' units."""
    turning: Annotated[dict[str, Distance], FEW] = {}
    """Distance per frame and axis for as long as it is held."""


class Ack(Struct, frozen=True, tag_field="type", tag="ack"):
    """The page has decoded this frame."""

    serial: Serial


class Ping(Struct, frozen=True, tag_field="type", tag="ping"):
    """To be sent back at once."""

    t: Annotated[float, Meta(ge=-1e15, le=1e15)] = 0.0


class Reset(Struct, frozen=True, tag_field="type", tag="reset"):
    """Begin again; None keeps what is."""

    seed: Seed | None = None
    start: Annotated[int, Meta(ge=0, le=MAX_START)] | None = None
    image: Picture | None = None


class View(Struct, frozen=True, tag_field="type", tag="view"):
    """Show the dream, the game, or both side by side."""

    view: Literal["dream", "game", "both"]


class Pause(Struct, frozen=True, tag_field="type", tag="pause"):
    """Stop or go on."""

    paused: bool


class OneFrame(Struct, frozen=True, tag_field="type", tag="step"):
    """Make one frame and pause."""


class SetSteps(Struct, frozen=True, tag_field="type", tag="steps"):
    """Denoising steps per frame from now on."""

    steps: Steps


class Pace(Struct, frozen=True, tag_field="type", tag="pace"):
    """Run at the world's own rate, or as fast as it can."""

    unlocked: bool


class Record(Struct, frozen=True, tag_field="type", tag="record"):
    """Begin or end a film."""

    on: bool


class SetMemory(Struct, frozen=True, tag_field="type", tag="memory"):
    """Tell the dream what it has shown, or do not."""

    recalling: bool


class ShowMap(Struct, frozen=True, tag_field="type", tag="map"):
    """Send maps of what the dream knows, or do not."""

    shown: bool


class ShowStrip(Struct, frozen=True, tag_field="type", tag="strip"):
    """Send what a bank of frames recalls, or do not."""

    shown: bool


class ShowCloud(Struct, frozen=True, tag_field="type", tag="cloud"):
    """Send the points that the dream keeps, or do not."""

    shown: bool


class Replay(Struct, frozen=True, tag_field="type", tag="replay"):
    """Walk a saved walk, or take over from it."""

    walk: WalkFile | None = None


Shown = ShowMap | ShowStrip | ShowCloud
Command = Reset | View | Pause | OneFrame | SetSteps | Pace | SetMemory | Shown | Record | Replay
Message = Input | Ack | Ping | Command


def parse(text: str) -> Message:
    """One message from a page; UserError with one clear sentence when it is not understood."""
    if len(text) > MAX_MESSAGE:
        raise UserError(f"that message is too long: at most {MAX_MESSAGE // 2**20} MB are read")
    return decode_json(Message, text, "that message")
