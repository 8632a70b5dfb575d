"""Walks in Minecraft as MineDojo (arXiv 2206.08853) plays and WorldMem (arXiv 2504.12369) publishes them.

A video `walk.mp4` at 10 frames a second has `walk.npz` beside it, with two arrays of a row per frame:

    actions  (t, 8)   choices: 0 forward 1, back 2; 1 left 1, right 2; 3 pitch and 4 yaw in bins of 15 degrees
                      about 12; 5 use 1, place 6; 7 the slot that is taken. Row i leads into frame i. The rest
                      is not read, as by its authors
    poses    (t, 5)   x, y, z in blocks, y up; pitch in degrees, positive downwards; yaw, positive to the
                      right, 0 along z

Poses become OpenCV cameras in a world whose X is their z, Y their x and Z their y, so that yaw 0 looks along
X; the place of the first frame that is used is the origin. In actions here pitch is positive upwards. The
first 100 frames of a recording are left out, as by its authors: the game is still loading.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from dreamwalk.errors import UserError
from dreamwalk.world import ActionSchema

BIN = 15.0
"""Degrees."""
SCHEMA = ActionSchema(("forward", "back", "left", "right", "place", "hotbar.1"), ("yaw", "pitch"), (BIN, BIN))
"""What its walks do: one bin at a time, and `place` for both use and place."""
LOADING = 100
"""Frames at the beginning that are left out."""
FIELD_OF_VIEW = 70.0
"""Degrees from the top of a frame to its bottom, Minecraft's default."""
AXES = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], np.float64)
"""From their axes to ours."""


def read_minedojo(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values float32 `(t, 8)` in the columns of `SCHEMA` and `world_from_camera` float32 `(t, 4, 4)`.

    UserError for a file of another layout.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as given:
            actions, poses = np.asarray(given["actions"]), np.asarray(given["poses"])
    except (ValueError, OSError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"'{file}' is no recording with actions and poses ({error}): take it away") from None
    for name, array, columns in (("actions", actions, 8), ("poses", poses, 5)):
        if array.ndim != 2 or array.shape[1] != columns or array.dtype.kind not in "biuf":
            what = f"{array.dtype} {array.shape}"
            raise UserError(f"'{file}' must have {name} of numbers (frames, {columns}), got {what}")
        if not np.isfinite(array.astype(np.float64)).all():
            raise UserError(f"'{file}' has {name} that are no finite numbers: take it away")
    if len(actions) != len(poses) or not len(poses):
        raise UserError(
            f"'{file}' has {len(actions)} rows of actions and {len(poses)} of poses: make them equal"
        )
    cameras = cameras_of(poses)
    cameras[:, :3, 3] -= cameras[min(LOADING, len(cameras) - 1), :3, 3]
    return values_of(actions), cameras.astype(np.float32)


def values_of(actions: np.ndarray) -> np.ndarray:
    """Choices `(t, 8)` as buttons and degrees, float32 `(t, 8)` in the columns of `SCHEMA`."""
    walk, strafe, _, pitch, yaw, act, _, slot = np.asarray(actions).T
    held = [walk == 1, walk == 2, strafe == 1, strafe == 2, np.isin(act, (1, 6)), slot == 1]
    return np.stack([*held, BIN * (yaw - 12.0), -BIN * (pitch - 12.0)], axis=1).astype(np.float32)


def cameras_of(poses: np.ndarray) -> np.ndarray:
    """`world_from_camera` float64 `(..., 4, 4)` of poses `(..., 5)`."""
    x, y, z, pitch, yaw = np.moveaxis(np.asarray(poses, np.float64), -1, 0)
    pitch, yaw, zero = np.deg2rad(pitch), np.deg2rad(yaw), np.zeros_like(x)
    right = np.stack([-np.cos(yaw), zero, -np.sin(yaw)], -1)
    ahead = np.stack([-np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)], -1)
    columns = np.stack([right, np.cross(ahead, right), ahead, np.stack([x, y, z], -1)], axis=-1)
    cameras = np.zeros((*x.shape, 4, 4))
    cameras[..., :3, :], cameras[..., 3, 3] = AXES @ columns, 1
    return cameras


def poses_of(cameras: np.ndarray) -> np.ndarray:
    """The inverse of `cameras_of`, without roll: `(..., 5)` with yaw from -180 to 180 degrees."""
    columns = AXES.T @ np.asarray(cameras, np.float64)[..., :3, :]
    pitch = -np.arctan2(columns[..., 1, 2], np.hypot(columns[..., 0, 2], columns[..., 2, 2]))  # at 90 too
    yaw = np.arctan2(-columns[..., 2, 0], -columns[..., 0, 0])
    return np.concatenate([columns[..., 3], np.rad2deg(np.stack([pitch, yaw], -1))], axis=-1)
