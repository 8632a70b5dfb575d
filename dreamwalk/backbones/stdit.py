"""Spatio-temporal DiT: in every block attention within each frame, then causal attention along each token.

The backbone of Oasis (etched-ai/open-oasis, 500M; also of WorldMem, arXiv 2504.12369), after Diffusion
Forcing (arXiv 2407.01392). It was trained as a VP diffusion that predicts v on 1000 labelled levels; here it
is the same flow backbone as the others, by the algebra of `layers.vp`:

    published                          ours
    timestep k of a frame              sigma; the label is looked up from it
    v-prediction u                     v = eps - x, computed from u
    DDIM step, eta 0                   Euler step
    past frames, clean, labelled 14    sigma = 0 exactly, see `clean_label`
    actions, a linear layer            outside: their embedding comes as `conditions`

A token sees no other token of the past but itself, so a pass over one frame on a cache costs one frame, and
the cache holds keys and values of temporal attention only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import FrameBackbone, FrameBackboneConfig, Rope
from dreamwalk.layers import vp
from dreamwalk.layers.attention import BiasedAttention, KeyValues, Mask
from dreamwalk.layers.cache import Cache, Past
from dreamwalk.layers.modulation import Modulation, SigmaEmbedding, modulate
from dreamwalk.layers.rope import head_width, pixel_tables, time_tables
from dreamwalk.validation import Count, Positive


@dataclass(frozen=True)
class STDiTConfig(FrameBackboneConfig):
    """Sizes of a spatio-temporal DiT."""

    patch: int = 2
    max_frequency: Positive = 256.0
    """Of the rotary positions within a frame, in half turns."""
    clean_label: Count = 14
    """The timestep under which a clean frame (sigma 0) is shown: no label means clean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        head_width(self.width, self.heads, multiple=4, least=4)


class AxisBlock(nn.Module):
    """Attention along one axis and feed-forward, each normalised, modulated per frame, and gated.

    `rows` says what is a batch and what a sequence: `(b t) n` attends within frames, `(b n) t` through time.
    """

    def __init__(self, config: STDiTConfig, rows: str) -> None:
        super().__init__()
        self.rows, width = rows, config.width
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = BiasedAttention(width, heads=config.heads, qkv_bias=False)
        self.feedforward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.modulation = Modulation(width, parts=6)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        rope: Rope,
        mask: Mask | None = None,
        past: KeyValues | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """`x` `(b, t, n, d)`, `condition` `(b, t, d)`; `past` and fresh `(rows, heads, frames, e)`."""
        b, t = x.shape[:2]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(condition)
        y = rearrange(modulate(self.norm(x), shift_a, scale_a), f"b t n d -> {self.rows} d")
        y, fresh = self.attention(y, rope, mask=mask, past=past)
        x = x + gate_a * rearrange(y, f"{self.rows} d -> b t n d", b=b, t=t)
        x = x + gate_f * self.feedforward(modulate(self.norm(x), shift_f, scale_f))
        return x, fresh


class STBlock(nn.Module):
    """First every frame by itself, then every token through time."""

    def __init__(self, config: STDiTConfig) -> None:
        super().__init__()
        self.space = AxisBlock(config, "(b t) n")
        self.time = AxisBlock(config, "(b n) t")

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        ropes: tuple[Rope, Rope],
        mask: Mask | None,
        past: KeyValues | None,
    ) -> tuple[Tensor, KeyValues]:
        """As in `FrameBlock`; `past` and fresh are frame after frame, `(b, heads, t*n, e)`."""
        n, (space, time) = x.shape[2], ropes
        x, _ = self.space(x, condition, space)
        if past is not None:
            past = KeyValues(*(rearrange(part, "b h (t n) e -> (b n) h t e", n=n) for part in past))
        x, fresh = self.time(x, condition, time, mask, past)
        return x, KeyValues(*(rearrange(part, "(b n) h t e -> b h (t n) e", n=n) for part in fresh))


class STDiT(FrameBackbone):
    """Every token sees its own frame, and itself in the frames that its frame sees."""

    config: STDiTConfig

    def __init__(self, config: STDiTConfig) -> None:
        super().__init__()
        self.config = config
        features = config.channels * config.patch**2
        self.embed = nn.Linear(features, config.width)
        self.level = SigmaEmbedding(config.width)
        self.blocks = nn.ModuleList(STBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.modulation = Modulation(config.width, parts=2)
        self.head = nn.Linear(config.width, features)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

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
        label = torch.where(sigma == 0, self.config.clean_label, vp.timestep_of(sigma))
        sigma = sigma[:, :, None, None, None]
        y = vp.to_vp(x, sigma).to(x.dtype)
        u, fresh = self.denoise(y, label, conditions, rope, mask, cache, views)
        return vp.flow_velocity(y, u, sigma).to(x.dtype), fresh

    def denoise(
        self,
        y: Tensor,
        timestep: Tensor,
        conditions: Tensor,
        rope: Rope,
        mask: Mask | None,
        cache: Past | None,
        views: Tensor | None = None,
    ) -> tuple[Tensor, list[KeyValues]]:
        """The network as published: VP samples `y` at `timestep` `(b, t)` to the VP velocity u."""
        p, (rows, columns), dtype = self.config.patch, self.config.token_grid, self.embed.weight.dtype
        h = self.embed(rearrange(y.to(dtype), "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p))
        h = h if views is None else h + views.to(dtype)
        condition = self.level.at(timestep) + conditions.to(dtype)
        ropes = self.space_rope(h.device), rope
        fresh = []
        for index, block in enumerate(self.blocks):
            past = cache.layer(index) if cache is not None else None
            h, key_values = block(h, condition, ropes, mask, past)
            fresh.append(key_values)
        h = self.head(modulate(self.norm(h), *self.modulation(condition))).to(y.dtype)
        return rearrange(h, "b t (h w) (p q c) -> b t c (h p) (w q)", h=rows, w=columns, p=p, q=p), fresh

    def space_rope(self, device: torch.device) -> Rope:
        config = self.config
        head = config.width // config.heads
        return pixel_tables(
            config.token_grid,
            head_width=head,
            axis_width=head // 2,
            max_frequency=config.max_frequency,
            device=device,
        )

    def rope(self, times: Tensor) -> Rope:
        return time_tables(times, head_width=self.config.width // self.config.heads)

    def mask(self, visible: Tensor) -> Mask:
        return visible

    def bias(self, cache: Cache) -> Tensor:
        return cache.bias(self.config.tokens)[..., :: self.config.tokens]


def oasis_500m() -> STDiTConfig:
    """The public 500M of Oasis, for 360x640 frames through `codecs.vit.vit_l20`: 144 tokens a frame."""
    return STDiTConfig(channels=16, grid=(18, 32), width=1024, depth=16, heads=16)
