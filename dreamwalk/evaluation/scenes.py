"""Scenes along true paths of held-out walks: against the true frames, the true geometry, and themselves.

dreamwalk evaluate voyager.doom --data data/rooms-test

Protocol: a scene begins with the first frame of a walk and its true depth, goes along the walk's true cameras
and back the same way. The way out is compared with the walk: PSNR of pixels that the first frame showed and
of all others, the error of depth, and the distance of the cloud's points to the true surfaces and back. The
way back is compared with the way out, by the frames that lie between: the loop error, with the world cache
and with nothing but what the first frame of each clip shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
import tyro
from torch import Tensor

from dreamwalk.clip import Clip, batch
from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.evaluation.fidelity import decibels
from dreamwalk.evaluation.places import require_depth
from dreamwalk.evaluation.reports import hardware, write_report
from dreamwalk.memory.frame_points import FAR, points_of_frame
from dreamwalk.memory.point_tiles import TileBudget
from dreamwalk.memory.splatting import render
from dreamwalk.memory.world_cache import WorldCache, WorldCacheConfig
from dreamwalk.progress import progress
from dreamwalk.rollout.dream import to_image
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.path_sampling import ClipJoint, PathMemory, PathRequest, PathSampling
from dreamwalk.systems.system import System
from dreamwalk.systems.voyager import Voyager

GAPS = (8, 16, 32, 64)
"""Frames between a view and the same view on the way back."""
POINTS = 4000
"""Of each cloud, whose distances are told."""
SAME = 1.04, 2.0
"""A rendered surface is the true one up to so many times its depth and units more."""
Row = dict[str, float]


@dataclass(frozen=True)
class EvaluateScenes:
    """Examine scenes along paths: pictures and numbers into a folder."""

    report: Literal["scenes"] = "scenes"
    data: str = "data/rooms-test"
    """Walks with depth in levels that were not trained on."""
    out: Path = Path("runs/scenes")
    walks: int = 8
    """How many, spread evenly."""
    frames: int = 33
    """Of the way out; the way back takes as many."""
    steps: int | None = None
    """Denoising steps; default: the system's."""
    joint: Annotated[ClipJoint, tyro.conf.arg(name="")] = field(default_factory=ClipJoint)
    seed: int = 0


def evaluate_scenes(
    system: System, asked: EvaluateScenes, *, name: str, inverse: object = None
) -> dict[str, Any]:
    """Print the table, write `report.json` and `sheet.png` into `out`; UserError for systems of another kind
    and data without depth."""
    if not isinstance(system, Voyager):
        raise UserError(f"'{name}' makes no scenes along a path, so there is no scene to examine")
    if asked.walks < 1 or asked.frames < 2:
        raise UserError("`--walks` is 1 at least, and `--frames` 2")
    walks = list(_walks(Shards(asked.data), asked))
    memories: tuple[PathMemory, ...] = get_args(PathMemory)
    rows: dict[str, list[Row]] = {memory: [] for memory in memories}
    strips: list[Tensor] = []
    with progress("dreaming", len(walks) * len(memories)) as advance:
        for walk in walks:
            shown = [(walk.video[0, : asked.frames]).float() / 127.5 - 1]
            for memory in memories:
                row, frames = examine(system, walk, asked, memory=memory)
                rows[memory].append(row)
                shown.append(frames)
                advance()
            strips += map(_strip, shown)
    means = {memory: _means(found) for memory, found in rows.items()}
    report: dict[str, Any] = {"name": name, "data": asked.data, "walks": len(walks), "frames": asked.frames}
    report |= {"seed": asked.seed, "steps": asked.steps or system.config.steps, "rows": means}
    report |= asdict(asked.joint)
    report["hardware"] = hardware()
    write_report(report, to_image(torch.cat(strips, 1)), asked.out)
    print_scenes(report)
    return report


