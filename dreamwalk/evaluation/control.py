"""Action controllability of a dream: an inverse-dynamics model of real frames reads its actions back.

Its accuracy on the real frames of the same walks stands beside, as the ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.evaluation.fidelity import Rollout
from dreamwalk.systems.inverse import Inverse
from dreamwalk.world import ActionSchema

TURNING = 3.0
"""Degrees per step from which a frame counts as turning."""


@dataclass(frozen=True)
class Control:
    """How well actions are read back; None is what cannot be measured."""

    yaw_sign: float | None
    """Share of turning frames whose direction is right; None without yaw, or where nobody turns."""
    turning_frames: int
    yaw_error: float | None
    """Mean absolute error of yaw over all frames, degrees."""
    walking: float | None
    """Balanced accuracy of `forward` held or not."""


@dataclass(frozen=True)
class Columns:
    """Where yaw (in degrees, by its limit) and `forward` stand among buttons and axes; None where not."""

    yaw: int | None
    limit: float
    forward: int | None

    @classmethod
    def of(cls, schema: ActionSchema) -> Columns:
        yaw = schema.axes.index("yaw") if "yaw" in schema.axes else None
        forward = schema.buttons.index("forward") if "forward" in schema.buttons else None
        return cls(yaw, 1.0 if yaw is None else schema.limits[yaw], forward)


def inverse_schema(inverse: Inverse, given: ActionSchema) -> ActionSchema:
    """Actions of an inverse-dynamics model: its weight file's, else `given`; UserError for another number."""
    known = (inverse.about or {}).get("world_spec", {}).get("actions")
    schema = ActionSchema(**{name: tuple(value) for name, value in known.items()}) if known else given
    (buttons, axes), config = (len(schema.buttons), len(schema.axes)), inverse.config
    if (config.buttons, config.axes) != (buttons, axes):
        raise UserError(
            f"this model reads {config.buttons} buttons and {config.axes} axes, not {buttons} and {axes}: "
            'train one on such data, or add `--inverse ""`'
        )
    return schema


@torch.inference_mode()
def read_back(
    inverse: Inverse, video: Tensor, last: Tensor, actions: Tensor, *, schema: ActionSchema
) -> Control:
    """Read `video` uint8 `(b, t, 3, h, w)` after its `last` real frame, against `actions` `(b, t, a)` of
    `schema`. Yaw and `forward` are found by their names, in the actions and in the model's."""
    pairs = [inverse.read(clip[None]) for clip in torch.cat([last, video], dim=1)]  # one by one: memory
    buttons, axes = (torch.cat(part) for part in zip(*pairs, strict=True))
    own, theirs = Columns.of(schema), Columns.of(inverse_schema(inverse, schema))
    sign, turns, error, walking = None, 0, None, None
    if own.yaw is not None and theirs.yaw is not None:
        read = axes[..., theirs.yaw] * theirs.limit
        yaw = actions[..., len(schema.buttons) + own.yaw] * own.limit
        turning = yaw.abs() >= TURNING
        right = torch.sign(read[turning]) == torch.sign(yaw[turning])
        turns, error = int(turning.sum()), float((read - yaw).abs().mean())
        sign = float(right.float().mean()) if turns else None
    if own.forward is not None and theirs.forward is not None:
        held = buttons[..., theirs.forward] > 0
        walking = _balanced(held.numpy(), (actions[..., own.forward] > 0.5).numpy())
    return Control(sign, turns, error, walking)


def measure_control(inverse: Inverse, rollout: Rollout, *, schema: ActionSchema) -> dict[str, Control]:
    """Control read from the dream, and from the real frames of the same walks."""
    real = read_back(inverse, rollout.truth, rollout.last, rollout.actions, schema=schema)
    dreamt = read_back(inverse, rollout.dream, rollout.last, rollout.actions, schema=schema)
    return {"dream": dreamt, "real": real}


def _balanced(read: np.ndarray, true: np.ndarray) -> float:
    """Mean of the accuracies on frames where it is held and where it is not."""
    shares = [(read[true == held] == held).mean() for held in (True, False) if (true == held).any()]
    return float(np.mean(shares))
