"""Recalled frames as they are handed from a bank to attention: always as many, for all rows of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dreamwalk.memory.frustum import Cameras


class RecalledUnits(NamedTuple):
    """Frames that are recalled, `k` for each row."""

    latents: Tensor
    """`(b, k, c, h, w)`."""
    depth: Tensor
    """Planar, of the cells of recalled tokens, in world units, 0 for sky, `(b, k, p, q)`."""
    cameras: Cameras
    """`b` rows of `k` each."""
    time: Tensor
    """Frame indices `(b, k)`."""
    dreamed: Tensor
    """Bool `(b, k)`."""
    valid: Tensor
    """Whether there is such a frame, bool `(b, k)`; the rest is padding."""

    def pick(self, index: Tensor) -> RecalledUnits:
        """Those of indices `(b, j)`."""

        def picked(part: Tensor) -> Tensor:
            shape = index.shape + (1,) * (part.ndim - 2)
            return part.gather(1, index.view(shape).expand(*index.shape, *part.shape[2:]))

        cameras = Cameras(picked(self.cameras.pose), picked(self.cameras.intrinsics), self.cameras.size)
        latents, depth, *rest = (picked(part) for part in (*self[:2], *self[3:]))
        return RecalledUnits(latents, depth, cameras, *rest)

    @classmethod
    def cat(cls, rows: list[RecalledUnits]) -> RecalledUnits:
        """One row above another."""
        pose, intrinsics = (
            torch.cat([getattr(row.cameras, name) for row in rows]) for name in ("pose", "intrinsics")
        )
        latents, depth, *rest = (
            torch.cat(parts) for parts in zip(*((*row[:2], *row[3:]) for row in rows), strict=True)
        )
        return cls(latents, depth, Cameras(pose, intrinsics, rows[0].cameras.size), *rest)


class KeptTokens:
    """Keys and values of the frames that one session recalled last: most are recalled again for the next.

    They are made frame by frame, so that no bit depends on what is kept.
    """

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[Tensor, Tensor]] = {}
        """By latents, in the order in which they were last asked for."""

    def of(self, latents: Tensor, make: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """What `make` gives for latents `(b, k, c, h, w)`, two tensors `(b, k, ..)`."""
        (b, k), found = latents.shape[:2], []
        for latent in latents.flatten(0, 1):
            key = latent.contiguous().view(torch.uint8).numpy().tobytes()
            made = self._kept.pop(key, None) or make(latent[None, None])
            self._kept[key] = made
            found.append(made)
        for old in list(self._kept)[: -2 * len(found)]:
            del self._kept[old]
        keys, values = (torch.cat(parts, 1).unflatten(1, (b, k))[0] for parts in zip(*found, strict=True))
        return keys, values


class Targets(NamedTuple):
    """The frames for which they are recalled, `t` for each row."""

    cameras: Cameras
    time: Tensor
    """`(b, t)`."""
