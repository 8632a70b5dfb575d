"""Which frames are found: by a plain Algorithm 1, and what must not change it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamwalk.cameras import project
from dreamwalk.memory.frustum import Cameras, bounds, lifted, points_ahead
from dreamwalk.memory.retrieval import RetrievalConfig, Retrieved, retrieve

SIZE = (48, 64)
FOCAL = 32.0
CONFIG = RetrievalConfig(count=4, radius=100.0, reach=100.0, points=256)


def camera(
    x: float = 0.0, y: float = 0.0, z: float = 0.0, *, heading: float = 0.0, up: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Pose and intrinsics of an upright camera; it looks up by moving its principal point."""
    c, s = math.cos(math.radians(heading)), math.sin(math.radians(heading))
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[s, 0, c], [-c, 0, s], [0, -1, 0]])
    pose[:3, 3] = torch.tensor([x, y, z])
    middle = SIZE[0] / 2 + FOCAL * math.tan(math.radians(up))
    return pose, torch.tensor([[FOCAL, 0, SIZE[1] / 2], [0, FOCAL, middle], [0, 0, 1]])


def cameras(*given: tuple[Tensor, Tensor], times: list[int] | None = None) -> Cameras:
    pose, intrinsics = (torch.stack(x) for x in zip(*given, strict=True))
    return Cameras(pose, intrinsics, SIZE, torch.tensor(times or list(range(len(given)))))


def scattered(count: int, *, seed: int = 0, side: float = 120.0) -> Cameras:
    chance = np.random.default_rng(seed)
    places = chance.uniform(-side, side, (count, 2))
    return cameras(
        *(
            camera(x, y, chance.normal(0, 5), heading=chance.uniform(0, 360), up=chance.uniform(-20, 20))
            for x, y in places
        )
    )


def times_of(bank: Cameras, found: Retrieved) -> list[int]:
    assert bank.time is not None
    return bank.time[found.indices][found.valid].tolist()


def same(a: Retrieved, b: Retrieved) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)


def algorithm_1(
    bank: Cameras, target: Cameras, *, time: int, before: int, config: RetrievalConfig
) -> list[int]:
    """The paper's, in loops over all frames before the window."""
    points = points_ahead(target, config.points, radius=config.radius)[0].numpy()
    shows = {}
    for i in range(before):
        pixels, depth = project(
            points, intrinsics=bank.intrinsics[i].numpy(), world_from_camera=bank.pose[i].numpy()
        )
        near = np.linalg.norm(points - bank.pose[i, :3, 3].numpy(), axis=1) <= (config.reach or math.inf)
        inside = (pixels >= 0).all(1) & (pixels <= (SIZE[1], SIZE[0])).all(1)
        shows[i] = inside & (depth > 0) & near
    left, picks = dict(shows), []
    while left and len(picks) < config.count:
        best = max(left, key=lambda i: (left[i].mean() - 0.2 / time * (time - i), i))
        picks.append(best)
        one = shows[best]
        left = {
            i: two
            for i, two in left.items()
            if i != best and (one & two).sum() <= config.similarity * (one | two).sum()
        } | {i: two for i, two in left.items() if i != best and not (one | two).any()}
    return picks


def test_a_frame_sees_what_its_pinhole_shows() -> None:
    """As `dreamwalk.cameras` projects, with every principal point."""
    bank = scattered(40).double()
    points = points_ahead(bank.rows(slice(1)), 500, radius=100.0)[0]
    origin = points.mean(0)
    seen = (bounds(bank, origin, unit=50.0, reach=None) @ lifted(points, origin, unit=50.0) >= 0).all(1)
    for i in range(40):
        pixels, depth = project(
            points.numpy(), intrinsics=bank.intrinsics[i].numpy(), world_from_camera=bank.pose[i].numpy()
        )
        inside = (pixels >= 0).all(1) & (pixels <= (SIZE[1], SIZE[0])).all(1) & (depth > 0)
        assert (seen[i].numpy() == inside).all()
    assert seen[0].all() and 0 < seen[1:].float().mean() < 0.5


@pytest.mark.parametrize("reach", [60.0, None])
def test_it_is_algorithm_1(reach: float | None) -> None:
    """Though only frames near the target are looked at."""
    for seed in range(5):
        bank, target = scattered(80, seed=seed), scattered(1, seed=seed + 100, side=50)
        config = replace(CONFIG, count=6, reach=reach)
        found = retrieve(bank, target, time=80, before=72, config=config)
        assert times_of(bank, found) == algorithm_1(bank, target, time=80, before=72, config=config)


@pytest.mark.parametrize("mode", ["greedy", "confidence", "random", "per-part"])
def test_order_and_number_of_frames_change_nothing(mode: str) -> None:
    bank, target = scattered(700, side=300), scattered(1, seed=7, side=20)
    config = replace(CONFIG, mode=mode)
    found = retrieve(bank, target, time=700, before=690, config=config)
    order = torch.from_numpy(np.random.default_rng(0).permutation(700))
    mixed = retrieve(bank.rows(order), target, time=700, before=690, config=config)
    assert torch.equal(order[mixed.indices], found.indices) and torch.equal(mixed.overlap, found.overlap)
    if mode != "random":
        kept = torch.zeros(700, dtype=torch.bool)
        kept[::3] = kept[0] = True
        kept[found.indices] = True
        few = retrieve(bank.rows(kept.nonzero()[:, 0]), target, time=700, before=690, config=config)
        assert torch.equal(few.age, found.age) and torch.equal(few.overlap, found.overlap)


