"""Clips from text over HTTP: `POST /clips` with a request in JSON answers with one JSON object a line.

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

import msgspec
import numpy as np
from PIL import Image

from dreamwalk.errors import UserError
from dreamwalk.images import fit_image
from dreamwalk.serve.app_config import Clips, WebClipRequest
from dreamwalk.serve.frames import encode_picture
from dreamwalk.serve.player import sentence
from dreamwalk.serve.protocol import MAX_MESSAGE
from dreamwalk.serve.recording_store import Film
from dreamwalk.serve.session_queue import Full, SessionQueue
from dreamwalk.temporary import TemporaryFolder
from dreamwalk.validation import decode_json

Event = dict[str, Any]
Post = Callable[[Event | None], None]
log = logging.getLogger(__name__)


def parse_clip_request(body: bytes, clips: Clips) -> WebClipRequest:
    """What a page asks for, with all that it left out; UserError with one sentence when it cannot be had."""
    if len(body) > MAX_MESSAGE:
        raise UserError(f"that request is too long: at most {MAX_MESSAGE // 2**20} MB are read")
    request = decode_json(WebClipRequest, body, "that request")
    prompt = _checked(request.prompt, "prompt", clips)
    if not prompt:
        raise UserError("prompt is empty: say what the clip shows")
    negative = _checked(request.negative, "negative", clips)
    image = None if request.image is None else fit_image(request.image, clips.size)
    steps = request.steps or clips.steps
    return msgspec.structs.replace(request, prompt=prompt, negative=negative, steps=steps, image=image)


def _checked(text: str, field: str, clips: Clips) -> str:
    """A text with single spaces; UserError where it is too long or cannot be read."""
    text = " ".join(text.split())
    if clips.longest is not None and (size := len(text.encode())) > clips.longest:
        raise UserError(f"{field} has {size} bytes and at most {clips.longest} are read: shorten it")
    try:
        clips.check(text)
    except UserError as error:
        raise UserError(f"{field}: {error}") from None
    return text


class ClipQueue:
    """Makes the clips of one server, one at a time; the others wait in line."""

    def __init__(self, clips: Clips) -> None:
        self.clips, self._queue = clips, SessionQueue(1, max_waiting=16)

    async def events(self, request: WebClipRequest) -> AsyncIterator[bytes]:
        """The lines of an answer. Closing it gives the place up."""
        outbox: asyncio.Queue[Event | None] = asyncio.Queue()
        turn = asyncio.create_task(self._turn(request, outbox))
        try:
            while (event := await outbox.get()) is not None:
                yield json.dumps(event).encode() + b"\n"
        finally:
            turn.cancel()

    async def _turn(self, request: WebClipRequest, outbox: asyncio.Queue[Event | None]) -> None:
        """Wait for the one seat; the thread that makes the clip keeps it until it has come to its end."""
        loop, gone = asyncio.get_running_loop(), threading.Event()

        def post(event: Event | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody listens any more
                loop.call_soon_threadsafe(outbox.put_nowait, event)

        try:
            await self._queue.enter(lambda place: outbox.put_nowait({"type": "queued", "position": place}))
            make = partial(_make, self.clips, request, post=post, gone=gone)
            self._queue.work(make, name="dreamwalk-clip")
            await loop.create_future()  # until `events` has said all, or nobody listens any more
        except Full:
            outbox.put_nowait({"type": "error", "message": "many others wait for a clip: try again later"})
            outbox.put_nowait(None)
        finally:
            gone.set()


def _make(clips: Clips, request: WebClipRequest, *, post: Post, gone: threading.Event) -> None:
    """Make one clip and post what happens, None last; stop at the next step when the page is gone."""
    began = time.monotonic()
    try:
        post({"type": "progress", "step": 0, "steps": request.steps, "left": None, "pictures": []})
        film: np.ndarray | None = None
        for progress in clips.make(request):
            if gone.is_set():
                return
            whole = progress.step == progress.steps
            film = progress.frames if whole else None
            left = (time.monotonic() - began) / max(1, progress.step) * (progress.steps - progress.step)
            shown = [] if whole or progress.frames is None else list(progress.frames)
            pictures = [_url("image/jpeg", encode_picture(frame)) for frame in shown]
            steps = {"step": progress.step, "steps": progress.steps, "left": round(left, 1)}
            post({"type": "progress", **steps, "pictures": pictures})
        if film is None:
            raise UserError("the clip ended before its last step")
        post(_done(film, clips.fps) | {"seconds": round(time.monotonic() - began, 1), "seed": request.seed})
    except Exception as error:
        if not isinstance(error, UserError):
            log.exception("a clip failed")
        post({"type": "error", "message": sentence(error)})
    finally:
        post(None)


def _done(frames: np.ndarray, fps: float) -> Event:
    last = io.BytesIO()
    Image.fromarray(frames[-1]).save(last, "PNG")
    film, picture = _url("video/mp4", film_of(frames, fps)), _url("image/png", last.getvalue())
    return {"type": "done", "film": film, "last": picture, "frames": len(frames), "fps": fps}


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
