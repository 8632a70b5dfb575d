"""Dream a recorded walk again, frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dreamwalk.data.shards import encode_video
from dreamwalk.data.walks import Walk
from dreamwalk.world import World


def replay(world: World, walk: Walk) -> np.ndarray:
    """Frames uint8 `(t + 1, h, w, 3)` of a walk of `t` actions; the same frames wherever it is replayed."""
    walk.check(world.actions)
    if walk.steps and hasattr(world, "steps"):
        world.steps = walk.steps
    frames = [world.reset(seed=walk.seed, options=walk.start)[0]]
    frames += [world.step(world.actions.unpack(vector))[0] for vector in walk.actions]
    return np.stack(frames)


def check_film(path: Path) -> None:
    """ValueError unless a film can be written at `path`; worth asking before a long dream."""
    if path.suffix != ".mp4":
        raise ValueError(f"the video is written as .mp4: name it '{path.with_suffix('.mp4')}'")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder '{path.parent}' to write the video into: make it first")


def write_film(path: Path, frames: np.ndarray, *, fps: float) -> None:
    """uint8 frames `(t, h, w, 3)` as an .mp4 that every player shows; ValueError without the folder."""
    check_film(path)
    path.write_bytes(encode_video(frames, fps, pixels="yuv420p", crf="16"))
