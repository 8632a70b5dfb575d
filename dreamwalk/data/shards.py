"""Clips on disk: WebDataset tar files with a manifest that finds any clip without reading the others.

One sample per clip: `video.mp4` (H.264, all the colour), `depth.npz` (16-bit steps), `poses.npy`,
`intrinsics.npy`, `placed.npy`, `actions.npy`, `caption.txt`. Any WebDataset loader can stream them; `Shards`
reads them at random. The manifest is `manifest.json`; docs/data.md says what is in it.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import av
import numpy as np
import webdataset

from dreamwalk import validation
from dreamwalk.clip import Clip
from dreamwalk.data.captions import window_caption
from dreamwalk.data.h264 import CorruptData, decode_video, encode_video
from dreamwalk.errors import UserError, brief
from dreamwalk.validation import Bytes, Count, Positive, Rate, Side, mending, required
from dreamwalk.world import ActionSchema

FORMAT, VERSION = "dreamwalk-clips", 1
MANIFEST = "manifest.json"
DEPTH_SCALE = 0.125
ARRAYS = {"actions.npy": "actions", "poses.npy": "world_from_camera", "intrinsics.npy": "intrinsics"}
"""Files of a clip, and its fields."""
PLACED = "placed.npy"
"""Where what was put down stands; folders written before it was known lack it."""
HEADER = 1024
"""Bytes, at most, before the numbers of an array."""


@dataclass(frozen=True)
class ClipEntry:
    """Where a clip lies in its shard: bytes `offset .. offset + size`."""

    offset: Bytes
    size: Bytes
    frames: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A file of clips, in the folder of the manifest."""

    file: str
    clips: tuple[ClipEntry, ...]


FIELDS: dict[str, Any] = {"schema": ActionSchema, "fps": Rate, "size": tuple[Side, Side]}
FIELDS |= {"shards": tuple[Shard, ...]}
"""Fields of every manifest."""
SOURCE: dict[str, Any] = {"world": str, "level": str, "split": str, "seed": Count, "depth_scale": Positive}
"""What of that is read again, where it is there."""
_PLAIN = (CorruptData, ValueError, KeyError, IndexError, EOFError, NotImplementedError)
DECODE_ERRORS = (*_PLAIN, tarfile.TarError, zipfile.BadZipFile, zlib.error, av.FFmpegError)
"""What the readers of these formats raise for bytes that are not of them."""


def encode_clip(clip: Clip, fps: float) -> dict[str, bytes]:
    """The files of one clip, by extension."""
    arrays = {file: getattr(clip, name) for file, name in ARRAYS.items()} | {PLACED: clip.placed}
    files = {"video.mp4": encode_video(clip.video, fps)}
    files |= {file: _npy(array) for file, array in arrays.items() if array is not None}
    if clip.depth is not None:
        counts = np.clip(np.round(clip.depth / DEPTH_SCALE), 0, 65535).astype(np.uint16)
        file = io.BytesIO()
        np.savez_compressed(file, depth=np.diff(counts, axis=2, prepend=np.uint16(0)))
        files["depth.npz"] = file.getvalue()
    return files | {"caption.txt": str(clip.caption).encode()}


def write_shard(path: Path, samples: list[tuple[int, dict[str, bytes]]]) -> None:
    """A tar of (clip index, files) at `path`, the same bytes for the same samples."""
    with open(path, "wb") as file:
        writer = webdataset.TarWriter(file, mtime=0, user="dreamwalk", group="dreamwalk", encoder=False)
        for index, files in samples:
            writer.write({"__key__": f"{index:08d}", **files})
        writer.close()


