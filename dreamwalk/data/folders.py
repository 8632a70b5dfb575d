"""Folders of videos and pictures with a text beside each, in a few sizes that share the work.

    mine/
      first.mp4    first.txt     any video, and what is to be seen
      second.png   second.txt    a picture is a video of one frame

Videos come in all shapes and a batch has one, so there are buckets: sizes of about as many pixels each, from
tall to wide. A file goes to the bucket of the most frames that it can fill, and of those to the one of the
nearest shape; it is scaled to cover it and cut about its middle (or as `fit` says), and a long video becomes
several clips, end to end. `report` says what went where, and what was left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.data.decoding import VIDEOS, check_fps, grouped, map_files, probe, read_frames
from dreamwalk.data.tables import read_text
from dreamwalk.errors import UserError
from dreamwalk.images import Fit, fit_image, read_picture

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SHAPES = (9 / 16, 3 / 4, 1.0, 4 / 3, 16 / 9)
"""Height by width."""


class Bucket(NamedTuple):
    """The size of all clips of a batch."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


def buckets(
    size: tuple[int, int], *, frames: int, multiple: int = 16, shapes: Sequence[float] = SHAPES
) -> tuple[Bucket, ...]:
    """Buckets of about as many pixels as `size` (h, w), with sides that are multiples of `multiple`.

    For pictures too, or for clips of several lengths, add the buckets of each number of frames.
    """
    area = size[0] * size[1]
    sides = [math.sqrt(area * shape) for shape in shapes]
    rounded = [(_near(side, multiple), _near(area / side, multiple)) for side in sides]
    return tuple(Bucket(frames, height, width) for height, width in dict.fromkeys(rounded))


class Piece(NamedTuple):
    """One clip to be: part `number` of a file."""

    file: str
    """Relative to the folder."""
    number: int
    caption: str
    bucket: Bucket
    picks: tuple[int, ...]
    """The frames of the file that it has."""
    fps: float
    """0 for a picture."""


@dataclass(frozen=True)
class CaptionedFolder:
    """The clips of a folder, bucket by bucket; `open_captioned` makes it."""

    path: Path
    pieces: tuple[Piece, ...]
    left_out: tuple[tuple[str, str], ...]
    """Files and why."""
    notes: tuple[tuple[str, str], ...]
    """Files with a note on each."""
    enlarged: tuple[str, ...]
    """Files that are smaller than their bucket."""
    fit: Fit
    unused: int
    """Frames at the ends of videos that do not fill a clip."""

    def report(self) -> str:
        """What went where, in a few lines."""
        counts = Counter(piece.bucket for piece in self.pieces)
        lines = [f"{bucket}: {n} clips" for bucket, n in counts.items()]
        lines += [f"left out: {line}" for line in grouped(self.left_out)]
        lines += [f"note: {line}" for line in grouped(self.notes)]
        lines += [f"not used: {self.unused} frames at the ends of videos"] if self.unused else []
        lines += [f"enlarged: {len(self.enlarged)} files"] if self.enlarged else []
        return "\n".join(lines)

    def clips(self, pieces: Sequence[Piece]) -> Iterator[Clip]:
        """The clips of these pieces; those of one file, next to one another and in order, are read in one go.

        UserError for a file that has fewer frames than when it was looked at.
        """
        for file, group in groupby(pieces, lambda piece: piece.file):
            path = self.path / file
            for piece, video in _cut(path, list(group), self.fit):
                yield Clip(video=video, actions=np.zeros((len(video), 0), np.float32), caption=piece.caption)


