"""Memory blocks: where a frame backbone attends to frames that a bank recalls.

WorldMem (arXiv 2504.12369, section 3.3): behind a block of the trunk the tokens of a frame attend to those of
recalled frames; what is known of where and when tells queries and keys, and never values. Gates are zero at
first, so that a trunk begins as it was. Keys and values come from the memory (`memory/frame_memory.py`), made
once for a generated frame and not once for each of its passes; they have one size, however much is recalled.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.layers.attention import attend
from dreamwalk.layers.modulation import Modulation, modulate, zero_init
from dreamwalk.layers.norms import RMSNorm
from dreamwalk.layers.rope import rotate

if TYPE_CHECKING:  # a backbone has memory blocks
    from dreamwalk.backbones.frame_backbone import FrameSizes

SHARP = 1.5
"""Of queries and keys at first: what lies half a token away is then attended to a hundred times less."""
HIGHEST, LOWEST = 2 * torch.pi, torch.pi / 8
"""Angular frequencies of places, in radians a token: they tell half a token, and the sides of a picture."""


@dataclass(frozen=True)
class MemoryBlocksConfig:
    """The memory blocks of a backbone."""

    every: int
    """One follows every so manieth block of the trunk."""
    placed: int
    """Channels of a head that turn with where its token is."""


class RecalledFrame(NamedTuple):
    """What a memory block attends to, `m` tokens for each of `t` frames."""

    keys: Tensor
    """`(b, t, heads, m, e)`."""
    values: Tensor
    visible: Tensor
    """1 where a token may be seen, else 0; `(b, t, m)`."""
    state: Tensor | None = None
    """Added to what queries are made of, `(b, t, n, d)`."""


class MemoryBlocks(nn.Module):
    """All memory blocks of a trunk, and a way past it for what the last one attends to: a network this small
    cannot carry a picture through its blocks."""

    def __init__(self, config: MemoryBlocksConfig, trunk: FrameSizes) -> None:
        super().__init__()
        sizes: Any = {"heads": trunk.heads, "grid": trunk.token_grid, "placed": config.placed}
        make = partial(MemoryBlock, trunk.width, **sizes)
        self.blocks = nn.ModuleList(make() for _ in range(trunk.depth // config.every))
        self.copy = zero_init(nn.Linear(trunk.width, trunk.channels * trunk.patch**2))
        self.every = config.every

    def layer_after(self, index: int) -> int | None:
        """Which of them follows block `index` of the trunk."""
        layer, rest = divmod(index + 1, self.every)
        return layer - 1 if not rest else None


class MemoryBlock(nn.Module):
    """Attention of the tokens of each frame to what is recalled for it, and to a learned null token, so that
    an empty memory is nothing special."""

    def __init__(self, width: int, *, heads: int, grid: tuple[int, int], placed: int) -> None:
        """On a token `grid` (rows, columns); the last `placed` channels of a head turn with where its token
        is."""
        super().__init__()
        head = width // heads
        self.heads, self.grid, self.placed = heads, grid, placed
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = Modulation(width, parts=3)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.norm_query = RMSNorm(head)
        self.null = nn.Parameter(torch.zeros(2, heads, 1, head))
        # Alike at first: what two places have in common is then the distance between them.
        nn.init.ones_(self.query.bias)
        nn.init.constant_(self.norm_query.weight, SHARP)

    def forward(self, x: Tensor, condition: Tensor, recalled: RecalledFrame) -> tuple[Tensor, Tensor]:
        """Tokens `(b, t, n, d)` of frames of `condition` `(b, t, d)`; and what they attended to, of the same
        shape."""
        b, t = x.shape[:2]
        shift, scale, gate = self.modulation(condition)
        y = modulate(self.norm(x), shift, scale)
        y = y if recalled.state is None else y + recalled.state.to(y.dtype)
        q = rearrange(self.query(y), "b t n (heads e) -> b t heads n e", heads=self.heads)
        q = self.norm_query(q)
        q = turned(q, token_places(self.grid, heads=self.heads, device=x.device), count=self.placed)
        k, v = (
            torch.cat([null.expand(b, t, -1, -1, -1), part.to(x.dtype)], 3).flatten(0, 1)
            for null, part in zip(self.null.to(x.dtype), recalled[:2], strict=True)
        )
        hidden = nn.functional.pad(recalled.visible.flatten(0, 1), (1, 0), value=1.0)[:, None, None]
        y = attend(q.to(x.dtype).flatten(0, 1), k, v, (hidden.to(x.dtype) - 1) * 1e4)
        y = rearrange(y, "(b t) heads n e -> b t n (heads e)", t=t)
        return x + gate * self.out(y), y


def token_places(grid: tuple[int, int], *, heads: int, device: torch.device | str = "cpu") -> Tensor:
    """Where each head looks from for each token of a grid, row and column in tokens, `(heads, n, 2)`.

    Four heads look from the middles of the four quarters of a token, for memory is finer than tokens are;
    others from its own.
    """
    rows, columns = (torch.arange(side, device=device) + 0.5 for side in grid)
    middle = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
    corner = torch.tensor([-0.25, 0.25], device=device)
    quarters = torch.stack(torch.meshgrid(corner, corner, indexing="ij"), -1).flatten(0, 1)
    offsets = quarters.repeat(heads // 4, 1) if heads % 4 == 0 else quarters.new_zeros(heads, 2)
    return middle + offsets[:, None]


def turned(x: Tensor, places: Tensor, *, count: int) -> Tensor:
    """`x` `(.., e)` with its last `count` channels turned by `places` `(.., 2)` that broadcast to it: half of
    the pairs with the row, half with the column."""
    if not count:
        return x
    half = count // 4
    steps = [HIGHEST * (LOWEST / HIGHEST) ** (i / max(half - 1, 1)) for i in range(half)]
    angle = (places[..., None] * torch.tensor(steps, device=x.device)).flatten(-2)
    still, moving = x.split([x.shape[-1] - count, count], -1)
    moved = rotate(moving, angle.cos(), angle.sin())
    return torch.cat([still, moved], -1) if still.shape[-1] else moved
