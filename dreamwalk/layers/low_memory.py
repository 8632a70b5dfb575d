"""Arithmetic on long sequences of tokens in little memory, for inference of large networks.

This is the one place where tensors are overwritten. Outside autograd and the compiler (`in_place`), functions
whose docstring ends with "in place" overwrite the tokens that they are given, and layers that treat tokens
one by one get a bounded number at a time: of a long clip only its tokens, queries, keys and values exist at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from dreamwalk.layers.modulation import modulate

CACHED, FILLING = 1024, 8192
"""Tokens at once on a processor, whose cache they should not leave, and on a card, which they should fill."""


def in_place() -> bool:
    """Whether tensors are overwritten and layers get a part of the tokens at a time."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling())


def slices(x: Tensor) -> list[slice]:
    """The tokens of `x` `(b, n, d)`, a bounded number at a time."""
    n = x.shape[1]
    size = max(1, n) if not in_place() else FILLING if x.is_cuda else CACHED
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def tokenwise(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`layer(x)` for tokens `(b, n, d)` that it treats one by one; in place."""
    parts = slices(x)
    if len(parts) < 2:
        return layer(x)
    for part in parts:
        x[:, part] = layer(x[:, part])
    return x


def add(x: Tensor, y: Tensor) -> Tensor:
    """`x + y`; in place."""
    return x.add_(y) if in_place() else x + y


class FrameModulation(NamedTuple):
    """Shift, scale and gate of tokens `(b, n, d)`, video first, by the sigma of their frame.

    Each is `(b, sigmas, 1, d)`: one for all tokens, one for each frame, or one more for the text behind them.
    """

    frame: int
    """Tokens of a frame."""

    def modulate(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """`(1 + scale) y + shift`; in place."""
        parts = self._by_sigma(y, shift, scale)
        if not in_place():
            return _joined(modulate(*part) for part in parts)
        for part, by, factor in parts:
            part.mul_(1 + factor).add_(by)
        return y

    def norm(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """`(1 + scale) LayerNorm(x) + shift`; one kernel where all tokens of one clip have one sigma."""
        if shift[..., 0, 0].numel() == 1 and in_place():
            weight, bias = 1 + scale.flatten().to(x.dtype), shift.flatten().to(x.dtype)
            return layer_norm(x, x.shape[-1:], weight, bias, 1e-6)
        return self.modulate(layer_norm(x, x.shape[-1:], eps=1e-6), shift, scale)

    def add(self, x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
        """`x + gate y`; in place."""
        if not in_place():
            return x + _joined(part * by for part, by in self._by_sigma(y, gate))
        for (part, by), (more, _) in zip(self._by_sigma(x, gate), self._by_sigma(y, gate), strict=True):
            part.addcmul_(by, more)
        return x

    def _by_sigma(self, x: Tensor, *given: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Views of `x` as `(b, sigmas, tokens, d)`, of video and then of text, with their rows of `given`."""
        sigmas, n = given[0].shape[1], x.shape[1]
        if sigmas == 1:
            yield x[:, None], *given
            return
        frames = sigmas if sigmas * self.frame == n else sigmas - 1
        video = frames * self.frame
        yield x[:, :video].unflatten(1, (frames, self.frame)), *(part[:, :frames] for part in given)
        if video < n:
            yield x[:, None, video:], *(part[:, -1:] for part in given)


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """Views of `_by_sigma` as `(b, n, d)`."""
    flat = [part.flatten(1, 2) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)