@pytest.mark.parametrize("mode", ["greedy", "confidence", "random", "per-part", "released"])
def test_frames_that_are_all_alike_fill_the_slots(mode: str) -> None:
    """The first pick covers all there is to cover; nothing is NaN, nothing comes twice."""
    bank = cameras(*[camera()] * 9)
    config = replace(CONFIG, mode=mode)
    found = retrieve(bank, cameras(camera()), time=9, before=9, config=config)
    assert found.valid.all() and len(set(found.indices.tolist())) == 4 and found.overlap.isfinite().all()
    if mode in ("greedy", "confidence"):
        assert times_of(bank, found) == [8, 7, 6, 5] and (found.overlap == 1).all()


@pytest.mark.parametrize("mode", ["greedy", "confidence", "random", "per-part"])
def test_the_window_is_left_out(mode: str) -> None:
    bank, config = cameras(*[camera()] * 5), replace(CONFIG, mode=mode)
    found = retrieve(bank, cameras(camera()), time=5, before=2, config=config)
    assert sorted(times_of(bank, found)) == [0, 1]
    assert found.valid.tolist() == [True, True, False, False] and not found.indices[2:].any()
    nothing = retrieve(bank, cameras(camera()), time=5, before=0, config=config)
    assert not nothing.valid.any() and not nothing.overlap.any()
    empty = retrieve(bank.rows(slice(0)), cameras(camera()), time=5, before=2, config=config)
    assert same(empty, nothing)


def test_the_window_is_left_out_with_fewer_left_than_asked_for() -> None:
    """Also when there are many frames in the window."""
    bank = cameras(*[camera()] * 200)
    found = retrieve(bank, cameras(camera()), time=200, before=3, config=CONFIG)
    assert times_of(bank, found) == [2, 1, 0]


@pytest.mark.parametrize("mode", ["greedy", "per-part"])
def test_of_many_like_frames_the_newest_stand_for_all(mode: str) -> None:
    """A walk that comes back to 40 poses for ever finds what it finds when all frames are looked at."""
    poses, target = scattered(40, side=60), cameras(*(camera(heading=h) for h in (0, 100, 200)))
    bank = poses.rows(torch.arange(2000) % 40)
    bank = replace(bank, time=torch.arange(2000))
    config = replace(CONFIG, mode=mode)
    found = [
        retrieve(bank, target, time=2000, before=1990, config=replace(config, most=most))
        for most in (50, None)
    ]
    assert same(*found) and (mode == "greedy" or found[0].indices[0] == 0)


def test_looking_down_is_not_looking_up() -> None:
    """From higher up one has to look down to see the same; the release takes the one that looks up."""
    high = [camera(-20, z=40, up=up) for up in (-30, 30)]
    bank, target = cameras(*high, *[camera(500)] * 8), cameras(camera())
    for mode, best in (("confidence", 0), ("released", 1)):
        config = replace(CONFIG, mode=mode, points=2000)
        found = retrieve(bank, target, time=100, before=10, config=config)
        assert found.indices[0] == best and found.overlap[0] > 0.2


def test_what_is_behind_a_wall_is_not_seen() -> None:
    """Two frames look the same way; the newer one stands before a wall, as its depth tells."""
    bank = cameras(camera(), camera())
    depth = torch.zeros(2, 6, 8)
    depth[1] = 10.0
    bank, target = replace(bank, depth=depth), cameras(camera())
    for occlusion, best in ((False, 1), (True, 0)):
        config = replace(CONFIG, occlusion=occlusion)
        found = retrieve(bank, target, time=2, before=2, config=config)
        assert found.indices[0] == best
    half = depth.clone()
    half[1, :, :4] = 0  # nothing is known of the left
    found = retrieve(replace(bank, depth=half), target, time=2, before=2, config=config)
    assert found.overlap[found.valid & (found.indices == 1)].item() == pytest.approx(0.5, abs=0.05)


def test_given_points_are_covered() -> None:
    """In place of what lies ahead, which is what counts when there are none."""
    bank, target = cameras(camera(heading=90), camera(heading=-90)), cameras(camera(heading=0))
    for side, best in ((50.0, 0), (-50.0, 1)):
        points = torch.tensor([[0.0, side, 0.0], [3.0, side, 1.0]])
        found = retrieve(bank, target, time=2, before=2, config=CONFIG, points=points)
        assert found.indices[0] == best and found.overlap[0] == 1
    nothing = retrieve(bank, target, time=2, before=2, config=CONFIG, points=torch.zeros(0, 3))
    assert same(nothing, retrieve(bank, target, time=2, before=2, config=CONFIG))


def test_each_part_of_what_comes_has_a_frame_of_its_own() -> None:
    """After the first frame of the session (Matrix-Game 3.0)."""
    bank = cameras(*(camera(heading=h) for h in (200, 0, 90, 180, 0, 90, 180, 300)))
    target = cameras(*(camera(heading=h) for h in (0, 90, 180)))
    found = retrieve(bank, target, time=8, before=8, config=replace(CONFIG, mode="per-part"))
    assert times_of(bank, found) == [0, 4, 5, 6]


def test_the_release_has_nothing_left_after_a_pick() -> None:
    """And goes on with frames 0, 1, 2, though others see more; it takes frames from the window too."""
    bank = cameras(*(camera(1000, heading=180) for _ in range(8)), camera(-1, 0), camera())
    config = replace(CONFIG, mode="released", points=4000)
    found = retrieve(bank, cameras(camera()), time=10, before=2, config=config)
    assert found.indices.tolist() == [9, 0, 1, 2]
    assert same(found, retrieve(bank, cameras(camera()), time=10, before=2, config=config))
    few = retrieve(bank.rows(slice(3)), cameras(camera()), time=3, before=3, config=config)
    assert few.indices.tolist() == [0, 1, 2, 0] and few.valid.tolist() == [True, True, True, False]
