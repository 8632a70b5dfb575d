"""Blocks that live in host memory and visit the device one by one: a 13B network on a 24 GB card.

Before a block runs it is on the device, and while it runs the next one is copied there on a stream of its
own, so that computing hides copying. After it ran it is gone from the device. In eight bits (e4m3, arXiv
2209.05433, with a scale per row) blocks take half the room and half the time to copy, and are brought back to
the network's precision on arrival.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dreamwalk.layers.quantize import row_scale

Offloading = Literal["none", "blocks", "blocks8"]
"""What is kept in host memory: nothing, blocks, or blocks in eight bits."""
EIGHT = torch.float8_e4m3fn
LARGEST = 448.0
"""Of `float8_e4m3fn`."""


@dataclass(frozen=True)
class Stored:
    """A tensor in host memory, perhaps in eight bits with a scale for each row."""

    value: Tensor
    scale: Tensor | None
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor, *, eight: bool, pinned: bool) -> Stored:
        """Matrices in eight bits if asked; vectors as they are."""
        kept = tensor.detach().cpu()
        scale = None
        if eight and kept.ndim > 1:
            scale = row_scale(kept, LARGEST)[:, None]
            kept = (kept.float() / scale).to(EIGHT)
        return cls(kept.pin_memory() if pinned else kept, scale, tensor.dtype)

    @property
    def nbytes(self) -> int:
        return self.value.nbytes + (self.scale.nbytes if self.scale is not None else 0)

    def fetched(self, device: torch.device) -> Tensor:
        """A copy on the device, in its own precision."""
        value = self.value.to(device, non_blocking=True)
        if self.scale is None:
            return value.clone() if value is self.value else value
        return (value.to(self.dtype) * self.scale.to(device, self.dtype, non_blocking=True)).to(self.dtype)


@dataclass
class Offload:
    """Hooks that bring blocks to `device` and take them away again; `remove` ends it."""

    blocks: nn.ModuleList
    device: torch.device
    eight: bool = False
    """Store matrices in eight bits."""
    fetches: int = 0
    """Blocks brought so far."""
    _stored: list[dict[str, Stored]] = field(default_factory=list)
    _ready: dict[int, Any] = field(default_factory=dict)
    _handles: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        pinned = self.device.type == "cuda"
        self._stream = torch.cuda.Stream(self.device) if pinned else None
        store = partial(Stored.of, eight=self.eight, pinned=pinned)
        for index, block in enumerate(self.blocks):
            self._stored.append({name: store(p) for name, p in block.named_parameters()})
            self._leave(block)
            self._handles.append(block.register_forward_pre_hook(lambda *_, i=index: self._arrive(i)))
            self._handles.append(block.register_forward_hook(lambda module, *_: self._leave(module)))

    @property
    def host_bytes(self) -> int:
        """Held in host memory."""
        return sum(stored.nbytes for kept in self._stored for stored in kept.values())

    def remove(self) -> None:
        """Bring all blocks to the device for good."""
        for handle in self._handles:
            handle.remove()
        for index in range(len(self.blocks)):
            self._fetch(index)
            self._settle(index)

    def _arrive(self, index: int) -> None:
        """Block `index` is there and the next one is on its way."""
        self._fetch(index)
        self._settle(index)
        if index + 1 < len(self.blocks):
            self._fetch(index + 1)

    def _fetch(self, index: int) -> None:
        if index in self._ready:
            return
        self.fetches += 1
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            there = {name: kept.fetched(self.device) for name, kept in self._stored[index].items()}
        self._ready[index] = there, self._stream and self._stream.record_event()

    def _settle(self, index: int) -> None:
        """Give a block the weights that were fetched for it, once they have come."""
        there, event = self._ready.pop(index)
        if event is not None:
            torch.cuda.current_stream(self.device).wait_event(event)
        for name, p in self.blocks[index].named_parameters():
            if event is not None:
                there[name].record_stream(torch.cuda.current_stream(self.device))
            p.data = there[name]

    def _leave(self, block: nn.Module) -> None:
        for p in block.parameters():
            p.data = torch.empty(0, dtype=p.dtype, device=self.device)
