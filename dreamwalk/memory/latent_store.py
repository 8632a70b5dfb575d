"""Latents of frames: the last used in RAM up to a limit, all others in a temporary file.

The file has no name, so nothing is left of it however its process ends. It is read and written, and not
mapped: a mapped file kills its process when the disk is full, and counts as memory of the process. What was
read a moment ago comes from the system's cache of files all the same.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import weakref
from itertools import count
from typing import IO, Any

import torch
from torch import Tensor

from dreamwalk.errors import writing


class KeptLatent:
    """A latent of a store. Copies of a bank share it; when the last one lets go, its place is free."""

    __slots__ = ("__weakref__", "latent", "row", "stamp", "store")

    def __init__(self, store: LatentStore, latent: Tensor) -> None:
        self.store = store
        self.latent: Tensor | None = latent
        self.row: int | None = None
        """In the file."""
        self.stamp = 0
        """Of its last use."""

    def __del__(self) -> None:
        if self.row is not None:
            self.store.free.append(self.row)


class LatentStore:
    """Latents of one shape and type, bit for bit as they were given. Halves of float32 would lose nothing
    that one could see; who wants them gives them."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.free: list[int] = []
        """Rows of the file that nobody holds."""
        self._rows = 0
        self._file: IO[bytes] | None = None
        self._hot: weakref.WeakValueDictionary[int, KeptLatent] = weakref.WeakValueDictionary()
        """Those in RAM by their stamps: the least recently used is the first."""
        self._unwritten: weakref.WeakSet[KeptLatent] = weakref.WeakSet()
        self._stamps = count(1)
        self.like: Tensor | None = None
        """The first one: those that follow have its shape, and are kept in its type."""
        self._lock = threading.Lock()

    def put(self, latent: Tensor) -> KeptLatent:
        """Keep a latent; UserError on a full disk, and then all others are as they were."""
        dtype = latent.dtype if self.like is None else self.like.dtype
        latent = latent.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)
        kept = KeptLatent(self, latent)
        with self._lock:
            self.like = torch.empty_like(latent) if self.like is None else self.like
            if (len(self._hot) + 1) * latent.nbytes > self.memory_bytes:
                # From here on every one that is hot is in the file too, so that reading never has to write.
                for one in [*self._unwritten, kept]:
                    assert one.latent is not None
                    one.row = self._written(one.latent)
                    self._unwritten.discard(one)
            else:
                self._unwritten.add(kept)
            self._touch(kept)
        return kept

    def get(self, kept: KeptLatent) -> Tensor:
        """The latent on the CPU, not to be changed."""
        with self._lock:
            latent = kept.latent
            if latent is None:
                latent = kept.latent = self._read(kept)
            self._touch(kept)
        return latent

    @property
    def resident(self) -> int:
        """Bytes of latents in RAM."""
        return len(self._hot) * (0 if self.like is None else self.like.nbytes)

    def _touch(self, kept: KeptLatent) -> None:
        """It was used last; those go from RAM that were not used for longest."""
        self._hot.pop(kept.stamp, None)
        kept.stamp = next(self._stamps)
        self._hot[kept.stamp] = kept
        while self.resident > self.memory_bytes:
            oldest = next(one for one in self._hot.values() if one.row is not None)
            oldest.latent = None
            del self._hot[oldest.stamp]

    def _written(self, latent: Tensor) -> int:
        """The row of the file that holds a latent from now on."""
        data: Any = latent.flatten().view(torch.uint8).numpy()
        with writing(tempfile.gettempdir()):
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="dreamwalk-bank-", buffering=0)  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            row = self.free.pop() if self.free else self._rows
            try:
                if os.pwrite(self._file.fileno(), data, row * latent.nbytes) < latent.nbytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                if row < self._rows:
                    self.free.append(row)
                raise
        self._rows = max(self._rows, row + 1)
        return row

    def _read(self, kept: KeptLatent) -> Tensor:
        assert self.like is not None and self._file is not None and kept.row is not None
        data = bytearray(self.like.nbytes)
        if os.preadv(self._file.fileno(), [data], kept.row * len(data)) < len(data):
            raise OSError(errno.EIO, "the temporary file of a bank of frames has lost a part")
        return torch.frombuffer(data, dtype=self.like.dtype).view(self.like.shape)
