"""Cameras in text files of others: COLMAP, TUM and RealEstate10K. Axes are OpenCV in all three.

    COLMAP          images.txt: `id qw qx qy qz tx ty tz camera name`, camera_from_world; a line of points;
                    cameras.txt beside it: `id model width height parameters`
    TUM             `seconds tx ty tz qx qy qz qw`, world_from_camera, no intrinsics
    RealEstate10K   the address of a video, then `microseconds fx fy cx cy 0 0` and the 12 numbers of
                    camera_from_world; intrinsics in widths and heights of the picture

Quaternions are of any length but 0. Of a lens its pinhole part is taken, as of undistorted pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from dreamwalk.camera_paths import CameraPath, rigid
from dreamwalk.cameras import invert, quaternion_from_rotation, rotation_from_quaternion, scale_intrinsics
from dreamwalk.errors import UserError

LENSES = {
    "SIMPLE_PINHOLE": (0, 0, 1, 2),
    "PINHOLE": (0, 1, 2, 3),
    "SIMPLE_RADIAL": (0, 0, 1, 2),
    "RADIAL": (0, 0, 1, 2),
    "OPENCV": (0, 1, 2, 3),
    "FULL_OPENCV": (0, 1, 2, 3),
}
"""COLMAP's models that are a pinhole and a distortion: where fx, fy, cx, cy stand among their parameters."""
RATE = 30.0
"""Frames per second of cameras without times, in files that want some."""
TUM_NUMBERS, REALESTATE_NUMBERS = 8, 19


def read_tum(text: str, where: str, *, intrinsics: np.ndarray) -> CameraPath:
    """The cameras of a TUM trajectory, all with these `intrinsics` (3, 3) or (n, 3, 3)."""
    rows = _table(text, where, TUM_NUMBERS)
    turns = _turns(np.roll(rows[:, 4:], 1, axis=1), where)
    return CameraPath(_poses(turns, rows[:, 1:4]), intrinsics, times=rows[:, 0])


def format_tum(path: CameraPath) -> str:
    """The inverse of `read_tum`, without the intrinsics."""
    poses = path.world_from_camera
    quaternions = np.roll(quaternion_from_rotation(poses[:, :3, :3]), -1, axis=1)
    rows = np.concatenate([_times(path)[:, None], poses[:, :3, 3], quaternions], axis=1)
    return "# timestamp tx ty tz qx qy qz qw\n" + "".join(f"{_spaced(row)}\n" for row in rows)


def read_realestate(text: str, where: str, *, size: tuple[int, int]) -> CameraPath:
    """The cameras of a RealEstate10K file for pictures of `size` (h, w), named by their microseconds."""
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    address = lines.index(first) + 1 if "://" in first else 0
    rows = _table("\n".join([""] * address + lines[address:]), where, REALESTATE_NUMBERS)
    poses = invert(rigid(rows[:, 7:].reshape(-1, 3, 4), where))
    names = tuple(f"{stamp:.0f}" for stamp in rows[:, 0])
    lenses = scale_intrinsics(pinhole(rows[:, 1:5]), (size[1], size[0]))
    return CameraPath(poses, lenses, rows[:, 0] / 1e6, names)


def format_realestate(path: CameraPath, *, size: tuple[int, int], address: str = "") -> str:
    """The inverse of `read_realestate`, with times in whole microseconds and an address as the first line."""
    local, scale = invert(path.world_from_camera)[:, :3].reshape(-1, 12), np.array([size[1], size[0]] * 2)
    numbers = np.concatenate([_four(path.intrinsics) / scale, np.zeros((len(path), 2)), local], axis=1)
    stamps = np.round(_times(path) * 1e6)
    lines = [f"{stamp:.0f} {_spaced(row)}\n" for stamp, row in zip(stamps, numbers, strict=True)]
    return f"{address or 'https://'}\n" + "".join(lines)


def read_colmap(images: str, cameras: str, where: str, *, size: tuple[int, int]) -> CameraPath:
    """The cameras of the texts of images.txt and cameras.txt, by the names of their pictures, for pictures
    resized to `size` (h, w)."""
    lenses = dict(_colmap_lenses(cameras, where, size))
    found = sorted(_colmap_images(images, where), key=lambda row: by_number(row[2]))
    if not found:
        raise UserError(f"{where} has no camera: give one at least")
    lost = [f"'{name}' has camera {camera}" for _, camera, name in found if camera not in lenses]
    if lost:
        raise UserError(f"{where}: {lost[0]}, which cameras.txt does not have: give the two of one model")
    rows = np.stack([numbers for numbers, _, _ in found])
    local = rigid(_poses(_turns(rows[:, :4], where), rows[:, 4:]), where)
    intrinsics = np.stack([lenses[camera] for _, camera, _ in found])
    return CameraPath(invert(local), intrinsics, names=tuple(name for _, _, name in found))


