"""Videos as players show them: the one place where other people's video files are read.

Frames come upright (display matrices), with square pixels, without what an edit list hides, and up to
the first damage. They are chosen by time, so that a variable frame rate becomes an even one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from dreamwalk.data.h264 import CorruptData
from dreamwalk.errors import UserError
from dreamwalk.images import Fit, fit_image
from dreamwalk.progress import followed

CAMERAS = (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".avi", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob")
SCREENS = (".mkv", ".webm", ".flv", ".f4v", ".ts", ".wmv", ".asf", ".ogv", ".gif")
VIDEOS = (*CAMERAS, *SCREENS)
"""Endings of files that are looked into."""
SAME_RATE = 0.01
"""Frame rates that differ by less are one rate (29.97 and 30)."""
LATE = 0.3
"""Share of its time that a frame may come late and still be shown: the jitter of timestamps."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class VideoFacts:
    """What decoding a video once tells."""

    times: np.ndarray
    """Seconds of each frame, float64 `(t,)`."""
    size: tuple[int, int]
    """Height and width, upright and of square pixels."""
    rate: float
    """Frames per second; where they vary, of most frames."""
    damage: str = ""
    """Where and how the video is damaged; its frames before that are good."""

    @property
    def steady(self) -> bool:
        """Whether all frames last equally long."""
        even = np.linspace(self.times[0], self.times[-1], len(self.times))
        return bool(np.abs(self.times - even).max() < 1 / self.rate)

    def picks(self, fps: float | None = None) -> np.ndarray:
        """The frame that is shown at each tick of `fps` (default: the video's own), int `(ticks,)`."""
        fps = fps or self.rate
        if not self.steady:
            ticks = (self.times - self.times[0]) * fps
        elif abs(fps / self.rate - 1) < SAME_RATE:
            return np.arange(len(self.times))
        else:
            ticks = np.arange(len(self.times)) * fps / self.rate
        late = LATE * fps / self.rate
        ticks_shown = np.arange(int(ticks[-1] + late) + 1)
        return np.searchsorted(np.ceil(ticks - late), ticks_shown, side="right") - 1


def probe(video: Path) -> VideoFacts:
    """Decode a video once; UserError for a file that is no video, or damaged from its first frame on."""
    times: list[float] = []
    size, damage, lasts = (0, 0), "", 0.0
    with _open(video) as container:
        stream = _video_stream(container, video)
        stream.codec_context.thread_count = 1  # `map_files` works on many files at once
        nominal = float(stream.average_rate or stream.guessed_rate or 0) or 30.0
        length = _length(container, stream)
        try:
            for frame in _frames(container, stream):
                times.append(frame.time if frame.time is not None else len(times) / nominal)
                size = size if len(times) > 1 else _upright(frame, stream).shape[:2]
                lasts = float((frame.duration or 0) * (frame.time_base or 0)) or 1 / nominal
        except CorruptData as why:
            damage = str(why)
        except (av.FFmpegError, ValueError) as error:  # pixels that cannot be made RGB
            raise UserError(f"'{video}' cannot be shown ({error}): convert it to mp4") from error
    if not times:
        raise UserError(f"'{video}' has no frame that can be decoded: record it again, or take it away")
    even = np.maximum.accumulate(np.asarray(times))
    if damage:  # the last frame may be torn without a sign of it
        even = even[: max(1, _undamaged(even) - 1)]
    end = even[-1] - even[0] + lasts
    if not damage and end < 0.98 * length - 0.5:
        damage = f"it is {length:.1f} s long"
    if damage:
        damage = f"damaged after {end:.1f} s ({damage}), its first {len(even)} frames are used"
    return VideoFacts(even, size, _rate(even, nominal), damage)


def read_frames(
    video: Path,
    picks: Iterable[int],
    *,
    size: tuple[int, int],
    how: Fit = "letterbox",
    draw: Callable[[np.ndarray, int], np.ndarray] = lambda picture, number: picture,
) -> Iterator[np.ndarray]:
    """The frames of these numbers, which do not fall, uint8 `(h, w, 3)` of `size`; fewer if the file ends.

    `draw` adds what a whole picture lacks, by its number.
    """
    with _open(video) as container:
        stream = _video_stream(container, video)
        frames = enumerate(_frames(container, stream))
        at, picture = -1, None
        try:
            for pick in picks:
                while at < pick:
                    at, frame = next(frames)
                    picture = None
                if picture is None:
                    picture = fit_image(draw(_upright(frame, stream), at), size, how)
                yield picture
        except (StopIteration, CorruptData):
            return


