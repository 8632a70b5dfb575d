"""How much memory decoding takes, counted without computing: for a plan, before anything is loaded."""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreamwalk.codecs.tiles import Tiling, stream_decode

LONG = 64
"""Latent frames."""


def decode_bytes(codec: nn.Module, shape: tuple[int, ...], tiling: Tiling | None = None) -> int:
    """Most bytes held at once while latents `(b, t, c, h, w)` of that shape are decoded, whole or in tiles.

    Of the tensors that come and go, video included (in tiles: the piece that was last given out); neither
    weights nor what kernels need for themselves. The codec may be on the meta device. What a long video takes
    beyond `LONG` latent frames is taken to grow evenly, as it does where it is decoded in pieces.
    """
    b, t, *rest = shape
    if t > LONG:
        return extrapolated(t, lambda n: decode_bytes(codec, (b, n, *rest), tiling))
    with torch.no_grad(), FakeTensorMode() as fake:
        weights = [*codec.parameters(), *codec.buffers()]
        fakes = {id(weight): fake.from_tensor(weight) for weight in weights}
        light: Any = _OncePerShape(copy.deepcopy(codec, fakes))
        latents = torch.empty(shape, dtype=weights[0].dtype, device=weights[0].device)
        if tiling is None:
            return peak_bytes(lambda: light.decode(latents))
        return peak_bytes(lambda: deque(stream_decode(light, latents, tiling), maxlen=1))


def extrapolated(frames: int, count: Callable[[int], int]) -> int:
    """Bytes of more than `LONG` latent frames, from the counts of fewer: they grow evenly."""
    half, whole = count(LONG // 2), count(LONG)
    return whole + (frames - LONG) * (whole - half) // (LONG - LONG // 2)


class _OncePerShape:
    """A codec that decodes once for each shape, and later only takes as much memory."""

    def __init__(self, codec: Any) -> None:
        self.codec, self.stride, self.causal = codec, codec.stride, codec.causal
        self.encode = codec.encode
        self.known: dict[torch.Size, tuple[int, torch.Size]] = {}

    def decode(self, latents: Tensor) -> Tensor:
        if latents.shape not in self.known:
            with _Living() as living:
                video = self.codec.decode(latents)
            self.known[latents.shape] = living.peak - video.nbytes, video.shape
            return video
        beside, shape = self.known[latents.shape]
        working = latents.new_empty(beside, dtype=torch.uint8)
        video = latents.new_empty(shape)
        del working
        return video


def peak_bytes(run: Callable[[], Any]) -> int:
    """Most bytes of tensors made while it runs that lived at the same time."""
    with _Living() as living:
        run()
    return living.peak


class _Living(TorchDispatchMode):
    """Counts storages from the operation that made them to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            key, size = storage._cdata, storage.nbytes()
            if key not in self.known | given:
                self.known.add(key)
                self.now += size
                weakref.finalize(storage, self._gone, key, size)
        self.peak = max(self.peak, self.now)
        return out

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    """Of the tensors in nested containers."""
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
