"""Actions for dreams that nobody steers: what was recorded from a start, then a random walk."""

from __future__ import annotations

import numpy as np

from dreamwalk.rollout.dream import WorldSpec
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.games import RandomKeys


def stroll(spec: WorldSpec, start: int, frames: int, *, seed: int) -> np.ndarray:
    """Action vectors `(frames, a)`: as recorded from a start, then `wander`."""
    known = spec.strolls[start][:frames] if start < len(spec.strolls) else []
    about = wander(spec.actions, frames - len(known), seed=seed)
    return np.concatenate([known, about]) if len(known) else about


def wander(schema: ActionSchema, frames: int, *, seed: int) -> np.ndarray:
    """Action vectors `(frames, a)`: ahead, in curves, and turns on the spot now and then.

    In a world without `forward` and `yaw`, random keys.
    """
    random, vectors = np.random.default_rng(seed), np.zeros((frames, schema.size), np.float32)
    if not {"forward", "yaw"} & {*schema.buttons, *schema.axes}:
        keys = RandomKeys(schema)
        return np.stack([keys.hold(random) for _ in range(frames)]) if frames else vectors
    at = 0
    while at < frames:
        length, side = int(random.integers(5, 14)), float(random.choice([-1, 1]))
        ahead, turn = [(1, 0.0), (1, 0.2), (0, 0.5)][random.choice(3, p=[0.4, 0.25, 0.35])]
        if "forward" in schema.buttons:
            vectors[at : at + length, schema.buttons.index("forward")] = ahead
        if "yaw" in schema.axes:
            vectors[at : at + length, len(schema.buttons) + schema.axes.index("yaw")] = side * turn
        at += length
    return schema.canonical(vectors)
