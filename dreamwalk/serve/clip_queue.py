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
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image
from starlette.requests import Request

from dreamwalk.errors import UserError
from dreamwalk.images import fit_image
from dreamwalk.serve.app_config import Clips, WebClipRequest
from dreamwalk.serve.frames import encode_picture
from dreamwalk.serve.player import sentence
from dreamwalk.serve.protocol import MAX_MESSAGE
from dreamwalk.serve.recording_store import Film
from dreamwalk.serve.scene_config import Scenes
from dreamwalk.serve.session_queue import Full, SessionQueue
from dreamwalk.temporary import TemporaryFolder
from dreamwalk.validation import decode_json

Event = dict[str, Any]
Post = Callable[[Event | None], None]
log = logging.getLogger(__name__)


async def read_body(request: Request) -> bytes:
    """What a page has sent; UserError when it is too long, of which no more is read."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_MESSAGE:
            raise UserError(f"that request is too long: at most {MAX_MESSAGE // 2**20} MB are read")
    return body


def parse_clip_request(body: bytes, clips: Clips) -> WebClipRequest:
    """What a page asks for, with all that it left out; UserError with one sentence when it cannot be had."""
    request = decode_json(WebClipRequest, body, "that request")
    prompt = checked_text(request.prompt, "prompt", clips)
    if not prompt:
        raise UserError("prompt is empty: say what the clip shows")
    negative = checked_text(request.negative, "negative", clips)
    image = None if request.image is None else fit_image(request.image, clips.size)
    steps = request.steps or clips.steps
    return msgspec.structs.replace(request, prompt=prompt, negative=negative, steps=steps, image=image)


def checked_text(text: str, field: str, of: Clips | Scenes) -> str:
    """A text with single spaces; UserError where it is too long or cannot be read."""
    text = " ".join(text.split())
    if of.longest is not None and (size := len(text.encode())) > of.longest:
        raise UserError(f"{field} has {size} bytes and at most {of.longest} are read: shorten it")
    try:
        of.check(text)
    except UserError as error:
        raise UserError(f"{field}: {error}") from None
    return text


class ClipQueue:
    """Makes what the pages of one server ask for, one thing at a time; the others wait in line."""

    def __init__(self) -> None:
        self._queue = SessionQueue(1, max_waiting=16)

    async def events(self, happening: Generator[Event]) -> AsyncIterator[bytes]:
        """The lines of an answer: what happens, in a thread, once it is its turn. Closing it gives the place
        up, or closes `happening` after the event that is under way."""
        outbox: asyncio.Queue[Event | None] = asyncio.Queue()
        turn = asyncio.create_task(self._turn(happening, outbox))
        try:
            while (event := await outbox.get()) is not None:
                yield json.dumps(event).encode() + b"\n"
        finally:
            turn.cancel()

    async def _turn(self, happening: Generator[Event], outbox: asyncio.Queue[Event | None]) -> None:
        """Wait for the one seat; the thread that makes the clip keeps it until it has come to its end."""
        loop, gone = asyncio.get_running_loop(), threading.Event()

        def post(event: Event | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody listens any more
                loop.call_soon_threadsafe(outbox.put_nowait, event)

        try:
            await self._queue.enter(lambda place: outbox.put_nowait({"type": "queued", "position": place}))
            self._queue.work(partial(_run, happening, post=post, gone=gone), name="dreamwalk-clip")
            await loop.create_future()  # until `events` has said all, or nobody listens any more
        except Full:
            outbox.put_nowait({"type": "error", "message": "many others wait for a clip: try again later"})
            outbox.put_nowait(None)
        finally:
            gone.set()


def _run(happening: Generator[Event], *, post: Post, gone: threading.Event) -> None:
    """Post what happens, None last; stop after the event under way when the page is gone."""
    try:
        with contextlib.closing(happening):
            for event in happening:
                if gone.is_set():
                    return
                post(event)
    except Exception as error:
        if not isinstance(error, UserError):
            log.exception("a clip failed")
        post({"type": "error", "message": sentence(error)})
    finally:
        post(None)


def clip_events(clips: Clips, request: WebClipRequest) -> Generator[Event]:
    """What happens while one clip is made, as the table above has it."""
    began, film = time.monotonic(), None
    yield progress_event(0, request.steps or clips.steps, began=began) | {"pictures": []}
    for progress in clips.make(request):
        whole = progress.step == progress.steps
        film = progress.frames if whole else None
        shown = [] if whole or progress.frames is None else list(progress.frames)
        pictures = [data_url("image/jpeg", encode_picture(frame)) for frame in shown]
        yield progress_event(progress.step, progress.steps, began=began) | {"pictures": pictures}
    if film is None:
        raise UserError("the clip ended before its last step")
    yield _done(film, clips.fps) | {"seconds": round(time.monotonic() - began, 1), "seed": request.seed}


def progress_event(step: int, steps: int, *, began: float) -> Event:
    """How far something is that began at a time of `time.monotonic`, with the seconds that are left."""
    left = round((time.monotonic() - began) / step * (steps - step), 1) if step else None
    return {"type": "progress", "step": step, "steps": steps, "left": left}


def _done(frames: np.ndarray, fps: float) -> Event:
    last = io.BytesIO()
    Image.fromarray(frames[-1]).save(last, "PNG")
    film, picture = data_url("video/mp4", film_of(frames, fps)), data_url("image/png", last.getvalue())
    return {"type": "done", "film": film, "last": picture, "frames": len(frames), "fps": fps}


def film_of(frames: np.ndarray, fps: float) -> bytes:
    """An mp4 of uint8 frames `(t, h, w, 3)` that every player shows."""
    with TemporaryFolder() as folder:
        film = Film(Path(folder) / "clip.mp4", fps=fps, pictures=[frames[0]])
        for frame in frames:
            film.add([frame])
        film.finish()
        return film.path.read_bytes()


def data_url(kind: str, data: bytes) -> str:
    """Bytes of a media type as a text that a page shows."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
