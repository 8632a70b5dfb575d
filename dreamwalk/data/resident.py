"""Clips that all lie decoded in the memory of a device, for steps that are quicker than reading is.

A card takes a batch in less time than a processor takes to put it together and send it. So everything that
is large, video and depth, is decoded once, and batches are gathered where they are used.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import accumulate
from math import prod

import numpy as np
import torch
from torch import Tensor

from dreamwalk.clip import Clip, batch
from dreamwalk.data.shards import DEPTH_SCALE, Shards
from dreamwalk.errors import UserError

SHARE = 64
"""Clips for which it is worth starting a process."""


@dataclass(frozen=True)
class Window:
    """Which frames of which clip a row of a batch is made of."""

    index: int
    """Of the clip."""
    frames: np.ndarray
    """The frames, in order."""
    past: np.ndarray | None = None
    """Earlier frames that come with them, in order."""


class ResidentClips:
    """All clips of a folder, decoded."""

    def __init__(self, shards: Shards, *, depth: bool, device: torch.device) -> None:
        """UserError where the device has no room for them."""
        lengths = [shards.frames_of(index) for index in range(len(shards))]
        self._starts = [0, *accumulate(lengths)]
        total, size = self._starts[-1], shards.size
        _require_room(total * prod(size) * (5 if depth else 3), device)
        self._video = torch.empty((total, 3, *size), dtype=torch.uint8, device=device)
        self._depth = torch.empty((total, *size), dtype=torch.int16, device=device) if depth else None
        self._clips: list[Clip] = []
        self._shards = shards
        for clip in _decoded(shards, depth=depth):
            self._add(clip)

    def _add(self, clip: Clip) -> None:
        start = self._starts[len(self._clips)]
        frames = slice(start, start + len(clip))
        self._video[frames] = torch.from_numpy(clip.video).permute(0, 3, 1, 2).to(self._video.device)
        if self._depth is not None:
            if clip.depth is None:
                raise UserError(f"clip {len(self._clips)} in '{self._shards.path}' has no depth")
            counts = (clip.depth / DEPTH_SCALE).astype(np.uint16).view(np.int16)
            self._depth[frames] = torch.from_numpy(counts).to(self._depth.device)
        self._clips.append(replace(clip, video=None, depth=None))

    def batch(self, windows: Sequence[Window]) -> Clip:
        """The batched clip of those windows; video and depth lie on the device, what is small does not."""
        clips = []
        for window in windows:
            clip = replace(self._clips[window.index].pick(window.frames), times=window.frames)
            clips.append(self._shards.captioned(clip, window.index, int(window.frames[0])))
        whole = self._gathered(batch(clips), [(w.index, w.frames) for w in windows])
        past = [(w.index, w.past) for w in windows if w.past is not None]
        if len(past) < len(windows):
            return whole
        earlier = batch([replace(self._clips[index].pick(at), times=at) for index, at in past])
        return replace(whole, past=self._gathered(earlier, past))

    def _gathered(self, clip: Clip, frames: Sequence[tuple[int, np.ndarray]]) -> Clip:
        index = torch.from_numpy(np.stack([self._starts[clip] + at for clip, at in frames]))
        index, shape = index.flatten().to(self._video.device), index.shape
        video = self._video.index_select(0, index).unflatten(0, shape)
        return replace(clip, video=video, depth=self._depths(index, shape))

    def _depths(self, index: Tensor, shape: torch.Size) -> Tensor | None:
        if self._depth is None:
            return None
        counts = self._depth.index_select(0, index).unflatten(0, shape)
        return (counts.int() & 0xFFFF).float() * DEPTH_SCALE


def _decoded(shards: Shards, *, depth: bool) -> Iterator[Clip]:
    """All clips in order; many of them by processes, for threads of Python would wait for one another."""
    workers, indices = min(os.cpu_count() or 1, len(shards) // SHARE), range(len(shards))
    if workers < 2:
        yield from (shards.decode(index, depth=depth) for index in indices)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(_decode, str(shards.path), depth), indices, chunksize=4)


_opened = cache(Shards)


def _decode(path: str, depth: bool, index: int) -> Clip:
    return _opened(path).decode(index, depth=depth)


def _require_room(needed: int, device: torch.device) -> None:
    if device.type != "cuda":
        return
    free, _ = torch.cuda.mem_get_info(device)
    if needed > free:
        raise UserError(
            f"these clips take {needed / 1e9:.1f} GB in the memory of the card, which has "
            f"{free / 1e9:.1f} GB free: leave `--resident` out"
        )
