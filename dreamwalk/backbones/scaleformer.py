"""Transformer over the scales of a picture: VAR (arXiv 2404.02905, section 3.2), by the number of a class.

    s = class vector                                       condition of every block and of the last norm
    x = [s + start | W r_2 | .. | W r_K] + place + scale   r_k: what scales before k tell, on the grid of k
    q, k on the unit sphere; logits q.k exp(a), a learnt for each head, e^a at most 100
    x = x + gate * attention(modulate(norm(x)));  x = x + gate * mlp(modulate(norm(x)))

A token sees its own scale and all before it. Norms have no weights, the network is a GELU of four times the
width, and what a token holds is never its own code: all scales at once and one after another, behind a
cache, are the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize

from dreamwalk.errors import UserError
from dreamwalk.layers.attention import KeyValues, Mask, attend, slot_mask
from dreamwalk.layers.cache import Past, SlotCache
from dreamwalk.layers.modulation import Modulation, modulate

SHARPEST = math.log(100)
"""Of a head, at most: the logarithm of what its cosines are multiplied by."""


@dataclass(frozen=True)
class ScaleFormerConfig:
    """Sizes of the transformer, and the scales that its weights are made for."""

    scales: tuple[tuple[int, int], ...]
    """Rows and columns of each, from coarse to fine."""
    width: int = 1024
    depth: int = 16
    heads: int = 16
    channels: int = 32
    """Of the values of codes."""
    vocabulary: int = 4096
    classes: int = 1000
    """Of pictures; one more number stands for none of them."""

    def __post_init__(self) -> None:
        if not self.scales or self.width % self.heads:
            raise UserError(
                f"a transformer of scales needs one or more, and a width that its heads divide, not "
                f"{len(self.scales)}, and {self.width} by {self.heads}"
            )

    def build(self) -> ScaleFormer:
        """The transformer, with fresh weights."""
        return ScaleFormer(self)


class CosineAttention(nn.Module):
    """Multi-head attention by cosines, sharper or flatter by head."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.sharpness = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4)))

    def forward(self, x: Tensor, *, mask: Mask | None, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
        """`x` `(b, n, d)` -> the same shape, and the fresh keys and values of these tokens."""
        qkv = rearrange(self.qkv(x), "b n (three heads e) -> three b heads n e", three=3, heads=self.heads)
        q, k, v = qkv
        # `attend` divides by the root of a head's width, which cosines do not need
        q = normalize(q, dim=-1) * self.sharpness.clamp(max=SHARPEST).exp() * math.sqrt(q.shape[-1])
        k = normalize(k, dim=-1)
        fresh = KeyValues(k, v)
        if past is not None:
            k, v = torch.cat([past.keys, k], dim=2), torch.cat([past.values, v], dim=2)
        return self.out(rearrange(attend(q, k, v, mask), "b heads n e -> b n (heads e)")), fresh


class ScaleBlock(nn.Module):
    """Attention and feed-forward, both modulated and gated by the class."""

    def __init__(self, config: ScaleFormerConfig) -> None:
        super().__init__()
        width = config.width
        self.attention = CosineAttention(width, heads=config.heads)
        gelu = nn.GELU(approximate="tanh")
        self.feedforward = nn.Sequential(nn.Linear(width, 4 * width), gelu, nn.Linear(4 * width, width))
        self.modulation = Modulation(width, parts=6)

    def forward(
        self, x: Tensor, condition: Tensor, *, mask: Mask | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """`x` `(b, n, d)`, `condition` `(b, 1, d)`, and the fresh keys and values."""
        parts = (part[:, :, 0] for part in self.modulation(condition))
        gate_a, gate_f, scale_a, scale_f, shift_a, shift_f = parts
        y, fresh = self.attention(modulate(_normed(x), shift_a, scale_a), mask=mask, past=past)
        x = x + gate_a * y
        return x + gate_f * self.feedforward(modulate(_normed(x), shift_f, scale_f)), fresh


class ScaleFormer(nn.Module):
    """`(values, classes) -> logits` of the codes of all scales, teacher-forced."""

    def __init__(self, config: ScaleFormerConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.sizes = [h * w for h, w in config.scales]
        self.ends = list(accumulate(self.sizes))
        self.classes = nn.Embedding(config.classes + 1, width)
        self.start = nn.Parameter(0.02 * torch.randn(1, self.sizes[0], width))
        self.place = nn.Parameter(0.02 * torch.randn(1, sum(self.sizes), width))
        self.scale = nn.Embedding(len(self.sizes), width)
        self.embed = nn.Linear(config.channels, width)
        self.blocks = nn.ModuleList(ScaleBlock(config) for _ in range(config.depth))
        self.modulation = Modulation(width, parts=2)
        self.head = nn.Linear(width, config.vocabulary)

    @property
    def none(self) -> int:
        """The number of no class, with which guidance compares."""
        return self.config.classes

    def forward(self, values: Tensor, classes: Tensor) -> Tensor:
        """Logits `(b, n, v)` of the tokens of all scales.

        `values` `(b, n - n_1, c)` are what the scales before tell each but the first, on its own grid;
        `classes` `(b,)`. UserErrors as of `predict`.
        """
        return self.predict(values, classes, range(len(self.sizes)), None)[0]

    def predict(
        self, values: Tensor, classes: Tensor, scales: range, past: Past | None
    ) -> tuple[Tensor, list[KeyValues]]:
        """Logits of these scales behind all before them, and their keys and values.

        `values` are those of `forward` for these scales. UserError for others, and for a class that is none
        of the vocabulary.
        """
        begin, end = (([0, *self.ends])[scale] for scale in (scales.start, scales.stop))
        first = self.sizes[0] if scales.start == 0 else 0
        self._check(values, classes, end - begin - first)
        condition = self.classes(classes)[:, None]
        x = torch.cat([(condition + self.start)[:, :first], self.embed(values.to(self.start.dtype))], 1)
        of = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))[:end]
        x = x + self.place[:, begin:end] + self.scale(of[begin:].to(x.device))
        seen = torch.ones(len(self.sizes), len(self.sizes)).tril().bool()
        mask, fresh = slot_mask(seen, of[begin:], of, device=x.device), []
        for index, block in enumerate(self.blocks):
            kept = past.layer(index) if past is not None else None
            x, key_values = block(x, condition, mask=mask, past=kept)
            fresh.append(key_values)
        scale, shift = (part[:, :, 0] for part in self.modulation(condition))
        return self.head(modulate(_normed(x), shift, scale)), fresh

    def cache(self, *, batch: int = 1) -> SlotCache:
        """Room for keys and values of all scales but the last, on the device and in the precision of the
        weights."""
        config, room = self.config, sum(self.sizes[:-1])
        shape = config.depth, batch, config.heads, room, config.width // config.heads
        return SlotCache.empty(shape, like=self.start)

    def _check(self, values: Tensor, classes: Tensor, tokens: int) -> None:
        if values.shape != (len(classes), tokens, self.config.channels):
            raise UserError(
                f"{len(classes)} classes need values (pictures, tokens, channels) of "
                f"{(len(classes), tokens, self.config.channels)}, got {tuple(values.shape)}: use the codec "
                "that these weights were trained with"
            )
        low, high = map(int, classes.aminmax()) if len(classes) else (0, 0)
        if low < 0 or high > self.none:
            raise UserError(
                f"there is no class {low if low < 0 else high}: they are 0 to {self.none - 1}, "
                f"and {self.none} stands for none"
            )


def _normed(x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], eps=1e-6)
