"""The map from above of a box room: walls where they are, and the floor's colour inside."""

import numpy as np
import pytest
import torch

from dreamwalk.cameras import camera_rays, intrinsics_matrix
from dreamwalk.memory.level_map import REACH, SIDE, WALL, draw_map
from dreamwalk.memory.point_cloud import PointCloud
from dreamwalk.worlds.doom import pose_matrix

SIZE = 96, 128
LOW, HIGH = np.array([-150.0, -90.0, 0.0]), np.array([210.0, 130.0, 112.0])
FLOOR, PAINT, CEILING = (60, 160, 80), (200, 60, 40), (30, 40, 250)
EYES = (20.0, -10.0, 41.0)


def room(*, sky: bool = False, lift: float = 0.0) -> PointCloud:
    """Seen all around, everything `lift` units higher; under an open sky or a ceiling."""
    cloud, matrix = PointCloud(), intrinsics_matrix(64, 64, cx=64, cy=48)
    for turn in range(8):
        pose = pose_matrix((EYES[0], EYES[1], EYES[2]), 45.0 * turn)
        rays = camera_rays(matrix, SIZE) @ pose[:3, :3].T
        with np.errstate(divide="ignore"):
            to = np.where(rays > 0, (HIGH - EYES) / rays, (LOW - EYES) / rays)
        depth, axis, up = to.min(-1), to.argmin(-1), rays[..., 2] > 0
        above = (axis == 2) & up
        paint = np.select([above, axis == 2], [0, 1], 2)
        rgb = torch.from_numpy(np.array([CEILING, FLOOR, PAINT])[paint]).permute(2, 0, 1) / 127.5 - 1
        depth = torch.from_numpy(np.where(above & sky, 0.0, depth)).float()
        pose[2, 3] += lift
        camera = torch.from_numpy(pose).float(), torch.from_numpy(matrix).float()
        cloud.insert(rgb, depth, *camera, time=turn, dreamed=turn > 0, edges=float("inf"))
    return cloud


@pytest.mark.parametrize(("sky", "lift"), [(False, 0.0), (True, 0.0), (False, -1000.0)])
def test_walls_are_where_they_are_and_the_floor_is_inside(sky: bool, lift: float) -> None:
    eyes = torch.tensor(EYES) + torch.tensor([0, 0, lift])
    picture, (left, top, scale) = draw_map(room(sky=sky, lift=lift), eyes, highest=float(eyes[2]))
    assert picture.shape == (SIDE, SIDE, 4) and picture.dtype == np.uint8
    x, y = left + (np.arange(SIDE) + 0.5) * scale, top - (np.arange(SIDE) + 0.5) * scale
    outside = np.maximum(
        np.maximum(LOW[0] - x, x - HIGH[0])[None], np.maximum(LOW[1] - y, y - HIGH[1])[:, None]
    )
    known, wall = picture[..., 3] > 0, (picture[..., :3] == WALL).all(-1)
    assert not known[outside > 2 * scale].any()
    inside = outside < -3 * scale
    below_the_picture = np.hypot(x[None] - EYES[0], y[:, None] - EYES[1]) < 64
    assert known[inside & ~below_the_picture].mean() > 0.85 and not wall[inside].any()
    assert np.abs(picture[inside & known][:, :3] / 0.95 - FLOOR).max() < 4, "no ceiling, no sky, no walls"
    assert wall[np.abs(outside) < 2 * scale].mean() > 0.15 and wall.sum() > 180
    assert (x[-1] - x[0]) < 3 * (HIGH - LOW).max(), "the room fills a good part of the map"


def test_what_lies_higher_than_the_eyes_were_is_no_floor() -> None:
    eyes = torch.tensor(EYES)
    assert draw_map(room(), eyes, highest=41.0)[0][..., 3].any()
    assert not draw_map(room(lift=200.0), eyes, highest=41.0)[0].any()
    assert draw_map(room(lift=200.0), eyes, highest=241.0)[0][..., 3].any(), "who was up there has seen it"


def test_an_empty_cloud_and_a_far_one_are_an_empty_map() -> None:
    eyes = torch.tensor(EYES)
    for cloud, at in ((PointCloud(), eyes), (room(), eyes + 3 * REACH)):
        picture, place = draw_map(cloud, at, highest=float(at[2]))
        assert not picture.any() and np.isfinite(place).all()
