"""The cloud of points of a session: its pictures, its bound, its layers, its file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.memory.depth_alignment import align_depth
from dreamwalk.memory.frame_points import FAR, points_of_frame
from dreamwalk.memory.point_cloud import CloudBudget, PointCloud
from dreamwalk.memory.splatting import Points, Rendering, projection, render

SIZE = (48, 64)
INTRINSICS = torch.tensor([[32.0, 0, 32], [0, 32, 24], [0, 0, 1]])


def camera(turn: float = 0.0, *, place: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """A pose turned about the vertical."""
    c, s = math.cos(turn), math.sin(turn)
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    pose[:3, 3] = torch.tensor(place)
    return pose


def room(pose: Tensor, half: float = 200.0) -> tuple[Tensor, Tensor]:
    """Colours and depth of a cube of a room with smooth walls, one every 1000 units, as seen from inside."""
    y, x = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    ray = pose[:3, :3] @ torch.stack([(x - 32) / 32, (y - 24) / 32, torch.ones_like(x)]).flatten(1)
    start = pose[:3, 3:] - (pose[:3, 3:] / 1000).round() * 1000
    depth = ((ray.sign() * half - start) / ray).amin(0)
    place = ray * depth + start
    return (place / 40).sin().view(3, *SIZE), depth.view(SIZE)


def add(cloud: PointCloud, pose: Tensor, *, time: int, dreamed: bool = False, half: float = 200.0) -> None:
    colours, depth = room(pose, half)
    cloud.insert(colours, depth, pose, INTRINSICS, time=time, dreamed=dreamed, edges=math.inf)


def walked(budget: CloudBudget, *, steps: int = 12) -> PointCloud:
    """A turn on a small circle."""
    cloud = PointCloud(budget)
    for i in range(steps):
        add(cloud, camera(i * 0.4, place=(30 * math.sin(i), 0, 30 * math.cos(i))), time=i)
    return cloud


def same(a: Points | Rendering, b: Points | Rendering) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)


def test_points_project_to_the_centres_of_their_pixels() -> None:
    pose = camera(0.7, place=(300.0, -20.0, 1000.0))
    points = points_of_frame(*room(camera()), pose, INTRINSICS, time=3, dreamed=False, edges=math.inf)
    matrix = projection(pose, INTRINSICS).double()
    x, y, z = matrix[:, :3] @ points.position.double() + matrix[:, 3:]
    centres = torch.stack([x / z, y / z]) - 0.5
    assert (centres - centres.round()).abs().max() < 1e-3
    assert len(torch.unique(centres.round(), dim=1)[0]) == SIZE[0] * SIZE[1]
    assert torch.allclose(points.footprint, (z / 32).float(), rtol=1e-4)


def test_what_was_seen_comes_back() -> None:
    """Another view of a room that was seen: 30 dB, no holes. The sky comes back as sky does: far."""
    cloud, pose = walked(CloudBudget()), camera(1.0, place=(10.0, 5.0, -15.0))
    drawn, (colours, depth) = cloud.render(pose, INTRINSICS, size=SIZE), room(pose)
    assert 10 * torch.log10(4 / (drawn.rgb[0] - colours).square().mean()) > 30
    assert ((drawn.depth[0] / depth - 1).abs() < 0.05).float().mean() > 0.98
    assert not drawn.dreamed.any() and (drawn.mask > 0).all()
    sky = PointCloud()
    sky.insert(colours, torch.zeros(SIZE), pose, INTRINSICS, time=0, dreamed=False)
    assert (sky.render(pose, INTRINSICS, size=SIZE).depth[0] / FAR - 1).abs().max() < 1e-3


def test_pictures_are_the_same_bits_for_any_order_and_threads() -> None:
    points, pose = walked(CloudBudget(voxel=None), steps=30).points(), camera(0.3)
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    mixed = Points(*(getattr(points, name)[..., order] for name in points.__dataclass_fields__))
    threads, pictures = torch.get_num_threads(), []
    try:
        for count, cloud in ((1, points), (2, mixed), (3, points)):
            torch.set_num_threads(count)
            pictures.append(render([cloud], pose[None], intrinsics=INTRINSICS[None], size=SIZE))
    finally:
        torch.set_num_threads(threads)
    assert same(pictures[0], pictures[1]) and same(pictures[0], pictures[2])


def test_selection_of_what_is_in_view_leaves_nothing_out() -> None:
    """The cloud's picture is that of all its points, but for a few far ones that it thins."""
    cloud = walked(CloudBudget())
    for turn in (0.0, 1.9, 4.0):
        pose = camera(turn, place=(60.0, 0.0, 20.0))
        whole = render([cloud.points()], pose[None], intrinsics=INTRINSICS[None], size=SIZE)
        assert (cloud.render(pose, INTRINSICS, size=SIZE).rgb - whole.rgb).abs().mean() < 0.01


