"""Tokens of video and of words that attend to one another, with weights of their own or shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamwalk.layers.attention import attend
from dreamwalk.layers.modulation import Modulation
from dreamwalk.layers.norms import RMSNorm
from dreamwalk.layers.pieces import add_gated, in_pieces, modulated, pieces, whole
from dreamwalk.layers.rope import rotate


class Layout(NamedTuple):
    """How the `n` tokens of a pass lie: video, frame after frame, and then words."""

    cos: Tensor
    """`(1, n, 1, head_width / 2)`, as `sin`; words do not turn."""
    sin: Tensor
    mask: Tensor | None
    """bool `(b, 1, 1, n)`, False where nobody may look; None where everybody may look everywhere."""
    frame: int
    """Tokens of a frame."""

    def words(self, count: int) -> Layout:
        """Of `count` words more, which do not turn."""
        pad = nn.functional.pad
        room = (0, 0, 0, 0, 0, count)
        return self._replace(cos=pad(self.cos, room, value=1.0), sin=pad(self.sin, room))


class MLP(nn.Sequential):
    """`down(gelu(up(x)))`."""

    def __init__(self, width: int, *, hidden: int, bias: bool = True) -> None:
        up, down = nn.Linear(width, hidden), nn.Linear(hidden, width, bias=bias)
        super().__init__(up, nn.GELU(approximate="tanh"), down)


class Stream(nn.Module):
    """The weights of one kind of tokens in one block: modulation, projections of attention, feed-forward."""

    def __init__(self, width: int, *, heads: int, hidden: int, parts: int, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = Modulation(width, parts=parts)
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q = RMSNorm(width // heads)
        self.norm_k = RMSNorm(width // heads)
        self.out = nn.Linear(width, width)
        self.mlp = MLP(width, hidden=hidden, bias=bias)

    def ask(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (both normalised and turned) and values `(b, n, heads, e)` of tokens `(b, n, d)`."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k = (rotate(part, cos, sin).to(v.dtype) for part in (self.norm_q(q), self.norm_k(k)))
        return q, k, v

    def go_on(self, x: Tensor, answer: Tensor, parts: tuple[Tensor, ...], *, frame: int) -> Tensor:
        """Tokens `(b, n, d)` after their answers and the feed-forward; overwrites both outside autograd."""
        gate_a, shift, scale, gate_f = parts
        x = add_gated(x, gate_a, in_pieces(self.out, answer), frame=frame)
        y = in_pieces(self.mlp, modulated(norm(x), shift, scale, frame=frame))
        return add_gated(x, gate_f, y, frame=frame)


def norm(x: Tensor) -> Tensor:
    """LayerNorm without weights."""
    return nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)


def attend_jointly(streams: Sequence[tuple[Stream, Tensor]], layout: Layout) -> Tensor:
    """The answers `(b, n, d)` to all tokens of all streams, in their order, before `out`."""
    q, k, v = (part.transpose(1, 2) for part in _asked(streams, layout))
    return attend(q, k, v, layout.mask).transpose(1, 2).flatten(2)


def _asked(streams: Sequence[tuple[Stream, Tensor]], layout: Layout) -> Sequence[Tensor]:
    lengths = [x.shape[1] for _, x in streams]
    tables = zip(layout.cos.split(lengths, 1), layout.sin.split(lengths, 1), strict=True)
    if whole():
        asked = [stream.ask(x, *rope) for (stream, x), rope in zip(streams, tables, strict=True)]
        return [torch.cat(part, dim=1) if len(part) > 1 else part[0] for part in zip(*asked, strict=True)]
    room: list[Tensor] = []
    first = 0
    for (stream, x), (cos, sin) in zip(streams, tables, strict=True):
        for piece in pieces(x):
            parts = stream.ask(x[:, piece], cos[:, piece], sin[:, piece])
            if not room:
                b, _, *shape = parts[0].shape
                room = [part.new_empty(b, sum(lengths), *shape) for part in parts]
            for target, part in zip(room, parts, strict=True):
                target[:, first + piece.start : first + piece.stop] = part
        first += x.shape[1]
    return room
