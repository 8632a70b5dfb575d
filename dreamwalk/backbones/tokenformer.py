"""Token transformer: one trunk that predicts a clip's tokens in whatever order its slots tell.

Next-token, next-block and next-scale models differ in the `Slots` that they are given (`schedules.orders`):
inputs, positions and mask; and by the head in what a token is. The trunk itself is a transformer with
RMSNorm, SwiGLU, rotary positions over time, height and width, and cross-attention to a text, if there is one.
Actions modulate by adaLN-zero (DiT, arXiv 2212.09748, 3.2), once per frame, as in the Frame DiT.

    h_i = trunk(u_i + place_i + scale_i), u_i = sum_j w_ij embed(y_j) or a learned filler
    p(y_i | y_before) = head(h_i)

A codec that codes frames after others (`codecs/delta.py`) also tells what was seen at each place in the frame
before; that joins the inputs of the slots that lie there.

Slots of a group often have the same input (fillers, cells of one coarse cell), and keys that differ by their
rotation alone carry the same values. So row and column also join the input, as in VAR (arXiv 2404.02905);
time does not, and a stream may go on for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones.token_heads import DiscreteHead, DiscreteHeadConfig, FlowHead, FlowHeadConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.attention import KeyValues, SelfAttention, SwiGLU, attend
from dreamwalk.layers.cache import Past, SlotCache
from dreamwalk.layers.modulation import Modulation, SigmaEmbedding, modulate, zero_init
from dreamwalk.layers.norms import RMSNorm
from dreamwalk.layers.precision import float32_arithmetic
from dreamwalk.layers.rope import head_width, place_tables, split_axes
from dreamwalk.layers.slots import Slots
from dreamwalk.layers.text import TextEmbedding, attendable
from dreamwalk.validation import Count, Positive

FrameModulation = tuple[Tensor, ...]
"""Shifts, scales and gates of a block `(b, frames, 1, d)`."""
Text = tuple[Tensor, Tensor | None]
"""Tokens `(b, m, d)` to attend to, and a mask."""


@dataclass(frozen=True)
class TokenFormerConfig:
    """Sizes of a token transformer, and the order that its weights are made for."""

    order: str
    """`Order.trained_as`: the orders that it runs have the same."""
    head: DiscreteHeadConfig | FlowHeadConfig
    width: int
    depth: int
    heads: int
    fillers: int = 1
    """Learned inputs: `Order.fillers`."""
    scales: int = 1
    """Learned vectors of scales: `Order.scales`."""
    text_dim: Count = 0
    """Width of a text's vectors; 0 for a model that takes none."""
    seen: Count = 0
    """Features of each place in the frame before; 0 for a model that is told none."""
    theta: Positive = 10_000.0
    feedforward_multiple: int = 256

    def __post_init__(self) -> None:
        head_width(self.width, self.heads, least=6)

    def build(self) -> TokenFormer:
        """The transformer, with fresh weights."""
        return TokenFormer(self)


