"""The base of backbones over frames: the pass over the blocks, with or without a cache.

A backbone translates one fact, which frame sees which, for its attention: `mask` for frames read together,
`bias` for one frame in front of a ring cache. Nothing outside it knows of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones.memory_blocks import MemoryBlocks, MemoryBlocksConfig, RecalledFrame
from dreamwalk.errors import UserError
from dreamwalk.layers.attention import KeyValues, Mask
from dreamwalk.layers.cache import Cache, Past, RingCache
from dreamwalk.layers.modulation import Modulation, SigmaEmbedding, modulate, zero_init

Rope = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class FrameSizes:
    """Sizes that all share. `grid` is the latent's `(h, w)`, `patch` a token's side in latent pixels."""

    channels: int
    grid: tuple[int, int]
    width: int
    depth: int
    heads: int
    patch: int = 1

    def __post_init__(self) -> None:
        assert self.token_grid  # says whether the grid divides

    @cached_property
    def tokens(self) -> int:
        """Tokens in a frame."""
        return self.token_grid[0] * self.token_grid[1]

    @cached_property
    def token_grid(self) -> tuple[int, int]:
        """Tokens down and across."""
        h, w = self.grid
        if h % self.patch or w % self.patch:
            raise UserError(f"a latent grid of {h}x{w} does not divide into patches of {self.patch}")
        return h // self.patch, w // self.patch


class AdaLNBlock(nn.Module):
    """Attention and feed-forward, each normalised, modulated per frame and gated (zero at the start; DiT,
    arXiv 2212.09748, section 3.2).

    `rows` says what is a batch and what a sequence: `b (t n)` attends over tokens of all frames, `(b t) n`
    within frames, `(b n) t` through time.
    """

    def __init__(
        self, width: int, rows: str, norm: Callable[[int], nn.Module], attention: nn.Module, mlp: nn.Module
    ) -> None:
        super().__init__()
        self.rows, self.norm_attention, self.attention = rows, norm(width), attention
        self.norm_feedforward, self.feedforward = norm(width), mlp
        self.modulation = Modulation(width, parts=6)

    def forward(
        self, x: Tensor, condition: Tensor, rope: Rope, mask: Mask | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """`x` `(b, t, n, d)`, `condition` `(b, t, d)`; `past` and fresh `(rows, heads, tokens, e)`."""
        b, t = x.shape[:2]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(condition)
        y = rearrange(modulate(self.norm_attention(x), shift_a, scale_a), f"b t n d -> {self.rows} d")
        y, fresh = self.attention(y, rope, mask=mask, past=past)
        x = x + gate_a * rearrange(y, f"{self.rows} d -> b t n d", b=b, t=t)
        return x + gate_f * self.feedforward(modulate(self.norm_feedforward(x), shift_f, scale_f)), fresh


class Recalled(NamedTuple):
    """What a memory tells a backbone of `t` frames."""

    features: Tensor | None = None
    """Added to the tokens, `(b, t, n, d)`."""
    guess: Tensor | None = None
    """Added to the prediction of the clean latents, `(b, t, c, h, w)`."""
    keys: Tensor | None = None
    """For memory blocks, `(b, t, layers, heads, m, e)`."""
    values: Tensor | None = None
    visible: Tensor | None = None
    """Which of these are there, 1 or 0, `(b, t, m)`."""
    states: Tensor | None = None
    """Added to what their queries are made of, `(b, t, layers, n, d)`."""

    def layer(self, index: int) -> RecalledFrame | None:
        """For memory block `index`; None where no frames are recalled."""
        if self.keys is None or self.values is None or self.visible is None:
            return None
        state = None if self.states is None else self.states[:, :, index]
        return RecalledFrame(self.keys[:, :, index], self.values[:, :, index], self.visible, state)

    def each(self, change: Callable[[Tensor], Tensor]) -> Recalled:
        return Recalled(*(None if part is None else change(part) for part in self))

    @classmethod
    def cat(cls, frames: Sequence[Recalled]) -> Recalled:
        """Frames side by side; zeros where one has nothing of what others have."""

        def joined(parts: Sequence[Tensor | None]) -> Tensor | None:
            like = next((part for part in parts if part is not None), None)
            if like is None:
                return None
            return torch.cat([torch.zeros_like(like) if part is None else part for part in parts], 1)

        return cls(*(joined(parts) for parts in zip(*frames, strict=True)))


NOTHING = Recalled()


class FrameInputs(NamedTuple):
    """What a frame backbone is given of `t` frames besides their noisy latents."""

    conditions: Tensor
    """`(b, t, d)`."""
    recalled: Recalled = NOTHING

    def history_and_targets(self) -> FrameInputs:
        """Of the first `t - 1` frames as history, then of the last `t - 1` as targets."""

        def pair(x: Tensor) -> Tensor:
            return torch.cat([x[:, :-1], x[:, 1:]], dim=1)

        return FrameInputs(pair(self.conditions), self.recalled.each(pair))


class FrameBackbone(nn.Module):
    """`(x, sigma, conditions) -> v`, all frames at once or one after another on a cache."""

    config: FrameSizes
    unpatch: ClassVar[str] = "b t (h w) (c p q) -> b t c (h p) (w q)"
    """From tokens to latents; patches go in as `(c p q)`."""

    def __init__(self, config: FrameSizes, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.config, width = config, config.width
        features = config.channels * config.patch**2
        self.embed = nn.Linear(features, width)
        self.sigma = SigmaEmbedding(width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = Modulation(width, parts=2)
        self.head = zero_init(nn.Linear(width, features))
        self.memory: MemoryBlocks | None = None

    def add_memory_blocks(self, blocks: MemoryBlocksConfig) -> None:
        """Blocks that attend to recalled frames, with fresh weights that change nothing."""
        self.memory = MemoryBlocks(blocks, self.config)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        conditions: Tensor,
        cache: Cache | None = None,
        *,
        times: Tensor | None = None,
        visible: Tensor | None = None,
        recalled: Recalled = NOTHING,
    ) -> Tensor:
        """Velocity `v = eps - x` of noisy latents.

        `x` `(b, t, c, h, w)`, `sigma` `(b, t)` in [0, 1], `conditions` `(b, t, d)`, `times` `(t,)` frame
        indices (default 0, 1, ...; with a cache they go on from it). `visible` `(t, t)` says which frame
        (row) sees which (column), by default itself and all before it; with a cache, which is only read, `t`
        must be 1.
        """
        inputs = FrameInputs(conditions, recalled)
        rope = self.rope(self.times(x, cache) if times is None else times)
        if cache is not None:
            return self.predict(x, sigma, inputs, rope, self.bias(cache), cache)[0]
        if visible is None:
            visible = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        return self.predict(x, sigma, inputs, rope, self.mask(visible), None)[0]

    def predict(
        self, x: Tensor, sigma: Tensor, inputs: FrameInputs, rope: Rope, mask: Mask | None, cache: Past | None
    ) -> tuple[Tensor, list[KeyValues]]:
        """The pure function behind `forward`, to compile and export: also gives fresh keys and values.

        `mask` is what `mask` or `bias` gave.
        """
        y = self.scaled(x, sigma)
        out, fresh = self.denoise(y, self.timestep(sigma), inputs, rope, mask, cache)
        v, guess = self.velocity(y, out, sigma), inputs.recalled.guess
        # x = y - sigma v, so that what is added to x comes off v; near clean y itself is the prediction
        return v if guess is None else v - guess / sigma.clamp(min=0.05)[:, :, None, None, None], fresh

    def denoise(
        self, y: Tensor, label: Tensor, inputs: FrameInputs, rope: Rope, mask: Mask | None, cache: Past | None
    ) -> tuple[Tensor, list[KeyValues]]:
        """The network alone: scaled latents `y` at timesteps `label` `(b, t)` to its last layer's output."""
        x, condition = self.tokens(y, inputs), self.sigma.at(label) + inputs.conditions.to(self.dtype)
        ropes, fresh, attended = self.block_rope(rope), [], None
        for index, block in enumerate(self.blocks):
            past = cache.layer(index) if cache is not None else None
            x, key_values = block(x, condition, ropes, mask, past)
            fresh.append(key_values)
            if self.memory is not None and (layer := self.memory.layer_after(index)) is not None:
                frames = inputs.recalled.layer(layer)
                if frames is not None:
                    x, attended = self.memory.blocks[layer](x, condition, frames)
        return self.output(x, condition, attended).to(y.dtype), fresh

    def tokens(self, y: Tensor, inputs: FrameInputs) -> Tensor:
        """The first block's input `(b, t, n, d)`, of scaled latents `y`."""
        p, features = self.config.patch, inputs.recalled.features
        x = self.embed(rearrange(y.to(self.dtype), "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p))
        return x if features is None else x + features.to(self.dtype)

    def output(self, x: Tensor, condition: Tensor, attended: Tensor | None = None) -> Tensor:
        """What the last layer makes `(b, t, c, h, w)` of the last block's output under `(b, t, d)`, and of
        what memory blocks attended to."""
        p, (h, w) = self.config.patch, self.config.token_grid
        x = self.head(modulate(self.norm(x), *self.modulation(condition)))
        if self.memory is not None and attended is not None:
            x = x + self.memory.copy(attended)
        return rearrange(x, self.unpatch, h=h, w=w, p=p, q=p)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.embed.weight.dtype

    def scaled(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The network's input for noisy latents."""
        return x

    def timestep(self, sigma: Tensor) -> Tensor:
        """The network's label for a noise level."""
        return 1000.0 * sigma.float()

    def velocity(self, y: Tensor, out: Tensor, sigma: Tensor) -> Tensor:
        """`v = eps - x` from the network's input and output."""
        return out

    def block_rope(self, rope: Rope) -> Rope | tuple[Rope, Rope]:
        """The rotary positions that blocks take, from those of time."""
        return rope

    def rope(self, times: Tensor) -> Rope:
        """Rotary positions of frames at `times` `(t,)`."""
        raise NotImplementedError

    def mask(self, visible: Tensor) -> Mask:
        """For `predict`, from `visible` `(t, p + t)`: which of `p` kept and `t` new frames a new one sees."""
        raise NotImplementedError

    def bias(self, cache: Cache) -> Tensor:
        """For `predict`: one frame sees itself and what the cache holds."""
        raise NotImplementedError

    def times(self, x: Tensor, cache: Cache | None) -> Tensor:
        """Frame indices of `x`: from 0, or from where the cache stands."""
        if cache is not None and x.shape[1] != 1:
            raise UserError(f"a cached pass takes one frame at a time, got {x.shape[1]}")
        first = cache.frames if cache is not None else 0
        return torch.arange(first, first + x.shape[1], device=x.device)

    def cache_bytes(self, window: int) -> int:
        """Size of a cache for one session."""
        config = self.config
        return 2 * config.depth * window * config.tokens * config.width * self.embed.weight.element_size()

    def cache(self, window: int, *, batch: int = 1) -> RingCache:
        """An empty cache for this backbone, on its device and in its precision; a pass sees `window` frames
        and its own."""
        config = self.config
        head = config.width // config.heads
        shape = config.depth, batch, config.heads, config.tokens, head
        return RingCache.empty(shape, window=window, like=self.embed.weight)
