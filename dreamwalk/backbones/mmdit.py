"""MMDiT: a diffusion transformer in which words and video attend to one another as equals.

The backbone of HunyuanVideo (arXiv 2412.03603, section 3.3; after Stable Diffusion 3, arXiv 2403.03206, and
FLUX): first blocks with weights of their own for each of the two streams, then blocks that treat all tokens
alike. Every token sees every other.

    published                          ours
    timestep                           1000 sigma; one level for a clip, or one for each of its frames
    token replacement (I2V)            `sigma` 0 for the first frame, which is shown as it is
    latent concatenation (I2V)         `extra`: a clip of known frames, and where they are known
    embedded guidance, 1000 g          `guidance`, g
    encoder hidden states, pooled      `TextEmbedding`
    double, single blocks              `DualBlock`, `SingleBlock`

The text and the last layer follow the level of the whole clip, its frames' highest. Guidance is not told to a
frame at level 0, which needs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dreamwalk.backbones.clip_inputs import UNGUIDED, check, levels_by_frame
from dreamwalk.errors import UserError
from dreamwalk.layers.joint_attention import Layout, Stream, attend_jointly
from dreamwalk.layers.low_memory import add_gated, in_pieces, modulated_norm
from dreamwalk.layers.modulation import Modulation, SigmaEmbedding
from dreamwalk.layers.patches import Extent, Patch, PatchEmbed, PatchHead, token_extent
from dreamwalk.layers.refiner import Projection, TokenRefiner
from dreamwalk.layers.rope import rope_tables
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.validation import Count, Positive


@dataclass(frozen=True)
class MMDiTConfig:
    """Sizes of an MMDiT; those of HunyuanVideo unless said otherwise."""

    channels: int = 16
    """Latent channels."""
    extra: Count = 0
    """Channels that are put beside the latents: `channels + 1` for known frames and where they are known."""
    width: int = 3072
    heads: int = 24
    dual: Count = 20
    """Blocks with weights for each stream."""
    single: Count = 40
    """Blocks with weights for all tokens."""
    refine: Count = 2
    """Blocks of the token refiner."""
    patch: Patch = (1, 2, 2)
    """Latent frames, rows and columns of a token."""
    text: int = 4096
    """Width of a word's vector."""
    pooled: Count = 768
    """Width of the vector of all words; 0 for none."""
    guidance: bool = False
    """Whether the scale of guidance is an input: what guidance distillation trains."""
    axes: Extent = (16, 56, 56)
    """Parts of a head that turn with time, height and width."""
    theta: Positive = 256.0
    ratio: int = 4
    """Width of the feed-forward over `width`; the refiner's is always 4."""

    def __post_init__(self) -> None:
        head = self.width // self.heads
        if self.width % self.heads:
            raise UserError(f"width {self.width} does not divide by {self.heads} heads")
        if sum(self.axes) != head or any(part % 2 for part in self.axes):
            raise UserError(f"axes {self.axes} must be even and sum to the width of a head, {head}")