class TextAttention(nn.Module):
    """Cross-attention of slots to a text; adds nothing at the start."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.out = zero_init(nn.Linear(width, width, bias=False))

    def forward(self, x: Tensor, text: Text) -> Tensor:
        """`x` `(b, n, d)` -> the same shape."""
        q = rearrange(self.q(x), "b n (heads e) -> b heads n e", heads=self.heads)
        k, v = rearrange(self.kv(text[0]), "b m (two heads e) -> two b heads m e", two=2, heads=self.heads)
        return self.out(rearrange(attend(q, k, v, text[1]), "b heads n e -> b n (heads e)"))


class TokenBlock(nn.Module):
    """Attention to slots, attention to text, feed-forward; the first and the last modulated and gated."""

    def __init__(self, config: TokenFormerConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.norm_attention, self.norm_feedforward = RMSNorm(width), RMSNorm(width)
        self.attention = SelfAttention(width, heads=heads, qk_norm=True)
        self.norm_text = RMSNorm(width) if config.text_dim else None
        self.text = TextAttention(width, heads=heads) if config.text_dim else None
        self.feedforward = SwiGLU(width, multiple=config.feedforward_multiple)
        self.modulation = Modulation(width, parts=6)

    def forward(
        self,
        x: Tensor,
        modulation: FrameModulation,
        slots: Slots,
        rope: tuple[Tensor, Tensor],
        text: Text | None,
        past: KeyValues | None,
    ) -> tuple[Tensor, KeyValues]:
        """`x` `(b, s, d)`, and the fresh keys and values of these slots."""
        parts = (part[:, slots.frame, 0] for part in modulation)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = parts
        y = modulate(self.norm_attention(x), shift_a, scale_a)
        y, fresh = self.attention(y, rope, mask=slots.mask, past=past)
        x = x + gate_a * y
        if self.text is not None and self.norm_text is not None and text is not None:
            x = x + self.text(self.norm_text(x), text)
        return x + gate_f * self.feedforward(modulate(self.norm_feedforward(x), shift_f, scale_f)), fresh


class TokenFormer(nn.Module):
    """`(symbols, slots, conditions, text) -> hidden` vectors, of which `head` makes tokens."""

    def __init__(self, config: TokenFormerConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.head: DiscreteHead | FlowHead = config.head.build(width)
        self.fillers = nn.Parameter(torch.randn(config.fillers, width))
        self.scale = nn.Embedding(config.scales, width)
        self.row, self.column = SigmaEmbedding(width), SigmaEmbedding(width)
        self.seen = (
            nn.Sequential(nn.LayerNorm(config.seen), nn.Linear(config.seen, width)) if config.seen else None
        )
        self.text = nn.Linear(config.text_dim, width) if config.text_dim else None
        self.blocks = nn.ModuleList(TokenBlock(config) for _ in range(config.depth))
        self.norm = RMSNorm(width)

    def forward(
        self,
        symbols: Tensor,
        slots: Slots,
        *,
        conditions: Tensor | None = None,
        seen: Tensor | None = None,
        text: TextEmbedding | None = None,
    ) -> Tensor:
        """Hidden vectors `(b, m, d)` of the tokens that the slots predict, in their order, teacher-forced.

        `symbols` are all tokens of a clip, as the head takes them; `conditions` `(b, frames, d)` of the
        frames of the slots, and `seen` `(b, frames, h, w, f)`. UserError for another order, length or
        vocabulary than the weights were made for.
        """
        self.head.check(symbols)
        if symbols.shape[1] != slots.length:
            raise UserError(
                f"the order has {slots.length} tokens and the clip {symbols.shape[1]}: make it for this grid"
            )
        told = self.modulations(conditions, batch=len(symbols), frames=len(slots.frames))
        return self.predict(symbols, slots, told, text, None, seen=seen)[0]

    def loss(
        self,
        symbols: Tensor,
        slots: Slots,
        *,
        conditions: Tensor | None = None,
        seen: Tensor | None = None,
        text: TextEmbedding | None = None,
        noise: Tensor | None = None,
        told: Tensor | None = None,
    ) -> Tensor:
        """The head's loss `(b, m)` of `slots.tokens`; `noise` is normal, `(b, m, *head.loss_noise)`. Where
        other symbols are `told`, these are predicted from those."""
        told = symbols if told is None else told
        hidden = self(told, slots, conditions=conditions, seen=seen, text=text)
        return self.head.loss(hidden, symbols[:, slots.tokens], noise)

    def predict(
        self,
        symbols: Tensor,
        slots: Slots,
        modulations: Sequence[FrameModulation],
        text: TextEmbedding | None,
        past: Past | None,
        *,
        seen: Tensor | None = None,
    ) -> tuple[Tensor, list[KeyValues]]:
        """The function behind `forward`, behind kept slots: also gives fresh keys and values of the slots."""
        x = self.inputs(symbols, slots) + self._seen(seen, slots)
        axes = split_axes(self.config.width // self.config.heads)
        rope = place_tables(slots.places, axes=axes, theta=self.config.theta)
        words, fresh = self._words(text), []
        for index, (block, modulation) in enumerate(zip(self.blocks, modulations, strict=True)):
            kept = past.layer(index) if past is not None else None
            x, key_values = block(x, modulation, slots, rope, words, kept)
            fresh.append(key_values)
        return self.norm(x[:, slots.targets]), fresh

    def modulations(self, conditions: Tensor | None, *, batch: int, frames: int) -> list[FrameModulation]:
        """Of each block, by the conditions `(b, frames, d)`; they hold for all groups of these frames, and
        are a third of the weights. UserError for another number of frames."""
        shape = batch, frames, self.config.width
        conditions = (
            self.fillers.new_zeros(shape) if conditions is None else conditions.to(self.fillers.dtype)
        )
        if conditions.shape != shape:
            raise UserError(
                f"the tokens need conditions (batch, frames, width) of {shape}, got "
                f"{tuple(conditions.shape)}: give every frame its action"
            )
        return [block.modulation(conditions) for block in self.blocks]

    def inputs(self, symbols: Tensor, slots: Slots) -> Tensor:
        """The first block's input `(b, s, d)`: what the input map makes of tokens, and where they lie."""
        if slots.order != self.config.order:
            raise UserError(
                f"these weights were trained in the order '{self.config.order}', not '{slots.order}': sample "
                "in that one, or train others"
            )
        embedded = self.head.embed(symbols[:, slots.sources])
        with float32_arithmetic():  # sparse products know no bfloat16
            single = torch.promote_types(embedded.dtype, torch.float32)
            columns = embedded.to(single).transpose(0, 1).flatten(1)
            x = (slots.weights.to(single) @ columns).unflatten(1, (-1, self.config.width)).transpose(0, 1)
        fillers = nn.functional.pad(self.fillers, (0, 0, 1, 0))
        _, row, column = slots.places.unbind(1)
        place = self.row.at(row[None]) + self.column.at(column[None]) + self.scale(slots.scales)
        return x.to(embedded.dtype) + fillers[slots.fillers] + place

    def cache(self, slots: int, *, batch: int = 1) -> SlotCache:
        """Room for keys and values of so many slots, on the device and in the precision of the weights."""
        config = self.config
        shape = config.depth, batch, config.heads, slots, config.width // config.heads
        return SlotCache.empty(shape, like=self.fillers)

    def _seen(self, seen: Tensor | None, slots: Slots) -> Tensor | float:
        """What is told of the place of each slot, `(b, s, d)`."""
        if (seen is None) != (self.seen is None):
            raise UserError(
                "what is seen of the frame before is for weights of a delta codec, and for all of those"
            )
        if seen is None or self.seen is None:
            return 0.0
        _, row, column = slots.places.unbind(1)
        return self.seen(seen.to(self.fillers.dtype))[:, slots.frame, row.long(), column.long()]

    def _words(self, text: TextEmbedding | None) -> Text | None:
        if text is None:
            return None
        if self.text is None:
            raise UserError("these weights take no text: leave it out, or train with `text_dim`")
        return attendable(self.text(text.tokens.to(self.fillers.dtype)), text)
