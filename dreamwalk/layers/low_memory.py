"""Long sequences of tokens in little memory.

Outside autograd, what treats tokens one by one goes through in pieces, and what is no longer needed is
overwritten: of a long clip only its tokens, queries, keys and values exist at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from dreamwalk.layers.modulation import modulate

CACHED, FILLING = 1024, 8192
"""Tokens that go through at once on a processor, whose cache they should not leave, and on a card, which they
should fill."""


def whole() -> bool:
    """Whether all tokens go at once and nothing is overwritten: for autograd, and for the compiler."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def pieces(x: Tensor) -> Iterator[slice]:
    """The tokens of `x` `(b, n, d)`, a bounded number at a time."""
    size = max(1, x.shape[1]) if whole() else FILLING if x.is_cuda else CACHED
    for start in range(0, x.shape[1], size):
        yield slice(start, min(start + size, x.shape[1]))


def in_pieces(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`layer(x)` for tokens `(b, n, d)` that it treats one by one; overwrites `x` outside autograd."""
    parts = list(pieces(x))
    if len(parts) < 2:
        return layer(x)
    for piece in parts:
        x[:, piece] = layer(x[:, piece])
    return x


def modulated(y: Tensor, shift: Tensor, scale: Tensor, *, frame: int) -> Tensor:
    """`(1 + scale) y + shift` of tokens `(b, n, d)`, see `by_level`; overwrites `y` outside autograd."""
    if whole():
        return _joined(modulate(part, *given) for part, *given in by_level(y, shift, scale, frame=frame))
    for part, by, factor in by_level(y, shift, scale, frame=frame):
        part.mul_(1 + factor).add_(by)
    return y


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, *, frame: int) -> Tensor:
    """`modulated` of the LayerNorm without weights of `x`; in one kernel where one clip has one level."""
    if shift[..., 0, 0].numel() == 1 and not whole():
        return layer_norm(x, x.shape[-1:], 1 + scale.flatten().to(x.dtype), shift.flatten().to(x.dtype), 1e-6)
    return modulated(layer_norm(x, x.shape[-1:], eps=1e-6), shift, scale, frame=frame)


def add_gated(x: Tensor, gate: Tensor, y: Tensor, *, frame: int) -> Tensor:
    """`x + gate y` of tokens `(b, n, d)`, see `by_level`; overwrites `x` outside autograd."""
    if whole():
        return x + _joined(part * by for part, by in by_level(y, gate, frame=frame))
    ours, theirs = (by_level(tokens, gate, frame=frame) for tokens in (x, y))
    for (part, by), (more, _) in zip(ours, theirs, strict=True):
        part.addcmul_(by, more)
    return x


def add(x: Tensor, y: Tensor) -> Tensor:
    """`x + y`; overwrites `x` outside autograd."""
    return x + y if whole() else x.add_(y)


def by_level(x: Tensor, *given: Tensor, frame: int) -> Iterator[tuple[Tensor, ...]]:
    """Pieces of `x` `(b, n, d)` as `(b, levels, tokens, d)`, with the rows of `given` that are theirs.

    `given` are `(b, levels, 1, d)`: of one level for all tokens, or of one for each frame of `frame` tokens,
    or of one more for the words behind them.
    """
    levels, n = given[0].shape[1], x.shape[1]
    if levels == 1:
        yield x[:, None], *given
        return
    frames = levels if levels * frame == n else levels - 1
    video = frames * frame
    yield x[:, :video].unflatten(1, (frames, frame)), *(part[:, :frames] for part in given)
    if video < n:
        yield x[:, None, video:], *(part[:, -1:] for part in given)


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """What `by_level` took apart, `(b, n, d)`."""
    flat = [part.flatten(1, 2) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)
