"""The cloud of points of a session: how fast it is drawn and added to, and how true its pictures are.

    python benchmarks/points.py [--most 500000] [--json out.json]
    python benchmarks/points.py --data DIR [--walks 15] [--json out.json]

Without data, times: frames of a row of rooms with coloured walls, walked through until there are so many
points; one render and one more frame, 96x128, one thread (the least of 3, the median of 15). Beside it the
same points in NumPy, drawn as Voyager's release does it (all points sorted from far to near, the last one in
a pixel wins; a frame adds those pixels that a render leaves open).

With data (`dreamwalk collect doom`, clips of 80 frames or more), pictures: a cloud holds frames 0 .. 47 of a
walk and is drawn from the cameras 1, 8, 16 and 32 frames later. PSNR is over the pixels whose surface one of
those 48 frames showed (true depths agree within 4 % and 2 units), the mean of the walks in which these are a
tenth of the picture; `covered` is their share where points are as fine as the pixel. `true` frames have their
depth; of `disturbed` ones only the first 16 do, and the depth of the rest, which are added as dreamed, is
wrong by a factor a frame (std 5 %) and by smooth noise (std 3 %).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from dreamwalk.clip import Clip, batch
from dreamwalk.data.shards import Shards
from dreamwalk.memory.frame_points import points_of_frame
from dreamwalk.memory.point_cloud import CloudBudget, PointCloud
from dreamwalk.memory.splatting import projection

SIZE = (96, 128)
KNOWN, TRUE, AHEAD = 48, 16, (1, 8, 16, 32)
VOXELS = (None, 0.5, 1.0, 1.5, 2.0)
COUNTS = (10_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000)


@dataclass(frozen=True)
class Options:
    data: Path | None = None
    """Folder of clips: tells PSNR instead of times."""
    walks: int = 15
    """How many clips of it, spread evenly."""
    most: int = 500_000
    """Points up to which times are told."""
    seed: int = 0
    json: Path | None = None
    """Also write the rows there."""


@dataclass(frozen=True)
class Frame:
    """What is added to a cloud."""

    rgb: Tensor
    depth: Tensor
    pose: Tensor
    intrinsics: Tensor


def main(options: Options) -> None:
    """Times, or PSNR where there are data."""
    torch.set_num_threads(1)
    rows = []
    for row in qualities(options) if options.data else times(options):
        rows.append(row)
        print(
            "  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def times(options: Options) -> Iterator[dict[str, Any]]:
    """Milliseconds at growing numbers of points."""
    frames, cloud = rooms(options.seed), PointCloud(CloudBudget(points=None))
    positions, colours = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    for count in (c for c in COUNTS if c <= options.most):
        while len(cloud) < count:
            frame = next(frames)
            added(cloud, frame, dreamed=False)
        points = cloud.points()
        positions, colours = points.position.T.contiguous().numpy(), points.rgb.T.contiguous().numpy()
        more = [next(frames) for _ in range(15)]

        def draw(frame: Frame, cloud: PointCloud = cloud) -> None:
            cloud.render(frame.pose, frame.intrinsics, size=SIZE)

        def sort(frame: Frame, _: None = None, where: Any = (positions, colours)) -> np.ndarray:
            return sorted_picture(*where, frame)[1]

        def append(frame: Frame, _: None = None, where: Any = (positions, colours)) -> None:
            new = points_of_frame(
                frame.rgb,
                frame.depth,
                frame.pose,
                frame.intrinsics,
                time=0,
                dreamed=False,
                wanted=torch.from_numpy(~sort(frame)),
            )
            for old, more in zip(where, (new.position, new.rgb), strict=True):
                np.concatenate([old, more.T.numpy()])

        row: dict[str, Any] = {"points": len(cloud), "render ms": ms(draw, more, lambda: cloud)}
        row["insert ms"] = ms(lambda frame, twin: added(twin, frame, dreamed=False), more, cloud.clone)
        row |= {"sorted render ms": ms(sort, more), "sorted insert ms": ms(append, more)}
        spent = [sum(row[f"{way}{name} ms"] for name in ("render", "insert")) for way in ("", "sorted ")]
        yield row | {"times": spent[1] / spent[0]}


def ms(call: Callable[..., Any], frames: list[Frame], prepare: Callable[[], Any] = lambda: None) -> float:
    """Milliseconds of a call with a frame and what was prepared: the least of three, the median of frames."""
    spent = []
    for frame in frames:
        tries = []
        for _ in range(3):
            prepared, began = prepare(), time.perf_counter()
            call(frame, prepared)
            tries.append(1000 * (time.perf_counter() - began))
        spent.append(min(tries))
    return median(spent)


def added(cloud: PointCloud, frame: Frame, *, dreamed: bool, time: int = 0) -> None:
    """Into the cloud; true depth is exact, also at edges."""
    edges = {} if dreamed else {"edges": math.inf}
    cloud.insert(frame.rgb, frame.depth, frame.pose, frame.intrinsics, time=time, dreamed=dreamed, **edges)


def rooms(seed: int) -> Iterator[Frame]:
    """A walk that stays 12 frames in each room of 400 x 400 x 128 units, with speckled walls."""
    random, (h, w) = np.random.default_rng(seed), SIZE
    intrinsics = torch.tensor([[w / 2, 0, w / 2], [0, w / 2, h / 2], [0, 0, 1.0]])
    x, y = np.meshgrid(np.arange(w) + 0.5 - w / 2, np.arange(h) + 0.5 - h / 2)
    ray = np.stack([x / (w / 2), y / (w / 2), np.ones_like(x)])
    for step in range(1 << 30):
        turn, (across, along) = random.uniform(0, 2 * math.pi), random.uniform(-120, 120, 2)
        c, s = math.cos(turn), math.sin(turn)
        pose = np.array([[c, 0, s, across], [0, 1, 0, 0], [-s, 0, c, along], [0, 0, 0, 1]])
        world = np.einsum("ij,jhw->ihw", pose[:3, :3], ray)
        half = np.array([200, 64, 200])[:, None, None]
        depth = ((np.sign(world) * half - pose[:3, 3, None, None]) / world).min(0)
        place = world * depth + pose[:3, 3, None, None]
        colour = np.sin(place * np.array([0.1, 0.2, 0.15])[:, None, None]) * 0.5
        pose[2, 3] += 401 * (step // 12)
        tensors = (torch.from_numpy(array).float() for array in (colour, depth, pose))
        yield Frame(*tensors, intrinsics)


def sorted_picture(position: np.ndarray, colours: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Points drawn from far to near, and which pixels any of them is in."""
    matrix, (h, w) = projection(frame.pose, frame.intrinsics).numpy(), SIZE
    x, y, z = matrix[:, :3] @ position.T + matrix[:, 3:]
    front = z > 1
    x, y = (np.where(front, row / np.where(front, z, 1), -1) for row in (x, y))
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    x, y, z, colours = x[inside].astype(int), y[inside].astype(int), z[inside], colours[inside]
    order = np.argsort(-z)
    picture, known = np.zeros((h, w, 3), np.uint8), np.zeros((h, w), bool)
    picture[y[order], x[order]] = colours[order]
    known[y, x] = True
    return picture, known


