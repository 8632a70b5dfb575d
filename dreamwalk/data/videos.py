"""Your own recordings as clips: a folder of videos, each with a file of actions or a caption beside it.

    mine/
      schema.json          {"buttons": ["jump"], "axes": ["yaw"], "limits": [30]}; may be left out
      first.mp4            mp4, webm, mkv, avi or mov
      first.actions.csv    or .jsonl or .npy: one row per frame, row i is what was done to get to frame i
      first.txt            a caption; may be left out where there are actions

Without `schema.json` the columns of csv and jsonl files are inferred: those that are only ever 0 and 1 are
buttons, the others are axes whose limits are the largest values seen. Row 0 is not read, for nothing leads
into frame 0. A folder of captioned videos needs no actions at all.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.data.pictures import fit
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.world import ActionSchema

VIDEOS = (".mp4", ".webm", ".mkv", ".avi", ".mov")
ACTIONS = (".csv", ".jsonl", ".npy")
Rows = tuple[list[str], np.ndarray]
"""Column names (none for npy) and float32 values (frames, columns)."""


@dataclass(frozen=True)
class VideoFolder:
    """Videos as a source of clips, cut end to end; `open_folder` makes it.

    `stride` frames of a video are one frame here: buttons held in any of them are held, axes add up.
    """

    path: Path
    files: tuple[tuple[str, int], ...]
    """Each video's name and its frames, after the stride."""
    schema: ActionSchema
    stride: int
    fps: float
    size: tuple[int, int]
    clip_frames: int
    split: str

    def describe(self) -> dict[str, Any]:
        videos = {"split": self.split, "stride": self.stride, "videos": dict(self.files)}
        return {"world": "videos", "level": self.path.name, **videos}

    def __len__(self) -> int:
        """Whole clips in all the videos."""
        return sum(frames // self.clip_frames for _, frames in self.files)

    def clips(self, indices: range) -> Iterator[Clip]:
        places = [(name, k) for name, frames in self.files for k in range(frames // self.clip_frames)]
        for name, group in groupby([places[index] for index in indices], lambda place: place[0]):
            yield from self._cut(self.path / name, [number for _, number in group])

    def _cut(self, video: Path, numbers: list[int]) -> Iterator[Clip]:
        """Clips of one video, by their number in it, in order."""
        actions = _vectors(_read_rows(video), self.schema, self.stride, video)
        caption = video.with_suffix(".txt")
        words = caption.read_text().strip() if caption.exists() else ""
        frames = read_frames(video, stride=self.stride, size=self.size)
        position = 0
        for number in numbers:
            start, end = number * self.clip_frames, (number + 1) * self.clip_frames
            kept = []
            for frame in frames:
                position += 1
                if position > start:
                    kept.append(frame)
                if position == end:
                    break
            if len(kept) < self.clip_frames:
                rows = f"'{_actions_of(video)}' has rows" if self.schema.size else "it says"
                raise UserError(f"'{video}' has fewer frames than {rows}: record it again")
            yield Clip(video=np.stack(kept), actions=actions[start:end], caption=words)


def open_folder(
    path: str | Path,
    *,
    size: tuple[int, int] = (96, 128),
    fps: float | None = None,
    clip_frames: int = 64,
    split: str = "train",
) -> VideoFolder:
    """Read a folder of videos and actions; `fps` is what to thin the frames out to (default: all are kept).

    UserError when there are no videos, a video has no actions, or the actions do not fit together.
    """
    folder = Path(path)
    videos = sorted(file for file in folder.glob("*") if file.suffix.lower() in VIDEOS)
    if not videos:
        raise UserError(f"'{folder}' holds no videos ({', '.join(VIDEOS)}): give the folder that does")
    rates = {file.name: frame_rate(file) for file in videos}
    if max(rates.values()) > 1.01 * min(rates.values()):
        raise UserError(f"the videos in '{folder}' have different frame rates, {rates}: make them the same")
    rate = rates[videos[0].name]
    stride = max(1, round(rate / fps)) if fps else 1
    rows = {file: _read_rows(file) for file in videos}
    still = [file for file in videos if _actions_of(file) is None]
    if 0 < len(still) < len(videos):
        raise UserError(f"'{still[0]}' needs one file of actions beside it, as others in its folder have")
    schema = _schema(folder, list(rows.values()), stride)
    files = tuple((file.name, -(-len(values) // stride)) for file, (_, values) in rows.items())
    source = VideoFolder(folder, files, schema, stride, rate / stride, size, clip_frames, split)
    if len(source) == 0:
        raise UserError(f"no video in '{folder}' has {clip_frames} frames: choose a smaller clip_frames")
    return source


def collect_videos(
    path: str | Path,
    *,
    out: str | Path,
    size: tuple[int, int] = (96, 128),
    fps: float | None = None,
    clip_frames: int = 64,
    split: str = "train",
    workers: int = 1,
) -> Path:
    """Cut a folder of videos with actions into clips, written into the folder `out`, which is returned."""
    source = open_folder(path, size=size, fps=fps, clip_frames=clip_frames, split=split)
    return write_clips(source, len(source), out, workers=workers)


def frame_rate(video: Path) -> float:
    """Frames per second; UserError for a file that is no video."""
    try:
        with av.open(str(video)) as container:
            return float(container.streams.video[0].average_rate or 0) or 30.0
    except (av.FFmpegError, IndexError) as error:
        raise UserError(f"'{video}' cannot be read as a video ({error}): remove or convert it") from error


def frame_size(video: Path) -> tuple[int, int]:
    """Height and width of a video's frames; UserError for a file that is no video."""
    frame_rate(video)
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        return stream.height, stream.width


def count_frames(video: Path) -> int:
    """Frames of a video, by what it says, or, where it says nothing, by reading it through."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        return stream.frames or sum(1 for packet in container.demux(stream) if packet.size)


def read_frames(video: Path, *, stride: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Every `stride`-th frame of a video, uint8 `(h, w, 3)`, made to fit `size`."""
    with av.open(str(video)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % stride == 0:
                yield fit(frame.to_ndarray(format="rgb24"), size)


def _actions_of(video: Path) -> Path | None:
    """The actions file beside a video; None where there is a caption instead."""
    candidates = [video.with_name(f"{video.stem}.actions{ending}") for ending in ACTIONS]
    found = [file for file in candidates if file.exists()]
    if not found and video.with_suffix(".txt").exists():
        return None
    if len(found) != 1:
        names = ", ".join(file.name for file in candidates)
        raise UserError(
            f"'{video}' needs one file of actions beside it, named one of {names}; found {len(found)}"
        )
    return found[0]


def _read_rows(video: Path) -> Rows:
    """The actions of a video as they were written."""
    file = _actions_of(video)
    if file is None:
        return [], np.zeros((count_frames(video), 0), np.float32)
    try:
        if file.suffix == ".npy":
            return [], np.load(file, allow_pickle=False).astype(np.float32)
        with open(file, newline="") as text:
            if file.suffix == ".csv":
                table = list(csv.DictReader(text))
            else:
                table = [json.loads(line) for line in text if line.strip()]
        names = list(dict.fromkeys(name for row in table for name in row))
        return names, np.array([[float(row.get(name) or 0) for name in names] for row in table], np.float32)
    except (ValueError, TypeError, AttributeError) as error:
        expected = "one row per frame, a number for each button and axis"
        raise UserError(f"'{file}' cannot be read ({error}): it should be {expected}") from error


def _schema(folder: Path, rows: list[Rows], stride: int) -> ActionSchema:
    """What `schema.json` says, or what the columns look like; limits are per frame that is kept."""
    if all(values.shape[1:] == (0,) for _, values in rows):
        return ActionSchema(())
    file = folder / "schema.json"
    if file.exists():
        written = json.loads(file.read_text())
        limits = tuple(float(limit) * stride for limit in written.get("limits", ()))
        return ActionSchema(tuple(written.get("buttons", ())), tuple(written.get("axes", ())), limits)
    if any(not names for names, _ in rows):
        raise UserError(f"'{folder}' has actions in .npy: a schema.json must say which column is what")
    columns: dict[str, list[np.ndarray]] = {}
    for names, values in rows:
        for k, name in enumerate(names):
            columns.setdefault(name, []).append(values[:, k])
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    buttons = tuple(name for name, values in joined.items() if np.isin(values, (0, 1)).all())
    axes = tuple(name for name in joined if name not in buttons)
    return ActionSchema(buttons, axes, tuple(float(abs(joined[name]).max()) * stride for name in axes))


def _vectors(rows: Rows, schema: ActionSchema, stride: int, video: Path) -> np.ndarray:
    """Rows as action vectors (frames, a), one per frame that is kept; the first is zeros."""
    names, values = rows
    wanted = [*schema.buttons, *schema.axes]
    if not names and values.shape[1:] != (len(wanted),):
        raise UserError(
            f"'{_actions_of(video)}' has shape {values.shape}, schema.json names {len(wanted)} columns"
        )
    order = [names.index(name) if name in names else -1 for name in wanted] if names else range(len(wanted))
    table = np.concatenate([values, np.zeros((len(values), 1), np.float32)], axis=1)[:, list(order)]
    count = len(schema.buttons)
    vectors = np.zeros((-(-len(table) // stride), len(wanted)), np.float32)
    for k in range(1, len(vectors)):
        merged = table[(k - 1) * stride + 1 : k * stride + 1]
        vectors[k, :count] = merged[:, :count].max(0) > 0.5
        vectors[k, count:] = np.clip(merged[:, count:].sum(0) / np.asarray(schema.limits, np.float32), -1, 1)
    return vectors
