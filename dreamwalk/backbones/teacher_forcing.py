"""Teacher forcing in one pass: every frame twice, as finished history and as a noisy target."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dreamwalk.backbones.frame_backbone import FrameBackbone


class Known(NamedTuple):
    """What is known of `t + 1` frames besides their noisy latents: `(b, t + 1, ...)`."""

    conditions: Tensor
    views: Tensor | None

    def twice(self) -> Known:
        """Of the frames shown as history, the first `t`, then of the targets, the last `t`."""
        pairs = (None if x is None else torch.cat([x[:, :-1], x[:, 1:]], dim=1) for x in self)
        return Known(*pairs)  # type: ignore[arg-type]


def teacher_pass(
    backbone: FrameBackbone,
    shown: Tensor,
    noisy: Tensor,
    shown_at: Tensor,
    sigma: Tensor,
    known: Known,
    groups: Tensor | None = None,
) -> Tensor:
    """Velocity of `t` targets, each of which sees the history before its group and the targets in it.

    `shown` are frames 0 .. t-1 at levels `shown_at` `(b, t)`, `noisy` frames 1 .. t at `sigma`. `groups`
    `(t + 1,)` rise from frame to frame, by one where nothing is said; history sees its own and smaller ones.
    """
    t = shown.shape[1]
    groups = torch.arange(t + 1, device=shown.device) if groups is None else groups
    history, targets = groups[:-1], groups[1:]
    past = torch.cat([history[:, None] >= history, targets[:, None] > history])
    future = torch.cat([torch.zeros_like(past[:t]), targets[:, None] == targets])
    visible = torch.cat([past, future], dim=1)
    times, twice = torch.arange(t, device=shown.device), known.twice()
    v = backbone(
        torch.cat([shown, noisy], 1),
        torch.cat([shown_at, sigma], 1),
        twice.conditions,
        times=torch.cat([times, times + 1]),
        visible=visible,
        views=twice.views,
    )
    return v[:, t:]
