"""Pictures of a schedule as one multipart response, which an `<img>` shows as they come."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator

import numpy as np

from dreamwalk.serve.frames import encode_picture
from dreamwalk.serve.session_queue import Full, SessionQueue

log = logging.getLogger(__name__)
BOUNDARY = "picture"
Begin = Callable[[], Iterator[np.ndarray]]
PERIOD = 0.25
"""Seconds between two pictures, at least."""
MAX_PICTURES = 480
"""Pictures in a response."""
MAX_STREAMS = 2
"""Responses at once; further ones wait in a queue."""


async def picture_stream(begin: Begin, queue: SessionQueue) -> AsyncIterator[bytes]:
    """uint8 pictures `(h, w, 3)` as parts of a `multipart/x-mixed-replace` response, at a watchable pace.

    Each is made in a thread when it is asked for. The seat in the lobby is given back when the last one that
    was begun is made, which may be later than nobody watches any more.
    """
    loop, pictures, making = asyncio.get_running_loop(), _begun(begin), None
    try:
        await queue.enter()
    except Full:
        return
    try:
        for _ in range(MAX_PICTURES):
            began = time.monotonic()
            making = loop.run_in_executor(None, _part, pictures)
            if (part := await asyncio.shield(making)) is None:
                break
            yield part
            await asyncio.sleep(max(0.0, PERIOD - (time.monotonic() - began)))
    finally:
        if making is None or making.done():
            queue.leave()
        else:
            making.add_done_callback(lambda made: _last(made, queue))


def _last(made: asyncio.Future[bytes | None], queue: SessionQueue) -> None:
    """A picture that nobody waited for any more is made, or has failed."""
    queue.leave()
    if not made.cancelled() and made.exception():
        log.error("a schedule failed", exc_info=made.exception())


def _begun(begin: Begin) -> Iterator[np.ndarray]:
    """What `begin` gives, called when the first picture is asked for: in the thread that makes it."""
    yield from begin()


def _part(pictures: Iterator[np.ndarray]) -> bytes | None:
    """The next picture as a part of the response, None when there are no more."""
    picture = next(pictures, None)
    if picture is None:
        return None
    jpeg = encode_picture(picture)
    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg + b"\r\n"
