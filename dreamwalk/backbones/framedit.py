"""Frame DiT: a diffusion transformer over frames, bidirectional within a frame and causal across frames.

The backbone of Next-Frame Diffusion (arXiv 2506.01380, section 3.1) with the details of its published
successor LIVE (github.com/Junchao-cs/LIVE): RMSNorm, SwiGLU, adaLN-zero, rotary positions split over time,
height and width.

    paper's word            our word
    timestep t              sigma, one level per frame
    latent patch            token
    block-causal mask       the default of `mask`
    KV cache                `RingCache`, passed in
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.layers.attention import KeyValues, Mask, SelfAttention, SwiGLU, frame_mask
from dreamwalk.layers.cache import Past, RingCache
from dreamwalk.layers.modulation import Modulation, SigmaEmbedding, modulate
from dreamwalk.layers.norms import RMSNorm
from dreamwalk.layers.rope import rope_tables


@dataclass(frozen=True)
class FrameDiTConfig:
    """Sizes of a Frame DiT. `grid` is the latent's `(h, w)`, `patch` a token's side in latent pixels."""

    channels: int
    grid: tuple[int, int]
    width: int
    depth: int
    heads: int
    patch: int = 1
    theta: float = 256.0
    qk_norm: bool = False
    feedforward_multiple: int = 256
    predicts: Literal["velocity", "clean"] = "velocity"
    """What the last layer gives: `v`, or `x`, from which v follows (Back to Basics, arXiv 2511.13720)."""
    velocity_floor: float = 0.05
    """Smallest sigma by which a clean prediction is divided."""

    @property
    def tokens(self) -> int:
        """Tokens in a frame."""
        return self.token_grid[0] * self.token_grid[1]

    @property
    def token_grid(self) -> tuple[int, int]:
        h, w = self.grid
        if h % self.patch or w % self.patch:
            raise ValueError(f"a latent grid of {h}x{w} does not divide into patches of {self.patch}")
        return h // self.patch, w // self.patch


class FrameBlock(nn.Module):
    """Attention and feed-forward, each normalised, modulated per frame, and gated (zero at the start)."""

    def __init__(self, config: FrameDiTConfig) -> None:
        super().__init__()
        self.norm_attention = RMSNorm(config.width)
        self.attention = SelfAttention(config.width, heads=config.heads, qk_norm=config.qk_norm)
        self.norm_feedforward = RMSNorm(config.width)
        self.feedforward = SwiGLU(config.width, multiple=config.feedforward_multiple)
        self.modulation = Modulation(config.width, parts=6)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Mask | None,
        past: KeyValues | None,
    ) -> tuple[Tensor, KeyValues]:
        """`x` `(b, t, n, d)`, `condition` `(b, t, d)`."""
        t = x.shape[1]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(condition)
        y = rearrange(modulate(self.norm_attention(x), shift_a, scale_a), "b t n d -> b (t n) d")
        y, fresh = self.attention(y, rope, mask=mask, past=past)
        x = x + gate_a * rearrange(y, "b (t n) d -> b t n d", t=t)
        x = x + gate_f * self.feedforward(modulate(self.norm_feedforward(x), shift_f, scale_f))
        return x, fresh


class FrameDiT(nn.Module):
    """`(x, sigma, conditions) -> v`, all frames at once or one after another on a cache."""

    def __init__(self, config: FrameDiTConfig) -> None:
        super().__init__()
        self.config = config
        features = config.channels * config.patch**2
        self.embed = nn.Linear(features, config.width)
        self.sigma = SigmaEmbedding(config.width)
        self.blocks = nn.ModuleList(FrameBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.modulation = Modulation(config.width, parts=2)
        self.head = nn.Linear(config.width, features)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, x: Tensor, sigma: Tensor, conditions: Tensor, cache: RingCache | None = None, *,
        times: Tensor | None = None, mask: Mask | None = None, views: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Velocity `v = eps - x` of noisy latents.

        `x` `(b, t, c, h, w)`, `sigma` `(b, t)` in [0, 1], `conditions` `(b, t, d)`, `times` `(t,)` frame
        indices (default 0, 1, ...; with a cache they go on from it). `mask` overrides the block-causal one;
        with a cache, which is only read, `t` must be 1. `views` `(b, t, n, d)` are added to the tokens.
        """
        times = self.times(x, cache) if times is None else times
        rope = self.rope(times)
        if cache is None:
            if mask is None:
                mask = self.causal_mask(x.shape[1], device=x.device)
            return self.predict(x, sigma, conditions, rope, mask, None, views)[0]
        return self.predict(x, sigma, conditions, rope, cache.bias(self.config.tokens), cache, views)[0]

    def predict(
        self, x: Tensor, sigma: Tensor, conditions: Tensor, rope: tuple[Tensor, Tensor], mask: Mask | None,
        cache: Past | None, views: Tensor | None = None,
    ) -> tuple[Tensor, list[KeyValues]]:  # fmt: skip
        """The pure function behind `forward`, to compile and export: also gives fresh keys and values."""
        config = self.config
        p = config.patch
        h = self.embed(rearrange(x, "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p))
        h = h if views is None else h + views
        condition = self.sigma(sigma) + conditions
        fresh = []
        for index, block in enumerate(self.blocks):
            h, key_values = block(h, condition, rope, mask, cache.layer(index) if cache is not None else None)
            fresh.append(key_values)
        h = self.head(modulate(self.norm(h), *self.modulation(condition)))
        rows, columns = config.token_grid
        out = rearrange(h, "b t (h w) (c p q) -> b t c (h p) (w q)", h=rows, w=columns, p=p, q=p)
        if config.predicts == "clean":
            out = (x - out) / sigma.clamp(min=config.velocity_floor)[:, :, None, None, None]
        return out, fresh

    def rope(self, times: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        head_width = config.width // config.heads
        return rope_tables(times, grid=config.token_grid, head_width=head_width, theta=config.theta)

    def times(self, x: Tensor, cache: RingCache | None) -> Tensor:
        """Frame indices of `x`: from 0, or from where the cache stands."""
        if cache is not None and x.shape[1] != 1:
            raise ValueError(f"a cached pass takes one frame at a time, got {x.shape[1]}")
        first = cache.frames if cache is not None else 0
        return torch.arange(first, first + x.shape[1], device=x.device)

    def causal_mask(self, frames: int, *, device: torch.device | str = "cpu") -> Mask:
        """Every frame sees itself whole and all frames before it."""
        visible = torch.ones(frames, frames, dtype=torch.bool, device=device).tril()
        return frame_mask(visible, tokens=self.config.tokens)

    def cache(self, window: int, *, batch: int = 1) -> RingCache:
        """An empty cache for this backbone, on its device and in its precision."""
        config = self.config
        return RingCache.empty(
            layers=config.depth, heads=config.heads, head_width=config.width // config.heads,
            tokens=config.tokens, window=window, batch=batch, device=self.embed.weight.device,
            dtype=self.embed.weight.dtype,
        )  # fmt: skip


def published(
    size: Literal["130M", "310M", "774M"], *, channels: int = 16, grid: tuple[int, int] = (14, 24)
) -> FrameDiTConfig:
    """The three sizes of Next-Frame Diffusion, for 224x384 frames through a 16x codec: 84 tokens a frame."""
    width, depth, heads = {"130M": (768, 12, 12), "310M": (1024, 16, 16), "774M": (1536, 18, 24)}[size]
    return FrameDiTConfig(channels=channels, grid=grid, width=width, depth=depth, heads=heads, patch=2)
