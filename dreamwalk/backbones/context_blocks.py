"""Context blocks: two blocks that read the conditions once and speak to every block of an MMDiT.

Voyager's context-based control (arXiv 2506.04225, section 4.2, after VideoPainter, arXiv 2503.05639). A copy
of the first block for two streams and one of the first for all tokens run once, on an embedding of their own
of all input channels. What they give is added behind every block of their kind:

    c, y = double(embed_c(inputs), text)        x <- block(x) + W1 c            x video tokens
    z    = single([c; y])                       x <- block(x) + W2 z            x video and text tokens

W1 and W2 are zero at first, so that the network then is the one without context, to the bit.

    published                       ours
    `condition_in`                  `context.embed`
    `context_block1`, `2`           `context.streams`, `context.joint`
    `zero_linear1`, `2`             `context.behind_streams`, `context.behind_joint`

The context covers all tokens, or the lower half of pictures that are two above one another, such as colours
over depth: then it is embedded and placed (RoPE) as if there were no upper half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from dreamwalk.backbones.mmdit import DoubleStreamBlock, MMDiT, MMDiTConfig, SingleStreamBlock
from dreamwalk.errors import UserError
from dreamwalk.layers.low_memory import add
from dreamwalk.layers.modulation import zero_init
from dreamwalk.layers.patches import Extent, PatchEmbed
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.validation import Count


@dataclass(frozen=True)
class ContextMMDiTConfig(MMDiTConfig):
    """Sizes of an MMDiT with context blocks."""

    gap: Count | None = None
    """Rows of tokens between the two halves of a picture, of which the context covers the lower one; None: it
    covers all of a picture."""
    placed: Literal["rows", "end"] = "rows"
    """Which tokens a covered half is added to: those that it covers; or as many at the end of the clip. The
    published code pads frames as one sequence, and so does the latter: its weights were trained with it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.double_blocks and self.single_blocks):
            raise UserError(
                "context blocks begin as copies of a block of each kind: let `double_blocks` and "
                "`single_blocks` be 1 or more"
            )

    def build(self) -> ContextMMDiT:
        """The backbone, with fresh weights."""
        return ContextMMDiT(self)

    def above(self, rows: int) -> int:
        """Of so many rows of tokens, those that the context does not cover; UserError without two halves."""
        if self.gap is None:
            return 0
        if rows <= self.gap or (rows - self.gap) % 2:
            raise UserError(
                f"a picture of {rows} rows of tokens has no two halves with {self.gap} between them: take "
                f"one of {max(1, (rows - self.gap) // 2) * 2 + self.gap}"
            )
        return (rows + self.gap) // 2


def led_by_context(
    config: MMDiTConfig, *, gap: int | None, placed: Literal["rows", "end"] = "rows"
) -> ContextMMDiTConfig:
    """The sizes of an MMDiT with context blocks besides."""
    sizes = {field.name: getattr(config, field.name) for field in fields(MMDiTConfig)}
    return ContextMMDiTConfig(**sizes, gap=gap, placed=placed)


class ContextBlocks(nn.Module):
    """What is added behind the blocks of both kinds."""

    def __init__(self, config: ContextMMDiTConfig) -> None:
        super().__init__()
        width = config.width
        self.embed = PatchEmbed(config.channels + config.cond_channels, width, patch=config.patch)
        self.streams, self.joint = DoubleStreamBlock(config), SingleStreamBlock(config)
        self.behind_streams, self.behind_joint = (zero_init(nn.Linear(width, width)) for _ in range(2))


class ContextMMDiT(MMDiT):
    """`(x, sigma, text) -> v`, led by context blocks."""

    config: ContextMMDiTConfig

    def __init__(self, config: ContextMMDiTConfig) -> None:
        super().__init__(config)
        self.context = ContextBlocks(config)

    def additions(
        self, inputs: Tensor, words: TextEmbedding, condition: Tensor, extent: Extent
    ) -> Callable[[Tensor, int], Tensor]:
        """The context of latents and what is beside them, `(b, t, c + e, h, w)`; UserError for pictures that
        have no two halves where it covers one."""
        (t, h, w), context = extent, self.context
        above = self.config.above(h)
        x = context.embed(inputs[..., above * self.config.patch[1] :, :])
        layout, covered = self.layout((t, h - above, w), x, words), x.shape[1]
        x, text = context.streams(x, words.tokens.clone(), condition, layout)  # blocks may overwrite theirs
        both, _ = context.joint(torch.cat([x, text], dim=1), text[:, :0], condition, layout)
        video, text = context.behind_joint(both).split([covered, text.shape[1]], dim=1)
        double = self._among(context.behind_streams(x), extent)
        single = torch.cat([self._among(video, extent), text], dim=1)
        return lambda x, index: add(x, double if index < self.config.double_blocks else single)

    def _among(self, covered: Tensor, extent: Extent) -> Tensor:
        """Tokens of the covered rows among zeros for all others, `(b, n, d)`."""
        (t, h, w), rows = extent, covered.shape[1] // (extent[0] * extent[2])
        frames = 1 if self.config.placed == "end" else t
        missing = (h - rows) * w * t // frames
        padded = nn.functional.pad(covered.unflatten(1, (frames, -1)), (0, 0, missing, 0))
        return padded.flatten(1, 2)


def begun_from(name: str, config: MMDiTConfig) -> str | None:
    """The tensor of an MMDiT that a tensor of `context` is a copy of at first; None for the zero ones."""
    copies = {"embed.": "embed.", "streams.": "blocks.0.", "joint.": f"blocks.{config.double_blocks}."}
    rest = name.removeprefix("context.")
    found = (source + rest.removeprefix(part) for part, source in copies.items() if rest.startswith(part))
    return next(found, None)


def with_context(
    tensors: Mapping[str, Tensor], config: ContextMMDiTConfig, *, prefix: str
) -> dict[str, Tensor]:
    """Weights of an MMDiT, named behind `prefix`, and the context that begins as a copy of its first blocks;
    those that have one stay as they are."""
    with torch.device("meta"):
        wanted = ContextBlocks(config).state_dict()
    made = {}
    for name, tensor in wanted.items():
        source = begun_from(f"context.{name}", config)
        made[f"{prefix}context.{name}"] = (
            torch.zeros(tensor.shape) if source is None else tensors[prefix + source]
        )
    return made | dict(tensors)
