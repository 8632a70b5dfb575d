"""Whether a dream obeys: an inverse-dynamics model, trained on real frames, reads its actions back.

Its own accuracy on the real frames of the same walks is printed beside, since it bounds what can be seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dreamwalk.evaluation.fidelity import Rollout
from dreamwalk.systems.inverse import Inverse

TURNING = 3.0
"""Degrees per step from which a frame counts as turning."""


@dataclass(frozen=True)
class Control:
    """How well actions are read back, each in [0, 1]."""

    yaw_sign: float
    """Share of turning frames whose direction is right."""
    turning_frames: int
    yaw_error: float
    """Mean absolute error of yaw over all frames, degrees."""
    walking: float
    """Balanced accuracy of `forward` held or not."""


@torch.inference_mode()
def read_back(examiner: Inverse, video: Tensor, last: Tensor, actions: Tensor, *, limit: float) -> Control:
    """Read `video` uint8 `(b, t, 3, h, w)` after its `last` real frame, against `actions` `(b, t, a)`.

    `limit` is the yaw axis's limit in degrees; the schema is Doom's (forward first, yaw the first axis).
    """
    buttons, axes = [], []
    for index in range(len(video)):
        logits, turns = examiner.read(torch.cat([last[index : index + 1], video[index : index + 1]], dim=1))
        buttons.append(logits[0])
        axes.append(turns[0])
    n = examiner.config.buttons
    read = torch.stack(axes)[..., 0] * limit
    yaw = actions[..., n] * limit
    turning = yaw.abs() >= TURNING
    right = torch.sign(read[turning]) == torch.sign(yaw[turning])
    walking = _balanced((torch.stack(buttons)[..., 0] > 0).numpy(), (actions[..., 0] > 0.5).numpy())
    return Control(
        yaw_sign=float(right.float().mean()), turning_frames=int(turning.sum()),
        yaw_error=float((read - yaw).abs().mean()), walking=walking,
    )  # fmt: skip


def examine_control(examiner: Inverse, rollout: Rollout, *, limit: float) -> dict[str, Control]:
    """Control read from the dream, and from the real frames of the same walks."""
    real = read_back(examiner, rollout.truth, rollout.last, rollout.actions, limit=limit)
    dreamt = read_back(examiner, rollout.dream, rollout.last, rollout.actions, limit=limit)
    return {"dream": dreamt, "real": real}


def _balanced(read: np.ndarray, true: np.ndarray) -> float:
    """Mean of the accuracies on frames where it is held and where it is not."""
    return float(
        np.mean([(read[true == held] == held).mean() for held in (True, False) if (true == held).any()])
    )
