"""Clips from words over HTTP: `POST /clips` with a wish in JSON answers with one JSON object a line.

    prompt    text                                negative  text to be guided away from
    seed      whole number                        steps     denoising steps
    image     base64 of a PNG, JPEG or WebP that the clip begins with; all but the prompt may be left out

What comes back, by `type`:

    queued    position: one clip is made at a time, 1 is next
    progress  step, steps, left (seconds, null before the first step), pictures (JPEGs of some first frames as
              they are imagined so far; mostly none)
    done      film (mp4), last (PNG of the last frame), frames, fps, seconds (that it took), seed
    error     message: one sentence

Pictures and films are data URLs. Who hangs up gives the place in the queue back, and ends the clip under way.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamwalk.errors import UserError
from dreamwalk.images import fit
from dreamwalk.serve.film import Film
from dreamwalk.serve.frames import encode_picture
from dreamwalk.serve.lobby import Full, Lobby
from dreamwalk.serve.player import sentence
from dreamwalk.serve.protocol import MAX_MESSAGE, MAX_SEED, read_picture, read_whole
from dreamwalk.serve.stage import Clips, Wish
from dreamwalk.temporary import TemporaryFolder

Event = dict[str, Any]
log = logging.getLogger(__name__)


def parse_wish(text: bytes, clips: Clips) -> Wish:
    """What a page asks for; UserError with one sentence when it cannot be had."""
    if len(text) > MAX_MESSAGE:
        raise UserError(f"that wish is too long: at most {MAX_MESSAGE // 2**20} MB are read")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("that wish is not valid JSON") from None
    if not isinstance(content, dict):
        raise UserError('a wish is a JSON object with a "prompt"')
    prompt = _text(content, "prompt", clips)
    if not prompt:
        raise UserError("prompt is empty: say what the clip shows")
    image = content.get("image")
    return Wish(
        prompt,
        negative=_text(content, "negative", clips),
        seed=read_whole(content, "seed", MAX_SEED, 0),
        steps=read_whole(content, "steps", clips.most_steps, clips.steps, low=1),
        picture=None if image is None else fit(read_picture(image), clips.size),
    )


def _text(content: dict[str, Any], key: str, clips: Clips) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise UserError(f"{key} must be text, got {value!r:.40}")
    words = " ".join(value.split())
    try:
        size = len(words.encode())
    except UnicodeEncodeError:
        raise UserError(f"{key} must be text: it holds half a character") from None
    if clips.longest is not None and size > clips.longest:
        raise UserError(f"{key} has {size} bytes and at most {clips.longest} are read: shorten it")
    try:
        clips.check(words)
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    return words


class Studio:
    """Makes the clips of one server, one at a time; the others wait in line."""

    def __init__(self, clips: Clips) -> None:
        self.clips, self._lobby = clips, Lobby(1, queue=16)

    async def events(self, wish: Wish) -> AsyncIterator[bytes]:
        """The lines of an answer. Closing it gives the place up."""
        said: asyncio.Queue[Event | None] = asyncio.Queue()
        turn = asyncio.create_task(self._turn(wish, said))
        try:
            while (event := await said.get()) is not None:
                yield json.dumps(event).encode() + b"\n"
        finally:
            turn.cancel()

    async def _turn(self, wish: Wish, said: asyncio.Queue[Event | None]) -> None:
        """Wait for the one seat; the thread that makes the clip keeps it until it has come to its end."""
        loop, gone = asyncio.get_running_loop(), threading.Event()

        def post(event: Event | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody listens any more
                loop.call_soon_threadsafe(said.put_nowait, event)

        try:
            await self._lobby.enter(lambda place: said.put_nowait({"type": "queued", "position": place}))
            make = partial(_make, self.clips, wish, post=post, gone=gone)
            self._lobby.work(make, name="dreamwalk-clip")
            await loop.create_future()  # until `events` has said all, or nobody listens any more
        except Full:
            said.put_nowait({"type": "error", "message": "many others wait for a clip: try again later"})
            said.put_nowait(None)
        finally:
            gone.set()


def _make(clips: Clips, wish: Wish, *, post: Callable[[Event | None], None], gone: threading.Event) -> None:
    """Make one clip and post what happens, None last; stop at the next step when the page is gone."""
    began = time.monotonic()
    try:
        post({"type": "progress", "step": 0, "steps": wish.steps, "left": None, "pictures": []})
        film: np.ndarray | None = None
        for progress in clips.make(wish):
            if gone.is_set():
                return
            whole = progress.step == progress.steps
            film = progress.frames if whole else None
            left = (time.monotonic() - began) / max(1, progress.step) * (progress.steps - progress.step)
            shown = [] if whole or progress.frames is None else list(progress.frames)
            pictures = [_url("image/jpeg", encode_picture(frame)) for frame in shown]
            post(
                {
                    "type": "progress",
                    "step": progress.step,
                    "steps": progress.steps,
                    "left": round(left, 1),
                    "pictures": pictures,
                }
            )
        if film is None:
            raise UserError("the clip ended before its last step")
        post(_done(film, clips.fps) | {"seconds": round(time.monotonic() - began, 1), "seed": wish.seed})
    except Exception as error:
        if not isinstance(error, UserError):
            log.exception("a clip failed")
        post({"type": "error", "message": sentence(error)})
    finally:
        post(None)


def _done(frames: np.ndarray, fps: float) -> Event:
    last = io.BytesIO()
    Image.fromarray(frames[-1]).save(last, "PNG")
    return {
        "type": "done",
        "film": _url("video/mp4", film_of(frames, fps)),
        "frames": len(frames),
        "fps": fps,
        "last": _url("image/png", last.getvalue()),
    }


def film_of(frames: np.ndarray, fps: float) -> bytes:
    """An mp4 of uint8 frames `(t, h, w, 3)` that every player shows."""
    with TemporaryFolder() as folder:
        film = Film(Path(folder) / "clip.mp4", fps=fps, pictures=[frames[0]])
        for frame in frames:
            film.add([frame])
        film.finish()
        return film.path.read_bytes()


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