def _walks(shards: Shards, asked: EvaluateScenes) -> Iterator[Clip]:
    step = max(1, len(shards) // asked.walks)
    for index in list(range(0, len(shards), step))[: asked.walks]:
        walk = shards.window(index, 0, min(asked.frames, shards.frames_of(index)), depth=True)
        yield batch([require_depth(walk, asked.data)])


def examine(system: Voyager, walk: Clip, asked: EvaluateScenes, *, memory: PathMemory) -> tuple[Row, Tensor]:
    """What is measured of one walk, and the frames of its way out, `(t, 3, h, w)` in [-1, 1]."""
    t = len(walk)
    way = [*range(t), *reversed(range(t - 1))]
    picture, poses, lenses = (
        walk.video[0, 0].float() / 127.5 - 1,
        walk.world_from_camera[0],
        walk.intrinsics[0],
    )
    clip = ClipRequest(tuple(walk.caption) if walk.caption else ("",), seed=asked.seed, steps=asked.steps)
    request = PathRequest(picture, walk.depth[0, 0], poses[way], lenses[way], clip, asked.joint, memory)
    with closing(WorldCache(WorldCacheConfig(budget=TileBudget(points=None)))) as cache:
        sampling = PathSampling(system, request, cache)
        for _ in sampling.steps():
            pass
        rgb, depth = sampling.frames()
        cloud = torch.cat([part.position for part in cache.tiles.all_points()], 1)
    row = _against_truth(walk, rgb[:t], depth[:t])
    row["chamfer"] = chamfer(cloud, _surfaces(walk), seed=asked.seed)
    for gap in GAPS:
        if gap % 2 == 0 and gap // 2 < t:
            out = t - 1 - gap // 2
            row[f"loop {gap}"] = decibels(((rgb[t - 1 + gap // 2] - rgb[out]) / 2).square().mean())
    return row, rgb[:t]


def _against_truth(walk: Clip, rgb: Tensor, depth: Tensor) -> Row:
    """PSNR of pixels that the first frame showed, and of others; and the median error of depth."""
    truth, true_depth = walk.video[0].float() / 127.5 - 1, walk.depth[0]
    known = points_of_frame(
        truth[0], true_depth[0], walk.world_from_camera[0, 0], walk.intrinsics[0, 0], time=0, dreamed=False
    )
    size = depth.shape[1], depth.shape[2]
    poses, lenses = walk.world_from_camera[0], walk.intrinsics[0]
    shown = render([known] * len(rgb), poses, intrinsics=lenses, size=size)
    nearer = torch.minimum(shown.depth, true_depth) * SAME[0] + SAME[1] > torch.maximum(
        shown.depth, true_depth
    )
    seen, error = nearer & (shown.mask > 0.2), ((rgb - truth) / 2).square().mean(1)
    row = {}
    for name, pixels in (("seen", seen[1:]), ("new", ~seen[1:])):
        if pixels.float().mean() > 0.01:
            row[name] = decibels(error[1:][pixels].mean())
    both = (depth[1:] > 0) & (true_depth[1:] > 0)
    row["depth"] = float((depth[1:][both] / true_depth[1:][both]).log().abs().median()) if both.any() else 1.0
    return row


def chamfer(one: Tensor, other: Tensor, *, seed: int) -> float:
    """Mean of the median distances from points `(3, n)` to the nearest of the others, both ways, in world
    units; the sky is left out."""
    generator, picked = torch.Generator().manual_seed(seed), []
    for points in (one, other):
        near = points[:, points.abs().amax(0) < FAR / 2]
        picked.append(near[:, torch.randperm(near.shape[1], generator=generator)[:POINTS]].T)
    distances = torch.cdist(picked[0], picked[1])
    return float(distances.amin(1).median() + distances.amin(0).median()) / 2


def _surfaces(walk: Clip) -> Tensor:
    """Points of all true frames of a walk, `(3, n)`."""
    poses, lenses = walk.world_from_camera[0], walk.intrinsics[0]
    frames = zip(walk.video[0].float() / 127.5 - 1, walk.depth[0], poses, lenses, strict=True)
    return torch.cat([points_of_frame(*frame, time=0, dreamed=False).position for frame in frames], 1)


def _means(rows: list[Row]) -> Row:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: mean(row[name] for row in rows if name in row) for name in names}


def _strip(frames: Tensor) -> Tensor:
    """Eight frames `(3, h, w)`, side by side."""
    at = np.linspace(0, len(frames) - 1, 8).round().astype(int)
    return torch.cat(list(frames[at]), 2)


def print_scenes(report: dict[str, Any]) -> None:
    """Print a report as a table."""
    print(
        f"{report['name']}: {report['walks']} walks of '{report['data']}', {report['frames']} frames and "
        f"back, {report['steps']} steps, seed {report['seed']}"
    )
    names = list(next(iter(report["rows"].values())))
    print(f"{'memory':<10}" + "".join(f"{name:>10}" for name in names))
    for memory, row in report["rows"].items():
        cells = (f"{row[name]:.3f}" if name == "depth" else f"{row[name]:.1f}" for name in names)
        print(f"{memory:<10}" + "".join(f"{cell:>10}" for cell in cells))
