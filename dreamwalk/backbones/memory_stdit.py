"""Spatio-temporal DiT with memory: after space and time, frames attend to frames recalled from long ago.

WorldMem (Xiao et al., arXiv 2504.12369, section 3): each block of the STDiT has a third part. Its queries
are tokens of a frame, its keys and values tokens of recalled frames, and what places them is a state: where
the recalled camera stood and when, as seen from the frame that looks.

    paper's word                     our word
    memory frames, units             recalled frames, `MemoryView`
    state embedding E = G_p + G_t    `StateEmbedding`: Pluecker rays (o x d, d) of tokens, and frames between
    q, k from (x + E), v from x      `MemoryPart`; E goes through a linear layer of each block, zero at first
    noise level 15 of 1000           sigma 0, shown as the network was trained to see it: see `clean_label`

Recalled frames see themselves alone in space and time, and one another in the memory part, placed as seen
from the newest frame. So nothing of them depends on a frame that is denoised, nor does the window before it:
`window_cache` computes both once per frame, and a pass on it costs one frame. As queries, keys and values are
linear without a bias, those of x and of E are computed apart: of x once per recalled frame, not once for each
frame that looks.

Actions go into the part through time alone, as published; without recalled frames the memory part is left
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import linear

from dreamwalk.backbones.frame_backbone import NOTHING, FrameInputs, Recalled, Rope
from dreamwalk.backbones.stdit import AxisBlock, Ropes, STBlock, STDiT, STDiTConfig
from dreamwalk.layers import vp
from dreamwalk.layers.attention import BiasedAttention, KeyValues, Mask, attend
from dreamwalk.layers.cache import Cache, Past
from dreamwalk.layers.modulation import SigmaEmbedding, modulate, zero_init
from dreamwalk.validation import Count, Positive


@dataclass(frozen=True)
class MemorySTDiTConfig(STDiTConfig):
    """Sizes of a spatio-temporal DiT with memory."""

    focal: tuple[Positive, Positive] = (0.35, 0.35)
    """Focal lengths as shares of a frame's width and height. Minecraft's true ones at its default of 70
    degrees are 0.402 and 0.714; the published weights know these."""
    token_pixels: Count = 40
    """Pixels from one token to the next; its ray goes through the first of them."""

    def build(self) -> MemorySTDiT:
        """The backbone, with fresh weights."""
        return MemorySTDiT(self)


@dataclass(frozen=True)
class MemoryView:
    """Recalled frames, `m` of them, as seen from `t` frames."""

    latents: Tensor
    """Clean, `(b, m, c, h, w)`."""
    conditions: Tensor
    """`(b, m, d)`; published: of an action of zeros."""
    poses: Tensor
    """`frame_from_recalled` `(b, t, m, 4, 4)`, OpenCV cameras."""
    elapsed: Tensor
    """Frames from the one that looks to the recalled one, `(b, t, m)`; negative for the past."""

    @classmethod
    def of(
        cls,
        latents: Tensor,
        conditions: Tensor,
        *,
        cameras: Tensor,
        times: Tensor,
        poses: Tensor,
        now: Tensor,
    ) -> MemoryView:
        """Recalled frames with `world_from_camera` `cameras` `(b, m, 4, 4)` and indices `times` `(b, m)`, as
        seen from `poses` `(b, t, 4, 4)` at indices `now` `(b, t)`."""
        seen = torch.linalg.inv(poses.double())[:, :, None] @ cameras.double()[:, None]
        return cls(latents, conditions, seen.to(poses.dtype), times[:, None] - now[:, :, None])


class MemoryKeys(NamedTuple):
    """What one frame needs of the recalled ones in one block."""

    query: Tensor
    """What its own state, the same for all, adds to its queries, `(1, 1, n, d)`."""
    keys: Tensor
    """`(b, heads, m*n, e)`."""
    values: Tensor


@dataclass(frozen=True)
class ReadFrames:
    """Frames that were read together, as a cache."""

    layers: list[KeyValues]
    """Of every block's part through time, `(b, heads, t*n, e)`."""
    frames: int
    """Index of the frame after them."""

    def layer(self, index: int) -> KeyValues:
        return self.layers[index]

    def bias(self, new: int = 0) -> Tensor:
        """Additive attention bias: all is visible."""
        keys = self.layers[0].keys
        return keys.new_zeros(1, 1, 1, keys.shape[2] + new)


