"""What a dream needs of its data to be walked in: pictures to begin from, the pace, and paths."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dreamwalk.clip import Clip
from dreamwalk.conditions.places import MapConfig
from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.rollout.dream import Walkable


def walkable(shards: Shards, *, starts: int = 12, looked_at: int = 120) -> Walkable:
    """Starts with their poses, chosen from first frames of clips, and the pace of a held `forward`."""
    spread = np.linspace(0, len(shards) - 1, min(looked_at, len(shards))).astype(int)
    clips = [shards.clip(int(index), depth=False) for index in spread]
    chosen = [clips[index] for index in _varied(np.stack([clip.video[0] for clip in clips]), starts)]
    height, width = shards.size
    blind = np.array([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]], np.float32)
    poses = [np.eye(4) if clip.world_from_camera is None else clip.world_from_camera[0] for clip in chosen]
    return Walkable(
        actions=shards.schema, fps=shards.fps, starts=np.stack([clip.video[0] for clip in chosen]),
        poses=np.stack(poses).astype(np.float32),
        intrinsics=blind if chosen[0].intrinsics is None else np.asarray(chosen[0].intrinsics[0], np.float32),
        pace=_pace(clips, shards.schema.buttons), world=str(shards.manifest.get("level", "")),
    )  # fmt: skip


def _varied(frames: np.ndarray, count: int) -> list[int]:
    """Indices of pictures that show much and differ: of the more detailed half, each far from the others."""
    small = frames[:, ::4, ::4].astype(np.float32) / 255
    detail = np.abs(np.diff(small, axis=1)).mean((1, 2, 3)) + np.abs(np.diff(small, axis=2)).mean((1, 2, 3))
    rich = np.argsort(-detail, kind="stable")[: max(count, len(frames) // 2)]
    pictures = small[rich].reshape(len(rich), -1)
    picked, distance = [0], np.full(len(rich), np.inf)
    while len(picked) < min(count, len(rich)):
        distance = np.minimum(distance, np.square(pictures - pictures[picked[-1]]).sum(1))
        picked.append(int(distance.argmax()))
    return [int(rich[index]) for index in picked]


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


def paths(shards: Shards, config: MapConfig) -> tuple[Tensor, Tensor]:
    """Poses and actions of all clips of the usual length; UserError when they do not lie on the map."""
    walks = [shards.walked(index) for index in range(len(shards))]
    length = max(len(actions) for _, actions in walks)
    whole = [(poses, actions) for poses, actions in walks if len(actions) == length and poses is not None]
    mend = "train `nextframe.game`, which needs none"
    if not whole:
        raise UserError(f"'{shards.path}' has no poses to learn a map from: {mend}")
    poses, actions = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*whole, strict=True))
    spots, low = poses[..., :2, 3], torch.tensor(config.origin)
    if (spots < low).any() or (spots > low + torch.tensor(config.extent)).any():
        flags = "`--system.map.origin` and `--system.map.extent`"
        raise UserError(f"walks in '{shards.path}' leave the map: set {flags}, or {mend}")
    return poses, actions