def index_shard(path: Path) -> list[ClipEntry]:
    """What is in a shard, by reading it through."""
    data = path.read_bytes()
    spans: OrderedDict[str, list[tarfile.TarInfo]] = OrderedDict()
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar.getmembers():
                spans.setdefault(member.name.split(".")[0], []).append(member)
        entries = []
        for members in spans.values():
            start, last = members[0].offset, members[-1]
            size = last.offset_data + -(-last.size // 512) * 512 - start
            part = data[start : start + size]
            frames = len(_load_npy(_read_members(part)["actions.npy"]))
            entries.append(ClipEntry(start, size, frames, hashlib.sha256(part).hexdigest()))
    except DECODE_ERRORS as error:
        reason = f"is not a whole tar file ({brief(error)})"
        raise UserError(f"'{path}' {reason}: delete it and collect again") from error
    if not entries:
        raise UserError(f"'{path}' holds no clips: delete it and collect again")
    return entries


class Shards:
    """Clips of a folder, by index; it has `schema`, `fps`, `size` (h, w), `frames` and the whole `manifest`.

    Decoded videos are kept in memory up to `memory` bytes, the latest used last to go, because training draws
    windows from the same clips again and again. UserError names the file that is missing or broken.
    """

    def __init__(self, path: str | Path, *, memory: int = 4 << 30) -> None:
        self.path = Path(path)
        self.manifest, known = read_manifest(self.path)
        self.schema: ActionSchema = known["schema"]
        self.fps: float = known["fps"]
        self.size: tuple[int, int] = known["size"]
        self._entries = [(shard.file, entry) for shard in known["shards"] for entry in shard.clips]
        self.frames = sum(entry.frames for _, entry in self._entries)
        self._memory, self._used = memory, 0
        self._clips: OrderedDict[int, Clip] = OrderedDict()
        self._caption = window_caption(self.manifest, self.schema)

    def __len__(self) -> int:
        """Clips in the folder."""
        return len(self._entries)

    def clip(self, index: int, *, depth: bool = True) -> Clip:
        """A clip as numpy arrays; without depth it is quicker and its `depth` is None."""
        return self.window(index, 0, self._entry(index)[1].frames, depth=depth)

    def window(self, index: int, start: int, frames: int, *, depth: bool = False) -> Clip:
        """Frames `start .. start + frames` of a clip; the arrays are views: do not write into them.

        The caption is of these frames where the level is known, else that of the whole clip.
        """
        clip = self._clips.get(index)
        if clip is None or (depth and clip.depth is None):
            clip = self.decode(index, depth=depth)
        self._keep(index, clip)
        window = clip.window(start, frames)
        if frames < len(clip):
            window = self.captioned(window, index, start)
        return window if depth else replace(window, depth=None)

    def captioned(self, window: Clip, index: int, start: int) -> Clip:
        """The frames of clip `index` from `start` on with a caption of their own, where their level is
        known."""
        return replace(window, caption=self._caption(index, window, start)) if self._caption else window

    def walked(self, index: int) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
        """Poses `(t, 4, 4)` and intrinsics `(t, 3, 3)`, where they are known, and actions `(t, a)` of a clip,
        without its video."""
        with self._decoding(index):
            files = _read_members(self.read(index))
            arrays = _arrays(files, self.frames_of(index), self.schema.size)
            return arrays.get("world_from_camera"), arrays.get("intrinsics"), arrays["actions"]

    def frames_of(self, index: int) -> int:
        """Frames in a clip."""
        return self._entry(index)[1].frames

    def read(self, index: int) -> bytes:
        """The bytes of a clip in its shard; UserError when the file is missing, too short or has changed."""
        file, entry = self._entry(index)
        path, mend = self.path / file, f"delete it and collect into '{self.path}' again"
        try:
            with open(path, "rb") as shard:
                if os.fstat(shard.fileno()).st_size < entry.offset + entry.size:
                    raise UserError(f"'{path}' is cut short: {mend}")
                shard.seek(entry.offset)
                data = shard.read(entry.size)
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            what = "is missing" if gone else f"cannot be read ({brief(error)})"
            raise UserError(f"'{path}' {what}: collect into '{self.path}' again") from error
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise UserError(f"clip {index} in '{path}' is not what the manifest says: {mend}")
        return data

    def _entry(self, index: int) -> tuple[str, ClipEntry]:
        if not 0 <= index < len(self._entries):
            raise IndexError(f"clip {index} of {len(self._entries)} in '{self.path}'")
        return self._entries[index]

    def decode(self, index: int, *, depth: bool) -> Clip:
        """A clip as numpy arrays, decoded anew and not kept; any number of threads may do so at once."""
        with self._decoding(index):
            files, shape = _read_members(self.read(index)), (self.frames_of(index), *self.size)
            arrays: dict[str, Any] = _arrays(files, shape[0], self.schema.size)
            if depth and "depth.npz" in files:
                arrays["depth"] = _load_depth(files["depth.npz"], shape)
            video = decode_video(files["video.mp4"], frames=shape[0], size=self.size)
            clip = Clip(video=video, caption=files["caption.txt"].decode(), **arrays)
        return clip

    @contextmanager
    def _decoding(self, index: int) -> Iterator[None]:
        """Around what takes the bytes of a clip apart: damage is a UserError that names clip and file."""
        try:
            yield
        except UserError:
            raise
        except DECODE_ERRORS as error:
            file, advice = self._entry(index)[0], f"delete it and collect into '{self.path}' again"
            reason = f"it lacks {error}" if isinstance(error, KeyError) else brief(error)
            where = f"clip {index} in '{self.path / file}'"
            raise UserError(f"{where} is damaged ({reason}): {advice}") from error

    def _keep(self, index: int, clip: Clip) -> None:
        """Remember a decoded clip as the latest used; forget the oldest ones over the budget."""
        previous = self._clips.pop(index, None)
        self._used += _bytes(clip) - (_bytes(previous) if previous else 0)
        self._clips[index] = clip
        while self._used > self._memory and len(self._clips) > 1:
            self._used -= _bytes(self._clips.popitem(last=False)[1])


def find_faults(path: str | Path) -> list[tuple[str, str]]:
    """Compare a folder with its manifest byte by byte: (file, what is wrong) for each fault; [] if none."""
    folder = Path(path)
    faults: list[tuple[str, str]] = []
    for shard in read_manifest(folder)[1]["shards"]:
        file = folder / shard.file
        if not file.is_file():
            faults.append((shard.file, "missing"))
            continue
        data = file.read_bytes()
        for number, clip in enumerate(shard.clips):
            part = data[clip.offset : clip.offset + clip.size]
            if len(part) < clip.size:
                faults.append((shard.file, f"cut short: ends inside its clip {number}"))
                break
            if hashlib.sha256(part).hexdigest() != clip.sha256:
                faults.append((shard.file, f"clip {number} has changed bytes"))
    return faults


def read_manifest(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest of a folder, and of it what `FIELDS` names; UserError when there is none, another version
    wrote it, it is damaged, or a shard that it names is not in the folder."""
    file, mend = path / MANIFEST, f"delete it and collect into '{path}' again"
    if not file.exists():
        raise UserError(f"'{file}' is missing: '{path}' holds no clips; `dreamwalk collect` makes them")
    manifest = validation.read_json(file, dict[str, Any], mend=mend)
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        found = f"{manifest.get('format')} version {manifest.get('version')}"
        ours = f"this reads {FORMAT} version {VERSION}"
        raise UserError(f"'{file}' is {found}, {ours}: collect into a new folder")
    with mending(mend):
        known = required(FIELDS, manifest, f"'{file}'")
        source = required({k: v for k, v in SOURCE.items() if k in manifest}, manifest, f"'{file}'")
        if source.get("depth_scale", DEPTH_SCALE) != DEPTH_SCALE:
            raise UserError(f"'{file}' has a depth_scale of {source['depth_scale']}, not {DEPTH_SCALE}")
    for shard in known["shards"]:
        validation.require_inside(path, shard.file, f"'{file}': a shard's file")
    return manifest, known


def _read_members(data: bytes) -> dict[str, bytes]:
    """The files of one sample, by extension, from its bytes."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() and not member.issparse() else None
            if file is None:  # a link, or a hole of any size
                raise CorruptData(f"'{member.name:.60}' is not a file")
            files[member.name.partition(".")[2]] = file.read()
    return files


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array))
    return file.getvalue()


