"""Your own recordings as clips: a folder of videos, each with a file of actions or a caption beside it.

    mine/
      schema.json          {"buttons": ["jump"], "axes": ["yaw"], "limits": [30]}; may be left out
      first.mp4            or any other video: `decoding.VIDEOS`
      first.actions.csv    or .tsv, .jsonl, .npy: one row per frame, row i is what was done to get to frame i
      first.txt            a caption; may be left out where there are actions
      first.npz            or a walk as WorldMem publishes them, with poses: `minedojo`

Without `schema.json` the columns of csv and jsonl files are inferred: those that are only ever 0 and 1 are
buttons, the others are axes whose limits are the largest values seen. Row 0 is not read, for nothing leads
into frame 0. A folder of captioned videos needs no actions at all. VPT's recordings are taken as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dreamwalk.cameras import intrinsics_matrix
from dreamwalk.clip import Clip
from dreamwalk.data import decoding
from dreamwalk.data.decoding import SAME_RATE, VIDEOS, VideoFacts, grouped, map_files, probe, read_frames
from dreamwalk.data.tables import Table, read_schema, read_table, read_text
from dreamwalk.data.vpt import draw_pointer
from dreamwalk.errors import UserError
from dreamwalk.images import Fit, fit_intrinsics
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.levels import Split

ACTIONS = (".csv", ".tsv", ".jsonl", ".npy", ".npz")
FileNotes = list[tuple[str, str]]
"""File names with a note on each."""


class Contents(NamedTuple):
    """The usable videos of a folder, and notes on the rest."""

    files: dict[str, np.ndarray]
    """For each video the frame of it that is shown at each tick of `rate`, int32 `(ticks,)`."""
    shapes: dict[str, tuple[int, int]]
    """Height and width of each."""
    schema: ActionSchema
    rate: float
    left_out: FileNotes
    notes: FileNotes


@dataclass(frozen=True)
class VideoFolder:
    """Cut your own videos, with files of actions beside them, into clips.

    Clips lie end to end. Where several frames of a video become one, buttons held in any of them are held,
    and axes add up.
    """

    folder: Path
    """Folder with the videos; docs/data.md says what the files of actions look like."""
    fps: float | None = None
    """Choose so many frames a second, by their time; all are kept if left out."""
    split: Split = "train"
    clip_frames: int = 64
    size: tuple[int, int] = (96, 128)
    """Height and width of the frames."""
    fit: Fit = "letterbox"
    """What becomes of frames of another shape: whole between bars, stretched, or cut about the middle."""

    def __post_init__(self) -> None:
        decoding.check_fps(self.fps)
        if self.clip_frames < 1 or min(self.size) < 1:
            given = f"{self.clip_frames} of {self.size}"
            raise UserError(f"clips have 1 frame and frames 1 pixel at least, got {given}")

    @cached_property
    def contents(self) -> Contents:
        """The videos and their actions, read once. UserError when nothing can be used, or `fps` is needed."""
        folder, file = self.folder, self.folder / "schema.json"
        written = read_schema(file) if file.exists() else None
        found, left_out = _usable(folder, written, self.fps)
        rate = self.fps or _one_rate(folder, found)
        # limits are those of a row, and so many rows are added up to one action
        rows = math.ceil(max(look.facts.rate for look in found) / rate * (1 - SAME_RATE))
        schema, notes = _schema(found, written, f"'{file}'")
        limits = tuple(limit * rows for limit in schema.limits)
        ranges = tuple((low * rows, high * rows) for low, high in schema.ranges)
        schema = replace(schema, limits=limits, ranges=ranges)
        notes += [(look.file.name, note) for look in found for note in look.notes]
        every = {look.file.name: look.facts.picks(rate).astype(np.int32) for look in found}
        files = {look.file.name: every[look.file.name][every[look.file.name] >= look.first] for look in found}
        shapes = {look.file.name: look.facts.size for look in found}
        if max(map(len, files.values())) < self.clip_frames:
            mend = "choose a smaller clip_frames (--clip-frames)"
            raise UserError(f"no video in '{folder}' has {self.clip_frames} frames: {mend}")
        return Contents(files, shapes, schema, rate, left_out, notes)

    @property
    def schema(self) -> ActionSchema:
        return self.contents.schema

    @property
    def rate(self) -> float:
        return self.contents.rate

    def describe(self) -> dict[str, Any]:
        videos = {name: len(picks) for name, picks in self.contents.files.items()}
        place = {"world": "videos", "level": self.folder.name, "split": self.split}
        return {**place, "fit": self.fit, "videos": videos}

    def report(self) -> str:
        """What is taken, and what is left out and why, in a few lines."""
        lengths, schema = [len(picks) for picks in self.contents.files.values()], self.schema
        axes = [f"{name} (up to {limit:g})" for name, limit in zip(schema.axes, schema.limits, strict=True)]
        lines = [f"{len(lengths)} videos, {sum(lengths)} frames at {self.rate:g} a second: {len(self)} clips"]
        if schema.size:
            lines += [f"buttons: {', '.join(schema.buttons) or 'none'}; axes: {', '.join(axes) or 'none'}"]
        lines += [f"left out: {line}" for line in grouped(self.contents.left_out)]
        lines += [f"note: {line}" for line in grouped(self.contents.notes)]
        rests = [length % self.clip_frames for length in lengths if length % self.clip_frames]
        if rests:
            ends = f"{sum(rests)} frames at the end of {len(rests)} videos"
            lines += [f"not used: {ends} do not fill a clip of {self.clip_frames}"]
        return "\n".join(lines)

    def __len__(self) -> int:
        """Whole clips in all the videos."""
        return sum(len(picks) // self.clip_frames for picks in self.contents.files.values())

    def clips(self, indices: range) -> Iterator[Clip]:
        files, length = self.contents.files, self.clip_frames
        places = [(name, k) for name, picks in files.items() for k in range(len(picks) // length)]
        for name, group in groupby([places[index] for index in indices], lambda place: place[0]):
            yield from self._cut(self.folder / name, files[name], [number for _, number in group])

    def _cut(self, video: Path, picks: np.ndarray, numbers: list[int]) -> Iterator[Clip]:
        """Clips of one video, by their number in it, in order."""
        table, caption = _table_of(video) if self.schema.size else None, _caption(video)
        spans = [slice(n * self.clip_frames, (n + 1) * self.clip_frames) for n in numbers]
        wanted = np.concatenate([picks[span] for span in spans])
        frames = read_frames(video, wanted.tolist(), size=self.size, how=self.fit, draw=_drawing(table))
        for span in spans:
            kept = list(islice(frames, self.clip_frames))
            if len(kept) < self.clip_frames or (table and len(table.values) <= picks[span][-1]):
                raise UserError(f"'{video}' or its actions have changed: run the same command again")
            actions = np.zeros((len(kept), 0), np.float32)
            if table:
                actions = _vectors(table, self.schema, picks, span)
            clip = Clip(video=np.stack(kept), actions=actions, caption=caption)
            yield (
                clip
                if table is None or table.cameras is None
                else self._posed(clip, table, picks[span], video)
            )

    def _posed(self, clip: Clip, table: Table, picks: np.ndarray, video: Path) -> Clip:
        """A clip with its cameras."""
        height, width = shape = self.contents.shapes[video.name]
        focal = height / 2 / math.tan(math.radians(table.field_of_view / 2))
        whole = intrinsics_matrix(focal, focal, cx=width / 2, cy=height / 2)
        intrinsics = np.stack([fit_intrinsics(whole, shape, self.size, self.fit)] * len(picks))
        assert table.cameras is not None
        return replace(clip, world_from_camera=table.cameras[picks], intrinsics=intrinsics)


def _drawing(table: Table | None) -> Callable[[np.ndarray, int], np.ndarray]:
    """What the pictures of a video lack."""
    pointers = None if table is None else table.pointers
    if pointers is None:
        return lambda picture, number: picture
    return lambda picture, number: draw_pointer(picture, pointers[number])


@dataclass(frozen=True, eq=False)
class _Look:
    """A video that can be used, as it was found."""

    file: Path
    facts: VideoFacts
    acted: bool
    """Whether it has actions."""
    columns: dict[str, tuple[bool, float]]
    """For each named column of them whether it is only ever 0 and 1, and the largest value."""
    schema: ActionSchema | None
    """Where the layout of the actions says it."""
    notes: tuple[str, ...]
    first: int = 0
    """The first frame that is worth using."""


def _usable(folder: Path, schema: ActionSchema | None, fps: float | None) -> tuple[list[_Look], FileNotes]:
    """The videos that can be used, and what cannot; UserError when nothing can."""
    files = sorted(file for file in folder.glob("*") if file.is_file() and not file.name.startswith("."))
    videos = [file for file in files if file.suffix.lower() in VIDEOS]
    beside = (*VIDEOS, *ACTIONS, ".txt", ".json")
    unknown = "no video by its name: convert it to mp4 if it is one"
    left_out = [(file.name, unknown) for file in files if file.suffix.lower() not in beside]
    found: list[_Look] = []
    looks: list[_Look | UserError] = map_files(partial(_look, schema=schema), videos)
    acted = any(isinstance(look, _Look) and look.acted for look in looks)
    for video, look in zip(videos, looks, strict=True):
        if isinstance(look, UserError):
            left_out.append((video.name, str(look).removeprefix(f"'{video}' ")))
        elif acted and not look.acted:
            left_out.append((video.name, _no_actions(video)))
        elif fps and look.facts.rate < fps * (1 - SAME_RATE):
            slow = f"{look.facts.rate:g} frames a second are fewer than --fps {fps:g}: choose a lower one"
            left_out.append((video.name, slow))
        else:
            found.append(look)
    if not videos:
        raise UserError(f"'{folder}' holds no videos ({', '.join(VIDEOS)}): give the folder that does")
    if not found:
        raise UserError(f"nothing in '{folder}' can be used: {'; '.join(grouped(left_out))}")
    return found, left_out


def _look(video: Path, *, schema: ActionSchema | None) -> _Look | UserError:
    """A video with what lies beside it, or why it cannot be used."""
    try:
        files = _actions_of(video)
        if len(files) > 1 or not (files or video.with_suffix(".txt").exists()):
            raise UserError(_no_actions(video))
        table = _table_of(video) if files else None
        if table and not table.names:
            _check_array(files[0], table, schema)
        _caption(video)
        facts, notes = _aligned(files[0], table, probe(video)) if table else (probe(video), [])
    except (UserError, OSError) as why:
        return UserError(str(why))
    notes += [facts.damage] if facts.damage else []
    notes += [] if facts.steady else ["a variable frame rate, made even by time"]
    if table is None:
        return _Look(video, facts, False, {}, None, tuple(notes))
    binary, peaks = np.all(np.isin(table.values, (0, 1)), axis=0), abs(table.values).max(0)
    columns = dict(zip(table.names, zip(binary.tolist(), peaks.tolist(), strict=True), strict=False))
    return _Look(video, facts, True, columns, table.schema, (*notes, *table.notes), table.first)


def _check_array(file: Path, table: Table, schema: ActionSchema | None) -> None:
    if schema is None:
        raise UserError(f"'{file.name}' has no names: schema.json must say which column is what")
    if table.values.shape[1] != schema.size:
        have = f"'{file.name}' has {table.values.shape[1]} columns"
        raise UserError(f"{have}, schema.json names {schema.size}: make them equal")


def _aligned(file: Path, table: Table, facts: VideoFacts) -> tuple[VideoFacts, list[str]]:
    """Frames that have a row; UserError where it is not known which. VPT's recordings end a few rows or
    frames early or late, and damaged videos have rows left."""
    rows, frames = len(table.values), len(facts.times)
    if rows == frames:
        return facts, []
    if table.schema or (facts.damage and rows > frames):
        about = f"{rows} rows of actions and {frames} frames: the first {min(rows, frames)} are used"
        return replace(facts, times=facts.times[:rows]), [about]
    mend = "write one row per frame, row i for what led into frame i"
    raise UserError(f"'{file.name}' has {rows} rows and the video {frames} frames: {mend}")


def _actions_of(video: Path) -> list[Path]:
    """The files of actions beside a video."""
    names = [video.stem + middle + ending for middle in (".actions", "") for ending in ACTIONS]
    return [video.with_name(name) for name in names if video.with_name(name).exists()]


def _no_actions(video: Path) -> str:
    found = ", ".join(file.name for file in _actions_of(video)) or "none"
    names = ", ".join(f"NAME.actions{ending}" for ending in ACTIONS)
    return f"it needs one file of actions beside it ({names}), found {found}"


def _table_of(video: Path) -> Table:
    file = _actions_of(video)[0]
    return _read_once(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_once(file: Path, changed: int) -> Table:
    """The shards of a worker come from the same video again and again."""
    return read_table(file)


def _caption(video: Path) -> str:
    file = video.with_suffix(".txt")
    return read_text(file).strip() if file.exists() else ""


def _one_rate(folder: Path, found: list[_Look]) -> float:
    """The frame rate that all videos share."""
    rates = {look.facts.rate: look.file.name for look in reversed(found)}
    if max(rates) > (1 + SAME_RATE) * min(rates):
        some = ", ".join(f"{name} {rate:g}" for rate, name in sorted(rates.items())[:4])
        mend = f"choose one for all, such as --fps {min(rates):g}"
        raise UserError(f"the videos in '{folder}' have different frame rates ({some}): {mend}")
    return found[0].facts.rate


def _schema(found: list[_Look], written: ActionSchema | None, file: str) -> tuple[ActionSchema, FileNotes]:
    """What schema.json says, or what the columns look like, limits per row; and what is to be told of it."""
    acted, notes = [look for look in found if look.acted], FileNotes()
    if not acted:
        return ActionSchema(()), []
    schema = written
    if schema is None and all(look.schema for look in acted):
        schema = acted[0].schema
    if schema is None:
        every = dict.fromkeys(name for look in acted for name in look.columns)
        seen = {name: [look.columns[name] for look in acted if name in look.columns] for name in every}
        buttons = tuple(name for name, columns in seen.items() if all(binary for binary, _ in columns))
        axes = tuple(name for name in seen if name not in buttons)
        schema = ActionSchema(buttons, axes, tuple(max(peak for _, peak in seen[name]) for name in axes))
    names = schema.buttons + schema.axes
    for look in acted:
        missing = [name for name in names if look.columns and name not in look.columns]
        if len(missing) == len(names):
            have = ", ".join(look.columns)
            raise UserError(f"{file} names {', '.join(names)}, the actions of '{look.file.name}' {have}")
        unused = [name for name in look.columns if name not in names]
        about = [f"its actions have no {', '.join(missing)}, which is 0 then"] * bool(missing)
        about += [f"not named in schema.json and not used: {', '.join(unused)}"] * bool(unused)
        notes += [(look.file.name, note) for note in about]
    return schema, notes


def _vectors(table: Table, schema: ActionSchema, picks: np.ndarray, span: slice) -> np.ndarray:
    """Action vectors (ticks, a) of some ticks, each of all rows since the tick before; the first is zeros."""
    names, count = [*schema.buttons, *schema.axes], len(schema.buttons)
    limits = np.asarray(schema.limits, np.float32)
    known = [k for k, name in enumerate(names) if not table.names or name in table.names]
    columns = [table.names.index(names[k]) for k in known] if table.names else known
    vectors = np.zeros((span.stop - span.start, len(names)), np.float32)
    for k, tick in enumerate(range(span.start, span.stop)):
        rows = range(picks[tick - 1] + 1, picks[tick] + 1) if tick else range(0)
        if rows:  # where nothing new was shown, nothing was done
            merged = np.zeros((len(rows), len(names)), np.float32)
            merged[:, known] = table.values[rows.start : rows.stop, columns]
            vectors[k, :count] = merged[:, :count].max(0) > 0.5
            vectors[k, count:] = np.clip(merged[:, count:].sum(0) / limits, -1, 1)
    return vectors
