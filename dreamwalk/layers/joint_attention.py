"""Tokens of video and of words that attend to one another, with weights of their own or shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamwalk.layers.attention import attend
from dreamwalk.layers.low_memory import add_gated, in_pieces, modulated_norm, pieces, whole
from dreamwalk.layers.modulation import Modulation
from dreamwalk.layers.rope import rotate, rotate_


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


class QKNorm(nn.Module):
    """RMS norm of the queries and the keys of every head, `(b, n, 2, heads, e)`, at once."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2 * width))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.view(2, 1, -1).to(x.dtype)
        y = nn.functional.rms_norm(x, x.shape[-1:], eps=1e-6)
        return y * weight if whole() else y.mul_(weight)


class Stream(nn.Module):
    """The weights of one kind of tokens in one block: modulation, projections of attention, feed-forward."""

    def __init__(self, width: int, *, heads: int, hidden: int, parts: int, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = Modulation(width, parts=parts)
        self.qkv = nn.Linear(width, 3 * width)
        self.norm = QKNorm(width // heads)
        self.out = nn.Linear(width, width)
        self.mlp = MLP(width, hidden=hidden, bias=bias)

    def ask(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, normalised and turned, `(b, n, 2, heads, e)`, and values `(b, n, heads, e)`."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        turn = rotate if whole() else rotate_
        return turn(self.norm(qkv[:, :, :2]), cos[:, :, None], sin[:, :, None]), qkv[:, :, 2]

    def go_on(self, x: Tensor, answer: Tensor, parts: tuple[Tensor, ...], *, frame: int) -> Tensor:
        """Tokens `(b, n, d)` after their answers and the feed-forward; overwrites both outside autograd."""
        gate_a, shift, scale, gate_f = parts
        x = add_gated(x, gate_a, in_pieces(self.out, answer), frame=frame)
        y = in_pieces(self.mlp, modulated_norm(x, shift, scale, frame=frame))
        return add_gated(x, gate_f, y, frame=frame)


def attend_jointly(streams: Sequence[tuple[Stream, Tensor]], layout: Layout) -> Tensor:
    """The answers `(b, n, d)` to all tokens of all streams, in their order, before `out`."""
    qk, v = _asked(streams, layout)
    q, k, v = (part.transpose(1, 2) for part in (*qk.to(v.dtype).unbind(2), v))
    return attend(q, k, v, layout.mask).transpose(1, 2).flatten(2)


def _asked(streams: Sequence[tuple[Stream, Tensor]], layout: Layout) -> tuple[Tensor, Tensor]:
    """As `Stream.ask`, of all tokens."""
    jobs, end = [], 0
    for stream, x in streams:
        for piece in pieces(x):
            rows = slice(end + piece.start, end + piece.stop)
            jobs.append((rows, stream, x[:, piece], layout.cos[:, rows], layout.sin[:, rows]))
        end += x.shape[1]
    asked = (stream.ask(*given) for _, stream, *given in jobs)
    if len(jobs) == 1:
        return next(asked)
    if whole():
        both, values = zip(*asked, strict=True)
        return torch.cat(both, dim=1), torch.cat(values, dim=1)
    room = torch.empty(0)
    for (rows, *_), (qk, v) in zip(jobs, asked, strict=True):
        if not room.numel():
            room = v.new_empty(v.shape[0], end, 3, *v.shape[2:])
        room[:, rows, :2], room[:, rows, 2] = qk, v
    return room[:, :, :2], room[:, :, 2]