def map_files(work: Callable[[T], R], files: Sequence[T]) -> list[R]:
    """`work` of every file, on all cores, with a progress bar."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(followed(pool.map(work, files), "looking at files", total=len(files)))


def check_fps(fps: float | None) -> None:
    """UserError for a frame rate that cannot be asked for."""
    if fps is not None and not 0 < fps <= 1000:
        raise UserError(f"--fps is above 0 and at most 1000, got {fps:g}: leave it out to keep all frames")


def grouped(files: Sequence[tuple[str, str]], most: int = 5) -> list[str]:
    """A line for each reason, with the names of some files of which it was given."""
    names: dict[str, list[str]] = {}
    for name, why in files:
        names.setdefault(why, []).append(name)
    more = {why: f" and {len(of) - most} more" if len(of) > most else "" for why, of in names.items()}
    return [f"{', '.join(of[:most])}{more[why]}: {why}" for why, of in names.items()]


def _open(video: Path) -> InputContainer:
    try:
        return av.open(str(video))
    except (av.FFmpegError, OSError) as error:
        mend = "convert it to mp4, or take it away"
        raise UserError(f"'{video}' cannot be read as a video ({error.strerror}): {mend}") from error


def _video_stream(container: InputContainer, video: Path) -> VideoStream:
    """The stream that a player shows: no cover picture, and the default one of several."""
    still = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & still]
    if not streams:
        sound = "sound only" if container.streams.audio else "no film in it"
        raise UserError(f"'{video}' has no picture ({sound}): take it away")
    if streams[0].codec_context is None:
        raise UserError(f"'{video}' is of a kind that cannot be decoded here: convert it to mp4")
    default = [stream for stream in streams if stream.disposition & av.stream.Disposition.default]
    return (default or streams)[0]


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Good frames in order, and `CorruptData` after the last one before damage.

    What cannot be decoded before the first good frame is passed over: a recording may begin in the middle.
    """
    packets, good, more = _packets(container, stream), False, True
    while more:
        frames, damage = [], ""
        try:
            packet = next(packets)
            frames = packet.decode()
            damage = "a packet is torn" if packet.is_corrupt else ""
        except StopIteration:
            more = False
        except (av.FFmpegError, CorruptData) as error:
            damage = getattr(error, "strerror", None) or str(error)
        for frame in frames:
            if not frame.is_corrupt:
                good = True
                yield frame
            elif good:
                raise CorruptData("a frame is torn")
        if damage and good:
            raise CorruptData(damage)


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """The packets of a stream; `CorruptData` where bytes and time are missing between two of them, which
    FFmpeg passes over. In an mp4 they may lie in any order."""
    end, latest, ordered = 0, None, "mov" not in container.format.name
    late = 1.8 / float(stream.average_rate or stream.guessed_rate or 30)
    for packet in container.demux():
        hole = (packet.pos or 0) - end > 256 + packet.size // 16
        end = max(end, (packet.pos or 0) + packet.size)
        if packet.stream is not stream:
            continue
        if packet.dts is not None and packet.time_base:
            time = float(packet.dts * packet.time_base)
            if ordered and hole and latest is not None and time - latest > late:
                raise CorruptData("bytes in the middle cannot be read")
            latest = time
        yield packet


def _upright(frame: av.VideoFrame, stream: VideoStream) -> np.ndarray:
    """A frame as players show it, uint8 `(h, w, 3)`."""
    width = max(1, round(frame.width * (stream.sample_aspect_ratio or 1)))
    picture = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return picture
    # x' = a x + c y, y' = b x + d y: where b and c are the larger ones, the axes change places
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5]
    if abs(b) > abs(a):
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _undamaged(times: np.ndarray) -> int:
    """How many frames lie before the damage at their end: a frame that is lost leaves a gap behind it, and as
    frames are decoded out of order some after it may be good."""
    gaps = np.diff(times[-17:])
    lost = np.flatnonzero(gaps > 1.5 * np.median(np.diff(times))) if len(gaps) else gaps
    return len(times) - len(gaps) + int(lost[0]) if len(lost) else len(times)


def _length(container: InputContainer, stream: VideoStream) -> float:
    """Seconds that the film lasts, by what the file says; 0 where it says nothing of it."""
    if stream.duration:
        return float(stream.duration * (stream.time_base or 0))
    if written := stream.metadata.get("DURATION"):  # Matroska
        try:
            hours, minutes, seconds = (float(part) for part in written.split(":"))
            return 3600 * hours + 60 * minutes + seconds
        except ValueError:
            return 0.0
    return (container.duration or 0) / av.time_base if len(container.streams) == 1 else 0.0


def _rate(times: np.ndarray, nominal: float) -> float:
    """Frames per second of frames at these times; `nominal` is what the file says, exact where it is true."""
    lasting = np.diff(times)
    lasting = lasting[lasting > 0]
    if not len(lasting):
        return nominal
    usual = np.median(lasting)
    found = 1 / lasting[np.abs(lasting / usual - 1) < 0.5].mean()
    return nominal if abs(nominal / found - 1) < SAME_RATE else round(float(found), 3)
