"""Teacher forcing in one pass: every frame twice, as finished history and as a noisy target."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dreamwalk.backbones.frame_backbone import FrameBackbone


class Known(NamedTuple):
    """The inputs of `t + 1` frames besides their noisy latents: `(b, t + 1, ...)`."""

    conditions: Tensor
    views: Tensor | None

    def twice(self) -> Known:
        """Of the history, the first `t` frames, then of the targets, the last `t`."""
        pairs = (None if x is None else torch.cat([x[:, :-1], x[:, 1:]], dim=1) for x in self)
        return Known(*pairs)  # type: ignore[arg-type]


def teacher_pass(
    backbone: FrameBackbone,
    history: Tensor,
    targets: Tensor,
    history_sigma: Tensor,
    sigma: Tensor,
    known: Known,
    groups: Tensor | None = None,
) -> Tensor:
    """Velocity of `t` noisy targets, each of which sees the history before its group and the targets in it.

    `history` are frames 0 .. t-1 at `history_sigma` `(b, t)`, `targets` frames 1 .. t at `sigma`. `groups`
    `(t + 1,)` rise from frame to frame, by default by one; history sees its own and smaller ones.
    """
    times = torch.arange(history.shape[1], device=history.device)
    groups = torch.arange(len(times) + 1, device=history.device) if groups is None else groups
    before, after = groups[:-1], groups[1:]
    past = torch.cat([before[:, None] >= before, after[:, None] > before])
    future = torch.cat([torch.zeros_like(past[: len(times)]), after[:, None] == after])
    twice = known.twice()
    v = backbone(
        torch.cat([history, targets], 1),
        torch.cat([history_sigma, sigma], 1),
        twice.conditions,
        times=torch.cat([times, times + 1]),
        visible=torch.cat([past, future], dim=1),
        views=twice.views,
    )
    return v[:, len(times) :]
