"""What a clip will take, counted before anything is loaded: weights, a step of the network, the decode.

Nothing is chosen here. A plan says what fits and what would make it fit; what is done is what was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dreamwalk.backbones import VideoBackbone, VideoBackboneConfig, build_video_backbone
from dreamwalk.backbones.mmdit import MMDiTConfig
from dreamwalk.codecs import VideoCodec
from dreamwalk.codecs.footprint import decode_bytes, peak_bytes
from dreamwalk.codecs.tiles import Tiling
from dreamwalk.layers.words import Words

GIB = 2**30


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the device, beside what kernels and the allocator need for themselves."""

    weights: int
    """Of network and codec; with offloading of what is not in blocks, and of two blocks."""
    host: int
    """Of blocks that are kept in host memory."""
    step: int
    """Of tensors that come and go in one step, latents included."""
    decode: int
    """Of tensors that come and go in decoding, while the network is there."""

    @property
    def peak(self) -> int:
        """Most at once."""
        return self.weights + max(self.step, self.decode)

    def show(self, room: int | None = None) -> str:
        """The plan as text; with the bytes that there are, whether it fits and what to ask for if not."""
        parts = {"weights": self.weights, "a step": self.step, "decoding": self.decode, "peak": self.peak}
        lines = [f"{name:10} {size / GIB:8.2f} GiB" for name, size in parts.items()]
        if self.host:
            lines.append(f"{'host':10} {self.host / GIB:8.2f} GiB")
        if room is not None:
            lines.append(self.verdict(room))
        return "\n".join(lines)

    def verdict(self, room: int) -> str:
        """One sentence: does it fit into `room` bytes, and if not, what to ask for."""
        there = f"{room / GIB:.1f} GiB"
        if self.peak <= room:
            return f"this fits into {there}"
        if self.decode > self.step and self.weights + self.step <= room:
            return f"decoding does not fit into {there}: decode in tiles, `--tile 16 256 256`"
        if not self.host:
            return f"the weights do not fit into {there}: keep blocks in host memory, `--offload`"
        return f"this does not fit into {there}: ask for fewer frames or a smaller size"


def memory_plan(
    backbone: VideoBackbone, codec: VideoCodec, *, latents: tuple[int, ...], words: int,
    offload: bool = False, eight: bool = False, tiling: Tiling | None = None,
) -> MemoryPlan:  # fmt: skip
    """The plan of a clip of `latents` (t, c, h, w) told so many words; both parts may be on the meta device.

    Weights count in the precision that they have; with `eight`, blocks in host memory in eight bits.
    """
    blocks = [_bytes(block) for block in backbone.blocks]
    whole = _bytes(backbone) + _bytes(codec)
    there = whole - sum(blocks) + 2 * max(blocks) if offload else whole
    size = 1 if eight else next(backbone.parameters()).element_size()
    host = sum(p.numel() for p in backbone.blocks.parameters()) * size if offload else 0
    return MemoryPlan(
        weights=there, host=host, step=step_bytes(backbone, latents, words=words),
        decode=decode_bytes(codec, (1, *latents), tiling),
    )  # fmt: skip


def step_bytes(backbone: VideoBackbone, latents: tuple[int, ...], *, words: int) -> int:
    """Most bytes held at once in one step on latents `(t, c, h, w)`, counted without computing."""
    config, dtype = backbone.config, next(backbone.parameters()).dtype
    with torch.no_grad(), FakeTensorMode():
        light = _built(_shallow(config), dtype)
        x = torch.empty(1, *latents, dtype=dtype)
        pooled = torch.empty(1, config.pooled, dtype=dtype) if config.pooled else None
        told = Words(torch.empty(1, words, config.text, dtype=dtype), None, pooled)
        extra = torch.empty(1, latents[0], config.extra, *latents[2:], dtype=dtype) if config.extra else None
        guidance = torch.ones(1) if getattr(config, "guidance", False) else None
        return x.nbytes + peak_bytes(lambda: light(x, torch.ones(1), told, guidance=guidance, extra=extra))


def _built(config: VideoBackboneConfig, dtype: torch.dtype) -> VideoBackbone:
    """Made in its precision: fake weights cannot be changed to another."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return build_video_backbone(config)
    finally:
        torch.set_default_dtype(before)


def _shallow(config: VideoBackboneConfig) -> VideoBackboneConfig:
    """One block of each kind, which at its peak holds what many in a row hold."""
    if isinstance(config, MMDiTConfig):
        return replace(config, dual=min(config.dual, 1), single=min(config.single, 1))
    return replace(config, depth=1)


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