@dataclass(frozen=True)
class MemoryCache:
    """What lies behind one new frame and what it recalls; nothing of it changes from step to step."""

    behind: Cache
    memory: list[MemoryKeys]
    """Of every block."""

    @property
    def frames(self) -> int:
        return self.behind.frames

    def layer(self, index: int) -> KeyValues:
        return self.behind.layer(index)

    def bias(self, new: int = 0) -> Tensor:
        """As of what lies behind."""
        return self.behind.bias(new)


class StateEmbedding(nn.Module):
    """Where and when a recalled frame was taken, as one vector a token."""

    def __init__(self, config: MemorySTDiTConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.pose = nn.Sequential(nn.Linear(6, 128), nn.ReLU(), nn.Linear(128, width))
        self.time = SigmaEmbedding(width)

    def forward(self, poses: Tensor, elapsed: Tensor) -> Tensor:
        """Poses `(b, k, 4, 4)` relative to who looks and frames `(b, k)` between them to `(b, k, n, d)`."""
        rays = self.rays(poses).to(next(self.pose.parameters()).dtype)
        return self.pose(rays) + self.time.at(elapsed)[..., None, :]

    def rays(self, poses: Tensor) -> Tensor:
        """Pluecker coordinates `(o x d, d)` of every token's ray, `(b, k, n, 6)`."""
        config, (rows, columns) = self.config, self.config.token_grid
        x, y = (
            ((torch.arange(side, device=poses.device) + 0.5 / config.token_pixels) / side - 0.5) / focal
            for side, focal in ((columns, config.focal[0]), (rows, config.focal[1]))
        )
        y, x = torch.meshgrid(y.to(poses.dtype), x.to(poses.dtype), indexing="ij")
        local = nn.functional.normalize(torch.stack([x, y, torch.ones_like(x)], -1).flatten(0, 1), dim=-1)
        rays = local @ poses[..., :3, :3].mT
        origin = poses[..., None, :3, 3].expand_as(rays)
        return torch.cat([torch.linalg.cross(origin, rays), rays], dim=-1)


class MemoryPart(AxisBlock):
    """Attention from the tokens of a frame to those of all recalled frames, and feed-forward."""

    attention: BiasedAttention

    def __init__(self, config: MemorySTDiTConfig) -> None:
        super().__init__(config, "(b t) n")
        self.state = zero_init(nn.Linear(config.width, config.width))

    def heads(self, x: Tensor) -> Tensor:
        """`(b, k, n, d)` of each of `k` readers as `(b k, heads, n, e)`."""
        return rearrange(x, "b k n (heads e) -> (b k) heads n e", heads=self.attention.heads)

    def state_part(self, states: Tensor, part: int) -> Tensor:
        """What states `(..., d)` add to queries (part 0) or keys (part 1)."""
        return linear(self.state(states), self.attention.qkv.weight.chunk(3)[part])

    def content(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of recalled tokens `(b, 1, m*n, d)`, without their states."""
        shift, scale, *_ = self.modulation(level)
        _, *weights = self.attention.qkv.weight.chunk(3)
        y = modulate(self.norm_attention(x), shift, scale)
        keys, values = (linear(y, weight) for weight in weights)
        return keys, values

    def read(self, x: Tensor, level: Tensor, keys: MemoryKeys) -> Tensor:
        """Tokens `(b, t, n, d)` of frames with noise embeddings `level` `(b, t, d)`, after reading; keys and
        values are of `(b t)` readers."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(level)
        weight = self.attention.qkv.weight.chunk(3)[0]
        queries = linear(modulate(self.norm_attention(x), shift_a, scale_a), weight) + keys.query
        y = attend(self.heads(queries), keys.keys, keys.values, None)
        y = self.attention.out(rearrange(y, "(b t) heads n e -> b t n (heads e)", b=len(x)))
        x = x + gate_a * y
        return x + gate_f * self.feedforward(modulate(self.norm_feedforward(x), shift_f, scale_f))


class FrameLevels(NamedTuple):
    """Conditions of frames, `(b, t, d)`."""

    noise: Tensor
    """The noise level."""
    time: Tensor
    """With the action."""


class MemorySTBlock(STBlock):
    """Space, time, then memory."""

    def __init__(self, config: MemorySTDiTConfig) -> None:
        super().__init__(config)
        self.memory = MemoryPart(config)

    def both(
        self, x: Tensor, levels: FrameLevels, ropes: Ropes, mask: Mask | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """Space and time; actions in time alone."""
        x, _ = self.space(x, levels.noise, ropes[0], None, None)
        return self.through_time(x, levels.time, ropes[1], mask, past)


class MemorySTDiT(STDiT):
    """The STDiT, of which every frame also sees what is recalled for it."""

    config: MemorySTDiTConfig
    block = MemorySTBlock

    def __init__(self, config: MemorySTDiTConfig) -> None:
        super().__init__(config)
        self.state = StateEmbedding(config)
        self.clean_share = float(vp.abar()[config.clean_label].sqrt())

    def scaled(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Clean frames have the scale of their label, without its noise."""
        share = self.clean_share
        return torch.where((sigma == 0)[:, :, None, None, None], share * x, super().scaled(x, sigma))

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
        view: MemoryView | None = None,
    ) -> Tensor:
        """As of any frame backbone; `view` holds what the `t` frames see of memory, unless a `MemoryCache`
        does."""
        if view is None:
            return super().forward(
                x, sigma, conditions, cache, times=times, visible=visible, recalled=recalled
            )
        assert cache is None
        if visible is None:
            visible = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        rope, mask = self.rope(self.times(x, None) if times is None else times), self.mask(visible)
        y, inputs = self.scaled(x, sigma), FrameInputs(conditions, recalled)
        return self.velocity(y, self._run(y, self.timestep(sigma), inputs, rope, mask, None, view)[0], sigma)

    def denoise(
        self, y: Tensor, label: Tensor, inputs: FrameInputs, rope: Rope, mask: Mask | None, cache: Past | None
    ) -> tuple[Tensor, list[KeyValues]]:
        return self._run(y, label, inputs, rope, mask, cache, None)[:2]

    def window_cache(
        self, history: Tensor, conditions: Tensor, view: MemoryView, *, times: Tensor
    ) -> MemoryCache:
        """As published, for the frame after clean latents `history` `(b, t, c, h, w)`, `t` at least 1, with
        `conditions` `(b, t, d)` at indices `times` `(t,)`: they too see what is recalled now. `view` is of
        `t + 1` frames, the last being the new one."""
        visible = torch.ones(2 * (history.shape[1],), dtype=torch.bool, device=history.device).tril()
        sigma = torch.zeros(history.shape[:2], device=history.device)
        y, inputs, rope = self.scaled(history, sigma), FrameInputs(conditions), self.rope(times)
        label, mask = self.timestep(sigma), self.mask(visible)
        _, window, memory = self._run(y, label, inputs, rope, mask, None, view)
        return MemoryCache(ReadFrames(window, int(times[-1]) + 1), memory)

    def recall_cache(self, behind: Cache, view: MemoryView) -> MemoryCache:
        """For one new frame, of which `view` is, behind a cache of frames that saw what was recalled for them
        in their time: the window is not read again, so this is not as published."""
        memory = _Recalled(self, view)
        return MemoryCache(behind, [memory.step(block, frames=1)[1] for block in self._memory_blocks()])

    def _memory_blocks(self) -> Iterator[MemorySTBlock]:
        for block in self.blocks:
            assert isinstance(block, MemorySTBlock)
            yield block

    def _run(
        self,
        y: Tensor,
        label: Tensor,
        inputs: FrameInputs,
        rope: Rope,
        mask: Mask | None,
        cache: Past | None,
        view: MemoryView | None,
    ) -> tuple[Tensor, list[KeyValues], list[MemoryKeys]]:
        """As `denoise`, and what the last frame of the view needs of the recalled ones."""
        x, noise = self.tokens(y, inputs), self.sigma.at(label)
        levels, ropes = FrameLevels(noise, noise + inputs.conditions.to(self.dtype)), self.block_rope(rope)
        known = cache.memory if isinstance(cache, MemoryCache) else None
        memory = None if view is None else _Recalled(self, view)
        fresh, seen = [], []
        for index, block in enumerate(self._memory_blocks()):
            x, key_values = block.both(x, levels, ropes, mask, None if cache is None else cache.layer(index))
            fresh.append(key_values)
            if memory is not None:
                readers, last = memory.step(block, frames=x.shape[1])
                x = block.memory.read(x, levels.noise, readers)
                seen.append(last)
            elif known is not None:
                x = block.memory.read(x, levels.noise, known[index])
        return self.output(x, levels.noise).to(y.dtype), fresh, seen


class _Recalled:
    """The tokens of recalled frames on their way through the blocks."""

    def __init__(self, backbone: MemorySTDiT, view: MemoryView) -> None:
        self.count = view.latents.shape[1]
        latents, conditions = view.latents.flatten(0, 1)[:, None], view.conditions.flatten(0, 1)[:, None]
        sigma = torch.zeros(latents.shape[:2], device=latents.device)
        noise = backbone.sigma.at(backbone.timestep(sigma))
        # every frame is a clip of its own: it sees no other in space and time, however many there are
        self.x = backbone.tokens(backbone.scaled(latents, sigma), FrameInputs(conditions))
        self.levels = FrameLevels(noise, noise + conditions.to(backbone.dtype))
        self.ropes = backbone.block_rope(backbone.rope(torch.zeros(1, device=latents.device)))
        poses, elapsed = view.poses, view.elapsed
        states = backbone.state(poses.flatten(1, 2), elapsed.flatten(1, 2))
        self.states = rearrange(states, "b (t m) n d -> b t (m n) d", m=self.count)
        own = torch.eye(4, dtype=poses.dtype, device=poses.device)[None, None]
        self.own = backbone.state(own, elapsed.new_zeros(1, 1))

    def step(self, block: MemorySTBlock, *, frames: int) -> tuple[MemoryKeys, MemoryKeys]:
        """Take the tokens through a block. Gives what the first `frames` frames that look need in it, and
        what the last one needs."""
        part, m = block.memory, self.count
        x, _ = block.both(self.x, self.levels, self.ropes, None, None)
        together, level = rearrange(x, "(b m) 1 n d -> b 1 (m n) d", m=m), self.levels.noise[::m]
        keys, values = part.content(together, level)
        keys = keys + part.state_part(self.states, 1)
        values, query = values.expand_as(keys), part.state_part(self.own, 0)
        readers = MemoryKeys(query, part.heads(keys[:, :frames]), part.heads(values[:, :frames]))
        last = MemoryKeys(query, part.heads(keys[:, -1:]), part.heads(values[:, -1:]))
        own = part.state_part(self.states[:, -1:], 0)
        read = part.read(together, level, last._replace(query=own))
        self.x = rearrange(read, "b 1 (m n) d -> (b m) 1 n d", m=m)
        return readers, last


def worldmem_945m() -> MemorySTDiTConfig:
    """The public 945M of WorldMem, for 360x640 frames through `codecs.vit.vit_l20`: 144 tokens a frame."""
    return MemorySTDiTConfig(channels=16, grid=(18, 32), width=1024, depth=16, heads=16)
