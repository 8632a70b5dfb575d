"""Floating-point operations of a training step, counted beside the training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dreamwalk.layers.attention import dense_masks

PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12, "5090": 210e12}
"""Dense bf16 FLOP/s of cards by name, for model FLOPs utilisation (MFU)."""


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOP/s of a card, where it is known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((flops for card, flops in PEAK.items() if card in name), None)


def count_flops(system: nn.Module, loss: Callable[[], Tensor]) -> int:
    """FLOPs of `loss` forward and backward, in a pass of its own that leaves `system` as it was.

    The counter takes operators apart, and those round otherwise: a step of training under it would depend on
    which step was the first of its process. Attention is counted whole, hidden blocks too.
    """
    before = {name: buffer.clone() for name, buffer in system.named_buffers()}
    with dense_masks(), FlopCounterMode(display=False) as counter:
        loss().backward()
    with torch.no_grad():
        for name, buffer in system.named_buffers():
            buffer.copy_(before[name])
    system.zero_grad(set_to_none=True)
    return counter.get_total_flops()
