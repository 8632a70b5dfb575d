"""What vanished is erased from a cloud, what is a little wrong is not, and dreams change what is true only
when told that something was changed."""

from __future__ import annotations

import math

import pytest
import torch
from box_room import dream_of_rooms, walk
from torch import Tensor

from dreamwalk.codecs.rgbd import codec_input, depth_channel
from dreamwalk.memory.contract import CameraState, FinishedFrame, Recollection
from dreamwalk.memory.pixel_filter import PixelFilterConfig
from dreamwalk.memory.point_cloud import PointCloud
from dreamwalk.memory.points import Clouds, PointsConfig
from dreamwalk.memory.splatting import Rendering

SIZE = (48, 64)
INTRINSICS = torch.tensor([[32.0, 0, 32], [0, 32, 24], [0, 0, 1]])
POSE = torch.eye(4)
BOX = (slice(14, 34), slice(26, 38))
"""Pixels of a box that stands 80 units ahead, before a wall at 200."""


def scene(*, box: bool, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    depth, rgb = torch.full(SIZE, 200.0 + shift), torch.full((3, *SIZE), -0.5)
    if box:
        depth[BOX], rgb[:, BOX[0], BOX[1]] = 80.0, 0.8
    return rgb, depth


def write(cloud: PointCloud, *, box: bool, time: int, dreamed: bool = False, reach: float = 0.0) -> None:
    cloud.insert(*scene(box=box), POSE, INTRINSICS, time=time, dreamed=dreamed, edges=math.inf, reach=reach)


def shows_box(cloud: PointCloud) -> bool:
    depth = cloud.render(POSE, INTRINSICS, size=SIZE).depth[0]
    return bool((depth[BOX] < 100).float().mean() > 0.5)


def test_what_is_seen_now_wins_over_what_was_stored() -> None:
    cloud = PointCloud()
    write(cloud, box=True, time=0)
    assert shows_box(cloud)
    write(cloud, box=False, time=1)
    assert not shows_box(cloud) and (cloud.points().position[2] > 100).all()
    drawn = cloud.render(POSE, INTRINSICS, size=SIZE)
    assert (drawn.depth[0] - 200).abs().max() < 1 and torch.allclose(drawn.rgb, torch.tensor(-0.5), atol=0.01)
    write(cloud, box=True, time=2)
    assert shows_box(cloud), "its voxels are free again"


def test_erased_points_stay_away_in_files_copies_and_after_growth(tmp_path) -> None:
    cloud = PointCloud()
    write(cloud, box=True, time=0)
    write(cloud, box=False, time=1)
    cloud.save(tmp_path / "a.cloud")
    far = POSE.clone()
    far[:3, 3] = torch.tensor([9000.0, 0, 0])
    points = len(cloud.points())
    for copy in (cloud.clone(), PointCloud.open(tmp_path / "a.cloud")):
        assert len(copy) == points and not shows_box(copy)
        for k in range(8):
            far[0, 3] += 2000
            copy.insert(*scene(box=True), far, INTRINSICS, time=2 + k, dreamed=False, edges=math.inf)
        assert not shows_box(copy)
    assert not len(cloud.near(torch.tensor([0.0, 0, 80]), 30)[0])


@pytest.mark.parametrize("dreamed", [False, True])
@pytest.mark.parametrize("wrong", [0.9, 1.0, 1.1])
def test_depth_that_is_a_little_wrong_erases_nothing(dreamed: bool, wrong: float) -> None:
    """Nor does one that is shifted by a pixel, as at edges."""
    cloud = PointCloud()
    write(cloud, box=True, time=0)
    before = set(map(tuple, cloud.points().position.T.tolist()))
    rgb, depth = scene(box=True)
    for shifted in (depth * wrong, depth.roll(1, 1), depth.roll(-1, 0)):
        cloud.insert(rgb, shifted, POSE, INTRINSICS, time=1, dreamed=dreamed, edges=math.inf)
    assert before <= set(map(tuple, cloud.points().position.T.tolist()))


def test_dreamed_frames_erase_what_was_dreamed_and_leave_alone_what_is_true() -> None:
    for first, gone in ((True, True), (False, False)):
        cloud = PointCloud()
        write(cloud, box=True, time=0, dreamed=first)
        write(cloud, box=False, time=1, dreamed=True)
        assert shows_box(cloud) != gone


def test_a_dream_changes_what_is_true_near_by_when_an_action_did() -> None:
    cloud = PointCloud()
    write(cloud, box=True, time=0)
    write(cloud, box=False, time=1, dreamed=True, reach=60)
    assert shows_box(cloud), "out of reach"
    write(cloud, box=False, time=2, dreamed=True, reach=128)
    assert not shows_box(cloud)
    cloud = PointCloud()
    write(cloud, box=False, time=0)
    write(cloud, box=True, time=1, dreamed=True)
    assert not shows_box(cloud), "what is true is not hidden by a dream"
    write(cloud, box=True, time=2, dreamed=True, reach=128)
    assert shows_box(cloud), "but for what it was told to put down"


def test_far_pixels_do_not_deny_what_they_cannot_see() -> None:
    """Fine points, seen from 12 times as far away than from where they were stored."""
    near, far = PointCloud(), POSE.clone()
    write(near, box=True, time=0)
    far[2, 3] = -900.0
    before = len(near)
    near.insert(torch.zeros(3, *SIZE), torch.full(SIZE, 1300.0), far, INTRINSICS, time=1, dreamed=False)
    assert len(near) > before, "all of the box, and of the wall, and what is new"
    assert shows_box(near)


def test_the_action_that_changes_things_is_watched_for_a_while() -> None:
    clip = walk([(0, 0, 0)] * 3)
    camera, rgbd = CameraState.of_clip(clip, 0), codec_input(clip, 4)[:, 0]
    press, still = torch.eye(7)[4:5], torch.zeros(1, 7)
    for column, expected in ((None, [0, 0, 0, 0]), (4, [0, 128, 128, 0])):
        clouds = Clouds(dream_of_rooms(PointsConfig(changing=column)).memory)
        for (time, action), reach in zip(
            ((0, still), (1, press), (8, still), (9, still)), expected, strict=True
        ):
            frame = FinishedFrame(rgbd[:, :0], action, camera, time, rgbd)
            assert clouds._reach(frame) == [reach]


def test_what_was_just_changed_is_not_painted_over_with_what_was_there() -> None:
    """A box that a dream puts down before a wall that is known, and one that it takes away."""
    config = PointsConfig(pixels=PixelFilterConfig(width=8, blocks=1), changing=4)
    memory = dream_of_rooms(config).memory
    press, still = torch.eye(7)[4:5], torch.zeros(1, 7)
    for box in (True, False):
        (rgb, depth), (known, far) = scene(box=box), scene(box=not box)
        ones = torch.ones(1, *SIZE)
        shown = Rendering(known[None], far[None], ones, 0 * ones)
        frame = torch.cat([rgb, depth_channel(depth)[None]])[None]
        inside = (0, slice(0, 3), slice(18, 30), slice(29, 35))
        with torch.inference_mode():
            for action, ago, kept in ((still, False, False), (press, False, True), (still, True, True)):
                found = Recollection(rendering=shown, changed=torch.tensor([ago]))
                made = memory.refine(frame, found, action)
                wrong = (made - frame)[inside].abs().mean()
                assert wrong < 0.05 if kept else wrong > 0.5
                assert (made[0, :3, :5] - known[:, :5]).abs().max() < 0.1, "elsewhere all is as it was"


def test_what_was_put_down_hides_what_is_behind_it_also_from_nearer() -> None:
    """Its points are few, and those of the wall behind are fine."""
    cloud, near = PointCloud(), POSE.clone()
    for time, step in enumerate((0.0, 13.0, 26.0)):
        near[2, 3] = step
        rgb, depth = torch.full((3, *SIZE), -0.5), torch.full(SIZE, 200.0 - step)
        cloud.insert(rgb, depth, near, INTRINSICS, time=time, dreamed=False, edges=math.inf)
    write(cloud, box=True, time=3, dreamed=True, reach=128)
    drawn = cloud.render(near, INTRINSICS, size=SIZE)
    inside = drawn.depth[0, 12:35, 24:40]
    assert (inside < 70).float().mean() > 0.99


def half_gone() -> tuple[Tensor, Tensor]:
    """The scene while a dream lets go of the box: its lower half still stands."""
    (rgb, depth), (open_rgb, open_depth) = scene(box=True), scene(box=False)
    rgb[:, :24], depth[:24] = open_rgb[:, :24], open_depth[:24]
    return rgb, depth


def test_what_was_put_down_is_taken_away_as_a_whole(tmp_path) -> None:
    """Though the dream takes some frames to let go of it; also in files and copies."""
    first = PointCloud()
    write(first, box=False, time=0)
    write(first, box=True, time=1, dreamed=True, reach=128)
    first.save(tmp_path / "a.cloud")
    for cloud in (first.clone(), PointCloud.open(tmp_path / "a.cloud")):
        assert shows_box(cloud)
        cloud.insert(*half_gone(), POSE, INTRINSICS, time=4, dreamed=True, edges=math.inf, reach=128)
        assert (cloud.points().position[2] < 100).any(), "it has only just been put down"
    for cloud in (first.clone(), PointCloud.open(tmp_path / "a.cloud")):
        for time in (20, 21):
            cloud.insert(*half_gone(), POSE, INTRINSICS, time=time, dreamed=True, edges=math.inf, reach=128)
            assert not (cloud.points().position[2] < 100).any()
        write(cloud, box=True, time=40, dreamed=True, reach=128)
        assert shows_box(cloud), "it can be put down again"


def test_only_what_the_first_frame_showed_is_added_to_what_is_put_down() -> None:
    """A later frame that shows it also where it is not would leave shells around it."""
    cloud = PointCloud()
    write(cloud, box=False, time=0)
    write(cloud, box=True, time=1, dreamed=True, reach=128)
    rgb, depth = scene(box=True)
    depth[14:34, 50:60] = 80.0
    cloud.insert(rgb, depth, POSE, INTRINSICS, time=2, dreamed=True, edges=math.inf, reach=128)
    drawn = cloud.render(POSE, INTRINSICS, size=SIZE).depth[0]
    assert shows_box(cloud) and (drawn[14:34, 50:60] > 100).all()
