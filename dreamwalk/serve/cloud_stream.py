"""The points that a dream keeps, as a page is sent them: what has changed since the last message.

A point has the number of its slot, of which every so many-th is sent. A slot that was used anew is sent
again, and one from which the point is gone as zeros, so that the page shows what the dream keeps, and no
more. The messages are binary and little-endian:

0   u8   version, 3                     16  3f32  world coordinates of the middle
1   u8   1: forget all points before    28  f32   focal length of the walker's camera, in heights
2   u16  thirds: first keep every third         of the picture
         slot, so many times            32  n u32 numbers of slots, then for each 4 i16 (x, y, z from the
4   u32  n, slots in this message               middle in units, and 0), then for each 4 u8 (three of
8   u32  slots in all                           colour, and one of size, 0 being no point)
12  f32  unit, in world units
"""

from __future__ import annotations

import struct

import numpy as np

from dreamwalk.serve.app_config import CloudSample
from dreamwalk.serve.scene_config import point_paint

VERSION = 3
MOST = 100_000
"""Slots that a page is sent at most; of more, every third, so that those it has are among them."""
AT_ONCE = 20_000
"""Slots in one message at most, of 16 bytes each."""
REACH = 4096.0
"""World units from the middle beyond which no point is sent: the sky is there."""
UNIT = REACH / 2**15
"""World units of a step of a coordinate."""
HEADER = struct.Struct("<2BH2I5f")
_ROW = np.dtype([("place", "<i2", 4), ("paint", "u1", 4)])


class CloudStream:
    """What one page has been sent of one cloud."""

    def __init__(self) -> None:
        self.every = 1
        """One of so many slots is sent."""
        self._sent: np.ndarray | None = None
        """Rows of all slots, as the page has them, u32 `(n, 3)`."""
        self._middle = np.zeros(3, np.float32)

    def changes(self, cloud: CloudSample) -> bytes | None:
        """The next message, where every `every`-th slot is as in `cloud`; None where nothing has changed."""
        if self._sent is not None and len(cloud.position) < len(self._sent):  # that of another walk
            self._sent, before, self.every = None, self.every, 1
            if before > 1:
                return None  # which was asked for too few of its slots: the next time it is all of them
        forget = self._sent is None or bool(np.abs(cloud.eyes - self._middle).max() > REACH / 2)
        if forget:
            self._sent, self._middle = np.zeros((0, 3), np.uint32), cloud.eyes.astype(np.float32)
        assert self._sent is not None
        thirds = 0
        while len(cloud.position) > MOST:
            thirds, self.every, self._sent = thirds + 1, 3 * self.every, self._sent[::3]
            cloud = cloud.thinned(3)
        rows, sent = self._rows(cloud), np.zeros((len(cloud.position), 3), np.uint32)
        sent[: len(self._sent)] = self._sent
        changed = np.flatnonzero((rows != sent).any(1))
        if len(changed) > AT_ONCE:  # what is gone comes first, then the oldest slots
            changed = changed[np.argsort(rows[changed, 2] != 0, kind="stable")][:AT_ONCE]
        sent[changed] = rows[changed]
        self._sent = sent
        if not (len(changed) or forget or thirds):
            return None
        head = VERSION, forget, thirds, len(changed), len(rows), UNIT, *self._middle.tolist(), cloud.focal
        news = rows[changed].view(_ROW)
        parts = changed.astype("<u4"), news["place"], news["paint"]
        return HEADER.pack(*head) + b"".join(part.tobytes() for part in parts)

    def _rows(self, cloud: CloudSample) -> np.ndarray:
        """Slots as the page takes them, u32 `(n, 3)`; zeros where there is no point within reach."""
        steps = np.round((cloud.position - self._middle) / UNIT)
        there = np.flatnonzero((np.abs(steps) < 2**15).all(1))
        rows = np.zeros(len(steps), _ROW)
        rows["place"][there, :3] = steps[there]
        rows["paint"][there] = point_paint(cloud.colours[there], cloud.footprints[there])
        return rows.view(np.uint32).reshape(-1, 3)
