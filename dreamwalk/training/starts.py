"""What a dream needs of its data to be walked in: pictures to begin from, and the pace."""

from __future__ import annotations

import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.data.shards import Shards
from dreamwalk.rollout.dream import Walkable


def walkable(shards: Shards, *, starts: int = 12) -> Walkable:
    """First frames of clips spread over the data, with their poses, and the pace of a held `forward`."""
    chosen = np.linspace(0, len(shards) - 1, min(starts, len(shards))).astype(int)
    clips = [shards.clip(int(index), depth=False) for index in chosen]
    height, width = shards.size
    blind = np.array([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]], np.float32)
    poses = [
        np.eye(4, dtype=np.float32) if c.world_from_camera is None else c.world_from_camera[0] for c in clips
    ]
    return Walkable(
        actions=shards.schema, fps=shards.fps, starts=np.stack([clip.video[0] for clip in clips]), poses=np.stack(poses),
        intrinsics=blind if clips[0].intrinsics is None else np.asarray(clips[0].intrinsics[0], np.float32),
        pace=_pace(clips, shards.schema.buttons), world=str(shards.manifest.get("level", "")),
    )  # fmt: skip


def _pace(clips: list[Clip], buttons: tuple[str, ...]) -> float:
    """Median displacement of the camera in steps that hold `forward` alone; 0 where that is not known."""
    if "forward" not in buttons or any(clip.world_from_camera is None for clip in clips):
        return 0.0
    forward, n = buttons.index("forward"), len(buttons)
    moves = []
    for clip in clips:
        held = clip.actions[1:, :n]
        alone = (held[:, forward] > 0.5) & (held.sum(1) == held[:, forward])
        moves.append(np.linalg.norm(np.diff(clip.world_from_camera[:, :3, 3], axis=0), axis=1)[alone])
    joined = np.concatenate(moves)
    return float(np.median(joined)) if len(joined) else 0.0
