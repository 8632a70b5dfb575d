"""Writing folders of clips: many processes, killed and resumed at will, always the same bytes.

A shard is written under a hidden name and then renamed, so a file that has its name is whole; whatever is
missing is made again by the same command, because clip `i` is a pure function of its source and of `i`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import Array, c_byte, c_longlong
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from dreamwalk.clip import Clip
from dreamwalk.data import shards
from dreamwalk.data.shards import FORMAT, MANIFEST, VERSION, ClipEntry
from dreamwalk.errors import TOO_FULL, UserError, atomic, writing
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.levels import SPLITS, Split

CLIPS_PER_SHARD = 32
Show = Callable[[int], None]


class Source(Protocol):
    """Where clips come from. It travels to other processes, so it is small and picklable."""

    @property
    def clip_frames(self) -> int: ...
    @property
    def rate(self) -> float:
        """Frames per second."""

    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def schema(self) -> ActionSchema: ...

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it; two sources with one description make the same clips."""

    def clips(self, indices: range) -> Iterator[Clip]:
        """The clips of these indices, in order, each a pure function of its index."""


@dataclass(frozen=True, kw_only=True)
class Walks:
    """What sources of walks in a world share: clip `i` is a pure function of the fields and of `i`."""

    split: Split = "train"
    frames: int = 40_000
    seed: int = 0
    clip_frames: int = 64
    size: tuple[int, int] = (96, 128)
    """Height and width of the frames."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(f"unknown split '{self.split}': known are {', '.join(SPLITS)}")
        if self.frames < 1 or self.clip_frames < 2:
            given = f"frames={self.frames}, clip_frames={self.clip_frames}"
            raise UserError(f"there is at least 1 of frames, and a clip has at least 2 frames, got {given}")

    def __len__(self) -> int:
        """Clips with at least `frames` frames in all."""
        return -(-self.frames // self.clip_frames)

    def random(self, *numbers: int) -> np.random.Generator:
        """The source of chance of a clip."""
        return np.random.default_rng((self.seed, SPLITS.index(self.split), *numbers))


def write_clips(source: Source, clips: int, out: str | Path, *, workers: int = 1) -> Path:
    """Write clips `0 .. clips` of a source into the folder `out`, or what is missing of them; returns it.

    UserError when `out` holds clips of something else, or when the disk is full.
    """
    folder = Path(out)
    if workers < 1:
        raise UserError(f"workers are at least 1, got workers={workers}")
    header = _header(source)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    finished = _finished(folder, header, clips)
    _write_manifest(folder, header, finished)
    numbers = range(-(-clips // CLIPS_PER_SHARD))
    todo = [(k, _clips_of(k, clips)) for k in numbers if k not in finished]
    done = sum(len(entries) for entries in finished.values())
    with _progress(clips * source.clip_frames, done * source.clip_frames) as show:
        try:
            for number, entries in _run(source, folder, todo, workers, show):
                finished[number] = entries
                _write_manifest(folder, header, finished)
        except BrokenProcessPool as error:
            mend = "run the same command again, with fewer workers if memory is short"
            raise UserError(f"a worker process died, '{folder}' is valid so far: {mend}") from error
        except OSError as error:
            if error.errno not in TOO_FULL:
                raise
            written = sum(len(entries) for entries in finished.values())
            state = f"is full ({written} of {clips} clips are written and stay valid)"
            mend = "free some space and run the same command again"
            raise UserError(f"the disk of '{folder}' {state}: {mend}") from error
    return folder


def _clips_of(number: int, clips: int) -> range:
    return range(number * CLIPS_PER_SHARD, min((number + 1) * CLIPS_PER_SHARD, clips))


def _header(source: Source) -> dict[str, Any]:
    header = {"format": FORMAT, "version": VERSION, **source.describe()}
    header |= {"schema": asdict(source.schema), "fps": source.rate, "size": source.size}
    header |= {"clip_frames": source.clip_frames, "depth_scale": shards.DEPTH_SCALE}
    return json.loads(json.dumps(header))


def _finished(folder: Path, header: dict[str, Any], clips: int) -> dict[int, list[ClipEntry]]:
    """The shards that are there already, with their clips; half-written files are removed."""
    entries: dict[int, list[ClipEntry]] = {}
    known: dict[str, list[ClipEntry]] = {}
    if (folder / MANIFEST).exists():
        manifest, fields = shards.read_manifest(folder)
        known = {shard.file: list(shard.clips) for shard in fields["shards"]}
        del manifest["shards"]
        if manifest != header:
            other = ", ".join(key for key, value in header.items() if manifest.get(key) != value)
            raise UserError(f"'{folder}' holds clips of another {other}: choose another folder")
    for leftover in folder.glob(".*.partial"):
        leftover.unlink()
    for number in range(-(-clips // CLIPS_PER_SHARD)):
        file = folder / _name(number)
        if not file.exists():
            continue
        found = known.get(file.name) or shards.index_shard(file)
        whole = all(file.stat().st_size >= entry.offset + entry.size for entry in found)
        if whole and len(found) == len(_clips_of(number, clips)):
            entries[number] = found
    return entries


def _name(number: int) -> str:
    return f"{number:06d}.tar"


def _write_manifest(folder: Path, header: dict[str, Any], finished: dict[int, list[ClipEntry]]) -> None:
    listed = [{"file": _name(k), "clips": [asdict(e) for e in finished[k]]} for k in sorted(finished)]
    text = json.dumps({**header, "shards": listed}, indent=1) + "\n"
    with atomic(folder / MANIFEST) as partial:
        partial.write_bytes(text.encode())


def _run(
    source: Source, folder: Path, todo: list[tuple[int, range]], workers: int, show: Show
) -> Iterator[tuple[int, list[ClipEntry]]]:
    """Make the shards that are to do, in this process or in several, as they are finished."""
    if workers == 1 or len(todo) < 2:
        made = itertools.count(1)
        tick = lambda: show(next(made) * source.clip_frames)
        for number, indices in todo:
            yield number, _write_shard(source, folder, number, indices, tick)
        return
    several = multiprocessing.get_context("spawn")
    workers = min(workers, len(todo))
    signs = _Signs(several.RawArray("q", workers), several.Value("q", 0), several.RawValue("b", 0))
    start = partial(_start_worker, signs)
    with ProcessPoolExecutor(workers, mp_context=several, initializer=start) as pool:
        waiting = {pool.submit(_work, source, folder, *shard): shard[0] for shard in todo}
        try:
            while waiting:
                ready, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                show(sum(signs.clips) * source.clip_frames)
                for future in ready:
                    yield waiting.pop(future), future.result()
        except BaseException:
            signs.stop.value = 1
            raise


@dataclass
class _Signs:
    """What the processes tell one another: clips that each has made, workers started, and that all shall end.

    Where it can be without locks: one that a killed worker holds is never free again.
    """

    clips: Array[c_longlong]
    started: Synchronized[int]
    stop: c_byte


_signs: tuple[_Signs, int] | None = None
"""In a worker, and its number."""


def _start_worker(signs: _Signs) -> None:
    """Pin this process to a core of its own: an engine that wanders over cores runs at half the speed."""
    global _signs
    with signs.started.get_lock():
        number = signs.started.value
        signs.started.value += 1
    _signs = signs, number
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    os.setpgid(0, 0)
    threading.Thread(target=_end_with, args=(os.getppid(), signs.stop), daemon=True).start()


def _end_with(parent: int, stop: c_byte) -> None:
    """End this process, and the engine that it started, soon after its parent stops or was killed."""
    while os.getppid() == parent and not stop.value:
        time.sleep(0.25)
    os.killpg(0, signal.SIGKILL)


def _work(source: Source, folder: Path, number: int, indices: range) -> list[ClipEntry]:
    def tick() -> None:
        assert _signs is not None
        signs, own = _signs
        signs.clips[own] += 1

    return _write_shard(source, folder, number, indices, tick)


def _write_shard(
    source: Source, folder: Path, number: int, indices: range, tick: Callable[[], None]
) -> list[ClipEntry]:
    """Make one shard; `tick` is called after each clip."""
    with atomic(folder / _name(number)) as partial:
        samples = []
        for index, clip in zip(indices, source.clips(indices), strict=True):
            samples.append((index, shards.encode_clip(clip, source.rate)))
            tick()
        shards.write_shard(partial, samples)
        return shards.index_shard(partial)


class _Speed(ProgressColumn):
    """Frames per second of late."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f} frames/s")


@contextlib.contextmanager
def _progress(total: int, done: int) -> Iterator[Show]:
    """A progress bar in frames, which is told how many were made by now."""
    count = TextColumn("{task.completed:.0f}/{task.total:.0f} frames")
    columns = (TextColumn("{task.description}"), BarColumn(), count, _Speed(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("collecting", total=total, completed=done)
        yield lambda frames: bar.update(task, completed=done + frames)
