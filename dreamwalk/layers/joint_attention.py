"""Attention of video and text tokens to one another, with weights of their own or shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamwalk.layers.attention import attend
from dreamwalk.layers.low_memory import FrameModulation, in_place, slices, tokenwise
from dreamwalk.layers.modulation import Modulation
from dreamwalk.layers.rope import rotate, rotate_


class TokenLayout(NamedTuple):
    """Positions of the `n` tokens of a pass: video, frame after frame, and then text."""

    cos: Tensor
    """`(1, n, 1, head_width / 2)`, as `sin`; of text 1 and 0, so that it does not rotate."""
    sin: Tensor
    mask: Tensor | None
    """bool `(b, 1, 1, n)`, False for padding; None where there is none."""
    modulation: FrameModulation


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
        return y.mul_(weight) if in_place() else y * weight


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

    def queries_keys_values(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, normalised and rotated, `(b, n, 2, heads, e)`, and values `(b, n, heads, e)`."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        turn = rotate_ if in_place() else rotate
        return turn(self.norm(qkv[:, :, :2]), cos[:, :, None], sin[:, :, None]), qkv[:, :, 2]

    def residual(
        self, x: Tensor, attended: Tensor, modulation: tuple[Tensor, ...], by: FrameModulation
    ) -> Tensor:
        """`x + gate out(attended)`, then feed-forward likewise; in place in `x` and `attended`."""
        gate_a, shift_f, scale_f, gate_f = modulation
        x = by.add(x, gate_a, tokenwise(self.out, attended))
        return by.add(x, gate_f, tokenwise(self.mlp, by.norm(x, shift_f, scale_f)))


def joint_attention(streams: Sequence[tuple[Stream, Tensor]], layout: TokenLayout) -> Tensor:
    """Attention of all tokens `(b, n, d)` of all streams, in their order, before `out`."""
    qk, v = _queries_keys_values(streams, layout)
    q, k, v = (part.transpose(1, 2) for part in (*qk.to(v.dtype).unbind(2), v))
    return attend(q, k, v, layout.mask).transpose(1, 2).flatten(2)


def _queries_keys_values(
    streams: Sequence[tuple[Stream, Tensor]], layout: TokenLayout
) -> tuple[Tensor, Tensor]:
    """As of `Stream`, of all tokens of all streams."""
    jobs, end = [], 0
    for stream, x in streams:
        for part in slices(x):
            rows = slice(end + part.start, end + part.stop)
            jobs.append((rows, stream, x[:, part]))
        end += x.shape[1]
    made = (s.queries_keys_values(x, layout.cos[:, rows], layout.sin[:, rows]) for rows, s, x in jobs)
    if len(jobs) == 1:
        return next(made)
    if not in_place():
        qk, values = zip(*made, strict=True)
        return torch.cat(qk, dim=1), torch.cat(values, dim=1)
    room = torch.empty(0)  # or all parts and their concatenation would exist at once
    for (rows, *_), (both, v) in zip(jobs, made, strict=True):
        if not room.numel():
            room = v.new_empty(v.shape[0], end, 3, *v.shape[2:])
        room[:, rows, :2], room[:, rows, 2] = both, v
    return room[:, :, :2], room[:, :, 2]