@pytest.mark.parametrize("voxel", [None, 1.0])
def test_a_cap_that_is_not_reached_changes_nothing(voxel: float | None) -> None:
    capped, free = (walked(CloudBudget(cap, voxel)) for cap in (100_000, None))
    assert same(capped.points(), free.points())


def test_voxels_keep_a_standing_camera_from_adding() -> None:
    """Also while the cloud grows; but for the few whose rows of the table were full before it."""
    cloud, counts = PointCloud(), [0]
    for i in range(12):
        for _ in range(2):
            add(cloud, camera(place=(1000.0 * i, 0, 0)), time=i)
            counts.append(len(cloud))
    added = torch.tensor(counts).diff()
    assert added[1::2].sum() < 0.01 * added[::2].sum() and (added[::2] > 0.3 * SIZE[0] * SIZE[1]).all()


@pytest.mark.parametrize(("cap", "voxel"), [(1, 1.0), (50, None), (1000, 1.0), (8000, None), (8000, 1.0)])
def test_a_cap_holds(cap: int, voxel: float | None) -> None:
    cloud = PointCloud(CloudBudget(cap, voxel))
    for i in range(30):
        add(cloud, camera(i * 0.5, place=(1000.0 * (i // 4), 0, 0)), time=i, dreamed=i % 3 == 2)
        assert 0 < len(cloud) <= cap
    assert len(set(map(tuple, cloud.points().position.T.tolist()))) == len(cloud)
    drawn = cloud.render(camera(29 * 0.5, place=(7000.0, 0, 0)), INTRINSICS, size=SIZE)
    assert cap < 8000 or (drawn.mask > 0).float().mean() > 0.9  # the view that was last is kept


def test_what_was_dreamed_is_evicted_first_then_what_was_long_out_of_view() -> None:
    cloud, kept = PointCloud(CloudBudget(9000, None)), []
    for i in range(5):
        add(cloud, camera(place=(5000.0 * i, 0, 0)), time=i, dreamed=i == 1)
        kept.append(torch.bincount(cloud.points().time, minlength=5).tolist())
    frame = SIZE[0] * SIZE[1]
    assert kept[2] == [frame, 8960 - 2 * frame, frame, 0, 0]
    assert kept[3] == [8960 - 2 * frame, 0, frame, frame, 0]
    assert kept[4] == [0, 0, 8960 - 2 * frame, frame, frame]


def test_true_points_win_over_dreamed_ones() -> None:
    """A wall dreamed in front of a true one does not hide it; beside it, where nothing true is, it shows."""
    cloud, pose = PointCloud(), camera()
    colours, depth = torch.zeros(3, *SIZE), torch.full(SIZE, 100.0)
    half = torch.zeros(SIZE, dtype=torch.bool)
    half[:, 32:] = True
    left = points_of_frame(-colours - 1, depth, pose, INTRINSICS, time=0, dreamed=False, wanted=~half)
    cloud._merge(left, time=0, dreamed=False)
    cloud.insert(colours + 1, depth * 0.5, pose, INTRINSICS, time=1, dreamed=True)
    drawn = cloud.render(pose, INTRINSICS, size=SIZE)
    assert torch.allclose(drawn.rgb[0, :, :, :32], torch.tensor(-1.0))
    assert torch.allclose(drawn.rgb[0, :, :, 36:], torch.tensor(1.0), atol=0.01)
    assert torch.equal(drawn.dreamed[0, :, 36:], torch.ones(48, 28)) and not drawn.dreamed[0, :, :32].any()


def test_a_saved_cloud_goes_on_as_the_same(tmp_path: Path) -> None:
    cloud = walked(CloudBudget(6000, 1.0))
    add(cloud, camera(2.0, place=(2000.0, 0, 0)), time=20, dreamed=True)
    cloud.save(tmp_path / "a.cloud")
    copies = [PointCloud.open(tmp_path / "a.cloud"), cloud.clone(), cloud.to("cpu")]
    before = cloud.points()
    add(cloud, camera(4.0, place=(2100.0, 0, 0)), time=21)
    for copy in copies:
        assert copy.budget == cloud.budget and same(copy.points(), before)
        add(copy, camera(4.0, place=(2100.0, 0, 0)), time=21)
        assert same(copy.points(), cloud.points())


def test_a_broken_or_foreign_file_is_one_sentence(tmp_path: Path) -> None:
    import safetensors.torch

    path = tmp_path / "a.cloud"
    walked(CloudBudget(voxel=1.0), steps=1).save(path)
    whole = path.read_bytes()
    foreign = safetensors.torch.save({"x": torch.zeros(1)})
    broken = [whole[:-100], b"", foreign, whole.replace(b'\\"voxel\\": 1.0', b'\\"voxel\\": -1.')]
    broken += [whole.replace(b'"widest"', b'"tallest'), whole.replace(b'\\"open\\"', b'\\"shut\\"')]
    broken += [whole.replace(b'"I64"', b'"F64"'), whole.replace(b"[[", b"[[9")]
    for data in broken:
        assert data != whole
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"a\.cloud|voxels"):
            PointCloud.open(path)
    with pytest.raises(UserError, match="cannot be read"):
        PointCloud.open(tmp_path / "none.cloud")


def test_a_budget_of_nothing_is_one_sentence() -> None:
    with pytest.raises(UserError, match="0 points keeps nothing"):
        CloudBudget(0)
    with pytest.raises(UserError, match="voxels of 0"):
        CloudBudget(voxel=0.0)


def test_alignment_finds_the_factor() -> None:
    """Though half is unknown, a tenth is of other surfaces, and there is noise; not from a few pixels."""
    depth = room(camera(0.4))[1]
    noise = (0.05 * torch.randn(SIZE, generator=torch.Generator().manual_seed(0))).exp()
    known = depth.clone()
    known[:, :32] = 0
    known[:5] *= 1.4
    assert (align_depth(depth * noise * 1.2, known) / (depth * noise) - 1).abs().max() < 0.01
    few = torch.zeros(SIZE)
    few[0, :50] = depth[0, :50]
    assert torch.equal(align_depth(depth * 1.2, few), depth * 1.2)


def test_a_dreamed_frame_is_aligned_to_true_ones() -> None:
    """A turned view of a known room at 1.2 times its depth: what it adds lies on the walls."""
    cloud, errors = PointCloud(), []
    add(cloud, camera(), time=0)
    for aligned in (True, False):
        dream = cloud.clone()
        dream.budget = CloudBudget(aligned=aligned)
        colours, depth = room(camera(0.5))
        dream.insert(colours, depth * 1.2, camera(0.5), INTRINSICS, time=1, dreamed=True)
        points = dream.points()
        errors.append(float((points.position[:, points.dreamed].abs().amax(0) - 200).abs().median()))
    assert errors[0] < 2 and errors[1] > 30
