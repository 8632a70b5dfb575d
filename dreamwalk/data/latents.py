"""Latents of captioned clips on disk: a codec encodes each clip once, and training does without the codec."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby, islice
from pathlib import Path
from typing import Protocol

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from dreamwalk.clip import Clip, batch
from dreamwalk.data.folders import CaptionedFolder, Piece
from dreamwalk.errors import UserError, atomic, writing
from dreamwalk.images import Fit
from dreamwalk.progress import followed
from dreamwalk.validation import mending, read_json, require_inside, required

HEADER, INDEX = "codec.json", "latents.json"
AGAIN = "collect the latents again, into a new folder"
MEND = "delete it and let `cached_latents` make it again"


@dataclass(frozen=True)
class LatentsEntry:
    """What the index says of a clip."""

    file: str
    shape: tuple[int, int, int, int]
    caption: str
    fps: float


class Encodes(Protocol):
    """What is asked of a codec here."""

    def encode(self, video: Tensor) -> Tensor:
        """Video in [-1, 1] `(b, t, 3, h, w)` to latents `(b, t', c, h', w')`."""


class Latents:
    """What `cached_latents` wrote; UserError when there is none, or not all of it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        index = self.path / INDEX
        if not index.exists():
            raise UserError(f"'{index}' is missing: let `cached_latents` into '{path}' run to its end")
        self._entries: tuple[LatentsEntry, ...] = read_json(index, tuple[LatentsEntry, ...], mend=AGAIN)
        self.codec = _header(self.path)["codec"]
        """The `fingerprint` of the codec."""
        self.buckets: dict[tuple[int, ...], list[int]] = {}
        """The clips of each size (t, c, h, w)."""
        for number, entry in enumerate(self._entries):
            self.buckets.setdefault(entry.shape, []).append(number)
        if not self._entries:
            raise UserError(f"'{path}' holds no latents: collect some first")

    def __len__(self) -> int:
        """Clips."""
        return len(self._entries)

    def latents(self, index: int) -> Tensor:
        """The latents `(t, c, h, w)` of a clip; UserError where they are missing, damaged or others."""
        entry = self._entries[index]
        file = require_inside(self.path, entry.file, f"'{self.path / INDEX}': a file of latents")
        latents = _load(file)
        if latents.shape != entry.shape or not latents.isfinite().all():
            raise UserError(f"'{file}' is not finite, or not of shape {entry.shape}: {MEND}")
        return latents

    def caption(self, index: int) -> str:
        return self._entries[index].caption

    def batch(self, rows: Sequence[int], *, seed: int, step: int) -> Clip:
        """These rows of the batch of a step, latents and captions, a function of seed and step alone: a
        bucket, drawn in proportion to its clips, and for each row a clip of it."""
        sizes = list(self.buckets.values())
        share = np.array([len(clips) for clips in sizes]) / len(self)
        clips = sizes[np.random.default_rng([seed, step, 0]).choice(len(sizes), p=share)]
        drawn = [int(np.random.default_rng([seed, step, row + 1]).choice(clips)) for row in rows]
        latents = torch.stack([self.latents(index) for index in drawn])
        return Clip(latents=latents, caption=[self.caption(index) for index in drawn])


def cached_latents(
    codec: Encodes,
    folder: CaptionedFolder,
    out: str | Path,
    *,
    at_once: int = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float16,
) -> Latents:
    """Encode every clip of a folder into `out`, or what is missing there, `at_once` clips at a time.

    The codec must be on `device`. The same call goes on where it was stopped, and takes up what the folder
    has got since. UserError when `out` holds latents of another codec or dtype.
    """
    path = Path(out)
    _claim(path, {"codec": fingerprint(codec), "dtype": str(dtype)})
    files = {piece: path / _name(piece, folder.fit) for piece in folder.pieces}
    missing = [piece for piece, file in files.items() if not file.exists()]
    clips, groups = folder.clips(missing), list(_groups(missing, at_once))
    for group in followed(groups, "encoding", total=len(groups)):
        video = batch(list(islice(clips, len(group)))).video.to(device).float() / 127.5 - 1
        with torch.no_grad():
            latents = codec.encode(video)
        for piece, each in zip(group, latents, strict=True):
            _save(files[piece], each.to("cpu", dtype), piece)
    keys = [field.name for field in fields(LatentsEntry)]
    rows = [(_name(p, folder.fit), _load(file).shape, p.caption, p.fps) for p, file in files.items()]
    index = [dict(zip(keys, row, strict=True)) for row in rows]
    _replace(path / INDEX, json.dumps(index, indent=0).encode())
    return Latents(path)


def fingerprint(codec: Encodes) -> str:
    """SHA-256 of a codec's class and weights: one encoder, one set of latents."""
    digest = hashlib.sha256(type(codec).__qualname__.encode())
    for name, tensor in codec.state_dict().items() if isinstance(codec, nn.Module) else ():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _groups(pieces: Sequence[Piece], at_once: int) -> Iterator[list[Piece]]:
    """Up to so many neighbours of one bucket."""
    for _, same in groupby(pieces, lambda piece: piece.bucket):
        while group := list(islice(same, at_once)):
            yield group


def _name(piece: Piece, how: Fit) -> str:
    return f"{piece.file}.{piece.number:04d}.{piece.bucket}.{piece.fps:g}.{how}.safetensors"


def _claim(path: Path, header: dict[str, str]) -> None:
    """Say whose latents a folder holds; UserError when it holds others."""
    file = path / HEADER
    if not file.exists():
        _replace(file, json.dumps(header, indent=1).encode())
        return
    written = _header(path)
    if other := [key for key, value in header.items() if written.get(key) != value]:
        raise UserError(f"'{path}' holds latents of another {' and '.join(other)}: choose another folder")


def _header(path: Path) -> dict[str, str]:
    """Whose latents a folder holds."""
    file = path / HEADER
    if not file.exists():
        raise UserError(f"'{file}' is missing: {AGAIN}")
    given = read_json(file, mend=AGAIN)
    with mending(AGAIN):
        return required({"codec": str, "dtype": str}, given, f"'{file}'")


def _save(file: Path, latents: Tensor, piece: Piece) -> None:
    about = {"caption": piece.caption, "file": piece.file, "fps": str(piece.fps)}
    _replace(file, safetensors.torch.save({"latents": latents.contiguous()}, metadata=about))


def _load(file: Path) -> Tensor:
    try:
        return safetensors.torch.load_file(file)["latents"]
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise UserError(f"'{file}' is missing or damaged ({error}): {MEND}") from None


def _replace(file: Path, data: bytes) -> None:
    with writing(file), atomic(file) as partial:
        partial.write_bytes(data)