def format_colmap(path: CameraPath, *, size: tuple[int, int]) -> tuple[str, str]:
    """The texts of images.txt and cameras.txt, without points: pinholes, one for all where they are equal."""
    local, four = invert(path.world_from_camera), _four(path.intrinsics)
    lenses, of = np.unique(four, axis=0, return_inverse=True)
    turns = quaternion_from_rotation(local[:, :3, :3])
    rows = np.concatenate([turns, local[:, :3, 3]], axis=1)
    names = path.names or tuple(f"{k:05d}.png" for k in range(len(path)))
    zipped = zip(rows, of.reshape(-1).tolist(), names, strict=True)
    images = [f"{k} {_spaced(row)} {lens + 1} {name}\n\n" for k, (row, lens, name) in enumerate(zipped, 1)]
    cameras = [f"{k} PINHOLE {size[1]} {size[0]} {_spaced(row)}\n" for k, row in enumerate(lenses, 1)]
    return (
        "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME, and a line of points\n" + "".join(images),
        "# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS\n" + "".join(cameras),
    )


def by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts names as people do: `2.png` before `10.png`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def numbers_of(line: str) -> list[float] | None:
    """The numbers of a line, separated by spaces or commas; None where something else is in it."""
    try:
        return [float(word) for word in line.replace(",", " ").split()]
    except ValueError:
        return None


def pinhole(four: np.ndarray) -> np.ndarray:
    """Intrinsics float64 (..., 3, 3) of fx, fy, cx, cy (..., 4)."""
    four = np.asarray(four, np.float64)
    matrix = np.zeros((*four.shape[:-1], 3, 3))
    matrix[..., [0, 1, 0, 1], [0, 1, 2, 2]] = four
    matrix[..., 2, 2] = 1
    return matrix


def _four(intrinsics: np.ndarray) -> np.ndarray:
    return intrinsics[..., [0, 1, 0, 1], [0, 1, 2, 2]]


def _spaced(numbers: np.ndarray) -> str:
    """In as many digits as give the same float64 back."""
    return " ".join(repr(float(number)) for number in numbers)


def _times(path: CameraPath) -> np.ndarray:
    return np.arange(len(path)) / RATE if path.times is None else path.times


def _poses(turns: np.ndarray, places: np.ndarray) -> np.ndarray:
    poses = np.tile(np.eye(4), (len(turns), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = turns, places
    return poses


def _turns(quaternions: np.ndarray, where: str) -> np.ndarray:
    """Rotations (n, 3, 3) of quaternions (n, 4), scalar first; UserError for one of length 0."""
    wrong = ~(np.linalg.norm(quaternions, axis=1) > 1e-6)
    if wrong.any():
        raise UserError(f"{where}: camera {int(np.argmax(wrong))} has a quaternion of length 0: leave it out")
    return rotation_from_quaternion(quaternions)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are no comments."""
    lines = enumerate(text.splitlines(), 1)
    return ((number, line.strip()) for number, line in lines if not line.lstrip().startswith("#"))


def _table(text: str, where: str, columns: int) -> np.ndarray:
    """Lines of so many numbers each, float64 (n, columns)."""
    rows = []
    for number, line in _lines(text):
        if not line:
            continue
        row = numbers_of(line)
        if row is None or len(row) != columns or not np.isfinite(row).all():
            raise UserError(
                f"{where}, line {number} must be {columns} finite numbers, got '{line:.60}': mend it"
            )
        rows.append(row)
    if not rows:
        raise UserError(f"{where} has no camera: give one at least")
    return np.array(rows)


def _colmap_lenses(text: str, where: str, size: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    """The intrinsics of each camera of a cameras.txt by its id, for pictures of `size`."""
    for number, line in _lines(text):
        if not line:
            continue
        words = line.split()
        model, values = words[1] if len(words) > 1 else "", numbers_of(" ".join(words[2:]))
        spot = f"{where}: line {number} of cameras.txt"
        if model not in LENSES:
            known = ", ".join(LENSES)
            raise UserError(
                f"{spot} has the model '{model:.30}', known are {known}: undistort the pictures first"
            )
        if values is None or len(values) < 3 + max(LENSES[model]) or min(values[:2]) <= 0:
            raise UserError(
                f"{spot} must be an id, a model, width, height and its parameters, got '{line:.60}'"
            )
        matrix = pinhole(np.array([values[2 + k] for k in LENSES[model]]))
        yield words[0], scale_intrinsics(matrix, (size[1] / values[0], size[0] / values[1]))


def _colmap_images(text: str, where: str) -> Iterator[tuple[np.ndarray, str, str]]:
    """Quaternion and translation (7,), the id of the camera, and the name of each picture."""
    lines, at = list(_lines(text)), 0
    while at < len(lines):
        number, line = lines[at]
        at += 1
        if not line:
            continue
        words = line.split(maxsplit=9)
        values = numbers_of(" ".join(words[1:8])) if len(words) == 10 else None
        if values is None or not np.isfinite(values).all():
            form = "id qw qx qy qz tx ty tz camera name"
            raise UserError(f"{where}, line {number} must be '{form}', got '{line:.60}': mend it")
        yield np.array(values), words[8], words[9]
        points = numbers_of(lines[at][1]) if at < len(lines) else None
        at += points is not None and len(points) % 3 == 0  # what it sees, or nothing
