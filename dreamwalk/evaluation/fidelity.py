"""How near a dream stays to the truth: PSNR and SSIM against the horizon, under the true actions.

Protocol: a dream begins from `history` real frames of a held-out walk with their actions, and goes on under
the walk's actions; frame k of the dream is compared with frame k of the walk. Beside it stand two bounds: the
codec's ceiling (the true frame, encoded and decoded) and the floor (the last frame of the history, shown
again and again).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from dreamwalk.clip import Clip, batch
from dreamwalk.progress import followed, progress
from dreamwalk.systems.walkable import Walkable


@dataclass(frozen=True)
class Rollout:
    """Held-out walks and what was dreamt of them, uint8 `(b, t, 3, h, w)`, frame 0 the first dreamt one."""

    truth: Tensor
    dream: Tensor
    ceiling: Tensor
    floor: Tensor
    last: Tensor
    """The last real frame, uint8 `(b, 1, 3, h, w)`."""
    actions: Tensor
    """float32 `(b, t, a)`: the action that leads into each dreamt frame."""

    def until(self, horizon: int) -> Rollout:
        """The first `horizon` dreamt frames."""
        names = ("truth", "dream", "ceiling", "floor", "actions")
        return replace(self, **{name: getattr(self, name)[:, :horizon] for name in names})


@torch.inference_mode()
def roll_out(system: Walkable, clips: list[Clip], *, history: int, seed: int = 0, size: int = 8) -> Rollout:
    """Dream on from the first `history` frames of each clip, `size` clips at a time."""
    groups = [clips[first : first + size] for first in range(0, len(clips), size)]
    with progress("dreaming", sum(max(map(len, group)) - history for group in groups)) as advance:
        parts = [_roll_out(system, group, history, seed, advance) for group in groups]
    fields = ("truth", "dream", "ceiling", "floor", "last", "actions")
    return Rollout(**{name: torch.cat([getattr(part, name) for part in parts]) for name in fields})


def _roll_out(
    system: Walkable, clips: list[Clip], history: int, seed: int, advance: Callable[[], None]
) -> Rollout:
    clip = batch(clips)
    dream = to_bytes(system.continued(clip, history=history, seed=seed, advance=advance)[:, :, :3])
    truth, last = clip.video[:, history:], clip.video[:, history - 1 : history]
    ceiling = to_bytes(system.restored(clip)[:, history:, :3])
    return Rollout(truth, dream, ceiling, last.expand_as(truth), last, clip.actions[:, history:])


def to_bytes(video: Tensor) -> Tensor:
    """Video in [-1, 1] to uint8."""
    return ((video.clamp(-1, 1) + 1) * 127.5).round().byte()


def psnr(video: Tensor, truth: Tensor) -> np.ndarray:
    """PSNR in dB of every frame, `(b, t)`, for uint8 video; frames that are equal count as 60 dB."""
    error = (video.float() - truth.float()).square().mean(dim=(2, 3, 4)).clamp(min=255**2 * 1e-6)
    return (10 * torch.log10(255**2 / error)).numpy()


def decibels(error: Tensor | float) -> float:
    """PSNR of a mean squared error of values in [0, 1], 60 dB at most."""
    return -10 * math.log10(max(float(error), 1e-6))


def ssim(video: Tensor, truth: Tensor) -> np.ndarray:
    """SSIM (11x11 Gaussian window) of every frame, `(b, t)`; clip by clip, since it takes much memory."""
    pairs = zip(video.float() / 255, truth.float() / 255, strict=True)
    values = [
        structural_similarity_index_measure(one, other, data_range=1.0, reduction="none")
        for one, other in followed(pairs, "comparing", total=len(video))
    ]
    return np.stack([np.atleast_1d(value) for value in values])


def sharpness(video: Tensor) -> np.ndarray:
    """Mean absolute gradient of every frame, `(b, t)`, in grey levels: it falls when a dream turns to fog."""
    x = video.float()
    across, down = x.diff(dim=-1).abs().mean(dim=(2, 3, 4)), x.diff(dim=-2).abs().mean(dim=(2, 3, 4))
    return (across + down).numpy()
