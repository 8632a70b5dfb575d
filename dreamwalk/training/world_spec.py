"""What a dream needs of its data to be walked in: pictures to begin from and how fast one walks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.data.shards import Shards
from dreamwalk.rollout.dream import WorldSpec
from dreamwalk.world import ActionSchema

FAR = 800.0
"""World units from which farther is not better."""


def world_spec(shards: Shards, *, starts: int = 12, sampled: int = 100) -> WorldSpec:
    """Starts with their poses, chosen from first frames of clips, how their clips go on, the speed of a held
    `forward`, and what no clip does."""
    spread = np.linspace(0, len(shards) - 1, min(sampled, len(shards))).astype(int)
    clips = [shards.clip(int(index)) for index in spread]
    chosen = [clips[index] for index in _best(clips, starts)]
    height, width = shards.size
    blind = np.array([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]], np.float32)
    poses = [np.eye(4) if clip.world_from_camera is None else clip.world_from_camera[0] for clip in chosen]
    intrinsics = blind if chosen[0].intrinsics is None else np.asarray(chosen[0].intrinsics[0], np.float32)
    speed, length = _walk_speed(clips, shards.schema.buttons), min(map(len, chosen))
    strolls = np.stack([clip.actions[1:length] for clip in chosen]).astype(np.float32)
    images, exact = np.stack([clip.video[0] for clip in chosen]), np.stack(poses).astype(np.float32)
    spec = WorldSpec(shards.schema, shards.fps, images, exact, intrinsics, speed)
    world, level = (str(shards.manifest.get(fact, "")) for fact in ("world", "level"))
    spec = replace(spec, world=world, level=level, unlearnt=_unlearnt(clips, shards.schema), strolls=strolls)
    if any(clip.depth is None for clip in chosen):
        return spec
    return replace(spec, depths=np.stack([clip.depth[0] for clip in chosen]).astype(np.float16))


def _best(clips: list[Clip], count: int) -> list[int]:
    """Indices of clips to begin from, the best first: of the better quarter, each unlike the others.

    The better ones see farther on average and straight ahead, and lead farther from where they begin; what is
    not known of a world counts as equal, and where depth is not known, pictures of more detail are better.
    """
    small = np.stack([clip.video[0, ::4, ::4] for clip in clips]).astype(np.float32) / 255
    detail = np.abs(np.diff(small, axis=1)).mean((1, 2, 3)) + np.abs(np.diff(small, axis=2)).mean((1, 2, 3))
    sight = [_sight(clip.depth) for clip in clips]
    first = detail[:, None] if None in sight else np.array(sight)
    terms = np.concatenate([first, [[_far(clip)] for clip in clips]], axis=1)
    score = np.log(terms / (terms.max(0) + 1e-9) + 0.01).sum(1)  # a product: no term makes up for another
    rich = np.argsort(-score, kind="stable")[: max(count, len(clips) // 4)]
    pictures = small[rich].reshape(len(rich), -1)
    picked, distance = [0], np.full(len(rich), np.inf)
    while len(picked) < min(count, len(rich)):
        distance = np.minimum(distance, np.square(pictures - pictures[picked[-1]]).sum(1))
        picked.append(int(distance.argmax()))
    return [int(rich[index]) for index in sorted(picked)]


def _sight(depth: np.ndarray | None) -> tuple[float, float] | None:
    """How far one sees from the first frame, on average and straight ahead, about the horizon."""
    if depth is None:
        return None
    rows, columns = depth.shape[1:]
    band = depth[0, int(0.4 * rows) : int(0.6 * rows) + 1]
    band = np.median(np.where(band == 0, FAR, band), axis=0).clip(max=FAR)
    return float(band.mean()), float(band[int(0.4 * columns) : int(0.6 * columns) + 1].min())


def _far(clip: Clip) -> float:
    """How far a clip leads from where it begins; 0 where that is not known."""
    if clip.world_from_camera is None:
        return 0.0
    spots = clip.world_from_camera[:, :3, 3]
    return float(np.linalg.norm(spots - spots[0], axis=1).max())


def _unlearnt(clips: list[Clip], schema: ActionSchema) -> tuple[str, ...]:
    """Buttons and axes that no clip uses: nothing can be learnt of them."""
    used = np.any([clip.actions.any(axis=0) for clip in clips], axis=0)
    names = (*schema.buttons, *schema.axes)
    return tuple(name for name, ever in zip(names, used, strict=True) if not ever)


def _walk_speed(clips: list[Clip], buttons: tuple[str, ...]) -> float:
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
