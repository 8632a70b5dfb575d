"""Self-attention over tokens that may also see keys and values from outside, and the SwiGLU feed-forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from dreamwalk.errors import UserError
from dreamwalk.layers.norms import RMSNorm
from dreamwalk.layers.rope import rotate

Mask = Tensor | BlockMask
MANY = 1024
"""Tokens from which on hidden blocks are worth the mask that says which they are."""
_BLOCKS = ContextVar("blocks", default=True)


class KeyValues(NamedTuple):
    """Keys (already rotated) and values `(b, heads, n, head_width)` of one layer."""

    keys: Tensor
    values: Tensor


class SelfAttention(nn.Module):
    """Multi-head attention with rotary positions; no biases. `past` is prepended to the keys and values."""

    def __init__(self, width: int, *, heads: int, qk_norm: bool) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"width {width} does not divide by {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        head = width // heads
        self.norm_q, self.norm_k = (RMSNorm(head) if qk_norm else nn.Identity() for _ in range(2))

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], *, mask: Mask | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """`x` `(b, n, d)` -> the same shape, and the fresh keys and values of these `n` tokens.

        `mask` is boolean (True = may see) or an additive bias, broadcastable to `(b, heads, n, past + n)`, or
        a `BlockMask`.
        """
        qkv = self.qkv(x)
        q, k, v = rearrange(qkv, "b n (three heads e) -> three b heads n e", three=3, heads=self.heads)
        q, k = (rotate(x, *rope).to(v.dtype) for x in (self.norm_q(q), self.norm_k(k)))
        fresh = KeyValues(k, v)
        if past is not None:
            k, v = torch.cat([past.keys, k], dim=2), torch.cat([past.values, v], dim=2)
        y = attend(q, k, v, mask)
        return self.out(rearrange(y, "b heads n e -> b n (heads e)")), fresh


class BiasedAttention(SelfAttention):
    """Self-attention whose output has a bias, and by `qkv_bias` its input too, as in vision transformers."""

    def __init__(self, width: int, *, heads: int, qkv_bias: bool) -> None:
        super().__init__(width, heads=heads, qk_norm=False)
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.out = nn.Linear(width, width)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None) -> Tensor:
    """Scaled dot-product attention, through FlexAttention when the mask is a `BlockMask`."""
    if isinstance(mask, BlockMask):
        return _flex(q.is_cuda)(q, k, v, block_mask=mask)  # type: ignore[return-value]
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@cache
def _flex(fused: bool) -> Callable[..., Tensor]:
    """FlexAttention: compiled into one kernel on a card, plain elsewhere."""
    return torch.compile(flex_attention) if fused else flex_attention  # type: ignore[return-value]


@contextmanager
def dense_masks() -> Iterator[None]:
    """Within it masks are boolean on a card too: no mode that looks at operators sees into FlexAttention."""
    token = _BLOCKS.set(False)
    try:
        yield
    finally:
        _BLOCKS.reset(token)


def frame_mask(visible: Tensor, *, tokens: int) -> Mask:
    """Token mask from `visible` `(frames, seen)`, which says which frame (row) sees which (column).

    On an NVIDIA card that of many frames among themselves is a `BlockMask`, so that hidden blocks are never
    computed; elsewhere, and where kept frames come before them, it is a boolean tensor.
    """
    n = visible.shape[0] * tokens
    if visible.shape[0] == visible.shape[1] and _hides_blocks(n, visible.device):

        def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return visible[query // tokens, key // tokens]

        return create_block_mask(sees, None, None, n, n, device=visible.device.type)
    return visible.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)


def slot_mask(
    visible: Tensor, queries: Tensor, keys: Tensor, *, device: torch.device | str = "cpu"
) -> Mask | None:
    """As `frame_mask` for groups of any sizes: `queries` `(s,)` are the rows and `keys` `(n,)` the columns of
    `visible` that slots belong to, all three on the processor. None where all is seen."""
    device, n = torch.device(device), len(keys)
    if len(queries) == n and _hides_blocks(n, device):
        seen, rows, columns = (x.to(device) for x in (visible, queries, keys))

        def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return seen[rows[query], columns[key]]

        return create_block_mask(sees, None, None, n, n, device=device.type)
    mask = visible[queries][:, keys]
    return None if mask.all() else mask.to(device)


def _hides_blocks(tokens: int, device: torch.device) -> bool:
    """Whether a mask of so many tokens among themselves is worth a `BlockMask`."""
    return _BLOCKS.get() and device.type == "cuda" and tokens >= MANY


class SwiGLU(nn.Module):
    """Feed-forward `down(silu(gate(x)) * up(x))` (arXiv 2002.05202), 8/3 as wide, rounded up; no biases."""

    def __init__(self, width: int, *, multiple: int = 256) -> None:
        super().__init__()
        hidden = -(-(8 * width // 3) // multiple) * multiple
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(nn.functional.silu(gate) * up)