def open_captioned(
    path: str | Path, sizes: Sequence[Bucket], *, fps: float | None = None, fit: Fit = "cut"
) -> CaptionedFolder:
    """Find the videos and pictures in a folder, and in those inside it, that have a text beside them.

    Of faster videos `fps` frames a second are chosen by their time (default: all are kept). What has no text,
    is too short for every bucket or cannot be read is left out. UserError when nothing remains.
    """
    check_fps(fps)
    folder, sizes = Path(path), tuple(sizes)
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in VIDEOS + PICTURES)
    looks: list[_Look | UserError] = map_files(partial(_look, folder=folder, sizes=sizes, fps=fps), found)
    wrong = [(file, look) for file, look in zip(found, looks, strict=True) if isinstance(look, UserError)]
    left_out = [(_named(file, folder), str(why).removeprefix(f"'{file}' ")) for file, why in wrong]
    taken = [look for look in looks if isinstance(look, _Look)]
    pieces = [piece for look in taken for piece in look.pieces]
    pieces.sort(key=lambda piece: (sizes.index(piece.bucket), piece.file, piece.number))
    notes = tuple((look.file, note) for look in taken for note in look.notes)
    small = tuple(look.file for look in taken if look.small)
    unused = sum(look.unused for look in taken)
    source = CaptionedFolder(folder, tuple(pieces), tuple(left_out), notes, small, fit, unused)
    if not pieces:
        said = source.report().replace("\n", "; ") or f"none of {', '.join(VIDEOS + PICTURES)} is there"
        raise UserError(f"nothing in '{folder}' can be used ({said}): put clip.mp4 and clip.txt there")
    return source


class _Look(NamedTuple):
    """What is made of a file."""

    file: str
    pieces: list[Piece]
    small: bool
    """Whether it is smaller than its bucket."""
    unused: int
    notes: list[str]


def _named(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _look(file: Path, *, folder: Path, sizes: tuple[Bucket, ...], fps: float | None) -> _Look | UserError:
    """The clips of a file, or why there are none."""
    try:
        text = file.with_suffix(".txt")
        if not text.exists():
            raise UserError("no text beside it")
        caption, name = read_text(text).strip(), _named(file, folder)
        if file.suffix.lower() in PICTURES:
            height, width = read_picture(file).shape[:2]
            picks, rate, notes = [0], 0.0, []
        else:
            facts = probe(file)
            (height, width), rate = facts.size, min(fps or facts.rate, facts.rate)
            picks = facts.picks(rate).tolist()
            notes = [facts.damage] if facts.damage else []
            notes += [] if facts.steady else ["a variable frame rate, made even by time"]
        bucket = _bucket(sizes, len(picks), height / width, moving=bool(rate))
    except (UserError, OSError) as why:
        return UserError(str(why))
    most = bucket.frames
    cuts = [tuple(picks[start : start + most]) for start in range(0, len(picks) - most + 1, most)]
    made = [Piece(name, k, caption, bucket, cut, rate) for k, cut in enumerate(cuts)]
    return _Look(name, made, height < bucket.height or width < bucket.width, len(picks) % most, notes)


def _bucket(sizes: tuple[Bucket, ...], frames: int, shape: float, *, moving: bool) -> Bucket:
    """The bucket of the most frames, and of those of the nearest shape; UserError when there is none."""
    fitting = [size for size in sizes if (size.frames > 1) == moving and size.frames <= frames]
    if not fitting:
        still = "a picture, and no bucket of one frame"
        raise UserError("shorter than every bucket of videos" if moving else still)
    return min(fitting, key=lambda size: (-size.frames, abs(math.log(shape * size.width / size.height))))


def _near(side: float, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple


def _cut(path: Path, pieces: list[Piece], how: Fit) -> Iterator[tuple[Piece, np.ndarray]]:
    """Each piece of one file with its frames uint8 `(t, h, w, 3)`."""
    size = pieces[0].bucket[1:]
    if path.suffix.lower() in PICTURES:
        yield pieces[0], np.stack([fit_image(read_picture(path), size, how)])
        return
    reading = read_frames(path, [pick for piece in pieces for pick in piece.picks], size=size, how=how)
    for piece in pieces:
        kept = list(islice(reading, len(piece.picks)))
        if len(kept) < len(piece.picks):
            raise UserError(f"'{path}' has changed: run the same command again")
        yield piece, np.stack(kept)
