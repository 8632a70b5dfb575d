"""The bank of frames: how fast frames are found in it, and what it still knows within a budget.

    python benchmarks/memory.py [--most 100000] [--walks 5] [--json out.json]

Walks are WorldMem's in kind: of 10 frames 6 go 0.216 m ahead, 2 turn 15 degrees left and 2 right, in a view
of 105 by 75 degrees. Where they lead has no end, so the area grows with the walk; with `--side 20` they stay
in a square of so many metres and come back to places. One thread.

Retrieval: milliseconds (the least of 7, the median of 5 cameras at the end of a walk) of `retrieve` for eight
frames, and of what the public code does, written anew: 10,000 points in a sphere, a loop over past poses.

Retention: banks with a budget are written to along a walk of 1200 frames (`--frames`; 600 are a minute of
WorldMem's); at its end, every 50 of 500, the share of the coming view that the best eight frames cover
(greedily chosen, without the window of 8), divided by that of a bank without a bound: the mean, and the 5th
percentile. As in the paper, frames see without end; `near` is the mean where they see 30 m far.

Modes: the share that the eight frames cover which `retrieve` finds in a bank without a bound.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from dreamwalk.memory.bank import FrameBank, Unit
from dreamwalk.memory.frustum import Cameras, bounds, lifted, points_ahead
from dreamwalk.memory.retention import POLICIES, BankBudget
from dreamwalk.memory.retrieval import RetrievalConfig, retrieve

SIZE = (360, 640)
STEP, TURN, RADIUS, WINDOW = 0.216, 15.0, 30.0, 8
COUNTS = (10, 100, 1000, 10_000, 100_000)
BUDGETS = (8, 16, 32, 64, 128)
MODES: tuple[Literal["greedy", "confidence", "random", "released"], ...] = (
    "greedy",
    "confidence",
    "random",
    "released",
)


@dataclass(frozen=True)
class Options:
    most: int = 100_000
    """Frames up to which times are told."""
    loop: int = 10_000
    """Frames up to which the public code's way is timed too: 20 s for so many."""
    walks: int = 5
    """Over which retention is averaged."""
    frames: int = 1200
    """Of such a walk."""
    side: float = math.inf
    """Metres of the square that walks stay in."""
    tables: tuple[Literal["retrieval", "modes", "retention"], ...] = ("retrieval", "modes", "retention")
    seed: int = 0
    json: Path | None = None
    """Also write the rows there."""

    @property
    def times(self) -> range:
        """The frames of a walk at which it is asked what is kept."""
        return range(self.frames - 500, self.frames + 1, 50)

    def walk(self, index: int) -> Cameras:
        """The cameras of a walk."""
        return walk(self.frames + 1, self.seed + index, side=self.side)


def main(options: Options) -> None:
    """Three tables."""
    torch.set_num_threads(1)
    rows = []
    for name in options.tables:
        print(name)
        for row in {"retrieval": times, "modes": modes, "retention": retention}[name](options):
            rows.append({"table": name} | row)
            told = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            print("  " + "  ".join(told), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def walk(frames: int, seed: int, *, side: float = math.inf) -> Cameras:
    """Cameras of a random walk; z is up. Walls of a square of `side` metres mirror it."""
    chance = np.random.default_rng(seed)
    action = chance.choice(5, frames)
    heading = np.cumsum(np.radians(TURN) * ((action == 0) * 1.0 - (action == 1)))
    ahead = np.stack([np.cos(heading), np.sin(heading), np.zeros(frames)], 1)
    place = STEP * np.cumsum(ahead * (action > 1)[:, None], 0)
    if side < math.inf:
        across = np.mod(place[:, :2] + side / 2, 2 * side)
        ahead[:, :2] *= np.where(across < side, 1, -1)
        place[:, :2] = np.minimum(across, 2 * side - across)
    down = np.broadcast_to([0.0, 0.0, -1.0], (frames, 3))
    pose = np.tile(np.eye(4), (frames, 1, 1))
    pose[:, :3, :3] = np.stack([np.cross(down, ahead), down, ahead], 2)
    pose[:, :3, 3] = place
    height, width = SIZE
    fx, fy = width / 2 / math.tan(math.radians(105 / 2)), height / 2 / math.tan(math.radians(75 / 2))
    intrinsics = torch.tensor([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1]])
    return Cameras(
        torch.from_numpy(pose).float(),
        intrinsics.expand(frames, 3, 3).contiguous(),
        SIZE,
        torch.arange(frames),
    )


def times(options: Options) -> Iterator[dict[str, Any]]:
    """Milliseconds at growing numbers of frames."""
    config = RetrievalConfig(radius=RADIUS, reach=RADIUS)
    for count in (c for c in COUNTS if c <= options.most):
        cameras = walk(count + 5, options.seed)
        past, targets = (
            cameras.rows(slice(count)),
            [cameras.rows(slice(count + i, count + i + 1)) for i in range(5)],
        )

        def find(target: Cameras, past: Cameras = past, count: int = count) -> None:
            retrieve(past, target, time=count, before=count - WINDOW, config=config)

        row: dict[str, Any] = {"frames": count, "ms": median(ms(find, target, 7) for target in targets)}
        if count <= options.loop:
            poses = released_poses(cameras)
            row["loop ms"] = ms(
                lambda i, p=poses, n=count: released_way(p[:n], p[n + i]), 0, 1 if count > 100 else 3
            )
            row["times"] = row["loop ms"] / row["ms"]
        yield row


def ms(call: Callable[[Any], Any], of: Any, tries: int) -> float:
    """Milliseconds of a call: the least of some tries."""
    spent = []
    for _ in range(tries):
        began = time.perf_counter()
        call(of)
        spent.append(1000 * (time.perf_counter() - began))
    return min(spent)


