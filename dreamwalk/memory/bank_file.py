"""The file of a bank of frames: safetensors, written and read latent by latent, with a checksum."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from dreamwalk.errors import UserError, atomic, brief, writing

FORMAT = "dreamwalk-bank/1"
MEND = "save the session again"
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
LATENT = "latent"
UNKNOWN = "--------"
"""Stands for the checksum until all is written."""


class BankFile:
    """A file that is open for reading."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file
        strings = file.metadata() or {}
        if strings.get("format") != FORMAT:
            raise UserError(f"'{path}' holds no bank of frames: give a file that a session saved")
        self.about = json.loads(strings["bank"])
        self._checksum = strings["crc32"]
        names = [name for name in file.keys() if name != LATENT]  # noqa: SIM118
        self.rows: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
        shape = tuple(file.get_slice(LATENT).get_shape())
        self.count, self.shape = shape[0], shape[1:]

    def latents(self) -> Iterator[Tensor]:
        """One after the other; UserError at the end when something in the file has changed."""
        checksum, latents = 0, self._file.get_slice(LATENT)
        for name in sorted(self.rows):
            checksum = zlib.crc32(_bytes(self.rows[name]), checksum)
        for i in range(self.count):
            latent = latents[i]
            checksum = zlib.crc32(_bytes(latent), checksum)
            yield latent
        if self._checksum != f"{checksum:08x}":
            raise UserError(f"'{self.path}' has changed since it was written: {MEND}")


@contextmanager
def read_bank(path: Path) -> Iterator[BankFile]:
    """A file that `write_bank` wrote; UserError for one that is broken or another's."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            yield BankFile(path, file)
    except UserError:
        raise
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"'{path}' cannot be read ({brief(error)}): {MEND}") from error


def write_bank(
    path: Path,
    rows: Mapping[str, Tensor],
    *,
    latents: Iterable[Tensor],
    like: Tensor,
    about: Mapping[str, Any],
) -> None:
    """Write rows `(n, ...)` and `n` latents that are `like` one; UserError where they cannot be written, and
    an older file is replaced only when the new one is whole."""
    count = len(next(iter(rows.values()), ()))
    kinds = {name: (rows[name].dtype, tuple(rows[name].shape)) for name in sorted(rows)}
    kinds[LATENT] = like.dtype, (count, *like.shape)
    strings = {"format": FORMAT, "crc32": UNKNOWN, "bank": json.dumps(about)}
    header: dict[str, Any] = {"__metadata__": strings}
    start = 0
    for name, (dtype, shape) in kinds.items():
        end = start + prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    checksum = 0
    with writing(path), atomic(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensors in ((rows[name] for name in sorted(rows)), latents):
            for tensor in tensors:
                data = _bytes(tensor)
                checksum = zlib.crc32(data, checksum)
                file.write(data)
        file.seek(8 + text.index(UNKNOWN.encode()))
        file.write(f"{checksum:08x}".encode())


def _bytes(tensor: Tensor) -> Any:
    """Of a tensor on the CPU, without a copy."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy()
