"""How fast a dream is, stage by stage."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from dreamwalk.rollout.dream import Dream


@dataclass(frozen=True)
class Speed:
    """Medians over frames."""

    steps: int
    milliseconds: dict[str, float]
    """Of the stages denoise, commit, decode and the whole frame."""
    fps: float


def time_dream(world: Dream, *, steps: int, frames: int = 40) -> Speed:
    """Walk forward for `frames` frames after ten to warm up."""
    world.reset(seed=0)
    if world.steps is not None:
        world.steps = steps
    action = world.actions.action(world.actions.buttons[:1])
    rows = []
    for _ in range(frames + 10):
        began = time.perf_counter()
        world.step(action)
        rows.append({**world.timings, "frame": 1000 * (time.perf_counter() - began)})
    medians = {stage: float(np.median([row[stage] for row in rows[10:]])) for stage in rows[0]}
    return Speed(steps, medians, 1000 / medians["frame"])
