"""Recordings: an H.264 film, and the walk file that reproduces its frames."""

from __future__ import annotations

import re
import secrets
from collections import deque
from pathlib import Path
from threading import Lock

import numpy as np

from dreamwalk.data.h264 import VideoWriter
from dreamwalk.data.walks import Walk, write_walk
from dreamwalk.images import fit_image
from dreamwalk.temporary import TemporaryFolder

MAX_SECONDS = 600.0
MIN_HEIGHT = 480
"""Films of smaller frames are enlarged by a whole factor to at least this many pixels."""


class Film:
    """An mp4 that is being written. Frames are uint8 `(h, w, 3)`; several are put side by side."""

    def __init__(self, path: Path, *, fps: float, pictures: list[np.ndarray]) -> None:
        """Open the file; its size is fixed by the first pictures, which are not written yet."""
        self.path, self.fps, self.frames = path, fps, 0
        height, width = _beside(pictures).shape[:2]
        factor = max(1, -(-MIN_HEIGHT // height))
        self._size = height * factor // 2 * 2, width * factor // 2 * 2
        fast = {"preset": "veryfast", "crf": "18"}
        self._writer = VideoWriter(path, size=self._size, fps=fps, options=fast)

    @property
    def full(self) -> bool:
        """Whether the film has reached its longest length."""
        return self.frames >= MAX_SECONDS * self.fps

    def add(self, pictures: list[np.ndarray]) -> None:
        """Append one frame."""
        self._writer.add(fit_image(_beside(pictures), self._size))
        self.frames += 1

    def finish(self) -> None:
        """Write what is left and close the file."""
        self._writer.finish()

    def drop(self) -> None:
        """Close the file and delete it."""
        self._writer.close()
        self.path.unlink(missing_ok=True)


class RecordingStore:
    """The newest recordings of one server, in a temporary folder. Safe to share between threads."""

    def __init__(self, keep: int = 64) -> None:
        self._made: TemporaryFolder | None = None
        self._kept: deque[str] = deque()
        self._keep = keep
        self._lock = Lock()

    def new(self, title: str, seed: int) -> Path:
        """A path for a new film, with a name that cannot be guessed."""
        name = re.sub(r"[^\w.-]+", "-", title).strip("-.") or "walk"
        return self._folder() / f"{name}-seed{seed}-{secrets.token_urlsafe(9)}.mp4"

    def put(self, film: Path, walk: Walk) -> tuple[str, str]:
        """Keep a finished film and its walk; returns the names of the two files. The oldest may go."""
        write_walk(film.with_suffix(".json"), walk)
        with self._lock:
            self._kept.append(film.stem)
            while len(self._kept) > self._keep:
                old = self._kept.popleft()
                for suffix in (".mp4", ".json"):
                    (film.parent / f"{old}{suffix}").unlink(missing_ok=True)
        return film.name, film.with_suffix(".json").name

    def find(self, name: str) -> Path | None:
        """The file of that name, if it is kept."""
        stem, _, suffix = name.rpartition(".")
        with self._lock:
            known = stem in self._kept and suffix in ("mp4", "json")
        path = self._folder() / name if known else None
        return path if path and path.is_file() else None

    def close(self) -> None:
        """Delete everything."""
        with self._lock:
            if self._made:
                self._made.cleanup()
                self._made = None

    def _folder(self) -> Path:
        with self._lock:
            if self._made is None:
                self._made = TemporaryFolder()
            return Path(self._made.name)


def _beside(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures side by side at the height of the first."""
    height = pictures[0].shape[0]
    widths = [max(1, round(picture.shape[1] * height / picture.shape[0])) for picture in pictures]
    pairs = zip(pictures, widths, strict=True)
    return np.hstack([fit_image(picture, (height, width), "stretch") for picture, width in pairs])
