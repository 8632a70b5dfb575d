"""Teacher forcing in one pass: every frame twice, as clean history and as a noisy target."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamwalk.backbones.frame_backbone import FrameBackbone, FrameInputs

Noisy = tuple[Tensor, Tensor]
"""Latents `(b, t, c, h, w)` and their sigmas `(b, t)`."""


def teacher_forcing(
    backbone: FrameBackbone, history: Noisy, targets: Noisy, inputs: FrameInputs, groups: Tensor | None = None
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
    x, sigmas = torch.cat([shown, noisy], dim=1), torch.cat([shown_sigma, sigma], dim=1)
    times, visible = torch.arange(t, device=device), torch.cat([past, future], dim=1)
    times, (conditions, recalled) = torch.cat([times, times + 1]), inputs.history_and_targets()
    return backbone(x, sigmas, conditions, times=times, visible=visible, recalled=recalled)[:, t:]
