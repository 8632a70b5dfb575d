"""Voyager's world cache: what its rules keep, what a bound costs, and how much wrong depth it bears.

    python benchmarks/world_cache.py culling --data DIR [--walks 15]
    python benchmarks/world_cache.py audit --data DIR [--walks 15]
    python benchmarks/world_cache.py cap --data DIR [--walks 4] [--frames 1024]

The data are of `dreamwalk collect doom`: clips of 80 frames or more, for `cap` as long as the walk. PSNR is
over pixels whose surface was shown before (`points.py` tells how), the mean of the walks.

`culling`: figure 8 of the paper. A cache holds frames 0 .. 47 of a walk and is drawn 1, 8, 16 and 32 frames
later. The depth is true, or wrong by a factor a frame (std 5 %) and by smooth noise (3 %) from frame 16 on;
frames are added as clips of 16.

`audit`: of the data engine. Frames 0 .. 15 are true; the depth of the next 32 is spoilt in one way. Told are
the errors of the scale and bias that the alignment finds (of the inverse depth, the bias in units of the
inverse median depth; medians over walks), and the PSNR with and without it.

`cap`: frames of a long walk, every fourth, with a bound on the points in RAM; each is drawn from where it was
seen 256 frames earlier too. Told are the pixels that differ by more than 2 of 255 from the picture without a
bound, the PSNR against the true frame, the most points in RAM, and milliseconds a frame.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal

import torch
import torch.nn.functional as F
import tyro
from points import AHEAD, KNOWN, TRUE, Frame, frames_of, seen_before, shape
from torch import Tensor

from dreamwalk.clip import Clip, batch
from dreamwalk.data.shards import Shards
from dreamwalk.memory.frame_points import EDGES
from dreamwalk.memory.point_tiles import TileBudget
from dreamwalk.memory.world_cache import WorldCache, WorldCacheConfig, aligned_depth

CAPS = (None, 1_000_000, 300_000, 100_000, 30_000)
EVERY, BACK = 4, 256
"""Frames between those that are added, and to where one looks back."""


@dataclass(frozen=True)
class Options:
    table: tyro.conf.Positional[Literal["culling", "audit", "cap"]]
    data: Path
    """Folder of clips."""
    walks: int = 15
    """How many clips of it, spread evenly."""
    frames: int = 1024
    """Of a walk, for `cap`."""
    seed: int = 0


def main(options: Options) -> None:
    """Print the rows of one table."""
    torch.set_num_threads(1)
    tables: dict[str, Callable[[Options], Iterator[dict[str, Any]]]] = {
        "culling": culling,
        "audit": audit,
        "cap": caps,
    }
    for row in tables[options.table](options):
        told = (f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
        print("  ".join(told), flush=True)


def walks_of(options: Options, frames: int) -> list[Clip]:
    shards = Shards(str(options.data))
    step = max(1, len(shards) // options.walks)
    return [batch([shards.window(i, 0, frames, depth=True)]) for i in range(0, len(shards), step)][
        : options.walks
    ]


def culling(options: Options) -> Iterator[dict[str, Any]]:
    walks = walks_of(options, KNOWN + AHEAD[-1])
    seen = [[seen_before(walk, KNOWN - 1 + k) for k in AHEAD] for walk in walks]
    everything = 0
    for disturbed, aligned in ((False, False), (True, False), (True, True)):
        for rule, covered in (("all", 0.2), ("invisible", 0.2), ("facing", 0.2), ("facing", 1.0)):
            edges = EDGES if disturbed else math.inf
            budget = TileBudget(points=None, voxel=None)
            config = WorldCacheConfig(rule, covered, edges, budget)
            counts, decibels = [], []
            for number, (walk, masks) in enumerate(zip(walks, seen, strict=True)):
                cache = WorldCache(config)
                clip = list(frames_of(walk, disturbed=disturbed, seed=options.seed + number))
                for i in range(0, KNOWN, TRUE):
                    add(cache, clip[i : i + TRUE], time=i, aligned=aligned and i > 0)
                counts.append(len(cache))
                decibels.append(psnrs(cache, walk, masks))
            everything = int(mean(counts)) if rule == "all" else everything
            depth = ("aligned" if aligned else "disturbed") if disturbed else "true"
            row: dict[str, Any] = {
                "depth": depth,
                "rule": rule,
                "covered": covered,
                "points": int(mean(counts)),
            }
            yield row | {"of all": mean(counts) / everything} | means(decibels)


def psnrs(cache: WorldCache, walk: Clip, masks: list[Tensor]) -> dict[str, float]:
    """Of a walk, at the distances at which enough was seen before."""
    found = {}
    for ahead, mask in zip(AHEAD, masks, strict=True):
        at = KNOWN - 1 + ahead
        drawn = cache.render(
            walk.world_from_camera[0, at : at + 1], walk.intrinsics[0, at : at + 1], size=shape(walk)
        )
        error = (drawn.rgb[0] - (walk.video[0, at].float() / 127.5 - 1)).square().mean(0)
        if mask.float().mean() > 0.1:
            found[str(ahead)] = float(10 * torch.log10(4 / error[mask].mean()))
    return found


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {str(k): mean(row[str(k)] for row in rows if str(k) in row) for k in AHEAD}


def spoilt(depth: Tensor, kind: str, amount: float, generator: torch.Generator) -> Tensor:
    """A depth `(h, w)` that is wrong in one way."""
    if kind == "scale":
        return depth * amount
    if kind == "bias":  # of the inverse depth, in units of the inverse of a usual one
        return aligned_depth(depth, 1.0, amount / 300)
    if kind == "warp":
        coarse = torch.randn(1, 1, 4, 5, generator=generator)
        smooth = F.interpolate(coarse, (depth.shape[0], depth.shape[1]), mode="bicubic")[0, 0]
        return depth * (amount * smooth).exp()
    if kind == "bleed":  # an edge is smeared over so many pixels
        side = 2 * int(amount) + 1
        return F.avg_pool2d(depth[None], side, 1, int(amount), count_include_pad=False)[0]
    chosen = torch.rand(depth.shape, generator=generator) < amount
    return torch.where(chosen, depth * (2 * torch.rand(depth.shape, generator=generator) - 1).exp(), depth)


WAYS = [("scale", 1.0), ("scale", 0.5), ("scale", 0.8), ("scale", 1.25), ("scale", 2.0)]
WAYS += [
    ("bias", -0.2),
    ("bias", 0.2),
    ("bias", 0.5),
    ("warp", 0.03),
    ("warp", 0.1),
    ("bleed", 1),
    ("bleed", 3),
]
WAYS += [("outliers", 0.02), ("outliers", 0.1), ("outliers", 0.3)]


def audit(options: Options) -> Iterator[dict[str, Any]]:
    walks = walks_of(options, KNOWN + AHEAD[-1])
    seen = [[seen_before(walk, KNOWN - 1 + k) for k in AHEAD] for walk in walks]
    for kind, amount in WAYS:
        row: dict[str, Any] = {"spoilt by": kind, "amount": float(amount)}
        for aligned in (False, True):
            config = WorldCacheConfig(budget=TileBudget(points=None))
            decibels, errors = [], []
            for number, (walk, masks) in enumerate(zip(walks, seen, strict=True)):
                cache, generator = WorldCache(config), torch.Generator().manual_seed(options.seed + number)
                clip = list(frames_of(walk, disturbed=False, seed=0))
                add(cache, clip[:TRUE], time=0)
                wrong = [replace(f, depth=spoilt(f.depth, kind, amount, generator)) for f in clip[TRUE:]]
                errors.append(misfit(cache, clip[TRUE:], wrong, kind, amount))
                add(cache, wrong, time=TRUE, aligned=aligned)
                decibels.append(psnrs(cache, walk, masks))
            if aligned:
                scale, bias = zip(*errors, strict=True)
                row |= {"scale error": median(scale), "bias error": median(bias)}
            row |= {f"{k} {'aligned' if aligned else 'as it is'}": v for k, v in means(decibels).items()}
        yield row


def add(cache: WorldCache, clip: list[Frame], *, time: int, aligned: bool = False) -> None:
    rgb, depth, *cameras = stacked(clip)
    fit = cache.fit(depth, *cameras) if aligned else (1.0, 0.0)
    cache.insert(rgb, aligned_depth(depth, *fit), *cameras, time=time)


def stacked(clip: list[Frame]) -> list[Tensor]:
    return [torch.stack([getattr(f, name) for f in clip]) for name in ("rgb", "depth", "pose", "intrinsics")]


def misfit(
    cache: WorldCache, clip: list[Frame], wrong: list[Frame], kind: str, amount: float
) -> tuple[float, float]:
    """Errors of the scale and bias that are found for a clip."""
    _, depth, *cameras = stacked(wrong)
    found = cache.fit(depth, cameras[0], cameras[1])
    right = {"scale": (amount, 0.0), "bias": (1.0, -amount / 300)}.get(kind, (1.0, 0.0))
    true = torch.cat([frame.depth[frame.depth > 0] for frame in clip])
    return abs(found[0] / right[0] - 1), abs(found[1] - right[1]) * float(true.median())


def caps(options: Options) -> Iterator[dict[str, Any]]:
    walks = walks_of(options, options.frames)
    free: list[list[Tensor]] = []
    for cap in CAPS:
        decibels, differ, most, spent = [], [], [], []
        for number, walk in enumerate(walks):
            with tempfile.TemporaryDirectory() as folder:
                config = WorldCacheConfig(edges=math.inf, budget=TileBudget(points=cap))
                cache, drawn = WorldCache(config, folder=folder), []
                rgb, pose, matrix = (
                    walk.video[0].float() / 127.5 - 1,
                    walk.world_from_camera[0],
                    walk.intrinsics[0],
                )
                for i in range(0, options.frames, EVERY):
                    began = time.perf_counter()
                    cache.insert(
                        rgb[i : i + 1], walk.depth[0, i : i + 1], pose[i : i + 1], matrix[i : i + 1], time=i
                    )
                    if i >= BACK and i % (8 * EVERY) == 0:
                        back = slice(i - BACK, i - BACK + 1)
                        shown = cache.render(pose[back], matrix[back], size=shape(walk)).rgb[0]
                        drawn.append(shown)
                        decibels.append(float(10 * torch.log10(4 / (shown - rgb[back][0]).square().mean())))
                    spent.append(1000 * (time.perf_counter() - began))
                    if i % 64 == 0:
                        cache.commit()
                most.append(cache.tiles.most)
            if cap is None:
                free.append(drawn)
            pairs = zip(drawn, free[number], strict=True)
            differ += [float(((a - b).abs().amax(0) > 2 / 127.5).float().mean()) for a, b in pairs]
        row: dict[str, Any] = {"cap": cap, "most in RAM": int(mean(most)), "differing": mean(differ)}
        yield row | {"PSNR": mean(decibels), "ms": median(spent)}


if __name__ == "__main__":
    main(tyro.cli(Options))
