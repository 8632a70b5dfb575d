"""H.264 in mp4, frame by frame: the one place where video files are opened for writing."""

from __future__ import annotations

import io
from collections.abc import Mapping
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

REPEATABLE = {"preset": "medium", "threads": "1", "x264-params": "mbtree=0"}
"""With `mbtree`, its default, x264 gives other bytes now and then for very small pictures."""
EXACT = REPEATABLE | {"crf": "11", "pixels": "yuv444p"}
"""Options for training data: 42 to 43 dB on Doom."""


class CorruptData(Exception):
    """Bytes that do not decode to what was expected; a caller that knows the file makes it a UserError."""


class VideoWriter:
    """An mp4 that is being written, one uint8 frame `(h, w, 3)` after another; memory does not grow."""

    def __init__(
        self, file: Path | io.BytesIO, *, size: tuple[int, ...], fps: float, options: Mapping[str, str]
    ) -> None:
        """For frames of `size` (h, w). Options are those of the encoder, and `pixels`: every player shows
        yuv420p, which is the default; yuv444p keeps all the colour."""
        flags = {"movflags": "+faststart"} if isinstance(file, Path) else {}
        self._container = av.open(file, "w", format="mp4", options=flags)
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = self._container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = options.get("pixels", "yuv420p")
        if codec == "libx264":
            self._stream.options = {name: value for name, value in options.items() if name != "pixels"}

    def add(self, frame: np.ndarray) -> None:
        """Append one frame."""
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def finish(self) -> None:
        """Write what is left and close the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def close(self) -> None:
        """Close the file, whole or not."""
        self._container.close()


def encode_video(video: np.ndarray, fps: float) -> bytes:
    """An mp4 of uint8 frames (t, h, w, 3) with all their colour; the same frames give the same bytes."""
    file = io.BytesIO()
    writer = VideoWriter(file, size=video.shape[1:3], fps=fps, options=EXACT)
    for frame in video:
        writer.add(frame)
    writer.finish()
    return file.getvalue()


def decode_video(data: bytes, *, frames: int, size: tuple[int, int]) -> np.ndarray:
    """The uint8 frames (t, h, w, 3) of a video file; Damaged unless it has so many of `size` (h, w)."""
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise CorruptData("the video is of an unknown codec")
        stream.codec_context.thread_count = 1
        if (stream.height, stream.width) != size:
            raise CorruptData(f"the video is of {stream.height}x{stream.width}, not of {size[0]}x{size[1]}")
        decoded = islice(container.decode(stream), frames + 1)
        video = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
    if video.shape[:3] != (frames, *size):
        raise CorruptData(f"the video has not {frames} frames of {size[0]}x{size[1]}")
    return video
