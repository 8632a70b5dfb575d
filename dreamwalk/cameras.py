"""Cameras: intrinsics, rays, projection and relative poses, in numpy.

Cameras are OpenCV (x right, y down, z forward). The centre of pixel `(row, column)` is at
`(column + 0.5, row + 0.5)`. Depth is planar z-depth, 0 where unknown. Matrices are named after what they map:
`world_from_camera @ point_in_camera = point_in_world`. Leading axes broadcast everywhere.
"""

from __future__ import annotations

import numpy as np

EDGE = 0.04
"""Share of itself by which inverse depth changes from one pixel to the next at an edge."""


def intrinsics_matrix(fx: float, fy: float, *, cx: float, cy: float) -> np.ndarray:
    """The (3, 3) float32 matrix of a pinhole camera, in pixels."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)


def scale_intrinsics(intrinsics: np.ndarray, factor: float | tuple[float, float]) -> np.ndarray:
    """Intrinsics (..., 3, 3) of the image resized by `factor` (or by a pair: horizontally, vertically)."""
    horizontal, vertical = factor if isinstance(factor, tuple) else (factor, factor)
    matrix = np.asarray(intrinsics)
    return matrix * np.array([[horizontal], [vertical], [1.0]], np.result_type(matrix, np.float32))


def pixel_grid(height: int, width: int) -> np.ndarray:
    """Pixel centres as float32 (height, width, 2), x first."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y], axis=-1).astype(np.float32)


