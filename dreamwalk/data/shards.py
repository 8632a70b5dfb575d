"""Clips on disk: WebDataset tar files with a manifest that finds any clip without reading the others.

One sample per clip: `video.mp4` (H.264, all the colour), `depth.npz` (16-bit steps), `poses.npy`,
`intrinsics.npy`, `actions.npy`, `caption.txt`. Any WebDataset loader can stream them; `Shards` reads them at
random. The manifest is `manifest.json`; docs/data.md says what is in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import webdataset

from dreamwalk.clip import Clip
from dreamwalk.data.captions import narrator
from dreamwalk.data.h264 import decode_video, encode_video
from dreamwalk.errors import UserError
from dreamwalk.world import ActionSchema

FORMAT, VERSION = "dreamwalk-clips", 1
MANIFEST = "manifest.json"
DEPTH_SCALE = 0.125


@dataclass(frozen=True)
class Entry:
    """Where a clip lies in its shard: bytes `offset .. offset + size`."""

    offset: int
    size: int
    frames: int
    sha256: str


def encode_clip(clip: Clip, fps: float) -> dict[str, bytes]:
    """The files of one clip, by extension."""
    files = {"video.mp4": encode_video(clip.video, fps), "actions.npy": _npy(clip.actions)}
    if clip.world_from_camera is not None:
        files["poses.npy"] = _npy(clip.world_from_camera)
    if clip.intrinsics is not None:
        files["intrinsics.npy"] = _npy(clip.intrinsics)
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


def index_shard(path: Path) -> list[Entry]:
    """What is in a shard, by reading it through."""
    data = path.read_bytes()
    spans: OrderedDict[str, list[tarfile.TarInfo]] = OrderedDict()
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar.getmembers():
                spans.setdefault(member.name.split(".")[0], []).append(member)
    except tarfile.TarError as error:
        raise UserError(f"'{path}' is not a whole tar file ({error}): delete it and collect again") from error
    entries = []
    for members in spans.values():
        start, last = members[0].offset, members[-1]
        size = last.offset_data + -(-last.size // 512) * 512 - start
        clip = _read_members(data[start : start + size])
        frames = len(_load_npy(clip["actions.npy"]))
        entries.append(Entry(start, size, frames, hashlib.sha256(data[start : start + size]).hexdigest()))
    return entries


class Shards:
    """Clips of a folder, by index; it has `schema`, `fps`, `size` (h, w), `frames` and the whole `manifest`.

    Decoded videos are kept in memory up to `memory` bytes, the latest used last to go, because training draws
    windows from the same clips again and again. UserError names the file that is missing or broken.
    """

    def __init__(self, path: str | Path, *, memory: int = 4 << 30) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self.schema = ActionSchema(**{name: tuple(part) for name, part in self.manifest["schema"].items()})
        self.fps: float = self.manifest["fps"]
        self.size: tuple[int, int] = tuple(self.manifest["size"])
        self._entries = [
            (shard["file"], Entry(**entry)) for shard in self.manifest["shards"] for entry in shard["clips"]
        ]
        self.frames = sum(entry.frames for _, entry in self._entries)
        self._memory, self._used = memory, 0
        self._clips: OrderedDict[int, Clip] = OrderedDict()
        self._told = narrator(self.manifest, self.schema)

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
            clip = self._decode(index, depth)
        self._keep(index, clip)
        window = clip.window(start, frames)
        if frames < len(clip) and self._told:
            window = replace(window, caption=self._told(index, window, start))
        return window if depth else replace(window, depth=None)

    def walked(self, index: int) -> tuple[np.ndarray | None, np.ndarray]:
        """Poses `(t, 4, 4)`, where they are known, and actions `(t, a)` of a clip, without its video."""
        files = _read_members(self.read(index))
        poses = _load_npy(files["poses.npy"]) if "poses.npy" in files else None
        return poses, _load_npy(files["actions.npy"])

    def frames_of(self, index: int) -> int:
        """Frames in a clip."""
        return self._entry(index)[1].frames

    def read(self, index: int) -> bytes:
        """The bytes of a clip in its shard; UserError when the file is missing or too short."""
        file, entry = self._entry(index)
        try:
            with open(self.path / file, "rb") as shard:
                shard.seek(entry.offset)
                data = shard.read(entry.size)
        except FileNotFoundError as error:
            raise UserError(f"'{self.path / file}' is missing: collect into '{self.path}' again") from error
        if len(data) < entry.size:
            mend = f"delete it and collect into '{self.path}' again"
            raise UserError(f"'{self.path / file}' is cut short: {mend}")
        return data

    def _entry(self, index: int) -> tuple[str, Entry]:
        if not 0 <= index < len(self._entries):
            raise IndexError(f"clip {index} of {len(self._entries)} in '{self.path}'")
        return self._entries[index]

    def _decode(self, index: int, depth: bool) -> Clip:
        file, _ = self._entry(index)
        try:
            return decode_clip(_read_members(self.read(index)), depth=depth)
        except (tarfile.TarError, KeyError, av.FFmpegError) as error:
            advice = f"delete it and collect into '{self.path}' again"
            raise UserError(f"clip {index} in '{self.path / file}' is damaged ({error}): {advice}") from error

    def _keep(self, index: int, clip: Clip) -> None:
        """Remember a decoded clip as the latest used; forget the oldest ones over the budget."""
        previous = self._clips.pop(index, None)
        self._used += _bytes(clip) - (_bytes(previous) if previous else 0)
        self._clips[index] = clip
        while self._used > self._memory and len(self._clips) > 1:
            self._used -= _bytes(self._clips.popitem(last=False)[1])


def decode_clip(files: dict[str, bytes], *, depth: bool = True) -> Clip:
    """The clip of the files that `encode_clip` made."""
    return Clip(
        video=decode_video(files["video.mp4"]),
        actions=_load_npy(files["actions.npy"]),
        world_from_camera=_load_npy(files["poses.npy"]) if "poses.npy" in files else None,
        intrinsics=_load_npy(files["intrinsics.npy"]) if "intrinsics.npy" in files else None,
        depth=_load_depth(files["depth.npz"]) if depth and "depth.npz" in files else None,
        caption=files["caption.txt"].decode(),
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a folder; UserError when there is none or another version wrote it."""
    file = path / MANIFEST
    if not file.exists():
        raise UserError(f"'{file}' is missing: '{path}' holds no clips; `dreamwalk collect` makes them")
    try:
        manifest = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UserError(
            f"'{file}' is not JSON ({error}): delete it and collect into '{path}' again"
        ) from error
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        found = f"{manifest.get('format')} version {manifest.get('version')}"
        raise UserError(
            f"'{file}' is {found}, this reads {FORMAT} version {VERSION}: collect into a new folder"
        )
    return manifest


def _read_members(data: bytes) -> dict[str, bytes]:
    """The files of one sample, by extension, from its bytes."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            files[member.name.partition(".")[2]] = file.read()
    return files


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array))
    return file.getvalue()


def _load_npy(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _load_depth(data: bytes) -> np.ndarray:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return np.cumsum(file["depth"], axis=2, dtype=np.uint16).astype(np.float32) * DEPTH_SCALE


def _bytes(clip: Clip) -> int:
    return clip.video.nbytes + (clip.depth.nbytes if clip.depth is not None else 0)
