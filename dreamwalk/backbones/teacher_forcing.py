"""Teacher forcing in one pass: every frame twice, as clean history and as a noisy target."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dreamwalk.backbones.frame_backbone import FrameBackbone


class FrameInputs(NamedTuple):
    """What a frame backbone is given of `t` frames besides their noisy latents."""

    conditions: Tensor
    """`(b, t, d)`."""
    features: Tensor | None
    """Recalled by a memory, `(b, t, n, d)`."""

    def history_and_targets(self) -> FrameInputs:
        """Of the first `t - 1` frames as history, then of the last `t - 1` as targets."""
        pairs = (None if x is None else torch.cat([x[:, :-1], x[:, 1:]], dim=1) for x in self)
        return FrameInputs(*pairs)  # type: ignore[arg-type]


def teacher_forcing(
    backbone: FrameBackbone,
    history: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    inputs: FrameInputs,
    groups: Tensor | None = None,
) -> Tensor:
    """Velocity of `t` noisy targets, each of which sees the history before its group and the targets in it.

    `history` are frames 0 .. t-1 and their noise levels `(b, t)`, `targets` frames 1 .. t and theirs,
    `inputs` of frames 0 .. t. `groups` `(t + 1,)` rise from frame to frame, by default by one; history sees
    its own and smaller ones.
    """
    (shown, shown_sigma), (noisy, sigma) = history, targets
    t, device = shown.shape[1], shown.device
    groups = torch.arange(t + 1, device=device) if groups is None else groups
    before, of_targets = groups[:-1], groups[1:]
    past = torch.cat([before[:, None] >= before, of_targets[:, None] > before])
    future = torch.cat([torch.zeros_like(past[:t]), of_targets[:, None] == of_targets])
    times, twice = torch.arange(t, device=device), inputs.history_and_targets()
    v = backbone(
        torch.cat([shown, noisy], 1),
        torch.cat([shown_sigma, sigma], 1),
        twice.conditions,
        times=torch.cat([times, times + 1]),
        visible=torch.cat([past, future], dim=1),
        features=twice.features,
    )
    return v[:, t:]
