"""Replay of a walk in a world, and films of its frames."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from dreamwalk.data.h264 import VideoWriter
from dreamwalk.data.walks import Walk
from dreamwalk.errors import UserError, writing
from dreamwalk.world import World


def replay(world: World, walk: Walk) -> Iterator[np.ndarray]:
    """The frames uint8 `(h, w, 3)` of a walk, one more than its actions; the same wherever it is replayed."""
    walk.check(world.actions)
    if walk.steps and hasattr(world, "steps"):
        world.steps = walk.steps
    yield world.reset(seed=walk.seed, options=walk.start)[0]
    for vector in walk.actions:
        yield world.step(world.actions.unpack(vector))[0]


def check_film(path: Path) -> None:
    """UserError unless a film can be written at `path`; worth asking before a long dream."""
    if path.suffix != ".mp4":
        raise UserError(f"the video is written as .mp4: name it '{path.with_suffix('.mp4')}'")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder '{path.parent}' to write the video into: make it first")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"'{path}' cannot be written: choose another place for the video")


def write_film(path: Path, frames: Iterable[np.ndarray], *, fps: float) -> int:
    """uint8 frames `(h, w, 3)`, as they come, as an .mp4 that every player shows; gives their number.

    UserError where it cannot be written, or the disk is full; then none is left.
    """
    check_film(path)
    writer, count = None, 0
    try:
        for frame in frames:
            with writing(path):
                writer = writer or VideoWriter(path, size=frame.shape[:2], fps=fps, options={"crf": "16"})
                writer.add(frame)
            count += 1
        if writer is not None:
            with writing(path):
                writer.finish()
    except BaseException:
        if writer is not None:
            with suppress(OSError):
                writer.close()
            if path.is_file():
                path.unlink()
        raise
    return count
