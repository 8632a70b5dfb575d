"""Voyager's world cache: which points are kept, what a bound costs, and what is left of it after a kill."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.memory.depth_alignment import fit_inverse_depth
from dreamwalk.memory.point_tiles import PointTiles, Surfels, TileBudget
from dreamwalk.memory.splatting import Rendering
from dreamwalk.memory.world_cache import WorldCache, WorldCacheConfig, aligned_depth
from tests.memory.test_point_cloud import INTRINSICS, SIZE, camera, room, same

K = INTRINSICS[None]


def walk(steps: int = 8) -> list[Tensor]:
    """A turn on a small circle."""
    return [camera(i * 0.4, place=(30 * math.sin(i), 0, 30 * math.cos(i))) for i in range(steps)]


def add(cache: WorldCache, colours: Tensor, depth: Tensor, pose: Tensor, *, time: int) -> None:
    cache.insert(colours[None], depth[None], pose[None], K, time=time)


def cached(config: WorldCacheConfig, poses: list[Tensor], folder: Path | None = None) -> WorldCache:
    cache = WorldCache(config, folder=folder)
    for time, pose in enumerate(poses):
        add(cache, *room(pose), pose, time=time)
    return cache


def config(
    insertion: str = "facing", *, points: int | None = None, voxel: float | None = 1.0
) -> WorldCacheConfig:
    budget = TileBudget(points=points, side=100.0, voxel=voxel)
    return WorldCacheConfig(insertion=insertion, edges=math.inf, budget=budget)


def seen(cache: WorldCache, pose: Tensor) -> Rendering:
    return cache.render(pose[None], K, size=SIZE)


def psnr(drawn: Rendering, pose: Tensor) -> float:
    return float(10 * torch.log10(4 / (drawn.rgb[0] - room(pose)[0]).square().mean()))


def test_the_rules_keep_fewer_points_and_the_same_picture() -> None:
    """The order of the paper's figure 8: all, then invisible and facing, then invisible only."""
    kept = {rule: cached(config(rule, voxel=None), walk()) for rule in ("all", "facing", "invisible")}
    assert len(kept["all"]) == 8 * SIZE[0] * SIZE[1] == kept["facing"].offered
    assert len(kept["invisible"]) <= len(kept["facing"]) < 0.6 * len(kept["all"])
    pose = camera(1.0, place=(10.0, 5.0, -15.0))
    assert psnr(seen(kept["facing"], pose), pose) > 35


def wall(pose: Tensor, *, colour: float) -> tuple[Tensor, Tensor]:
    """A picture of a plane straight ahead at 100 units."""
    return torch.full((3, *SIZE), colour), torch.full(SIZE, 100.0)


def test_a_surface_that_faces_away_does_not_hide_the_one_that_is_seen() -> None:
    """Two sides of a thin wall: from behind, the front's points cover the picture, but face away."""
    front, behind = camera(), camera(math.pi, place=(0.0, 0.0, 200.0))
    found = {}
    for rule in ("invisible", "facing"):
        cache = WorldCache(config(rule))
        add(cache, *wall(front, colour=-0.5), front, time=0)
        before = len(cache)
        add(cache, *wall(behind, colour=0.5), behind, time=1)
        found[rule] = len(cache) - before
        again = len(cache)
        add(cache, *wall(front, colour=-0.5), front, time=2)
        if rule == "invisible":
            assert len(cache) == again, "what faces the camera is not added twice"
    assert found["invisible"] == 0 and found["facing"] == SIZE[0] * SIZE[1]


@pytest.mark.parametrize("scale,bias", [(0.5, 0.0), (2.0, 0.001), (1.3, -0.0005)])
def test_alignment_finds_scale_and_bias_of_inverse_depth(scale: float, bias: float) -> None:
    """Of a tenth of the pixels nothing is right."""
    _, depth = room(camera(0.3))
    wrong = aligned_depth(depth, scale, bias)
    wrong[::3, ::3] *= 1.7
    found = fit_inverse_depth(wrong, depth)
    assert ((aligned_depth(wrong, *found) / depth)[1::3] - 1).abs().max() < 0.02
    assert fit_inverse_depth(wrong, torch.zeros_like(depth)) == (1.0, 0.0)


def test_a_world_that_is_aligned_does_not_grow_a_second_wall() -> None:
    for aligned in (True, False):
        cache = WorldCache(WorldCacheConfig(budget=TileBudget(points=None)))
        for time, pose in enumerate(walk(4)):
            colours, depth = room(pose)
            if time:
                depth = depth * 0.8
                fit = cache.fit(depth[None], pose[None], K) if aligned else (1.0, 0.0)
                depth = aligned_depth(depth, *fit)
            add(cache, colours, depth, pose, time=time)
        pose = walk(4)[3]
        error = (seen(cache, pose).depth[0] / room(pose)[1] - 1).abs().median()
        assert error < 0.03 if aligned else error > 0.1


def test_without_a_bound_and_with_one_that_holds_all_it_is_the_same(tmp_path: Path) -> None:
    """Also when every tile was on disk in between, and in another process's order of loading."""
    free, large = cached(config(), walk()), cached(config(points=10**9), walk(), tmp_path)
    for pose in walk():
        assert same(seen(free, pose), seen(large, pose))
    free.commit()
    large.commit()
    again = WorldCache.open(tmp_path, config(points=10**9))
    assert len(again) == len(free) == len(large) and again.tiles.in_ram == 0
    for pose in reversed(walk()):
        assert same(seen(again, pose), seen(free, pose)) and same(seen(large, pose), seen(free, pose))


