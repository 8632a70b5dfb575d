"""Writing folders of clips: many processes, killed and resumed at will, always the same bytes.

A shard is written under a hidden name and then renamed, so a file that has its name is whole; whatever is
missing is made again by the same command, because clip `i` is a pure function of its source and of `i`.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import Array, c_byte, c_longlong
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from dreamwalk.clip import Clip
from dreamwalk.data import shards
from dreamwalk.data.shards import FORMAT, MANIFEST, VERSION, Entry
from dreamwalk.errors import TOO_FULL, UserError, atomic, writing
from dreamwalk.world import ActionSchema

CLIPS_PER_SHARD = 32


class Source(Protocol):
    """Where clips come from. It travels to other processes, so it is small and picklable."""

    @property
    def clip_frames(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def schema(self) -> ActionSchema: ...

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it; two sources with one description make the same clips."""

    def clips(self, indices: range) -> Iterator[Clip]:
        """The clips of these indices, in order, each a pure function of its index."""


def write_clips(source: Source, clips: int, out: str | Path, *, workers: int = 1) -> Path:
    """Write clips `0 .. clips` of a source into the folder `out`, or what is missing of them; returns it.

    UserError when `out` holds clips of something else, or when the disk is full.
    """
    folder = Path(out)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    header = _header(source)
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
            advice = "run the same command again, with fewer workers if memory is short"
            raise UserError(
                f"a worker process died, what is written in '{folder}' is valid: {advice}"
            ) from error
        except OSError as error:
            if error.errno not in TOO_FULL:
                raise
            written = sum(len(entries) for entries in finished.values())
            raise UserError(
                f"the disk of '{folder}' is full ({written} of {clips} clips are written and stay valid): "
                "free some space and run the same command again"
            ) from error
    return folder


def _clips_of(number: int, clips: int) -> range:
    return range(number * CLIPS_PER_SHARD, min((number + 1) * CLIPS_PER_SHARD, clips))


def _header(source: Source) -> dict[str, Any]:
    header = {
        "format": FORMAT,
        "version": VERSION,
        **source.describe(),
        "schema": asdict(source.schema),
        "fps": source.fps,
        "size": source.size,
        "clip_frames": source.clip_frames,
        "depth_scale": shards.DEPTH_SCALE,
    }
    return json.loads(json.dumps(header))


def _finished(folder: Path, header: dict[str, Any], clips: int) -> dict[int, list[Entry]]:
    """The shards that are there already, with their clips; half-written files are removed."""
    entries: dict[int, list[Entry]] = {}
    if (folder / MANIFEST).exists():
        manifest = shards.read_manifest(folder)
        known = {shard.file: list(shard.clips) for shard in shards.said_in(manifest, folder)["shards"]}
        del manifest["shards"]
        if manifest != header:
            other = ", ".join(key for key, value in header.items() if manifest.get(key) != value)
            raise UserError(f"'{folder}' holds clips of another {other}: choose another folder")
    else:
        known = {}
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


def _write_manifest(folder: Path, header: dict[str, Any], finished: dict[int, list[Entry]]) -> None:
    listed = [{"file": _name(k), "clips": [asdict(e) for e in finished[k]]} for k in sorted(finished)]
    text = json.dumps({**header, "shards": listed}, indent=1) + "\n"
    with atomic(folder / MANIFEST) as partial:
        partial.write_bytes(text.encode())


def _run(
    source: Source, folder: Path, todo: list[tuple[int, range]], workers: int, show: _Show
) -> Iterator[tuple[int, list[Entry]]]:
    """Make the shards that are to do, in this process or in several, as they are finished."""
    if workers == 1 or len(todo) < 2:
        for number, indices in todo:
            yield number, _write_shard(source, folder, number, indices, lambda: show.add(source.clip_frames))
        return
    several = multiprocessing.get_context("spawn")
    workers = min(workers, len(todo))
    signs = _Signs(several.RawArray("q", workers), several.Value("q", 0), several.RawValue("b", 0))
    with ProcessPoolExecutor(
        workers, mp_context=several, initializer=_start_worker, initargs=(signs,)
    ) as pool:
        waiting: dict[Future[list[Entry]], int] = {
            pool.submit(_work, source, folder, number, indices): number for number, indices in todo
        }
        try:
            while waiting:
                ready, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                show.set(sum(signs.clips) * source.clip_frames)
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


def _work(source: Source, folder: Path, number: int, indices: range) -> list[Entry]:
    def tick() -> None:
        assert _signs is not None
        signs, own = _signs
        signs.clips[own] += 1

    return _write_shard(source, folder, number, indices, tick)


def _write_shard(
    source: Source, folder: Path, number: int, indices: range, tick: Callable[[], None]
) -> list[Entry]:
    """Make one shard; `tick` is called after each clip."""
    with atomic(folder / _name(number)) as partial:
        samples = []
        for index, clip in zip(indices, source.clips(indices), strict=True):
            samples.append((index, shards.encode_clip(clip, source.fps)))
            tick()
        shards.write_shard(partial, samples)
        return shards.index_shard(partial)


class _Show:
    """A progress bar in frames."""

    def __init__(self, bar: Progress, total: int, done: int) -> None:
        self.bar, self.start = bar, done
        self.task = bar.add_task("collecting", total=total, completed=done)

    def add(self, frames: int) -> None:
        self.bar.advance(self.task, frames)

    def set(self, frames: int) -> None:
        self.bar.update(self.task, completed=self.start + frames)


class _Speed(ProgressColumn):
    """Frames per second of late."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f} frames/s")


@contextlib.contextmanager
def _progress(total: int, done: int) -> Iterator[_Show]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} frames"),
    )
    with Progress(*columns, _Speed(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        yield _Show(bar, total, done)
