"""MMDiT: a diffusion transformer in which text and video tokens attend to one another as equals.

The backbone of HunyuanVideo (arXiv 2412.03603, section 3.3; after Stable Diffusion 3, arXiv 2403.03206, and
FLUX): first blocks with weights of their own for each of the two streams, then blocks that treat all tokens
alike. Every token sees every other.

    published                          ours
    timestep                           1000 sigma; one for a clip, or one for each of its frames
    token replacement (I2V)            `sigma` 0 for the first frame, whose latents are clean
    latent concatenation (I2V)         `cond`: a clip of known frames, and where they are known
    embedded guidance, 1000 g          `guidance`, g
    encoder hidden states, pooled      `TextEmbedding`
    double, single blocks              `DoubleStreamBlock`, `SingleStreamBlock`

The text and the last layer are modulated by the sigma of the whole clip, the highest of its frames. Frames at
sigma 0 get no embedding of guidance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from dreamwalk.backbones.clip_backbone import ClipBackbone, ClipSizes
from dreamwalk.errors import UserError
from dreamwalk.layers.joint_attention import Stream, TokenLayout, joint_attention
from dreamwalk.layers.low_memory import FrameModulation, tokenwise
from dreamwalk.layers.modulation import SigmaEmbedding
from dreamwalk.layers.patches import Extent
from dreamwalk.layers.refiner import TokenRefiner
from dreamwalk.layers.rope import rope_tables
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.validation import Count, Positive


@dataclass(frozen=True)
class MMDiTConfig(ClipSizes):
    """Sizes of an MMDiT; by default those of HunyuanVideo."""

    double_blocks: Count = 20
    """Blocks with weights for each stream."""
    single_blocks: Count = 40
    """Blocks with weights for all tokens."""
    refiner_blocks: Count = 2
    """Blocks of the token refiner."""
    pooled_dim: Count = 768
    """Width of a vector of the whole text, for the modulation; 0 for none."""
    guidance: bool = False
    """Whether the scale of guidance is an input: what guidance distillation trains."""
    axes: Extent = (16, 56, 56)
    """Parts of a head that rotate with time, height and width."""
    theta: Positive = 256.0
    ratio: int = 4
    """Width of the feed-forward over `width`; the refiner's is always 4."""

    def __post_init__(self) -> None:
        super().__post_init__()
        head = self.width // self.heads
        if sum(self.axes) != head or any(part % 2 for part in self.axes):
            raise UserError(f"axes {self.axes} must be even and sum to the width of a head, {head}")

    def build(self) -> MMDiT:
        """The backbone, with fresh weights."""
        return MMDiT(self)

    def shallow(self) -> MMDiTConfig:
        double, single = min(self.double_blocks, 1), min(self.single_blocks, 1)
        return replace(self, double_blocks=double, single_blocks=single)


class DoubleStreamBlock(nn.Module):
    """Attention over all tokens and feed-forward, with weights for video and weights for text."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        hidden = config.ratio * config.width
        self.video = Stream(config.width, heads=config.heads, hidden=hidden, parts=6)
        self.text = Stream(config.width, heads=config.heads, hidden=hidden, parts=6)

    def forward(
        self, x: Tensor, text: Tensor, condition: Tensor, layout: TokenLayout
    ) -> tuple[Tensor, Tensor]:
        """`x` `(b, n, d)` and `text` `(b, m, d)`, which `layers.low_memory` may overwrite; `condition`
        `(b, 1, d)`, or `(b, t + 1, d)` of the frames' sigmas and then the clip's."""
        by, frames = layout.modulation, condition[:, : max(1, condition.shape[1] - 1)]
        shift, scale, *after = self.video.modulation(frames)
        shift_t, scale_t, *after_t = self.text.modulation(condition[:, -1:])
        attended = joint_attention(
            [(self.video, by.norm(x, shift, scale)), (self.text, by.norm(text, shift_t, scale_t))], layout
        )
        attended, attended_t = attended.split([x.shape[1], text.shape[1]], dim=1)
        x = self.video.residual(x, attended, after, by)
        return x, self.text.residual(text, attended_t, after_t, by)


class SingleStreamBlock(nn.Module):
    """Attention and feed-forward side by side (arXiv 2302.05442), with the same weights for all tokens."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        hidden = config.ratio * config.width
        self.stream = Stream(config.width, heads=config.heads, hidden=hidden, parts=3, bias=False)

    def forward(
        self, x: Tensor, text: Tensor, condition: Tensor, layout: TokenLayout
    ) -> tuple[Tensor, Tensor]:
        """As `DoubleStreamBlock`, but `x` are all tokens, the text behind the video, and `text` is empty."""
        by = layout.modulation
        shift, scale, gate = self.stream.modulation(condition)
        y = by.norm(x, shift, scale)
        attended = tokenwise(self.stream.out, joint_attention([(self.stream, y)], layout))
        return by.add(x, gate, attended + tokenwise(self.stream.mlp, y)), text


