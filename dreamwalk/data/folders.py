"""Folders of videos and pictures with a text beside each, in a few sizes that share the work.

    mine/
      first.mp4    first.txt     mp4, webm, mkv, avi or mov, and what is to be seen
      second.png   second.txt    a picture is a video of one frame

Videos come in all shapes and a batch has one, so there are buckets: sizes of about as many pixels each, from
tall to wide. A file goes to the bucket of the most frames that it can fill, and of those to the one of the
nearest shape; it is scaled to cover it and cut about its middle, and a long video becomes several clips, end
to end. `report` says what went where, and what was left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.data.pictures import fit, read_picture
from dreamwalk.data.videos import VIDEOS, count_frames, frame_rate, read_frames
from dreamwalk.errors import UserError

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
    """One clip to be: part `number` of a file, at `stride` frames of it for one."""

    file: str
    """Relative to the folder."""
    number: int
    caption: str
    bucket: Bucket
    stride: int
    fps: float
    """0 for a picture."""


@dataclass(frozen=True)
class CaptionedFolder:
    """The clips of a folder, bucket by bucket; `open_captioned` makes it."""

    path: Path
    pieces: tuple[Piece, ...]
    left_out: tuple[tuple[str, str], ...]
    """Files and why."""
    enlarged: tuple[str, ...]
    """Files that are smaller than their bucket."""

    def report(self) -> str:
        """What went where, in a few lines."""
        counts = Counter(piece.bucket for piece in self.pieces)
        lines = [f"{bucket}: {n} clips" for bucket, n in counts.items()]
        lines += [
            f"left out, {why}: {n} files" for why, n in Counter(why for _, why in self.left_out).items()
        ]
        lines += [f"enlarged: {len(self.enlarged)} files"] if self.enlarged else []
        return "\n".join(lines)

    def clips(self, pieces: Sequence[Piece]) -> Iterator[Clip]:
        """The clips of these pieces; those of one file, next to one another and in order, are read in one go.

        UserError for a file that cannot be read, or has fewer frames than it says.
        """
        for file, group in groupby(pieces, lambda piece: piece.file):
            path = self.path / file
            try:
                for piece, video in _cut(path, list(group)):
                    actions = np.zeros((len(video), 0), np.float32)
                    yield Clip(video=video, actions=actions, caption=piece.caption)
            except (av.FFmpegError, OSError) as error:
                raise UserError(f"'{path}' is damaged ({error}): convert it, or take it away") from error


def open_captioned(path: str | Path, sizes: Sequence[Bucket], *, fps: float | None = None) -> CaptionedFolder:
    """Find the videos and pictures in a folder, and in those inside it, that have a text beside them.

    Frames of a video are thinned out to about `fps` (default: all are kept). What has no text, is too short
    for every bucket or is damaged is left out. UserError when nothing remains.
    """
    folder, sizes = Path(path), tuple(sizes)
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in VIDEOS + PICTURES)
    pieces: list[Piece] = []
    left_out: list[tuple[str, str]] = []
    enlarged = []
    for file in found:
        name = file.relative_to(folder).as_posix()
        try:
            made, small = _pieces(file, name, sizes, fps)
        except UserError as why:
            left_out.append((name, str(why)))
            continue
        pieces += made
        enlarged += [name] if small else []
    pieces.sort(key=lambda piece: (sizes.index(piece.bucket), piece.file, piece.number))
    source = CaptionedFolder(folder, tuple(pieces), tuple(left_out), tuple(enlarged))
    if not pieces:
        said = source.report().replace("\n", "; ") or f"none of {', '.join(VIDEOS + PICTURES)} is there"
        raise UserError(f"nothing in '{folder}' can be used ({said}): put clip.mp4 and clip.txt there")
    return source


def _pieces(file: Path, name: str, sizes: tuple[Bucket, ...], fps: float | None) -> tuple[list[Piece], bool]:
    """The clips of a file, and whether it is smaller than they are; UserError says why there are none."""
    words = file.with_suffix(".txt")
    if not words.exists():
        raise UserError("no text beside it")
    frames, height, width, rate = _measure(file)
    stride = max(1, round(rate / fps)) if fps and rate else 1
    frames = -(-frames // stride)
    fitting = [size for size in sizes if (size.frames > 1) == bool(rate) and size.frames <= frames]
    if not fitting:
        raise UserError(
            "shorter than every bucket of videos" if rate else "a picture, and no bucket of one frame"
        )
    most = max(size.frames for size in fitting)
    bucket = min(
        (size for size in fitting if size.frames == most),
        key=lambda size: abs(math.log(height * size.width / (width * size.height))),
    )
    caption = words.read_text().strip()
    made = [Piece(name, k, caption, bucket, stride, rate / stride) for k in range(frames // most)]
    return made, height < bucket.height or width < bucket.width


def _near(side: float, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple


def _measure(file: Path) -> tuple[int, int, int, float]:
    """Frames, height, width and frames per second of a file."""
    try:
        if file.suffix.lower() in PICTURES:
            return 1, *read_picture(file).shape[:2], 0.0
        rate = frame_rate(file)
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            return count_frames(file), stream.height, stream.width, rate
    except (OSError, UserError, av.FFmpegError):
        raise UserError("damaged") from None


def _cut(path: Path, pieces: list[Piece]) -> Iterator[tuple[Piece, np.ndarray]]:
    """Each piece of one file with its frames uint8 `(t, h, w, 3)`."""
    frames, size = pieces[0].bucket.frames, pieces[0].bucket[1:]
    if path.suffix.lower() in PICTURES:
        yield pieces[0], np.stack([fit(read_picture(path), size)])
        return
    reading, at = read_frames(path, stride=pieces[0].stride, size=size), 0
    for piece in pieces:
        kept = []
        for frame in reading:
            at += 1
            if at > piece.number * frames:
                kept.append(frame)
            if len(kept) == frames:
                break
        if len(kept) < frames:
            raise UserError(f"'{path}' has fewer frames than it says: convert it, or take it away")
        yield piece, np.stack(kept)
