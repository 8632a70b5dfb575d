import numpy as np
import pytest

from dreamwalk.cameras import (
    angle_between,
    camera_rays,
    intrinsics_matrix,
    invert,
    pixel_grid,
    project,
    relative,
    scale_intrinsics,
    transform,
    unproject,
)


def pose(yaw: float, position: tuple[float, float, float]) -> np.ndarray:
    """A camera turned right by `yaw` degrees about its own y axis."""
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    matrix = np.eye(4)
    matrix[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    matrix[:3, 3] = position
    return matrix


K = intrinsics_matrix(64, 76.8, cx=64, cy=48)


def test_pixel_centres_are_at_a_half() -> None:
    assert pixel_grid(2, 3)[1, 2].tolist() == [2.5, 1.5]
    rays = camera_rays(intrinsics_matrix(10, 10, cx=1.5, cy=0.5), (1, 3))
    assert rays[0, 1].tolist() == [0, 0, 1]
    assert np.allclose(rays[0, 2], [0.1, 0, 1])


def test_project_undoes_unproject() -> None:
    depth = np.random.default_rng(0).uniform(1, 100, (6, 8))
    world_from_camera = pose(37, (3, -2, 5))
    points = unproject(depth, intrinsics=K, world_from_camera=world_from_camera).reshape(-1, 3)
    pixels, back = project(points, intrinsics=K, world_from_camera=world_from_camera)
    assert np.allclose(pixels, pixel_grid(6, 8).reshape(-1, 2), atol=1e-4)
    assert np.allclose(back, depth.ravel())


def test_leading_axes_broadcast() -> None:
    depth = np.ones((5, 2, 4, 4))
    poses = np.stack([pose(10 * k, (k, 0, 0)) for k in range(5)])[:, None]
    points = unproject(depth, intrinsics=np.broadcast_to(K, (5, 2, 3, 3)), world_from_camera=poses)
    assert points.shape == (5, 2, 4, 4, 3)
    assert np.allclose(points[3, 1], unproject(depth[3, 1], intrinsics=K, world_from_camera=poses[3, 0]))


def test_points_behind_the_camera_have_no_pixel() -> None:
    pixels, depth = project(np.array([[0.0, 0, -1]]), intrinsics=K, world_from_camera=np.eye(4))
    assert depth[0] == -1
    assert np.isnan(pixels).all()


def test_right_and_down_are_positive() -> None:
    pixels, _ = project(np.array([[1.0, 1, 2]]), intrinsics=K, world_from_camera=np.eye(4))
    assert pixels[0, 0] > 64
    assert pixels[0, 1] > 48


def test_invert_and_relative() -> None:
    a, b = pose(20, (1, 2, 3)), pose(-50, (4, 0, -1))
    assert np.allclose(invert(a) @ a, np.eye(4))
    point = np.array([0.3, -0.7, 2.0])
    assert np.allclose(transform(a, transform(relative(a, b), point)), transform(b, point))
    assert angle_between(a, b) == pytest.approx(70)


def test_scaled_intrinsics_see_the_same_directions() -> None:
    wide = camera_rays(K, (96, 128))
    narrow = camera_rays(scale_intrinsics(K, (0.5, 0.25)), (24, 64))
    assert np.allclose(narrow[..., 0], (wide[:24, 0::2, 0] + wide[:24, 1::2, 0]) / 2, atol=1e-6)
    assert np.allclose(narrow[:, 0, 1], wide[:, 0, 1].reshape(24, 4).mean(1), atol=1e-6)
