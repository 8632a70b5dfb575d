"""Frame messages: one or two JPEGs behind a small binary header, little-endian.

0   u8   version, 2                 16  f32  model ms: making this frame, all stages
1   u8   pictures, 1 or 2           20  f32  encode ms
2   u8   view: 0 dream 1 game 2 both  24  f32  period ms: since the frame before
3   u8   flags: 1 recording,        28  u32  bytes of the note
         2 replaying, 4 paused
4   u32  serial, to acknowledge     32  u32  bytes of picture 1 (JPEG)
8   u32  frame: steps since reset   36  u32  bytes of picture 2, or 0
12  u32  seq: newest input used     40  note (JSON: stages {name: ms}, held [names], axes
                                            [...], pose [...]), pictures
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

VERSION = 2
VIEWS = ("dream", "game", "both")
RECORDING, REPLAYING, PAUSED = 1, 2, 4
QUALITY = 92
"""JPEG at this quality without chroma subsampling takes 0.1 ms at 160 x 120, WebP seven times as long."""
THUMBNAIL = 160
"""Pixels of the longer side of a thumbnail, at most."""
HEADER = struct.Struct("<4B3I3f3I")
"""The first 40 bytes, as the table above has them."""


@dataclass(frozen=True)
class FrameNote:
    """What goes with a frame besides its pictures; units as in the module's table."""

    serial: int
    frame: int
    view: str
    seq: int = 0
    flags: int = 0
    model_ms: float = 0.0
    encode_ms: float = 0.0
    period_ms: float = 0.0
    held: tuple[str, ...] = ()
    """Names of buttons."""
    stages: dict[str, float] = field(default_factory=dict)
    axes: tuple[float, ...] = ()
    pose: tuple[float, ...] = ()
    """The upper three rows of `world_from_camera` of who walks in a dream with a memory; empty elsewhere."""


def encode_picture(frame: np.ndarray) -> bytes:
    """JPEG of a uint8 `(h, w, 3)` frame."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def encode_thumbnail(frame: np.ndarray) -> bytes:
    """Small JPEG of a uint8 `(h, w, 3)` frame, at most `THUMBNAIL` wide and high."""
    image, buffer = Image.fromarray(frame), io.BytesIO()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def encode_map(picture: np.ndarray) -> bytes:
    """PNG of a uint8 `(h, w, 4)` map; fast rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def pack_frame(note: FrameNote, pictures: list[bytes]) -> bytes:
    """One binary frame message of one or two JPEGs."""
    assert 1 <= len(pictures) <= 2, "a frame has one or two pictures"
    stages = {name: round(float(ms), 2) for name, ms in note.stages.items()}
    axes = [round(float(a), 3) for a in note.axes]
    pose = [round(float(p), 4) for p in note.pose]
    text = json.dumps({"stages": stages, "held": note.held, "axes": axes, "pose": pose}).encode()
    lengths = [len(picture) for picture in pictures] + [0]
    header = HEADER.pack(
        *(VERSION, len(pictures), VIEWS.index(note.view), note.flags, note.serial, note.frame, note.seq),
        *(note.model_ms, note.encode_ms, note.period_ms, len(text), lengths[0], lengths[1]),
    )
    return b"".join([header, text, *pictures])
