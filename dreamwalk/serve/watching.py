"""Watching a schedule: pictures one after another in one response, which an `<img>` shows as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import BoundedSemaphore

import numpy as np

from dreamwalk.serve.frames import encode_picture

BOUNDARY = "picture"
PERIOD = 0.25
"""Seconds that each picture is shown at least."""
LONGEST = 480
"""Pictures in a response."""
_SEATS = BoundedSemaphore(2)
"""How many are watched at once; a further one waits."""


def watched(pictures: Iterator[np.ndarray]) -> Iterator[bytes]:
    """uint8 pictures `(h, w, 3)` as parts of a `multipart/x-mixed-replace` response, at a watchable pace."""
    with _SEATS:
        for _, picture in zip(range(LONGEST), pictures, strict=False):
            began, jpeg = time.monotonic(), encode_picture(picture)
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"
            time.sleep(max(0.0, PERIOD - (time.monotonic() - began)))