def _arrays(files: dict[str, bytes], frames: int, actions: int) -> dict[str, np.ndarray]:
    """What is known of each frame besides its pixels, by the fields of a `Clip`."""
    arrays = {}
    for (file, name), size in zip(ARRAYS.items(), ((actions,), (4, 4), (3, 3)), strict=True):
        if file in files or name == "actions":  # which every clip has
            array = arrays[name] = _load_npy(files[file])
            if array.shape != (frames, *size) or array.dtype != np.float32 or not np.isfinite(array).all():
                raise CorruptData(f"{file} is not finite, or not float32 of shape {(frames, *size)}")
    if PLACED in files:
        array = arrays["placed"] = _load_npy(files[PLACED])
        if array.ndim != 3 or (len(array), array.shape[2]) != (frames, 3) or array.dtype != np.float32:
            raise CorruptData(f"{PLACED} is not float32 of shape ({frames}, k, 3)")
        if np.isinf(array).any():
            raise CorruptData(f"{PLACED} is not finite")
    return arrays


def _load_npy(data: bytes) -> np.ndarray:
    """An array; Damaged for one whose header asks for more than there is, before room is made for it."""
    file = io.BytesIO(data)
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # the header is parsed as Python, which fails in many ways
        raise CorruptData(f"this is no array ({error})") from error
    if prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise CorruptData(f"an array of shape {shape} in {len(data)} bytes")
    return np.load(io.BytesIO(data), allow_pickle=False)


def _load_depth(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if archive.getinfo("depth.npy").file_size > HEADER + 2 * prod(shape):
            raise CorruptData("depth.npz is of another size")
        steps = _load_npy(archive.read("depth.npy"))
    if steps.shape != shape or steps.dtype != np.uint16:
        raise CorruptData(f"depth.npz is not of shape {shape}")
    return np.cumsum(steps, axis=2, dtype=np.uint16).astype(np.float32) * DEPTH_SCALE


def _bytes(clip: Clip) -> int:
    return clip.video.nbytes + (clip.depth.nbytes if clip.depth is not None else 0)
