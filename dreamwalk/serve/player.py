"""The state of one walk: commands, frames, recordings and replays. No threads and no sockets."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dreamwalk.data.walks import Walk
from dreamwalk.errors import UserError
from dreamwalk.serve import frames
from dreamwalk.serve.app_config import AppConfig, RecalledPicture, Standing, shown_of
from dreamwalk.serve.cloud_stream import CloudStream
from dreamwalk.serve.controls import Controls
from dreamwalk.serve.protocol import (
    Command,
    OneFrame,
    Pace,
    Pause,
    Record,
    Replay,
    Reset,
    SetMemory,
    SetSteps,
    ShowCloud,
    ShowMap,
    ShowStrip,
    View,
)
from dreamwalk.serve.recording_store import Film, RecordingStore
from dreamwalk.serve.world_pair import Frame, WorldPair
from dreamwalk.validation import MOST_STEPS

Post = Callable[[str, Any], None]
"""Hands `(kind, content)` to the connection, from any thread, without waiting.

The kind is "frame" (content: bytes) or the type of a JSON message (content: dict).
"""
MAX_SINGLE = 8
LOOK_EVERY = 0.4
"""Seconds between two looks into the memory; each takes about a tenth of a frame."""
log = logging.getLogger(__name__)


class Player:
    """One walk over a scene. Belongs to one thread, but for `controls`, which any thread may update."""

    def __init__(self, config: AppConfig, worlds: WorldPair, store: RecordingStore, post: Post) -> None:
        self.controls = Controls(worlds.schema)
        self.state = "ready"
        """ready, ended (the world said so) or stopped (the world failed)."""
        self.paused = False
        self.unlocked = False
        """Run as fast as the world can instead of at its own rate."""
        self.single = 0
        """Frames still to be made although the walk is paused."""
        self.serial = 0
        self._config, self._worlds, self._store, self._post = config, worlds, store, post
        self._seed, self._start, self._options = 0, None if not config.starts else 0, self.options(None)
        self._film: Film | None = None
        self._walk: Walk | None = None
        self._frame = self._seq = 0
        self._last = 0.0
        self._shown: set[str] = set()
        """What is looked at of the memory: `map`, `strip`, `cloud`."""
        self._cloud = CloudStream()
        self._look_due = 0.0
        """When that is to be sent next, on the monotonic clock."""

    @property
    def fps(self) -> float:
        """Frames per second that the world was made for."""
        return self._worlds.fps

    def options(self, start: int | None) -> dict[str, Any]:
        """Reset options of a place in the gallery; None is the first. UserError where there is none."""
        starts = self._config.starts
        if start is None:
            return starts[0].options if starts else {}
        if start >= len(starts):
            raise UserError(f"there is no start {start}: the gallery has {len(starts)}")
        return starts[start].options

    def hello(self) -> dict[str, Any]:
        """What the page has to know about this world before its first frame."""
        schema, (height, width) = self._worlds.schema, self._worlds.size
        names = {"buttons": schema.buttons, "axes": schema.axes, "limits": schema.limits}
        rest = {"title": self._config.title, "fps": self._worlds.fps, "width": width, "height": height}
        rest |= {"views": self._worlds.views, "steps": self._worlds.steps, "most_steps": MOST_STEPS}
        rest |= {"memory": (memory := self._config.memory) is not None}
        rest |= shown_of(memory)
        return names | rest | {"unlearnt": self._config.unlearnt}

    def apply(self, command: Command) -> None:
        """Do what was asked for. UserError with one sentence when it makes no sense now; worlds may raise
        more."""
        match command:
            case Reset(seed, start, image):
                self._reset(seed, start, image)
            case View(view):
                if self._worlds.sleeps(view):
                    self.status("Opening the real game")
                self._show(self._worlds.look(view))
            case Pause(paused):
                self.paused = paused or self.state != "ready"
            case OneFrame():
                self.paused, self.single = True, min(self.single + 1, MAX_SINGLE)
            case SetSteps(steps):
                self._worlds.steps = steps
            case Pace(unlocked):
                self.unlocked = unlocked
            case Record(on):
                self._record(on)
            case Replay(walk):
                self._replay(walk)
            case SetMemory(recalling):
                self._worlds.recall(recalling)
            case ShowMap(shown):
                self._look_at("map", shown)
            case ShowStrip(shown):
                self._look_at("strip", shown)
            case ShowCloud(shown):
                self._look_at("cloud", shown)
                self._cloud = CloudStream()
        self.status()
        self._show_memory()

    def advance(self) -> None:
        """Make and show one frame, then let the shadow catch up."""
        self.single = max(0, self.single - 1)
        if self._walk is None:
            vector, self._seq = self.controls.drain()
        else:
            vector = self._walk.actions[self._frame]
        frame = self._worlds.advance(vector)
        self._frame += 1
        finished = self._walk is not None and self._frame >= len(self._walk)
        if finished:
            self._walk = None
        if frame.ended:
            self.state, self.paused = "ended", True
        self._show(frame, vector)
        if frame.ended:
            self.status("This episode is over. Press R to begin again.")
        elif finished:
            self.controls.clear()
            self.status("The walk is over. From here on it is yours.")
        self._worlds.settle()
        self._show_memory()

    def fail(self, error: Exception) -> None:
        """Tell the page about an error; a world that cannot go on is stopped until the next reset."""
        if not isinstance(error, UserError):
            log.exception("a world failed", exc_info=error)
        if not self._worlds.live:
            self.state, self.paused, self.single, self._walk = "stopped", True, 0, None
        self._post("error", {"message": sentence(error)})
        self.status()

    def status(self, message: str = "") -> None:
        """Post the whole state."""
        worlds, replay = self._worlds, None if self._walk is None else len(self._walk)
        content = {"state": self.state, "paused": self.paused, "unlocked": self.unlocked, "message": message}
        content |= {"view": worlds.view, "aligned": worlds.aligned, "steps": worlds.steps, "replay": replay}
        content |= {"seed": self._seed, "start": self._start, "recording": self._film is not None}
        content |= {"level": worlds.level, "memory": worlds.recalling if self._config.memory else None}
        self._post("status", content)

    def close(self) -> None:
        """Drop an unfinished film and close the worlds."""
        if self._film:
            self._film.drop()
            self._film = None
        self._worlds.close()

    def _reset(self, seed: int | None, start: int | None, image: np.ndarray | None) -> None:
        levels = self._config.levels
        if image is not None:
            options: dict[str, Any] = {"image": image}
            place = None
        elif start is not None:
            options, place = self.options(start), start
        elif levels and seed is not None:
            options, place = {"level": levels.check(seed)}, None
            if self.serial:
                self.status(f"Making level {seed}")
        else:
            options, place = self._options, self._start
        self._begin(self._seed if seed is None else seed, options, place)

    def _begin(self, seed: int, options: dict[str, Any], start: int | None, walk: Walk | None = None) -> None:
        frame = self._worlds.begin(seed, options)
        self._seed, self._options, self._start = seed, options, start
        self._walk, self._frame, self.single = walk, 0, 0
        self.controls.clear()
        self.paused = self.paused and self.state == "ready" and walk is None
        self.state = "ready"
        self._look_due = 0.0
        self._show(frame)

    def _replay(self, walk: Walk | None) -> None:
        if walk is None:
            self._walk = None
            self.controls.clear()
            return
        walk.check(self._worlds.schema)
        if walk.steps and self._worlds.steps is not None:
            self._worlds.steps = walk.steps
        same = (k for k, start in enumerate(self._config.starts) if start.options == walk.start)
        place = None if "image" in walk.start else next(same, None)
        self._begin(walk.seed, walk.start, place, walk if len(walk) else None)

    def _record(self, on: bool) -> None:
        if not on:
            self._keep_film()
        elif self._film is None:
            pictures = self._worlds.pictures
            path = self._store.new(self._worlds.title, self._seed)
            self._film = Film(path, fps=self._worlds.fps, pictures=pictures)
            self._film.add(pictures)

    def _keep_film(self) -> None:
        film, self._film = self._film, None
        if film is None:
            return
        film.finish()
        walk, exact = self._worlds.walk()
        video, actions = self._store.put(film.path, walk)
        content = {"mp4": f"recordings/{video}", "walk": f"recordings/{actions}", "exact": exact}
        content |= {"frames": film.frames, "seconds": round(film.frames / film.fps, 2), "steps": len(walk)}
        self._post("recorded", content)

    def _show(self, frame: Frame, vector: np.ndarray | None = None) -> None:
        """Encode and post what is shown, and film it."""
        began = time.perf_counter()
        pictures = [frames.encode_picture(picture) for picture in frame.pictures]
        now = time.perf_counter()
        self.serial += 1
        replaying = self._walk is not None
        marks = {frames.RECORDING: self._film, frames.REPLAYING: replaying, frames.PAUSED: self.paused}
        flags = sum(flag for flag, on in marks.items() if on)
        what = (self.serial, self._frame, self._worlds.view, self._seq, flags)
        times: dict[str, Any] = {"model_ms": sum(frame.stages.values()), "encode_ms": (now - began) * 1e3}
        times["period_ms"] = (now - self._last) * 1e3 if self._last else 0.0
        held, axes = ((), ()) if vector is None else self._worlds.schema.named(vector)
        stands = self._worlds.pose
        pose = () if stands is None else tuple(stands[:3].ravel().tolist())
        note = frames.FrameNote(*what, **times, held=held, stages=frame.stages, axes=axes, pose=pose)
        self._last = now
        self._post("frame", frames.pack_frame(note, pictures))
        if self._film and vector is not None:
            self._add_to_film(frame)

    def _look_at(self, part: str, shown: bool) -> None:
        """Whether someone looks at a part of the memory from now on."""
        self._shown = self._shown | {part} if shown else self._shown - {part}
        self._look_due = 0.0 if shown else self._look_due

    def _show_memory(self) -> None:
        """Post what someone looks at of the memory, if that was last posted long enough ago."""
        now = time.monotonic()
        if not self._shown or now < self._look_due or self._worlds.view == "game":
            return
        self._look_due = now + LOOK_EVERY
        if "map" in self._shown and (drawn := self._worlds.draw_map()):
            where = {"left": drawn.left, "top": drawn.top, "scale": drawn.scale}
            bank = {"places": _rounded(drawn.places), "recalled": _rounded(drawn.recalled)}
            self._post("map", {"png": _base64(frames.encode_map(drawn.picture))} | where | bank)
        if "strip" in self._shown and (strip := self._worlds.strip()):
            recalled = [one and _told(one) for one in strip.recalled]
            kept = {"kept": strip.kept, "budget": strip.budget}
            self._post("strip", {"frame": self._frame, "recalled": recalled} | kept)
        cloud = self._worlds.cloud(self._cloud.every) if "cloud" in self._shown else None
        if cloud and (changes := self._cloud.changes(cloud)):
            self._post("cloud", changes)

    def _add_to_film(self, frame: Frame) -> None:
        assert self._film
        try:
            self._film.add(frame.pictures)
        except (OSError, UserError) as error:
            self._film.drop()
            self._film = None
            raise UserError(f"the film was dropped, for it could not be written: {error}") from None
        if self._film.full:
            self._keep_film()
            self.status("The film has reached its longest length and was saved.")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _told(one: RecalledPicture) -> dict[str, Any]:
    """A recalled frame, as the page has it."""
    jpeg = _base64(frames.encode_thumbnail(one.picture))
    return {"jpeg": jpeg, "age": one.age, "covers": round(one.covers, 3), "dreamed": one.dreamed}


def _rounded(places: Sequence[Standing | None]) -> list[list[int] | None]:
    return [place and [round(part) for part in place] for place in places]


def sentence(error: Exception) -> str:
    """One sentence about an error, for the page."""
    if isinstance(error, UserError):
        return str(error)
    return f"the world failed with {type(error).__name__}: {str(error) or 'no reason given'}"[:300]
