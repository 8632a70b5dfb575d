"""Cross-attention DiT: a diffusion transformer over video whose tokens read the words in every block.

The backbone of Movie Gen (arXiv 2410.13720, section 3.1.2): a LLaMA-3 block (RMSNorm, SwiGLU, no biases) with
cross-attention to the words between self-attention and feed-forward, adaLN for the timestep, and attention
from everywhere to everywhere. The modulation is one layer for all blocks and a table for each (PixArt, arXiv
2310.00426, section 2.3).

    paper's word                       ours
    timestep                           sigma; one level for a clip, or one for each of its frames
    text prompt embedding              `TextEmbedding`
    factorised positional embedding    `Positions`, three tables, added to the input of every block

Tables have an `extent`; a checkpoint opens at a larger one through `grown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones.clip_inputs import UNGUIDED, check, levels_by_frame
from dreamwalk.errors import UserError
from dreamwalk.layers.attention import SwiGLU, attend
from dreamwalk.layers.low_memory import add, add_gated, in_pieces, modulated
from dreamwalk.layers.modulation import Modulation, SigmaEmbedding
from dreamwalk.layers.norms import RMSNorm
from dreamwalk.layers.patches import Extent, Patch, PatchEmbed, PatchHead, token_extent
from dreamwalk.layers.refiner import Projection
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.validation import Count

AXES = "time", "height", "width"


@dataclass(frozen=True)
class CrossDiTConfig:
    """Sizes of a cross-attention DiT."""

    channels: int = 16
    """Latent channels."""
    extra: Count = 0
    """Channels that are put beside the latents: `channels + 1` for known frames and where they are known."""
    width: int = 1536
    depth: int = 24
    heads: int = 16
    feedforward_multiple: int = 256
    """The feed-forward is 8/3 as wide, rounded up to a multiple of this."""
    patch: Patch = (1, 2, 2)
    """Latent frames, rows and columns of a token."""
    text: int = 4096
    """Width of a word's vector."""
    pooled: Count = 0
    """Width of a vector of all words, for the modulation; 0 for none."""
    extent: Extent = (32, 48, 48)
    """Frames, rows and columns of tokens that there are positions for."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"width {self.width} does not divide by {self.heads} heads")


class Positions(nn.Module):
    """Three learned tables `(side, d)`, whose sum says where a token is."""

    def __init__(self, extent: Extent, width: int) -> None:
        super().__init__()
        self.time, self.height, self.width = (
            nn.Parameter(0.02 * torch.randn(side, width)) for side in extent
        )

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
        self.norm_attention, self.norm_words, self.norm_feedforward = (RMSNorm(width) for _ in range(3))
        self.qkv, self.out = (nn.Linear(width, n * width, bias=False) for n in (3, 1))
        self.ask, self.tell, self.take = (nn.Linear(width, n * width, bias=False) for n in (1, 2, 1))
        self.feedforward = SwiGLU(width, multiple=config.feedforward_multiple)
        nn.init.zeros_(self.take.weight)

    def forward(
        self, x: Tensor, words: Tensor, condition: Tensor, positions: Tensor, mask: Tensor | None
    ) -> Tensor:
        """`x` `(b, n, d)`, which outside autograd is overwritten; `words` `(b, m, d)`; `condition`
        `(b, levels, 6 d)`; `positions` `(1, n, d)`; `mask` bool `(b, 1, 1, m)`."""
        frame = x.shape[1] // condition.shape[1]
        parts = (condition + self.table)[:, :, None].chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = parts
        x = add(x, positions)
        y = modulated(self.norm_attention(x), shift_a, scale_a, frame=frame)
        q, k, v = self._heads(self.qkv(y), 3)
        x = add_gated(x, gate_a, in_pieces(self.out, self._attend(q, k, v, None)), frame=frame)
        (q,), (k, v) = self._heads(self.ask(self.norm_words(x)), 1), self._heads(self.tell(words), 2)
        x = add(x, in_pieces(self.take, self._attend(q, k, v, mask)))
        y = modulated(self.norm_feedforward(x), shift_f, scale_f, frame=frame)
        return add_gated(x, gate_f, in_pieces(self.feedforward, y), frame=frame)

    def _heads(self, x: Tensor, parts: int) -> Tensor:
        return rearrange(x, "b n (parts heads e) -> parts b heads n e", parts=parts, heads=self.heads)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return rearrange(attend(q, k, v, mask), "b heads n e -> b n (heads e)")


class CrossDiT(nn.Module):
    """`(x, sigma, words) -> v`."""

    def __init__(self, config: CrossDiTConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.embed = PatchEmbed(config.channels + config.extra, width, patch=config.patch)
        self.positions = Positions(config.extent, width)
        self.words = nn.Sequential(nn.Linear(config.text, width), nn.LayerNorm(width))
        self.sigma = SigmaEmbedding(width)
        self.pooled = Projection(config.pooled, width) if config.pooled else None
        self.shared = Modulation(width, parts=6)
        self.blocks = nn.ModuleList(CrossBlock(config) for _ in range(config.depth))
        self.norm = RMSNorm(width)
        self.modulation = Modulation(width, parts=2)
        self.head = PatchHead(width, config.channels, patch=config.patch)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        words: TextEmbedding,
        *,
        guidance: Tensor | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Velocity `v = eps - x` of noisy latents, in the precision of `x`.

        `x` `(b, t, c, h, w)`, `sigma` in [0, 1], `(b,)` for the clip or `(b, t)` for its frames, `extra`
        `(b, t, e, h, w)`. UserError for what is missing, too much, or of a size that does not fit, and for
        `guidance`, which is not an input here.
        """
        config, dtype = self.config, self.embed.project.weight.dtype
        check(config, x, words, extra=extra)
        if guidance is not None:
            raise UserError(UNGUIDED)
        extent, words = token_extent(x, config.patch), words.trimmed()
        inputs = x if extra is None else torch.cat([x, extra.to(x.dtype)], dim=2)
        levels = levels_by_frame(sigma, x, config.patch)
        condition = self.sigma(levels)
        if self.pooled is not None and words.pooled is not None:
            condition = condition + self.pooled(words.pooled.to(condition.dtype))[:, None]
        shared = torch.cat(self.shared(condition), dim=-1)[:, :, 0]
        told, mask = self._told(words._replace(tokens=words.tokens.to(dtype)))
        h, positions = self.embed(inputs.to(dtype)), self.positions(extent)
        for block in self.blocks:
            h = block(h, told, shared, positions, mask)
        frame = h.shape[1] // levels.shape[1]
        h = modulated(self.norm(h), *self.modulation(condition), frame=frame)
        return self.head(h, extent).to(x.dtype)

    def _told(self, words: TextEmbedding) -> tuple[Tensor, Tensor | None]:
        """What is read of the words `(b, m, d)` and where; a text without any is read as one zero vector."""
        told = self.words(words.tokens)
        if told.shape[1] == 0:
            return told.new_zeros(told.shape[0], 1, told.shape[2]), None
        if words.mask is None:
            return told, None
        silent = ~words.mask.any(1, keepdim=True)
        return told.masked_fill(silent[..., None], 0), (words.mask | silent)[:, None, None]


def grown(tensors: Mapping[str, Tensor], extent: Extent) -> dict[str, Tensor]:
    """Weights of a CrossDiT whose tables of positions reach `extent` tokens, interpolated (section 3.1.3)."""
    made = dict(tensors)
    for axis, side in zip(AXES, extent, strict=True):
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
        channels=channels, width=32, depth=2, heads=2, feedforward_multiple=32, text=12, extent=(4, 4, 4)
    )
