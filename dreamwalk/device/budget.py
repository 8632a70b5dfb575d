"""What a clip will take, counted before anything is loaded: weights, a step of the network, the decode.

Nothing is chosen here. A plan says what fits and what would make it fit; what is done is what was asked for.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dreamwalk.backbones import ClipBackbone
from dreamwalk.backbones.clip_backbone import ClipSizes
from dreamwalk.codecs import Codec
from dreamwalk.codecs.tiles import Tiling
from dreamwalk.device.peak import LONG, decode_bytes, extrapolated, peak_bytes
from dreamwalk.layers.text import TextEmbedding

GIB = 2**30
HOST = torch.device("cpu")
CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the device, beside what kernels and the allocator need for themselves."""

    weights: int
    """Of network and codec; with offloading of what is not in blocks, and of two blocks."""
    step: int
    """Of tensors that come and go in one step, latents included."""
    decode: int
    """Of tensors that come and go in decoding, while the network is there."""
    encoders: int = 0
    """Of published text encoders, which are gone before the network comes."""
    host: int = 0
    """In host memory: of blocks that are kept there, or before them of text encoders."""

    @property
    def peak(self) -> int:
        """Most at once."""
        return max(self.encoders, self.weights + max(self.step, self.decode))

    def show(self) -> str:
        """The plan as text, a line for each part."""
        parts = {
            "encoders": self.encoders,
            "weights": self.weights,
            "a step": self.step,
            "decoding": self.decode,
            "peak": self.peak,
            "host": self.host,
        }
        return "\n".join(f"{name:10} {size / GIB:8.2f} GiB" for name, size in parts.items() if size)


def memory_plan(
    backbone: ClipBackbone,
    codec: Codec,
    *,
    latents: tuple[int, ...],
    tokens: int,
    branches: int = 1,
    seen: tuple[int, ...] = (0, 0, 0),
    tiling: Tiling | None = None,
) -> MemoryPlan:
    """The plan of a clip of `latents` (t, c, h, w) and so many text tokens, of parts that may be on meta.

    Guidance `branches` go in one batch, of `seen` (t, h, w) latents at once; 0 is all. Weights count in the
    precision that they have; text encoders do not count.
    """
    t, channels, *sides = latents
    at_once = [min(part or whole, whole) for part, whole in zip(seen, (t, *sides), strict=True)]
    step = step_bytes(backbone, (at_once[0], channels, *at_once[1:]), tokens=tokens, branches=branches)
    weights, decode = _bytes(backbone) + _bytes(codec), decode_bytes(codec, (1, *latents), tiling)
    return MemoryPlan(weights, step, decode)


def offloaded(plan: MemoryPlan, backbone: ClipBackbone, *, eight: bool) -> MemoryPlan:
    """A plan whose blocks, perhaps in eight bits, and text encoders are in host memory."""
    blocks = [_bytes(block) for block in backbone.blocks]
    size = 1 if eight else next(backbone.parameters()).element_size()
    host = sum(p.numel() for p in backbone.blocks.parameters()) * size
    weights = plan.weights - sum(blocks) + 2 * max(blocks)
    return replace(plan, weights=weights, encoders=0, host=max(host, plan.encoders))


def step_bytes(backbone: ClipBackbone, latents: tuple[int, ...], *, tokens: int, branches: int = 1) -> int:
    """Most bytes held at once in one step on latents `(t, c, h, w)`, counted without computing.

    What is beyond `LONG` latent frames is taken to grow evenly.
    """
    t, *rest = latents
    if t > LONG:
        return extrapolated(t, lambda n: step_bytes(backbone, (n, *rest), tokens=tokens, branches=branches))
    config, dtype = backbone.config, next(backbone.parameters()).dtype
    with torch.no_grad(), FakeTensorMode():
        light = _built(config.shallow(), dtype)
        x = torch.empty(branches, *latents, dtype=dtype)
        pooled = torch.empty(branches, config.pooled_dim, dtype=dtype) if config.pooled_dim else None
        text = TextEmbedding(torch.empty(branches, tokens, config.text_dim, dtype=dtype), None, pooled)
        cond = None
        if config.cond_channels:
            cond = torch.empty(branches, latents[0], config.cond_channels, *latents[2:], dtype=dtype)
        sigma = torch.ones(branches)
        guidance = torch.ones(branches) if backbone.guided else None
        return x.nbytes + peak_bytes(lambda: light(x, sigma, text, guidance=guidance, cond=cond))


def _built(config: ClipSizes, dtype: torch.dtype) -> ClipBackbone:
    """Made in its precision: fake weights cannot be changed to another."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return config.build()
    finally:
        torch.set_default_dtype(before)


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def free_bytes(device: torch.device) -> int | None:
    """Memory that can be had on a card, or of the machine within what its container allows; None where
    neither Linux nor a card says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = []
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError):
        limit = CGROUP.read_text().strip()
        found += [int(limit)] if limit.isdigit() else []  # "max" is no limit
    return min(found, default=None)
