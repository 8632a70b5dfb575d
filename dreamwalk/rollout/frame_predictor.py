"""What stands between a plan and a backbone: who is told what, and whose keys and values are kept.

A committed frame is read from the cache for as long as nothing about it changed; the cache belongs to the
walk, not to the modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dreamwalk.backbones.frame_backbone import FrameBackbone
from dreamwalk.layers.attention import KeyValues
from dreamwalk.rollout.execute import ModelInput


class FrameConditions(Protocol):
    """What a backbone is given besides noisy latents, for `k` frames: conditions `(b, k, d)`, and features
    `(b, k, n, d)` that a memory recalls, or None."""

    def __call__(self, frames: Sequence[int]) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True)
class FramePredictor:
    """`execute.Predictor` that computes every frame of a look anew."""

    backbone: FrameBackbone
    conditions: FrameConditions

    def __call__(self, look: ModelInput) -> Tensor:
        conditions, features = self.conditions(look.frames)
        return self.backbone(
            look.x,
            look.sigma,
            conditions * look.told,
            times=torch.tensor(look.frames, device=look.x.device),
            visible=look.visible,
            views=features,
        )


@dataclass(frozen=True)
class _Kept:
    """Keys and values of a committed frame, layer by layer, and how it was read: its tag."""

    layers: list[KeyValues]
    told: bool
    seen: frozenset[tuple[int, float]]
    """The frames that it saw, itself among them, and at which level they were shown."""


@dataclass(frozen=True)
class CachedFramePredictor:
    """`execute.Predictor` that computes committed frames once.

    Every view keeps its own. A kept frame is valid while it is shown at the level at which it was committed,
    is told as much, and sees nothing that it did not see then. When a window has moved on and it would see
    fewer, it is used as it is: that is what `Plan.approximate` tells.
    """

    backbone: FrameBackbone
    conditions: FrameConditions
    kept: dict[tuple[int, int], _Kept] = field(default_factory=dict)

    def __call__(self, look: ModelInput) -> Tensor:
        read = list(zip(look.frames, look.shown, look.groups, strict=True))
        seen = [frozenset((f, sigma) for f, sigma, g in read if g <= own) for own in look.groups]
        old = [i for i in range(len(look.frames)) if self._valid(look, i, seen[i])]
        new = [i for i in range(len(look.frames)) if i not in old]
        past = [self.kept[look.frames[i], look.view].layers for i in old]
        fresh_v, fresh = self._compute(look, new, old, past)
        v = torch.zeros_like(look.x)
        v[:, new] = fresh_v
        n = self.backbone.config.tokens
        for place, i in enumerate(new):
            if look.commits[i]:
                own = [KeyValues(*(part[:, :, place * n : (place + 1) * n] for part in kv)) for kv in fresh]
                self.kept[look.frames[i], look.view] = _Kept(own, look.told, seen[i])
        return v

    def _valid(self, look: ModelInput, place: int, seen: frozenset[tuple[int, float]]) -> bool:
        kept = self.kept.get((look.frames[place], look.view))
        return kept is not None and kept.told == look.told and not look.moves[place] and seen <= kept.seen

    def _compute(
        self, look: ModelInput, new: list[int], old: list[int], past: list[list[KeyValues]]
    ) -> tuple[Tensor, list[KeyValues]]:
        """Velocity, keys and values of the frames at the places `new`, with those at `old` as they are."""
        conditions, features = self.conditions([look.frames[i] for i in new])
        mask = self.backbone.mask(look.visible[new][:, old + new])
        rope = self.backbone.rope(torch.tensor([look.frames[i] for i in new], device=look.x.device))
        return self.backbone.predict(
            look.x[:, new],
            look.sigma[:, new],
            conditions * look.told,
            rope,
            mask,
            _Past(past) if past else None,
            features,
        )

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
