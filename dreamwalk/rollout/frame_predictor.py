"""Predictors over frames: they add conditions to the inputs of a plan, and cache keys and values of committed
frames.

The cache belongs to one stream, not to the modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dreamwalk.backbones.frame_backbone import FrameBackbone, FrameInputs
from dreamwalk.layers.attention import KeyValues
from dreamwalk.rollout.execute import ModelInput


class FrameConditions(Protocol):
    """What a backbone is given of `k` frames besides noisy latents."""

    def __call__(self, frames: Sequence[int]) -> FrameInputs: ...


@dataclass(frozen=True)
class FramePredictor:
    """`execute.Predictor` that computes every frame of a read anew."""

    backbone: FrameBackbone
    conditions: FrameConditions

    def __call__(self, branches: Sequence[ModelInput]) -> list[Tensor]:
        return [self._velocity(branch) for branch in branches]

    def _velocity(self, branch: ModelInput) -> Tensor:
        conditions, recalled = self.conditions(branch.frames)
        return self.backbone(
            branch.x,
            branch.sigma,
            conditions * branch.conditional,
            times=torch.tensor(branch.frames, device=branch.x.device),
            visible=branch.visible,
            recalled=recalled,
        )


@dataclass(frozen=True)
class _Kept:
    """Keys and values of a committed frame, layer by layer, and how it was read: its tag."""

    layers: list[KeyValues]
    conditional: bool
    seen: frozenset[tuple[int, float]]
    """The frames that it saw, itself among them, and at which sigma they were shown."""


@dataclass(frozen=True)
class CachedFramePredictor:
    """`execute.Predictor` that computes committed frames once.

    Every branch keeps its own. A kept frame is valid while its sigma and its conditions are those of the
    commit and it sees nothing that it did not see then. When a window has moved on and it would see fewer, it
    is used as it is: that is what `Plan.approximate` tells.
    """

    backbone: FrameBackbone
    conditions: FrameConditions
    kept: dict[tuple[int, int], _Kept] = field(default_factory=dict)

    def __call__(self, branches: Sequence[ModelInput]) -> list[Tensor]:
        return [self._velocity(branch) for branch in branches]

    def _velocity(self, branch: ModelInput) -> Tensor:
        read = list(zip(branch.frames, branch.input_sigma, branch.groups, strict=True))
        seen = [frozenset((f, sigma) for f, sigma, g in read if g <= own) for own in branch.groups]
        old = [i for i in range(len(branch.frames)) if self._valid(branch, i, seen[i])]
        new = [i for i in range(len(branch.frames)) if i not in old]
        past = [self.kept[branch.frames[i], branch.index].layers for i in old]
        fresh_v, fresh = self._compute(branch, new, old, past)
        v = torch.zeros_like(branch.x)
        v[:, new] = fresh_v
        n = self.backbone.config.tokens
        for place, i in enumerate(new):
            if branch.commits[i]:
                own = [KeyValues(*(part[:, :, place * n : (place + 1) * n] for part in kv)) for kv in fresh]
                self.kept[branch.frames[i], branch.index] = _Kept(own, branch.conditional, seen[i])
        return v

    def _valid(self, branch: ModelInput, place: int, seen: frozenset[tuple[int, float]]) -> bool:
        kept = self.kept.get((branch.frames[place], branch.index))
        if kept is None or branch.moves[place]:
            return False
        return kept.conditional == branch.conditional and seen <= kept.seen

    def _compute(
        self, branch: ModelInput, new: list[int], old: list[int], past: list[list[KeyValues]]
    ) -> tuple[Tensor, list[KeyValues]]:
        """Velocity, keys and values of the frames at the places `new`, with those at `old` as they are."""
        conditions, recalled = self.conditions([branch.frames[i] for i in new])
        mask = self.backbone.mask(branch.visible[new][:, old + new])
        rope = self.backbone.rope(torch.tensor([branch.frames[i] for i in new], device=branch.x.device))
        x, sigma, cache = branch.x[:, new], branch.sigma[:, new], _Past(past) if past else None
        inputs = FrameInputs(conditions * branch.conditional, recalled)
        return self.backbone.predict(x, sigma, inputs, rope, mask, cache)

    def forget(self, before: int) -> None:
        """Drop what is kept of frames before `before`: walks of any length need no more memory."""
        for key in [key for key in self.kept if key[0] < before]:
            del self.kept[key]


@dataclass(frozen=True)
class _Past:
    """Kept frames, side by side, as a backbone reads a cache."""

    frames: list[list[KeyValues]]

    def layer(self, index: int) -> KeyValues:
        layers = [frame[index] for frame in self.frames]
        return KeyValues(torch.cat([kv.keys for kv in layers], 2), torch.cat([kv.values for kv in layers], 2))