class MMDiT(ClipBackbone):
    """`(x, sigma, text) -> v`."""

    config: MMDiTConfig

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__(config)
        width, self.guided = config.width, config.guidance
        self.refiner = TokenRefiner(config.text_dim, width, heads=config.heads, depth=config.refiner_blocks)
        self.guidance = SigmaEmbedding(width) if config.guidance else None
        blocks = [DoubleStreamBlock(config) for _ in range(config.double_blocks)]
        singles = [SingleStreamBlock(config) for _ in range(config.single_blocks)]
        self.blocks = nn.ModuleList([*blocks, *singles])

    def run(
        self, inputs: Tensor, sigmas: Tensor, text: TextEmbedding, extent: Extent, guidance: Tensor | None
    ) -> Tensor:
        x, clip = self.embed(inputs), sigmas.amax(1)
        if sigmas.shape[1] > 1:
            sigmas = torch.cat([sigmas, clip[:, None]], dim=1)
        condition = self.condition(sigmas, text, guidance)
        words, video = self.text_tokens(text, clip), x.shape[1]
        layout, tokens = self.layout(extent, x, words), words.tokens
        after = self.additions(inputs, words, condition, extent)
        for index, block in enumerate(self.blocks):
            if index == self.config.double_blocks:
                x, tokens = torch.cat([x, tokens], dim=1), tokens[:, :0]
            x, tokens = block(x, tokens, condition, layout)
            x = after(x, index)
        return layout.modulation.norm(x[:, :video], *self.modulation(condition[:, -1:]))

    def additions(
        self, inputs: Tensor, words: TextEmbedding, condition: Tensor, extent: Extent
    ) -> Callable[[Tensor, int], Tensor]:
        """What becomes of tokens `(b, n, d)` behind the block of an index: here they stay as they are."""
        return lambda x, index: x

    def text_tokens(self, text: TextEmbedding, sigma: Tensor) -> TextEmbedding:
        """The tokens `(b, n, d)` behind the video, at the clip's sigma `(b,)`."""
        return text._replace(tokens=self.refiner(text, sigma))

    def embed_sigma(self, sigmas: Tensor, guidance: Tensor | None) -> Tensor:
        embedded = self.sigma(sigmas)
        if self.guidance is None or guidance is None:
            return embedded
        scale = 1000.0 * guidance.to(self.embed.project.weight.dtype)  # as released: 6 is 6016 in bfloat16
        return embedded + self.guidance.at(scale)[:, None] * (sigmas > 0)[..., None]

    def layout(self, extent: Extent, video: Tensor, words: TextEmbedding) -> TokenLayout:
        """Of video tokens `(b, n, d)` of an extent, and text behind them."""
        (t, h, w), config, mask = extent, self.config, words.mask
        times, behind = torch.arange(t, device=video.device), (0, 0, 0, 0, 0, words.tokens.shape[1])
        tables = rope_tables(times, grid=(h, w), axes=config.axes, theta=config.theta)
        cos, sin = (table.transpose(1, 2) for table in tables)
        cos, sin = nn.functional.pad(cos, behind, value=1.0), nn.functional.pad(sin, behind)
        if mask is not None:
            mask = torch.cat([mask.new_ones(video.shape[:2]), mask], dim=1)[:, None, None]
        return TokenLayout(cos, sin, mask, FrameModulation(h * w))


def hunyuan_13b(image: Literal["latent_concat", "token_replace"] | None = None) -> MMDiTConfig:
    """HunyuanVideo as published: for text (guidance-distilled), or one of the two kinds for images."""
    return MMDiTConfig(cond_channels=17) if image == "latent_concat" else MMDiTConfig(guidance=True)


def tiny(channels: int = 4) -> MMDiTConfig:
    """For tests: 4 blocks of width 32."""
    config = MMDiTConfig(channels, width=32, heads=2, text_dim=12, pooled_dim=0, axes=(4, 6, 6))
    return replace(config, double_blocks=2, single_blocks=2, refiner_blocks=1)
