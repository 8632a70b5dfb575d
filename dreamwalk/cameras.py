"""Cameras: intrinsics, rays, projection and relative poses, in numpy.

Cameras are OpenCV (x right, y down, z forward). The centre of pixel `(row, column)` is at
`(column + 0.5, row + 0.5)`. Depth is planar z-depth, 0 where unknown. Matrices are named after what they map:
`world_from_camera @ point_in_camera = point_in_world`. Leading axes broadcast everywhere.
"""

from __future__ import annotations

import numpy as np


def intrinsics_matrix(fx: float, fy: float, *, cx: float, cy: float) -> np.ndarray:
    """The (3, 3) float32 matrix of a pinhole camera, in pixels."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)


def scale_intrinsics(intrinsics: np.ndarray, factor: float | tuple[float, float]) -> np.ndarray:
    """Intrinsics (..., 3, 3) of the image resized by `factor` (or by a pair: horizontally, vertically)."""
    horizontal, vertical = factor if isinstance(factor, tuple) else (factor, factor)
    return np.asarray(intrinsics) * np.array([[horizontal], [vertical], [1.0]], np.float32)


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
