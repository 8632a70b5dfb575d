"""Camera paths: cameras in order, made of moves (`camera_moves`) or through keyframes, in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dreamwalk.camera_moves import KEY_STEP, CameraMove, MoveStart, needs_depth, parse_path, step_of
from dreamwalk.cameras import invert, slerp
from dreamwalk.errors import UserError

Easing = Literal["linear", "in", "out", "in-out"]
"""How a move gathers speed and loses it."""
EASINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda u: u,
    "in": lambda u: u * u,
    "out": lambda u: u * (2 - u),
    "in-out": lambda u: u * u * (3 - 2 * u),
}
NOT_RIGID = 1e-3
"""The largest entry of `R^T R - 1` of what is taken for a rotation: texts have few digits."""
LONGEST_PATH = 100_000
"""Frames."""


@dataclass(frozen=True, eq=False)
class CameraPath:
    """Cameras in order, OpenCV; UserError for arrays of other shapes and for matrices that move no camera."""

    world_from_camera: np.ndarray
    """float64 `(n, 4, 4)`, rigid."""
    intrinsics: np.ndarray
    """float64 `(n, 3, 3)` in pixels; `(3, 3)` is taken for all."""
    times: np.ndarray | None = None
    """Seconds, float64 `(n,)`, where known."""
    names: tuple[str, ...] | None = None
    """Of the pictures, where known."""

    def __post_init__(self) -> None:
        poses = rigid(self.world_from_camera, "world_from_camera")
        given = _numbers(self.intrinsics, "intrinsics")
        if given.shape not in ((3, 3), (len(poses), 3, 3)):
            raise UserError(f"intrinsics are ({len(poses)}, 3, 3) or (3, 3), got {given.shape}")
        lens = np.broadcast_to(given, (len(poses), 3, 3))
        plain = (lens[:, [0, 1, 2, 2], [1, 0, 0, 1]] == 0).all() and (lens[:, 2, 2] == 1).all()
        if not (np.isfinite(lens).all() and plain and (lens[:, [0, 1], [0, 1]] > 0).all()):
            form = "[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with focal lengths above 0"
            raise UserError(f"intrinsics are {form}: give those of a pinhole camera")
        times = None if self.times is None else _numbers(self.times, "times")
        if times is not None and not (times.shape == (len(poses),) and np.isfinite(times).all()):
            raise UserError(f"times are ({len(poses)},) finite seconds, got {times.shape}: give one a camera")
        if self.names is not None and len(self.names) != len(poses):
            raise UserError(f"there are {len(self.names)} names of {len(poses)} cameras: give as many")
        for name, value in (("world_from_camera", poses), ("intrinsics", lens), ("times", times)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.world_from_camera)


def rigid(matrices: Any, where: str) -> np.ndarray:
    """Matrices `(n, 4, 4)` or `(n, 3, 4)` as rigid ones, float64 `(n, 4, 4)`; UserError, after `where`, for
    any that are not finite, or no rotation and translation."""
    given = _numbers(matrices, where)
    if given.ndim != 3 or given.shape[1:] not in ((4, 4), (3, 4)):
        raise UserError(f"{where} must be matrices (n, 4, 4) or (n, 3, 4), got {given.shape}")
    if not len(given):
        raise UserError(f"{where} has no camera: give one at least")
    last = np.broadcast_to([0.0, 0, 0, 1], (len(given), 1, 4))
    whole = given if given.shape[1] == 4 else np.concatenate([given, last], 1)
    faults = _faults(whole)
    if any(wrong.any() for wrong in faults.values()):
        at = int(np.argmax(np.any(list(faults.values()), axis=0)))
        raise UserError(f"{where}: matrix {at} {next(what for what, wrong in faults.items() if wrong[at])}")
    return whole


def _numbers(value: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(value, np.float64)
    except (ValueError, TypeError):
        raise UserError(f"{where} must be an array of numbers: give one") from None


def _faults(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """What keeps matrices (n, 4, 4) from being rigid, and of which of them it is true."""
    finite = np.isfinite(matrices).all((1, 2))
    known = np.where(finite[:, None, None], matrices, np.eye(4))
    turns, corner = known[:, :3, :3], np.array([0.0, 0, 0, 1])
    ends = np.isclose(known[:, 3], corner, atol=1e-6).all(1)
    ends_across = np.isclose(known[:, :, 3], corner, atol=1e-6).all(1)
    bent = np.abs(np.swapaxes(turns, 1, 2) @ turns - np.eye(3)).max((1, 2)) > NOT_RIGID
    return {
        "has numbers that are not finite: leave that frame out": ~finite,
        "is transposed: give its transpose": ~ends & ends_across,
        "does not end in the row 0 0 0 1: mend it": ~ends,
        "is no rotation and translation, it scales or shears: divide the scale out of it": bent,
        "is a reflection: negate one of its axes": np.linalg.det(turns) < 0,
    }


def camera_path(
    moves: str | Sequence[CameraMove],
    *,
    intrinsics: np.ndarray,
    frames: int | None = None,
    first: np.ndarray | None = None,
    depth: float | None = None,
    easing: Easing = "linear",
    key_step: float = KEY_STEP,
) -> CameraPath:
    """The cameras of a path string (or of its moves) from a `first` one (4, 4) on, which is frame 0 exactly.

    `frames` counts frame 0 too; it may be left out where every move says its own. `intrinsics` (3, 3) in
    pixels are those of the first camera, `depth` is how far the subject is. Each move is eased by itself.
    UserError for moves, frames and depths that do not go together.
    """
    moves = parse_path(moves, key_step=key_step) if isinstance(moves, str) else tuple(moves)
    start = rigid(np.eye(4)[None] if first is None else np.asarray(first)[None], "the first camera")[0]
    if depth is not None and not (math.isfinite(depth) and depth > 0):
        raise UserError(f"the depth of the subject is above 0, got {depth}")
    if easing not in EASINGS:
        raise UserError(f"unknown easing '{easing}': known are {', '.join(EASINGS)}")
    if depth is None and (unknown := [move.name for move in moves if needs_depth(move)]):
        raise UserError(f"{unknown[0]} is about the subject: say how far it is (depth)")
    subject = np.array([0, 0, 1.0 if depth is None else depth])
    poses, factors = [np.eye(4)], [1.0]
    for move, count in zip(moves, _shares(moves, frames), strict=True):
        at, factor = MoveStart(poses[-1], subject), factors[-1]
        step = step_of(move, at)
        for done in EASINGS[easing](np.arange(1, count + 1) / count):
            pose, zoomed = step(at, move.amount, float(done))
            poses.append(pose)
            factors.append(factor * zoomed)
    world = start @ np.stack(poses)
    world[0] = start
    lenses = CameraPath(world, intrinsics).intrinsics.copy()
    lenses[:, [0, 1], [0, 1]] *= np.array(factors)[:, None]
    return CameraPath(world, lenses)


def _shares(moves: Sequence[CameraMove], frames: int | None) -> list[int]:
    """Frames of each move after frame 0; UserError when there are too few or too many."""
    own = sum(move.frames or 0 for move in moves)
    open_moves = sum(move.frames is None for move in moves)
    if frames is None and open_moves:
        raise UserError("say how many frames the path has, or of each move, such as forward:2@24")
    left = own if frames is None else frames - 1
    if left > LONGEST_PATH:
        raise UserError(f"a camera path has {LONGEST_PATH} frames at most, got {left + 1}")
    if left - own < open_moves or (left > own and not open_moves):
        what = f"{len(moves)} moves, which say {own} frames themselves, do not make {frames} frames"
        raise UserError(
            f"{what} (the first is frame 0): ask for {own + open_moves + 1}{' or more' * bool(open_moves)}"
        )
    ends = np.round(np.linspace(0, left - own, open_moves + 1)).astype(int)
    shares = iter(np.diff(ends).tolist())
    return [next(shares) if move.frames is None else move.frames for move in moves]


def interpolate(keys: CameraPath, frames: int) -> CameraPath:
    """A path of `frames` cameras through keyframes: rotations by SLERP, places on a Catmull-Rom spline, and
    intrinsics linearly.

    Its frames are evenly spread over the keyframes' times, or over the keyframes where they have none. It
    begins and ends at the first and the last one exactly. UserError for one keyframe, or times that do not
    rise.
    """
    at = np.arange(len(keys), dtype=np.float64) if keys.times is None else keys.times
    if len(keys) < 2 or frames < 2 or frames > LONGEST_PATH:
        raise UserError(
            f"a path has 2 keyframes and from 2 to {LONGEST_PATH} frames, got {len(keys)} and {frames}"
        )
    if not (np.isfinite(at).all() and (np.diff(at) > 0).all()):
        raise UserError("the times of keyframes must rise: sort them, and leave out what is there twice")
    when = np.linspace(at[0], at[-1], frames)
    k = np.clip(np.searchsorted(at, when, side="right") - 1, 0, len(keys) - 2)
    length = (at[k + 1] - at[k])[:, None]
    u = (when - at[k])[:, None] / length
    places = keys.world_from_camera[:, :3, 3]
    # the tangent at a keyframe is the way from the one before to the one after, by time
    before, after = (
        np.maximum(np.arange(len(keys)) - 1, 0),
        np.minimum(np.arange(len(keys)) + 1, len(keys) - 1),
    )
    tangents = (places[after] - places[before]) / (at[after] - at[before])[:, None]
    ends = (2 * u**3 - 3 * u**2 + 1) * places[k] + (3 * u**2 - 2 * u**3) * places[k + 1]
    bows = (u**3 - 2 * u**2 + u) * tangents[k] + (u**3 - u**2) * tangents[k + 1]
    turns = keys.world_from_camera[:, :3, :3]
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = slerp(turns[k], turns[k + 1], u[:, 0]), ends + length * bows
    poses[[0, -1]] = keys.world_from_camera[[0, -1]]
    lenses = (1 - u[..., None]) * keys.intrinsics[k] + u[..., None] * keys.intrinsics[k + 1]
    return CameraPath(poses, lenses, None if keys.times is None else when)


def from_first(path: CameraPath, first: np.ndarray | None = None) -> CameraPath:
    """The same path begun at the camera `first` (4, 4; default: the origin), which becomes its first pose
    exactly."""
    start = np.eye(4) if first is None else rigid(np.asarray(first)[None], "the first camera")[0]
    moved = start @ invert(path.world_from_camera[0]) @ path.world_from_camera
    moved[0] = start
    return CameraPath(moved, path.intrinsics, path.times, path.names)
