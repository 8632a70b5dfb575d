"""Frame DiT: a diffusion transformer over frames, bidirectional within a frame and causal across frames.

The backbone of Next-Frame Diffusion (arXiv 2506.01380, section 3.1) with the details of its published
successor LIVE (github.com/Junchao-cs/LIVE): RMSNorm, SwiGLU, adaLN-zero, rotary positions split over time,
height and width.

    paper's word            our word
    timestep t              sigma, one level per frame
    latent patch            token
    block-causal mask       what `forward` does unless told who is `visible`
    KV cache                `RingCache`, passed in
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import FrameBackbone, FrameBackboneConfig, Rope
from dreamwalk.layers.attention import KeyValues, Mask, SelfAttention, SwiGLU, frame_mask
from dreamwalk.layers.cache import Cache, Past
from dreamwalk.layers.modulation import Modulation, SigmaEmbedding, modulate
from dreamwalk.layers.norms import RMSNorm
from dreamwalk.layers.rope import head_width, rope_tables, split_axes
from dreamwalk.validation import Positive


@dataclass(frozen=True)
class FrameDiTConfig(FrameBackboneConfig):
    """Sizes of a Frame DiT."""

    theta: Positive = 256.0
    qk_norm: bool = False
    feedforward_multiple: int = 256
    predicts: Literal["velocity", "clean"] = "velocity"
    """What the last layer gives: `v`, or `x`, from which v follows (Back to Basics, arXiv 2511.13720)."""
    velocity_floor: Positive = 0.05
    """Smallest sigma by which a clean prediction is divided."""

    def __post_init__(self) -> None:
        super().__post_init__()
        head_width(self.width, self.heads, least=6)


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
        self, x: Tensor, condition: Tensor, rope: Rope, mask: Mask | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """`x` `(b, t, n, d)`, `condition` `(b, t, d)`."""
        t = x.shape[1]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(condition)
        y = rearrange(modulate(self.norm_attention(x), shift_a, scale_a), "b t n d -> b (t n) d")
        y, fresh = self.attention(y, rope, mask=mask, past=past)
        x = x + gate_a * rearrange(y, "b (t n) d -> b t n d", t=t)
        x = x + gate_f * self.feedforward(modulate(self.norm_feedforward(x), shift_f, scale_f))
        return x, fresh


class FrameDiT(FrameBackbone):
    """Every token sees all tokens of the frames that its frame sees."""

    config: FrameDiTConfig

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
        config, dtype = self.config, self.embed.weight.dtype
        p = config.patch
        h = self.embed(rearrange(x.to(dtype), "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p))
        h = h if views is None else h + views.to(dtype)
        condition = self.sigma(sigma) + conditions.to(dtype)
        fresh = []
        for index, block in enumerate(self.blocks):
            h, key_values = block(h, condition, rope, mask, cache.layer(index) if cache is not None else None)
            fresh.append(key_values)
        h = self.head(modulate(self.norm(h), *self.modulation(condition)))
        rows, columns = config.token_grid
        out = rearrange(h, "b t (h w) (c p q) -> b t c (h p) (w q)", h=rows, w=columns, p=p, q=p).to(x.dtype)
        if config.predicts == "clean":
            out = (x - out) / sigma.clamp(min=config.velocity_floor)[:, :, None, None, None]
        return out, fresh

    def rope(self, times: Tensor) -> Rope:
        config = self.config
        axes = split_axes(config.width // config.heads)
        return rope_tables(times, grid=config.token_grid, axes=axes, theta=config.theta)

    def mask(self, visible: Tensor) -> Mask:
        return frame_mask(visible, tokens=self.config.tokens)

    def bias(self, cache: Cache) -> Tensor:
        return cache.bias(self.config.tokens)


def published(
    size: Literal["130M", "310M", "774M"], *, channels: int = 16, grid: tuple[int, int] = (14, 24)
) -> FrameDiTConfig:
    """The three sizes of Next-Frame Diffusion, for 224x384 frames through a 16x codec: 84 tokens a frame."""
    width, depth, heads = {"130M": (768, 12, 12), "310M": (1024, 16, 16), "774M": (1536, 18, 24)}[size]
    return FrameDiTConfig(channels=channels, grid=grid, width=width, depth=depth, heads=heads, patch=2)
