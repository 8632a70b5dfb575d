"""The state of a walk in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from dreamwalk.rollout.realtime import WalkState
from dreamwalk.systems.token_sampler import TokenStream


@dataclass(kw_only=True)
class TokenWalk(WalkState):
    """The state of a walk in tokens: those of the last frames, with their keys and values."""

    stream: TokenStream
    told: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Condition and `seen` of the last two frames: an order may commit the last one beside the next."""

    def of(self, part: int, frames: Sequence[int]) -> Tensor:
        """Condition (0) or `seen` (1) of frames; of one it is the same tensor every time."""
        parts = [self.told[frame][part] for frame in frames]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def clone(self) -> Self:
        return replace(self, stream=self.stream.clone(), told=dict(self.told), memory=self.memory.clone())
