"""Frame DiT: a diffusion transformer over frames, bidirectional within a frame and causal across frames.

The backbone of Next-Frame Diffusion (arXiv 2506.01380, section 3.1) with the details of its published
successor LIVE (github.com/Junchao-cs/LIVE): RMSNorm, SwiGLU, adaLN-zero, rotary positions split over time,
height and width.

    paper's word            our word
    timestep t              sigma, one per frame
    latent patch            token
    block-causal mask       the default of `visible`
    KV cache                `RingCache`, passed in
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from dreamwalk.backbones.frame_backbone import AdaLNBlock, FrameBackbone, FrameSizes, Rope
from dreamwalk.layers.attention import Mask, SelfAttention, SwiGLU, frame_mask
from dreamwalk.layers.cache import Cache
from dreamwalk.layers.norms import RMSNorm
from dreamwalk.layers.rope import head_width, rope_tables, split_axes
from dreamwalk.validation import Positive


@dataclass(frozen=True)
class FrameDiTConfig(FrameSizes):
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

    def build(self) -> FrameDiT:
        """The backbone, with fresh weights."""
        return FrameDiT(self)


class FrameBlock(AdaLNBlock):
    """RMSNorm, attention over all tokens that a frame sees, SwiGLU."""

    def __init__(self, config: FrameDiTConfig) -> None:
        attention = SelfAttention(config.width, heads=config.heads, qk_norm=config.qk_norm)
        mlp = SwiGLU(config.width, multiple=config.feedforward_multiple)
        super().__init__(config.width, "b (t n)", RMSNorm, attention, mlp)


class FrameDiT(FrameBackbone):
    """Every token sees all tokens of the frames that its frame sees."""

    config: FrameDiTConfig

    def __init__(self, config: FrameDiTConfig) -> None:
        super().__init__(config, (FrameBlock(config) for _ in range(config.depth)))

    def velocity(self, y: Tensor, out: Tensor, sigma: Tensor) -> Tensor:
        if self.config.predicts == "velocity":
            return out
        return (y - out) / sigma.clamp(min=self.config.velocity_floor)[:, :, None, None, None]

    def rope(self, times: Tensor) -> Rope:
        config = self.config
        axes = split_axes(config.width // config.heads)
        return rope_tables(times, grid=config.token_grid, axes=axes, theta=config.theta)

    def mask(self, visible: Tensor) -> Mask:
        return frame_mask(visible, tokens=self.config.tokens)

    def bias(self, cache: Cache) -> Tensor:
        return cache.bias(self.config.tokens)


def tiny() -> FrameDiTConfig:
    """For tests: 32x32 frames through an 8x codec of 16 channels."""
    config = FrameDiTConfig(channels=16, grid=(4, 4), width=64, depth=2, heads=2, feedforward_multiple=32)
    return replace(config, qk_norm=True, predicts="clean")


def game(*, width: int = 256, heads: int = 4) -> FrameDiTConfig:
    """96x128 frames through a 16x codec of 64 channels: 48 tokens a frame, real time on two CPU cores."""
    config = FrameDiTConfig(64, (6, 8), width=width, depth=6, heads=heads, feedforward_multiple=64)
    return replace(config, qk_norm=True, predicts="clean")


def released(
    size: Literal["130M", "310M", "774M"], *, channels: int = 16, grid: tuple[int, int] = (14, 24)
) -> FrameDiTConfig:
    """The three sizes of Next-Frame Diffusion, for 224x384 frames through a 16x codec: 84 tokens a frame."""
    width, depth, heads = {"130M": (768, 12, 12), "310M": (1024, 16, 16), "774M": (1536, 18, 24)}[size]
    return FrameDiTConfig(channels=channels, grid=grid, width=width, depth=depth, heads=heads, patch=2)