def qualities(options: Options) -> Iterator[dict[str, Any]]:
    """PSNR of seen pixels for budgets."""
    shards = Shards(str(options.data))
    step = max(1, len(shards) // options.walks)
    walks = [batch([shards.window(i, 0, KNOWN + AHEAD[-1], depth=True)]) for i in range(0, len(shards), step)]
    seen = [[seen_before(walk, KNOWN - 1 + k) for k in AHEAD] for walk in walks]
    best = CloudBudget()
    budgets = [CloudBudget(None, voxel) for voxel in VOXELS]
    budgets += [CloudBudget(cap, voxel) for cap in (500_000, 200_000, 50_000) for voxel in VOXELS]
    for budget in budgets:
        yield quality(walks, seen, budget, disturbed=False, seed=options.seed)
    for budget in [
        replace(best, voxel=voxel, aligned=aligned) for voxel in VOXELS for aligned in (True, False)
    ]:
        yield quality(walks, seen, budget, disturbed=True, seed=options.seed)


def quality(
    walks: list[Clip], seen: list[list[Tensor]], budget: CloudBudget, *, disturbed: bool, seed: int
) -> dict[str, Any]:
    """One row."""
    decibels: dict[int, list[float]] = {ahead: [] for ahead in AHEAD}
    covered: list[float] = []
    spent: dict[str, list[float]] = {"insert": [], "render": []}
    counts = []
    for number, (walk, masks) in enumerate(zip(walks, seen, strict=True)):
        cloud = PointCloud(budget)
        for i, frame in enumerate(frames_of(walk, disturbed=disturbed, seed=seed + number)):
            began = time.perf_counter()
            added(cloud, frame, dreamed=disturbed and i >= TRUE, time=i)
            spent["insert"].append(1000 * (time.perf_counter() - began))
        counts.append(len(cloud))
        for ahead, mask in zip(AHEAD, masks, strict=True):
            at, began = KNOWN - 1 + ahead, time.perf_counter()
            drawn = cloud.render(walk.world_from_camera[0, at], walk.intrinsics[0, at], size=shape(walk))
            spent["render"].append(1000 * (time.perf_counter() - began))
            error = (drawn.rgb[0] - (walk.video[0, at].float() / 127.5 - 1)).square().mean(0)
            if mask.float().mean() > 0.1:
                decibels[ahead].append(float(10 * torch.log10(4 / error[mask].mean())))
                covered.append(float((drawn.mask[0] == 1)[mask].float().mean()))
    told = {
        "depth": "disturbed" if disturbed else "true",
        "cap": budget.points,
        "voxel": budget.voxel,
        "aligned": budget.aligned,
    }
    told |= {f"{ahead}": mean(values) for ahead, values in decibels.items()}
    told |= {"covered": mean(covered), "points": int(mean(counts))}
    return told | {f"{name} ms": median(row) for name, row in spent.items()}


def shape(walk: Clip) -> tuple[int, int]:
    """Of its pictures, (h, w)."""
    return walk.video.shape[-2], walk.video.shape[-1]


def frames_of(walk: Clip, *, disturbed: bool, seed: int) -> Iterator[Frame]:
    """The first frames of a walk."""
    generator = torch.Generator().manual_seed(seed)
    for i in range(KNOWN):
        depth = walk.depth[0, i]
        if disturbed and i >= TRUE:
            factor, coarse = torch.randn(1, generator=generator), torch.randn(1, 1, 6, 8, generator=generator)
            smooth = F.interpolate(coarse, shape(walk), mode="bicubic")[0, 0]
            depth = depth * (0.05 * factor + 0.03 * smooth).exp()
        yield Frame(
            walk.video[0, i].float() / 127.5 - 1, depth, walk.world_from_camera[0, i], walk.intrinsics[0, i]
        )


def seen_before(walk: Clip, at: int) -> Tensor:
    """Pixels `(h, w)` of frame `at` whose surface one of the known frames showed."""
    h, w = shape(walk)
    depth = walk.depth[0]
    frame = (walk.video[0, at].float(), depth[at], walk.world_from_camera[0, at], walk.intrinsics[0, at])
    points = points_of_frame(*frame, time=0, dreamed=False, edges=math.inf)
    found = torch.zeros(h * w, dtype=torch.bool)
    for i in range(KNOWN):
        matrix = projection(walk.world_from_camera[0, i], walk.intrinsics[0, i])
        x, y, z = matrix[:, :3] @ points.position + matrix[:, 3:]
        x, y = (x / z).floor(), (y / z).floor()
        inside = (z > 1) & (x >= 0) & (x < w) & (y >= 0) & (y < h)
        known = depth[i].flatten()[torch.where(inside, y * w + x, 0).long()]
        sky = (known == 0) & (z > 10_000)
        found |= inside & (sky | ((known - z).abs() < 0.04 * z + 2))
    # The points lie in another order than the pixels: where each one lies says which it is.
    matrix = projection(frame[2], frame[3])
    x, y, z = matrix[:, :3] @ points.position + matrix[:, 3:]
    pixel = (y / z).floor().clamp(0, h - 1) * w + (x / z).floor().clamp(0, w - 1)
    return torch.zeros(h * w, dtype=torch.bool).scatter_(0, pixel.long(), found).view(h, w)


if __name__ == "__main__":
    main(tyro.cli(Options))