def camera_rays(intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The direction, with z = 1, of each pixel of a `size` (h, w) image: (..., h, w, 3) from (..., 3, 3)."""
    matrix = np.asarray(intrinsics, np.float32)[..., None, None, :, :]
    pixels = pixel_grid(*size)
    x = (pixels[..., 0] - matrix[..., 0, 2]) / matrix[..., 0, 0]
    y = (pixels[..., 1] - matrix[..., 1, 2]) / matrix[..., 1, 1]
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def unproject(depth: np.ndarray, *, intrinsics: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """World points (..., h, w, 3) of the pixels of a planar depth image (..., h, w).

    Pixels of unknown depth (0) land on the camera itself; mask them by `depth > 0`.
    """
    points = camera_rays(intrinsics, depth.shape[-2:]) * depth[..., None]
    return transform(np.asarray(world_from_camera)[..., None, None, :, :], points)


def project(
    points: np.ndarray, *, intrinsics: np.ndarray, world_from_camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (..., n, 2), x first, and planar depth (..., n) of world points (..., n, 3).

    Points at or behind the camera keep their depth <= 0 and get pixels of NaN.
    """
    local = transform(invert(world_from_camera)[..., None, :, :], points)
    depth = local[..., 2]
    safe = np.where(depth > 0, depth, np.nan)
    matrix = np.asarray(intrinsics)[..., None, :, :]
    x = matrix[..., 0, 0] * local[..., 0] / safe + matrix[..., 0, 2]
    y = matrix[..., 1, 1] * local[..., 1] / safe + matrix[..., 1, 2]
    return np.stack([x, y], axis=-1), depth


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply rigid matrices (..., 4, 4) to points (..., 3)."""
    matrix = np.asarray(matrix)
    return np.einsum("...ij,...j->...i", matrix[..., :3, :3], points) + matrix[..., :3, 3]


def invert(pose: np.ndarray) -> np.ndarray:
    """The inverse of rigid matrices (..., 4, 4): `camera_from_world` of `world_from_camera`."""
    pose = np.asarray(pose)
    inverse = np.zeros_like(pose)
    rotation = np.swapaxes(pose[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation, pose[..., :3, 3])
    inverse[..., 3, 3] = 1
    return inverse


def relative(world_from_reference: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """`reference_from_camera` (..., 4, 4): poses as seen from a reference camera."""
    return invert(world_from_reference) @ np.asarray(world_from_camera)


def angle_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angle in degrees between the orientations of two poses (..., 4, 4)."""
    turn = relative(first, second)[..., :3, :3]
    cosine = (np.trace(turn, axis1=-2, axis2=-1) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def rotation_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Rotations float64 (..., 3, 3) of quaternions (..., 4), scalar first, of any length but 0."""
    quaternion = np.asarray(quaternion, np.float64)
    w, x, y, z = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def quaternion_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternions float64 (..., 4), scalar first and not negative, of rotations (..., 3, 3).

    Of a matrix that is not quite a rotation it is that of the nearest one: the eigenvector of the largest
    eigenvalue of a symmetric 4x4 matrix (Bar-Itzhack, 2000).
    """
    r = np.asarray(rotation, np.float64)
    form = np.zeros((*r.shape[:-2], 4, 4))
    form[..., 0, 0] = np.trace(r, axis1=-2, axis2=-1)
    form[..., 0, 1:] = form[..., 1:, 0] = np.stack(
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], -1
    )
    form[..., 1:, 1:] = r + np.swapaxes(r, -1, -2) - form[..., :1, :1] * np.eye(3)
    largest = np.linalg.eigh(form)[1][..., -1]
    return np.where(largest[..., :1] < 0, -largest, largest)


def slerp(first: np.ndarray, second: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Rotations (..., 3, 3) on the shortest way from `first` to `second`, at a `share` (...) of it (Shoemake,
    1985)."""
    turn = quaternion_from_rotation(np.swapaxes(np.asarray(first), -1, -2) @ second)
    sine = np.linalg.norm(turn[..., 1:], axis=-1, keepdims=True)
    half = np.arctan2(sine, turn[..., :1]) * np.asarray(share)[..., None]
    axis = np.divide(turn[..., 1:], sine, out=np.zeros_like(turn[..., 1:]), where=sine > 0)
    return np.asarray(first) @ rotation_from_quaternion(
        np.concatenate([np.cos(half), np.sin(half) * axis], -1)
    )


def depth_discontinuities(depth: np.ndarray, *, tolerance: float = EDGE) -> np.ndarray:
    """Where a planar depth image (..., h, w) is unknown or not continuous with a neighbour, bool.

    Along a row or a column the inverse depth of any plane, however slanted, is a straight line; an edge is
    where it bends by more than `tolerance` of itself from one pixel to the next.
    """
    depth = np.asarray(depth, np.float64)
    known = np.isfinite(depth) & (depth > 0)
    nearness = np.divide(1, depth, out=np.zeros_like(depth), where=known)
    edges = ~known
    for axis in (-1, -2):
        if depth.shape[axis] >= 3:
            bend = np.abs(np.diff(nearness, n=2, axis=axis))
            margin = [(0, 0)] * depth.ndim
            margin[axis] = (1, 1)
            edges |= np.pad(bend, margin, mode="edge") > tolerance * nearness
    return edges


def depth_normals(depth: np.ndarray, *, intrinsics: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """Unit normals in the world, float64 (..., h, w, 3), of the surfaces of a depth image (..., h, w).

    They come from the neighbours of each pixel and face the camera; at `depth_discontinuities` they are 0.
    The image has two rows and two columns at least.
    """
    depth = np.where(np.isfinite(depth), depth, 0).astype(np.float64)
    points = camera_rays(intrinsics, depth.shape[-2:]).astype(np.float64) * depth[..., None]
    normals = np.cross(np.gradient(points, axis=-2), np.gradient(points, axis=-3))
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    away = np.sum(normals * points, axis=-1, keepdims=True) > 0
    normals = np.divide(
        np.where(away, -normals, normals), length, out=np.zeros_like(points), where=length > 0
    )
    turn = np.asarray(world_from_camera, np.float64)[..., None, None, :3, :3]
    return np.einsum("...ij,...j->...i", turn, np.where(depth_discontinuities(depth)[..., None], 0, normals))
