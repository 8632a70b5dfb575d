"""Keys and values outside every module: the ring cache of the last `window` frames, of static shape, and the
cache of groups of slots.

A denoising pass reads the ring and leaves it as it is; one commit pass per finished frame writes it. Keys are
stored rotated at their absolute time, so nothing is recomputed when the window slides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.layers.attention import KeyValues


class Past(Protocol):
    """Keys and values of frames that were read before, layer by layer."""

    def layer(self, index: int) -> KeyValues: ...


class Cache(Past, Protocol):
    """What lies behind one new frame."""

    @property
    def frames(self) -> int:
        """Index of the new frame."""

    def bias(self, new: int = 0) -> Tensor:
        """Additive attention bias `(1, 1, 1, tokens behind it + new)`: -inf for what it does not see."""


@dataclass
class RingCache:
    """Keys and values of all layers `(layers, b, heads, window * tokens, head_width)`; frames so far."""

    keys: Tensor
    values: Tensor
    tokens: int
    frames: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, int, int, int, int], *, window: int, like: Tensor) -> RingCache:
        """For `shape` (layers, b, heads, tokens of a frame, head_width) and `window` frames, on the device
        and in the precision of `like`; nothing in it is visible yet."""
        if window < 1:
            raise UserError(f"the cache needs a window of at least one frame, got {window}")
        *outer, tokens, head = shape
        keys, values = (like.new_zeros(*outer, window * tokens, head) for _ in range(2))
        return cls(keys, values, tokens)

    @property
    def window(self) -> int:
        return self.keys.shape[3] // self.tokens

    def layer(self, index: int) -> KeyValues:
        return KeyValues(self.keys[index], self.values[index])

    def bias(self, new: int = 0) -> Tensor:
        """Additive attention bias `(1, 1, 1, window * tokens + new)`: -inf in slots never written, else 0."""
        held = min(self.frames, self.window) * self.tokens
        bias = torch.zeros(1, 1, 1, self.keys.shape[3] + new, device=self.keys.device, dtype=self.keys.dtype)
        bias[..., held : self.keys.shape[3]] = -torch.inf
        return bias

    def write(self, fresh: Sequence[KeyValues]) -> None:
        """Commit one frame, of every layer `(b, heads, tokens, head_width)`, into the oldest frame's slot."""
        start = (self.frames % self.window) * self.tokens
        for index, (keys, values) in enumerate(fresh):
            self.keys[index, :, :, start : start + self.tokens] = keys
            self.values[index, :, :, start : start + self.tokens] = values
        self.frames += 1

    def clone(self) -> RingCache:
        return RingCache(self.keys.clone(), self.values.clone(), self.tokens, self.frames)

    def to(self, device: torch.device | str) -> RingCache:
        return RingCache(self.keys.to(device), self.values.to(device), self.tokens, self.frames)


@dataclass(frozen=True)
class ExtendedCache:
    """A ring cache behind keys and values of recalled frames, read as one."""

    ring: RingCache
    recalled: Sequence[KeyValues]
    """Of every layer, `(b, heads, k * tokens, head_width)`."""

    @property
    def frames(self) -> int:
        return self.ring.frames

    def layer(self, index: int) -> KeyValues:
        pairs = zip(self.recalled[index], self.ring.layer(index), strict=True)
        return KeyValues(*(torch.cat(pair, dim=2) for pair in pairs))

    def bias(self, new: int = 0) -> Tensor:
        """As of the ring; recalled frames are always visible."""
        return torch.nn.functional.pad(self.ring.bias(new), (self.recalled[0].keys.shape[2], 0))


@dataclass
class SlotCache:
    """Keys and values `(layers, b, heads, room, head_width)` of groups of slots, of any sizes, in order."""

    keys: Tensor
    values: Tensor
    sizes: dict[int, int] = field(default_factory=dict)
    """Of every group that is kept."""

    @classmethod
    def empty(cls, shape: tuple[int, int, int, int, int], *, like: Tensor) -> SlotCache:
        """For `shape` (layers, b, heads, room, head_width), on the device and in the precision of `like`."""
        return cls(like.new_zeros(shape), like.new_zeros(shape))

    @property
    def held(self) -> int:
        """Slots that are kept."""
        return sum(self.sizes.values())

    def layer(self, index: int) -> KeyValues:
        return KeyValues(self.keys[index, :, :, : self.held], self.values[index, :, :, : self.held])

    def write(self, sizes: dict[int, int], fresh: Sequence[KeyValues], keep: Callable[[int], bool]) -> None:
        """Groups of these `sizes` join, of every layer `(b, heads, their slots, head_width)`; of all groups
        those stay that are to `keep`."""
        self._retain(keep)
        start, stay = self.held, _places(sizes, keep)
        for index, pair in enumerate(fresh):
            for room, new in zip((self.keys, self.values), pair, strict=True):
                room[index, :, :, start : start + len(stay)] = new[:, :, stay]
        self.sizes |= {group: size for group, size in sizes.items() if keep(group)}

    def shift(self, groups: int) -> None:
        """The first so many groups leave, and the others are counted from there."""
        self._retain(lambda group: group >= groups)
        self.sizes = {group - groups: size for group, size in self.sizes.items()}

    def _retain(self, keep: Callable[[int], bool]) -> None:
        """Move what stays to the front, over what leaves."""
        if all(map(keep, self.sizes)):
            return
        stay = _places(self.sizes, keep)
        for room in (self.keys, self.values):
            room[:, :, :, : len(stay)] = room[:, :, :, stay]
        self.sizes = {group: size for group, size in self.sizes.items() if keep(group)}

    def clone(self) -> SlotCache:
        return SlotCache(self.keys.clone(), self.values.clone(), dict(self.sizes))

    def to(self, device: torch.device | str) -> SlotCache:
        return SlotCache(self.keys.to(device), self.values.to(device), dict(self.sizes))


def _places(sizes: dict[int, int], keep: Callable[[int], bool]) -> list[int]:
    """Places of the slots of groups that stay, among groups of these sizes."""
    found: list[int] = []
    start = 0
    for group, size in sizes.items():
        found += range(start, start + size) if keep(group) else ()
        start += size
    return found
