"""What backbones over frames have in common: who is shown what, and where the cache comes in.

A backbone says how its attention takes the answer to one question, which frame sees which: `mask` for frames
read together, `bias` for one frame in front of a ring cache. Nothing outside it knows of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamwalk.errors import UserError
from dreamwalk.layers.attention import KeyValues, Mask
from dreamwalk.layers.cache import Cache, Past, RingCache

Rope = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class FrameBackboneConfig:
    """Sizes that all share. `grid` is the latent's `(h, w)`, `patch` a token's side in latent pixels."""

    channels: int
    grid: tuple[int, int]
    width: int
    depth: int
    heads: int
    patch: int = 1

    def __post_init__(self) -> None:
        assert self.token_grid  # says whether the grid divides

    @property
    def tokens(self) -> int:
        """Tokens in a frame."""
        return self.token_grid[0] * self.token_grid[1]

    @property
    def token_grid(self) -> tuple[int, int]:
        h, w = self.grid
        if h % self.patch or w % self.patch:
            raise UserError(f"a latent grid of {h}x{w} does not divide into patches of {self.patch}")
        return h // self.patch, w // self.patch


class FrameBackbone(nn.Module):
    """`(x, sigma, conditions) -> v`, all frames at once or one after another on a cache."""

    config: FrameBackboneConfig
    embed: nn.Linear
    blocks: nn.ModuleList

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        conditions: Tensor,
        cache: Cache | None = None,
        *,
        times: Tensor | None = None,
        visible: Tensor | None = None,
        views: Tensor | None = None,
    ) -> Tensor:
        """Velocity `v = eps - x` of noisy latents.

        `x` `(b, t, c, h, w)`, `sigma` `(b, t)` in [0, 1], `conditions` `(b, t, d)`, `times` `(t,)` frame
        indices (default 0, 1, ...; with a cache they go on from it). `visible` `(t, t)` says which frame
        (row) sees which (column), by default itself and all before it; with a cache, which is only read, `t`
        must be 1. `views` `(b, t, n, d)` are added to the tokens.
        """
        rope = self.rope(self.times(x, cache) if times is None else times)
        if cache is not None:
            return self.predict(x, sigma, conditions, rope, self.bias(cache), cache, views)[0]
        if visible is None:
            visible = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        return self.predict(x, sigma, conditions, rope, self.mask(visible), None, views)[0]

    def predict(
        self,
        x: Tensor,
        sigma: Tensor,
        conditions: Tensor,
        rope: Rope,
        mask: Mask | None,
        cache: Past | None,
        views: Tensor | None = None,
    ) -> tuple[Tensor, list[KeyValues]]:
        """The pure function behind `forward`, to compile and export: also gives fresh keys and values.

        `mask` is what `mask` or `bias` gave.
        """
        raise NotImplementedError

    def rope(self, times: Tensor) -> Rope:
        """Rotary positions of frames at `times` `(t,)`."""
        raise NotImplementedError

    def mask(self, visible: Tensor) -> Mask:
        """For `predict`, from `visible` `(t, p + t)`: who sees whom of `p` kept frames and `t` new ones."""
        raise NotImplementedError

    def bias(self, cache: Cache) -> Tensor:
        """For `predict`: one frame sees itself and what the cache holds."""
        raise NotImplementedError

    def times(self, x: Tensor, cache: Cache | None) -> Tensor:
        """Frame indices of `x`: from 0, or from where the cache stands."""
        if cache is not None and x.shape[1] != 1:
            raise UserError(f"a cached pass takes one frame at a time, got {x.shape[1]}")
        first = cache.frames if cache is not None else 0
        return torch.arange(first, first + x.shape[1], device=x.device)

    def cache_bytes(self, window: int) -> int:
        """Of an empty cache for one walk."""
        config = self.config
        return 2 * config.depth * window * config.tokens * config.width * self.embed.weight.element_size()

    def cache(self, window: int, *, batch: int = 1) -> RingCache:
        """An empty cache for this backbone, on its device and in its precision; a pass sees `window` frames
        and its own."""
        config = self.config
        return RingCache.empty(
            layers=config.depth,
            heads=config.heads,
            head_width=config.width // config.heads,
            tokens=config.tokens,
            window=window,
            batch=batch,
            device=self.embed.weight.device,
            dtype=self.embed.weight.dtype,
        )
