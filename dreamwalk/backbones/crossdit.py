"""Cross-attention DiT: a diffusion transformer over video with cross-attention to text in every block.

The backbone of Movie Gen (arXiv 2410.13720, section 3.1.2): a LLaMA-3 block (RMSNorm, SwiGLU, no biases) with
cross-attention to the text between self-attention and feed-forward, adaLN for the timestep, and attention
from everywhere to everywhere. The modulation is one layer for all blocks and a table for each (PixArt, arXiv
2310.00426, section 2.3).

    paper's word                       ours
    timestep                           sigma, one for a clip or one for each of its frames
    text prompt embedding              `TextEmbedding`
    factorised positional embedding    `Positions`, three tables, added to the input of every block

Tables have an `extent`; a checkpoint opens at a larger one through `grown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones.clip_backbone import ClipBackbone, ClipSizes
from dreamwalk.errors import UserError
from dreamwalk.layers.attention import SwiGLU, attend
from dreamwalk.layers.low_memory import FrameModulation, add, tokenwise
from dreamwalk.layers.modulation import Modulation
from dreamwalk.layers.norms import RMSNorm
from dreamwalk.layers.patches import Extent
from dreamwalk.layers.text import TextEmbedding, attendable

_AXES = "time", "height", "width"


@dataclass(frozen=True)
class CrossDiTConfig(ClipSizes):
    """Sizes of a cross-attention DiT."""

    width: int = 1536
    heads: int = 16
    depth: int = 24
    feedforward_multiple: int = 256
    """The feed-forward is 8/3 as wide, rounded up to a multiple of this."""
    extent: Extent = (32, 48, 48)
    """Frames, rows and columns of tokens that there are positions for."""

    def build(self) -> CrossDiT:
        """The backbone, with fresh weights."""
        return CrossDiT(self)

    def shallow(self) -> CrossDiTConfig:
        return replace(self, depth=1)


class Positions(nn.Module):
    """Positions of tokens as the sum of three learned tables `(side, d)`."""

    def __init__(self, extent: Extent, width: int) -> None:
        super().__init__()
        tables = (nn.Parameter(0.02 * torch.randn(side, width)) for side in extent)
        self.time, self.height, self.width = tables

    def forward(self, extent: Extent) -> Tensor:
        """`(1, n, d)`; UserError where a table ends too early."""
        tables = self.time, self.height, self.width
        known = tuple(len(table) for table in tables)
        if any(side > last for side, last in zip(extent, known, strict=True)):
            raise UserError(
                f"there are positions for {'x'.join(map(str, known))} tokens, not for "
                f"{'x'.join(map(str, extent))}: let them grow with `backbones.crossdit.grown`"
            )
        t, h, w = (table[:side] for table, side in zip(tables, extent, strict=True))
        return (t[:, None, None] + h[:, None] + w).flatten(0, 2)[None]


class CrossBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each normalised; the first and the last modulated per
    frame and gated. All three give zero at the start."""

    def __init__(self, config: CrossDiTConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.table = nn.Parameter(torch.zeros(6 * width))
        self.norm_attention, self.norm_cross, self.norm_feedforward = (RMSNorm(width) for _ in range(3))
        self.qkv, self.out, self.q_cross, self.kv_cross, self.out_cross = (
            nn.Linear(width, parts * width, bias=False) for parts in (3, 1, 1, 2, 1)
        )
        self.feedforward = SwiGLU(width, multiple=config.feedforward_multiple)
        nn.init.zeros_(self.out_cross.weight)

    def forward(
        self, x: Tensor, text: Tensor, condition: Tensor, positions: Tensor, mask: Tensor | None
    ) -> Tensor:
        """`x` `(b, n, d)`, which `layers.low_memory` may overwrite; `text` `(b, m, d)`; `condition`
        `(b, sigmas, 6 d)`; `positions` `(1, n, d)`; `mask` bool `(b, 1, 1, m)`."""
        by = FrameModulation(x.shape[1] // condition.shape[1])
        parts = (condition + self.table)[:, :, None].chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = parts
        x = add(x, positions)
        q, k, v = self._heads(self.qkv(by.modulate(self.norm_attention(x), shift_a, scale_a)), 3)
        x = by.add(x, gate_a, tokenwise(self.out, self._attend(q, k, v, None)))
        (q,), (k, v) = self._heads(self.q_cross(self.norm_cross(x)), 1), self._heads(self.kv_cross(text), 2)
        x = add(x, tokenwise(self.out_cross, self._attend(q, k, v, mask)))
        y = by.modulate(self.norm_feedforward(x), shift_f, scale_f)
        return by.add(x, gate_f, tokenwise(self.feedforward, y))

    def _heads(self, x: Tensor, parts: int) -> Tensor:
        return rearrange(x, "b n (parts heads e) -> parts b heads n e", parts=parts, heads=self.heads)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return rearrange(attend(q, k, v, mask), "b heads n e -> b n (heads e)")


class CrossDiT(ClipBackbone):
    """`(x, sigma, text) -> v`."""

    config: CrossDiTConfig

    def __init__(self, config: CrossDiTConfig) -> None:
        super().__init__(config)
        width = config.width
        self.positions = Positions(config.extent, width)
        self.text = nn.Sequential(nn.Linear(config.text_dim, width), nn.LayerNorm(width))
        self.shared = Modulation(width, parts=6)
        self.blocks = nn.ModuleList(CrossBlock(config) for _ in range(config.depth))
        self.norm = RMSNorm(width)

    def run(
        self, inputs: Tensor, sigmas: Tensor, text: TextEmbedding, extent: Extent, guidance: Tensor | None
    ) -> Tensor:
        x, condition, positions = self.embed(inputs), self.condition(sigmas, text), self.positions(extent)
        shared = torch.cat(self.shared(condition), dim=-1)[:, :, 0]
        tokens, mask = attendable(self.text(text.tokens), text)
        for block in self.blocks:
            x = block(x, tokens, shared, positions, mask)
        by = FrameModulation(x.shape[1] // sigmas.shape[1])
        return by.modulate(self.norm(x), *self.modulation(condition))


def grown(tensors: Mapping[str, Tensor], extent: Extent) -> dict[str, Tensor]:
    """Weights of a CrossDiT whose tables of positions reach `extent` tokens, interpolated (section 3.1.3)."""
    made = dict(tensors)
    for axis, side in zip(_AXES, extent, strict=True):
        for name in tensors:
            if f".{name}".endswith(f".positions.{axis}") and len(tensors[name]) != side:
                rows = tensors[name].T[None].float()
                rows = nn.functional.interpolate(rows, size=side, mode="linear", align_corners=True)
                made[name] = rows[0].T.to(tensors[name].dtype).contiguous()
    return made


def movie_gen(size: Literal["1B", "5B", "30B"]) -> CrossDiTConfig:
    """The sizes of Movie Gen: 30B as published, 5B of its ablations, and a small one."""
    width, depth, heads = {"1B": (1536, 24, 16), "5B": (3072, 32, 24), "30B": (6144, 48, 48)}[size]
    return CrossDiTConfig(width=width, depth=depth, heads=heads)


def tiny(channels: int = 4) -> CrossDiTConfig:
    """For tests: 2 blocks of width 32."""
    return CrossDiTConfig(
        channels=channels, width=32, depth=2, heads=2, feedforward_multiple=32, text_dim=12, extent=(4, 4, 4)
    )