def test_a_bound_holds_and_nothing_is_lost(tmp_path: Path) -> None:
    far = [camera(place=(1000.0 * k, 0.0, 0.0)) for k in range(6)]
    free, tight = cached(config(), far), cached(config(points=4000), far, tmp_path)
    added = SIZE[0] * SIZE[1]
    assert len(tight) == len(free) == 6 * added
    assert tight.tiles.most <= 4000 + added, "what was just added counts until the next view"
    for pose in far:
        shown = seen(tight, pose)
        assert tight.tiles.in_ram <= 4000
        assert 20 < psnr(shown, pose) <= psnr(seen(free, pose), pose)
    assert len(tight) == len(free)


def test_what_is_prefetched_is_what_would_be_read(tmp_path: Path) -> None:
    cache = cached(config(points=10**6), walk(), tmp_path)
    cache.commit()
    again, plain = (WorldCache.open(tmp_path, config(points=10**6)) for _ in range(2))
    again.prefetch(torch.stack(walk()), INTRINSICS.expand(8, 3, 3), size=SIZE)
    assert again.tiles._coming and not plain.tiles._coming
    for pose in walk():
        assert same(seen(again, pose), seen(plain, pose))
    again.prefetch(torch.empty(0, 4, 4), torch.empty(0, 3, 3), size=SIZE)  # beyond the end of a path
    assert not again.tiles._coming


def test_the_order_of_frames_and_of_threads_does_not_matter_to_a_picture() -> None:
    poses = walk()
    forth, back = config("all"), config("all")
    one, other = cached(forth, poses), WorldCache(back)
    for time in reversed(range(len(poses))):
        add(other, *room(poses[time]), poses[time], time=time)
    one.commit()
    other.commit()
    threads = torch.get_num_threads()
    try:
        pictures = []
        for count in (1, 2):
            torch.set_num_threads(count)
            pictures += [seen(one, poses[2]), seen(other, poses[2])]
    finally:
        torch.set_num_threads(threads)
    assert all(same(pictures[0], picture) for picture in pictures)


KILLED = """
import sys, torch
sys.path.insert(0, ".")
from tests.memory.test_world_cache import *
cache = cached(config(points=3000), walk(3), __import__("pathlib").Path(sys.argv[1]))
cache.commit()
print("committed", flush=True)
for time, pose in enumerate(walk(40)):
    add(cache, *room(pose), pose, time=3 + time)
    cache.render(pose[None], K, size=SIZE)
    print(time, flush=True)
"""


def test_a_killed_process_leaves_the_last_commit(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "committed\n"
        for _ in range(4):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    committed = cached(config(), walk(3))
    committed.commit()
    opened = WorldCache.open(tmp_path, config(points=10**6))
    assert len(opened) == len(committed)
    for pose in walk(3):
        assert same(seen(opened, pose), seen(committed, pose))
    named = {tile.file for tile in opened.tiles._tiles.values()}
    assert {path.name for path in tmp_path.glob("*.safetensors")} == named, "nothing else is left behind"


def test_a_full_disk_is_one_sentence_and_every_point_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = [camera(place=(1000.0 * k, 0.0, 0.0)) for k in range(3)]
    cache = cached(config(points=10**6), far, tmp_path)
    whole = len(cache)
    cache.tiles.budget = TileBudget(points=4000, side=100.0)

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match=r"cannot be written \(No space left.*: free some space"):
            seen(cache, far[0])
        with pytest.raises(UserError, match="free some space"):
            cache.commit()
        assert len(cache) == whole
    assert psnr(seen(cache, far[0]), far[0]) > 20 and len(cache) == whole


@pytest.mark.parametrize(
    "spoil,said",
    [
        (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": "x"}'), "holds no world"),
        (lambda folder: next(folder.glob("*.safetensors")).unlink(), "lacks its file"),
        (lambda folder: (folder / "manifest.json").unlink(), "cannot be read"),
    ],
)
def test_a_broken_folder_is_one_sentence(tmp_path: Path, spoil, said: str) -> None:
    cached(config(points=10**6), walk(2), tmp_path).commit()
    spoil(tmp_path)
    with pytest.raises(UserError, match=said):
        WorldCache.open(tmp_path)


def test_a_truncated_tile_is_one_sentence(tmp_path: Path) -> None:
    cached(config(points=10**6), walk(2), tmp_path).commit()
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read"):
        seen(WorldCache.open(tmp_path), walk(2)[0])


def test_budgets_that_hold_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="0 points"):
        TileBudget(points=0)
    with pytest.raises(UserError, match="side 0"):
        TileBudget(side=0)


def test_a_first_part_of_a_tile_is_an_even_sample() -> None:
    torch.manual_seed(0)
    place = torch.rand(3, 4096) * 90
    zeros = torch.zeros(4096)
    points = Surfels(
        place, torch.zeros(3, 4096).byte(), zeros + 1, zeros.int(), zeros.bool(), zeros.byte().expand(3, -1)
    )
    share = (points.rank < 64).float()
    assert 0.2 < share.mean() < 0.3
    halves = [share[place[axis] < 45].mean() for axis in range(3)]
    assert all(0.19 < half < 0.31 for half in halves)
    tiles = PointTiles(TileBudget(points=None))
    tiles.add(points)
    assert len(tiles) == 4096
