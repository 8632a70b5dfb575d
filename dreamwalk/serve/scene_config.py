"""A generator of scenes along camera paths, and what the page of scenes has to know of it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
import numpy as np
from msgspec import Meta

from dreamwalk.camera_paths import CameraPath
from dreamwalk.serve.protocol import MAX_START, Picture, Seed
from dreamwalk.validation import Steps

MOST_POINTS = 300_000
"""Points that a page is sent at a time."""
SIZE_STEP = 8
"""Sizes of points are told in steps of so many an octave, 128 being one world unit."""


class WebSceneStart(msgspec.Struct, frozen=True):
    """What a scene begins with: a picture, one of the page's starts, or a level."""

    image: Picture | None = None
    start: Annotated[int, Meta(ge=0, le=MAX_START)] | None = None
    level: Seed | None = None
    instead: str = ""
    """Name of the scene that is ended for this one, when it has begun."""


class WebPathRequest(msgspec.Struct, frozen=True):
    """A path that a page asks for, from where the scene has come to."""

    path: str = ""
    """Moves, see `camera_moves`."""
    prompt: str = ""
    seed: Seed = 0
    steps: Steps | None = None
    """Denoising steps; None: as many as `Scenes.steps`."""


def point_paint(colours: np.ndarray, footprints: np.ndarray) -> np.ndarray:
    """Colours and sizes of points as a page takes them, uint8 `(n, 4)`; a size of 0 would be no point."""
    octaves = np.log2(np.maximum(footprints, 1e-9))
    sizes = np.clip(np.round(octaves * SIZE_STEP) + 128, 1, 255).astype(np.uint8)
    return np.column_stack([colours, sizes])


@dataclass(frozen=True, eq=False)
class ScenePoints:
    """Points of a scene, each axis in its own column."""

    position: np.ndarray
    """World coordinates, float32 `(n, 3)`."""
    colours: np.ndarray
    """uint8 `(n, 3)`."""
    footprints: np.ndarray
    """World size of the pixel that saw each, float32 `(n,)`."""
    frames: np.ndarray
    """Number of the frame that showed each, int `(n,)`."""

    def packed(self, since: int) -> bytes:
        """What frames from number `since` on have shown, `MOST_POINTS` at most, evenly: their number and that
        of the next frame as u32, positions as 3 f32, and 4 u8 each, three of colour and one of size."""
        which = np.flatnonzero(self.frames >= since)
        if len(which) > MOST_POINTS:
            which = which[np.linspace(0, len(which) - 1, MOST_POINTS).astype(np.int64)]
        following = int(self.frames.max(initial=-1)) + 1
        paint = point_paint(self.colours[which], self.footprints[which])
        head = struct.pack("<2I", len(which), following)
        return head + self.position[which].astype("<f4").tobytes() + paint.tobytes()


class GrowingScene(Protocol):
    """One scene. Called in threads: `plan` at any time, the others one at a time; what is read is replaced as
    a whole."""

    cameras: CameraPath
    """Of all frames so far, of which the first is that of the picture."""
    points: ScenePoints
    film: np.ndarray
    """The frames of the newest path with their depth beside them, uint8 `(t, h, w, 3)`."""

    def plan(self, path: str) -> CameraPath:
        """The cameras of moves from the last camera on, that one first; UserError for what makes no path."""
        ...

    def walk(self, request: WebPathRequest) -> Generator[tuple[int, int]]:
        """Dream along a path: before the first step and after each its number, and that of all. What clips
        are finished when it is closed stays."""
        ...

    def write(self, folder: Path) -> None:
        """Write the whole scene into a new folder."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


@dataclass(frozen=True)
class Scenes:
    """A generator of scenes, and what the page has to know of it."""

    open: Callable[[WebSceneStart], GrowingScene]
    """A new scene; called in a thread. UserError for a start that there is not."""
    size: tuple[int, int]
    """Height and width in pixels."""
    fps: float
    steps: int
    """Denoising steps unless asked for otherwise."""
    unit: float = 1.0
    """World units of a unit of paths."""
    levels: int | None = None
    """The largest number of a level that a scene may begin in; None where there are none."""
    longest: int | None = 192
    """Bytes of a prompt, at most; None where they are not what is counted."""
    check: Callable[[str], None] = lambda text: None
    """UserError for a text that cannot be read, or not all of it."""