class DualBlock(nn.Module):
    """Attention over all tokens and feed-forward, with weights for video and weights for words."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        hidden = config.ratio * config.width
        self.video = Stream(config.width, heads=config.heads, hidden=hidden, parts=6)
        self.words = Stream(config.width, heads=config.heads, hidden=hidden, parts=6)

    def forward(self, x: Tensor, words: Tensor, condition: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """`x` `(b, n, d)` and `words` `(b, m, d)`, which outside autograd are overwritten; `condition`
        `(b, 1, d)`, or `(b, t + 1, d)` with the frames' levels and then the clip's."""
        frame, frames = layout.frame, condition[:, : max(1, condition.shape[1] - 1)]
        of_video, of_words = self.video.modulation(frames), self.words.modulation(condition[:, -1:])
        asked = [
            (self.video, modulated_norm(x, *of_video[:2], frame=frame)),
            (self.words, modulated_norm(words, *of_words[:2], frame=frame)),
        ]
        answers = attend_jointly(asked, layout).split([x.shape[1], words.shape[1]], dim=1)
        x = self.video.go_on(x, answers[0], of_video[2:], frame=frame)
        return x, self.words.go_on(words, answers[1], of_words[2:], frame=frame)


class SingleBlock(nn.Module):
    """Attention and feed-forward side by side (arXiv 2302.05442), the same for all tokens."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        hidden = config.ratio * config.width
        self.all = Stream(config.width, heads=config.heads, hidden=hidden, parts=3, bias=False)

    def forward(self, x: Tensor, words: Tensor, condition: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """As `DualBlock`, but `x` are all tokens, the words behind the video, and `words` has none left."""
        shift, scale, gate = self.all.modulation(condition)
        y = modulated_norm(x, shift, scale, frame=layout.frame)
        answer = in_pieces(self.all.out, attend_jointly([(self.all, y)], layout))
        return add_gated(x, gate, answer + in_pieces(self.all.mlp, y), frame=layout.frame), words


class MMDiT(nn.Module):
    """`(x, sigma, words) -> v`."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.embed = PatchEmbed(config.channels + config.extra, width, patch=config.patch)
        self.refiner = TokenRefiner(config.text, width, heads=config.heads, depth=config.refine)
        self.sigma = SigmaEmbedding(width)
        self.guidance = SigmaEmbedding(width) if config.guidance else None
        self.pooled = Projection(config.pooled, width) if config.pooled else None
        blocks = [DualBlock(config) for _ in range(config.dual)]
        self.blocks = nn.ModuleList([*blocks, *(SingleBlock(config) for _ in range(config.single))])
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

        `x` `(b, t, c, h, w)`, `sigma` in [0, 1], `(b,)` for the clip or `(b, t)` for its frames, `guidance`
        `(b,)`, `extra` `(b, t, e, h, w)`. UserError for what is missing, too much, or of a size that does
        not fit.
        """
        dtype = self.embed.project.weight.dtype
        check(self.config, x, words, extra=extra)
        if (guidance is not None) != self.config.guidance:
            raise UserError(UNGUIDED if guidance is not None else "`guidance` is missing: 6.0, for instance")
        extent = token_extent(x, self.config.patch)
        inputs = x if extra is None else torch.cat([x, extra.to(x.dtype)], dim=2)
        video = self.embed(inputs.to(dtype))
        levels = levels_by_frame(sigma, x, self.config.patch)
        told, condition = self.told(words, levels.amax(1)), self._condition(levels, words, guidance)
        layout = self._layout(extent, video, told)
        h = self._through(video, told.tokens, condition, layout)
        shift, scale = self.modulation(condition[:, -1:])
        y = modulated_norm(h[:, : video.shape[1]], shift, scale, frame=layout.frame)
        return self.head(y, extent).to(x.dtype)

    def told(self, words: TextEmbedding, sigma: Tensor) -> TextEmbedding:
        """Words as the tokens `(b, n, d)` that stand behind the video, at the clip's levels `(b,)`."""
        words = words.trimmed()
        words = words._replace(tokens=words.tokens.to(self.embed.project.weight.dtype))
        return words._replace(tokens=self.refiner(words, sigma))

    def _through(self, x: Tensor, words: Tensor, condition: Tensor, layout: Layout) -> Tensor:
        """All tokens, video before words, after all blocks."""
        for index, block in enumerate(self.blocks):
            if index == self.config.dual:
                x, words = torch.cat([x, words], dim=1), words[:, :0]
            x, words = block(x, words, condition, layout)
        return x

    def _condition(self, levels: Tensor, words: TextEmbedding, guidance: Tensor | None) -> Tensor:
        """What modulates at levels `(b, 1)` or `(b, t)`: `(b, 1, d)`, or `(b, t + 1, d)` with the clip's."""
        if levels.shape[1] > 1:
            levels = torch.cat([levels, levels.amax(1, keepdim=True)], dim=1)
        condition = self.sigma(levels)
        if self.guidance is not None and guidance is not None:
            told = 1000.0 * guidance.to(self.embed.project.weight.dtype)  # as released: 6 is 6016 in bfloat16
            condition = condition + self.guidance.at(told)[:, None] * (levels > 0)[..., None]
        if self.pooled is not None and words.pooled is not None:
            condition = condition + self.pooled(words.pooled.to(condition.dtype))[:, None]
        return condition

    def _layout(self, extent: Extent, video: Tensor, words: TextEmbedding) -> Layout:
        t, h, w = extent
        config, mask = self.config, words.mask
        times = torch.arange(t, device=video.device)
        tables = rope_tables(times, grid=(h, w), axes=config.axes, theta=config.theta)
        if mask is not None:
            mask = torch.cat([mask.new_ones(video.shape[:2]), mask], dim=1)[:, None, None]
        cos, sin = (table.transpose(1, 2) for table in tables)
        return Layout(cos, sin, mask, h * w).words(words.tokens.shape[1])


def hunyuan_13b(image: Literal["latent_concat", "token_replace"] | None = None) -> MMDiTConfig:
    """HunyuanVideo as published: for words (guidance-distilled), or one of the two kinds for images."""
    if image == "latent_concat":
        return MMDiTConfig(extra=17)
    return MMDiTConfig(guidance=True)


def tiny(channels: int = 4) -> MMDiTConfig:
    """For tests: 4 blocks of width 32."""
    return MMDiTConfig(
        channels=channels, width=32, heads=2, dual=2, single=2, refine=1, text=12, pooled=0, axes=(4, 6, 6)
    )