def released_poses(cameras: Cameras) -> Tensor:
    """Position and heading in degrees of each camera, `(n, 4)`."""
    ahead = cameras.direction
    return torch.cat([cameras.position, torch.rad2deg(torch.atan2(ahead[:, 1], ahead[:, 0]))[:, None]], 1)


def released_way(past: Tensor, target: Tensor) -> list[int]:
    """Eight frames as the public code finds them."""

    def in_view(points: Tensor, pose: Tensor) -> Tensor:
        away = points - pose[:3]
        azimuth = torch.rad2deg(torch.atan2(away[:, 1], away[:, 0]))
        elevation = torch.rad2deg(torch.atan2(away[:, 2], torch.sqrt(away[:, 0] ** 2 + away[:, 1] ** 2)))
        turn = (azimuth - pose[3] + 180) % 360 - 180
        return (turn.abs() < 105 / 2) & (elevation.abs() < 75 / 2)

    draw = torch.rand(10_000, 3)
    height, turn = 2 * draw[:, 0] - 1, 2 * math.pi * draw[:, 1]
    flat = torch.sqrt(1 - height**2)
    sphere = torch.stack([flat * torch.cos(turn), flat * torch.sin(turn), height], 1) * draw[:, 2:] ** (1 / 3)
    points = target[:3] + RADIUS * sphere
    left = in_view(points, target)
    seen = torch.stack([in_view(points, pose) for pose in past])
    late = 0.2 * (len(past) - torch.arange(len(past))) / len(past)
    picks: list[int] = []
    for _ in range(8):
        score = (seen & left).sum(1) / left.sum() - late
        score[picks] = -1e10
        picks.append(int(score.topk(1).indices))
        left = left & ~seen[picks[-1]]
    return picks


def covered(
    views: Cameras, target: Cameras, *, picks: int | None = None, reach: float | None = None
) -> float:
    """Share of what lies ahead of a camera that views cover together: all, or the best few of them."""
    points = points_ahead(target, 2000, radius=RADIUS)[0]
    origin = target.position[0]
    matrices = bounds(views, origin, unit=RADIUS, reach=reach)
    seen = (matrices @ lifted(points, origin, unit=RADIUS)).amin(1) >= 0
    left = torch.ones(len(points), dtype=torch.bool)
    for _ in range(picks or 0):
        left &= ~seen[(seen & left).sum(1).argmax()]
    return float(1 - left.float().mean()) if picks else float(seen.any(0).float().mean())


def modes(options: Options) -> Iterator[dict[str, Any]]:
    """What the ways to choose cover, and how many of their picks the model sees anyway."""
    shares: dict[str, list[list[float]]] = {mode: [] for mode in MODES}
    for seed in range(options.walks):
        cameras = options.walk(seed)
        for now in options.times:
            past, target = cameras.rows(slice(now)), cameras.rows(slice(now, now + 1))
            for mode in MODES:
                points = 10_000 if mode == "released" else 512
                config = RetrievalConfig(mode=mode, points=points, radius=RADIUS, reach=RADIUS)
                found = retrieve(past, target, time=now, before=now - WINDOW, config=config)
                views = past.rows(found.indices[found.valid])
                share = [covered(views, target, reach=reach) for reach in (None, RADIUS)]
                shares[mode].append([*share, float((found.age <= WINDOW).float().mean())])
    for mode, values in shares.items():
        covers, near, seen = (float(x) for x in np.mean(values, 0))
        yield {"mode": mode, "covered": covers, "near": near, "in the window": seen}


def retention(options: Options) -> Iterator[dict[str, Any]]:
    """What banks with a budget can still show, relative to one without."""
    walks, times = [options.walk(seed) for seed in range(options.walks)], options.times
    whole = [best_covers(cameras, {now: cameras.rows(slice(now)) for now in times}) for cameras in walks]
    for policy in POLICIES:
        for frames in BUDGETS:
            budget = BankBudget(frames, policy, place=2.0, radius=RADIUS)
            began = time.perf_counter()
            banks = [kept(cameras, budget, times) for cameras in walks]
            spent = 1000 * (time.perf_counter() - began) / (len(walks) * options.frames)
            found = [best_covers(cameras, bank) for cameras, bank in zip(walks, banks, strict=True)]
            share = np.concatenate(found) / np.concatenate(whole)
            row: dict[str, Any] = {"policy": policy, "budget": frames, "covered": float(share[:, 0].mean())}
            row |= {"5 %": float(np.quantile(share[:, 0], 0.05)), "near": float(share[:, 1].mean())}
            yield row | {"ms a frame": spent}


def kept(cameras: Cameras, budget: BankBudget, times: range) -> dict[int, Cameras]:
    """Of the frames of a walk, those that a bank has kept at times."""
    bank, found = FrameBank(budget, size=SIZE), {}
    for now in range(times[-1] + 1):
        if now in times:
            found[now] = bank.clone().cameras()
        bank.write(
            Unit(torch.zeros(1, 1, 1), torch.zeros(1), cameras.pose[now], cameras.intrinsics[now], now)
        )
    return found


def best_covers(cameras: Cameras, banks: dict[int, Cameras]) -> np.ndarray:
    """What the best eight frames of banks cover of the coming views, seeing without end and 30 m far."""
    rows = []
    for now, bank in banks.items():
        assert bank.time is not None
        old, target = bank.rows((bank.time < now - WINDOW).nonzero()[:, 0]), cameras.rows(slice(now, now + 1))
        rows.append([covered(old, target, picks=8, reach=reach) for reach in (None, RADIUS)])
    return np.array(rows)


if __name__ == "__main__":
    main(tyro.cli(Options))
