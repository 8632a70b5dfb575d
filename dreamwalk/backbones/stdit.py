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
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import AdaLNBlock, FrameBackbone, FrameSizes, Rope
from dreamwalk.layers import vp
from dreamwalk.layers.attention import BiasedAttention, KeyValues, Mask
from dreamwalk.layers.cache import Cache
from dreamwalk.layers.joint_attention import MLP
from dreamwalk.layers.rope import head_width, pixel_tables, time_tables
from dreamwalk.validation import Count, Positive

Ropes = tuple[Rope, Rope]
"""Rotary positions within a frame, and of time."""


@dataclass(frozen=True)
class STDiTConfig(FrameSizes):
    """Sizes of a spatio-temporal DiT."""

    patch: int = 2
    max_frequency: Positive = 256.0
    """Of the rotary positions within a frame, in half turns."""
    clean_label: Count = 14
    """The timestep under which a clean frame (sigma 0) is shown: no label means clean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        head_width(self.width, self.heads, multiple=4, least=4)

    def build(self) -> STDiT:
        """The backbone, with fresh weights."""
        return STDiT(self)


class AxisBlock(AdaLNBlock):
    """Attention along one axis, within frames or through time."""

    def __init__(self, config: STDiTConfig, rows: str) -> None:
        width, norm = config.width, partial(nn.LayerNorm, elementwise_affine=False, eps=1e-6)
        attention = BiasedAttention(width, heads=config.heads, qkv_bias=False)
        super().__init__(width, rows, norm, attention, MLP(width, hidden=4 * width))


class STBlock(nn.Module):
    """First every frame by itself, then every token through time."""

    def __init__(self, config: STDiTConfig) -> None:
        super().__init__()
        self.space = AxisBlock(config, "(b t) n")
        self.time = AxisBlock(config, "(b n) t")

    def forward(
        self, x: Tensor, condition: Tensor, ropes: Ropes, mask: Mask | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """As in `FrameBlock`; `past` and fresh are frame after frame, `(b, heads, t*n, e)`."""
        space, time = ropes
        x, _ = self.space(x, condition, space, None, None)
        return self.through_time(x, condition, time, mask, past)

    def through_time(
        self, x: Tensor, condition: Tensor, rope: Rope, mask: Mask | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """The second half of `forward`."""
        n = x.shape[2]
        if past is not None:
            past = KeyValues(*(rearrange(part, "b h (t n) e -> (b n) h t e", n=n) for part in past))
        x, fresh = self.time(x, condition, rope, mask, past)
        return x, KeyValues(*(rearrange(part, "(b n) h t e -> b h (t n) e", n=n) for part in fresh))


class STDiT(FrameBackbone):
    """Every token sees its own frame, and itself in the frames that its frame sees."""

    config: STDiTConfig
    unpatch = "b t (h w) (p q c) -> b t c (h p) (w q)"
    block: type[STBlock] = STBlock

    def __init__(self, config: STDiTConfig) -> None:
        super().__init__(config, (self.block(config) for _ in range(config.depth)))

    def scaled(self, x: Tensor, sigma: Tensor) -> Tensor:
        return vp.to_vp(x, sigma[:, :, None, None, None]).to(x.dtype)

    def timestep(self, sigma: Tensor) -> Tensor:
        return torch.where(sigma == 0, self.config.clean_label, vp.timestep_of(sigma))

    def velocity(self, y: Tensor, out: Tensor, sigma: Tensor) -> Tensor:
        return vp.flow_velocity(y, out, sigma[:, :, None, None, None]).to(y.dtype)

    def block_rope(self, rope: Rope) -> Ropes:
        """Of positions within a frame, and of time."""
        grid, head = self.config.token_grid, self.config.width // self.config.heads
        frequency, device = self.config.max_frequency, self.embed.weight.device
        return pixel_tables(grid, head, head // 2, max_frequency=frequency, device=device), rope

    def rope(self, times: Tensor) -> Rope:
        return time_tables(times, head_width=self.config.width // self.config.heads)

    def mask(self, visible: Tensor) -> Mask:
        return visible

    def bias(self, cache: Cache) -> Tensor:
        return cache.bias(self.config.tokens)[..., :: self.config.tokens]


def oasis_500m() -> STDiTConfig:
    """The public 500M of Oasis, for 360x640 frames through `codecs.vit.vit_l20`: 144 tokens a frame."""
    return STDiTConfig(channels=16, grid=(18, 32), width=1024, depth=16, heads=16)
