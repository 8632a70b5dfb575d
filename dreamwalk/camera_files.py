"""Files of camera paths, read and written with the convention said.

| kind | what | axes | matrices |
|---|---|---|---|
| `json` | `{"convention", "size": [h, w], "matrices", "intrinsics"}`, or a list of matrices | said | said |
| `npy` | an array `(n, 4, 4)` or `(n, 3, 4)` | said | said |
| `nerfstudio` | transforms.json, whose `applied_transform` is undone | OpenGL | world_from_camera |
| `camera_path` | nerfstudio's camera_path.json, a field of view per camera | OpenGL | world_from_camera |
| `colmap` | images.txt with cameras.txt beside it | OpenCV | camera_from_world |
| `tum` | `seconds tx ty tz qx qy qz qw` | OpenCV | world_from_camera |
| `realestate` | RealEstate10K's text | OpenCV | camera_from_world |

A convention is said as `opencv world_from_camera`: the axes of a camera (OpenCV: x right, y down, z forward;
OpenGL, Blender: x right, y up, z backward), then what the matrices map. Intrinsics are those of pictures
stretched to the size that is asked for. Lens distortion is left out.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from msgspec import Meta

from dreamwalk import camera_texts
from dreamwalk.camera_paths import CameraPath, rigid
from dreamwalk.camera_texts import by_number, numbers_of, pinhole
from dreamwalk.cameras import invert, scale_intrinsics
from dreamwalk.errors import UserError, atomic, writing
from dreamwalk.validation import LONGEST, Positive, Rate, Side, Signed, conform, parse_json, required

Convention = Literal[
    "opencv world_from_camera",
    "opencv camera_from_world",
    "opengl world_from_camera",
    "opengl camera_from_world",
]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
CameraFileKind = Literal["json", "npy", "nerfstudio", "camera_path", "colmap", "tum", "realestate"]
FIXED: dict[str, Convention] = {
    "nerfstudio": "opengl world_from_camera",
    "camera_path": "opengl world_from_camera",
    "colmap": "opencv camera_from_world",
    "tum": "opencv world_from_camera",
    "realestate": "opencv camera_from_world",
}
"""Kinds that have one convention."""
FLIP = np.diag([1.0, -1, -1, 1])
"""From the axes of OpenGL to those of OpenCV, and back."""
STRAIGHT = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "perspective")
"""Camera models of nerfstudio that are a pinhole and a distortion."""
KNOWN = (
    "json, npy, nerfstudio's transforms.json and camera_path.json, COLMAP's images.txt, TUM, RealEstate10K"
)


def to_opencv(matrices: Any, convention: Convention, where: str) -> np.ndarray:
    """`world_from_camera` (n, 4, 4) with OpenCV axes of matrices in a convention; UserError where they move
    no camera."""
    axes, direction = _said(convention, where).split()
    poses = rigid(matrices, where)
    poses = invert(poses) if direction == "camera_from_world" else poses
    return poses @ FLIP if axes == "opengl" else poses


def from_opencv(world_from_camera: np.ndarray, convention: Convention) -> np.ndarray:
    """The inverse of `to_opencv`."""
    axes, direction = _said(convention, "cameras").split()
    poses = world_from_camera @ FLIP if axes == "opengl" else world_from_camera
    return invert(poses) if direction == "camera_from_world" else poses


def _said(convention: Any, where: str) -> str:
    if convention not in CONVENTIONS:
        raise UserError(
            f"{where} has the convention {convention!r:.60}: choose one of {', '.join(CONVENTIONS)}"
        )
    return convention


def read_cameras(
    path: Path | str,
    *,
    size: tuple[int, int],
    convention: Convention | None = None,
    intrinsics: np.ndarray | None = None,
) -> CameraPath:
    """The cameras of a file, or of a folder of COLMAP or nerfstudio, for pictures of `size` (h, w).

    What kind of file it is shows in what is in it. `convention` is for files that do not say theirs,
    `intrinsics` (3, 3) or (n, 3, 3), in pixels of `size`, for those that have none. UserError for a file that
    is none of `KNOWN`, that says neither or another convention, or whose matrices move no camera.
    """
    file = _file_in(Path(path))
    where = f"'{file}'"
    data = _bytes_of(file)
    if data[:6] == b"\x93NUMPY":
        return CameraPath(_stated(_array(data, where), None, convention, where), _needed(intrinsics, where))
    text = _text(data, where)
    if text.lstrip()[:1] in ("{", "["):
        return _read_objects(parse_json(text, where), where, size, convention, intrinsics)
    kind = _kind_of_text(text, where)
    _agree(kind, convention, where)
    if kind == "realestate":
        return camera_texts.read_realestate(text, where, size=size)
    if kind == "tum":
        return camera_texts.read_tum(text, where, intrinsics=_needed(intrinsics, where))
    beside = file.with_name("cameras.txt")
    return camera_texts.read_colmap(text, _text(_bytes_of(beside), f"'{beside}'"), where, size=size)


def write_cameras(
    path: Path | str,
    cameras: CameraPath,
    *,
    size: tuple[int, int],
    kind: CameraFileKind,
    convention: Convention | None = None,
) -> None:
    """Cameras of pictures of `size` (h, w) as a file; `colmap` is images.txt and cameras.txt in a folder.

    `json` and `npy` are written in `convention` (default: `opencv world_from_camera`); `npy` and `tum` leave
    the intrinsics out. UserError for what a kind cannot hold, or where nothing can be written.
    """
    path = Path(path)
    if kind not in get_args(CameraFileKind):
        raise UserError(
            f"unknown kind of camera file '{kind}': known are {', '.join(get_args(CameraFileKind))}"
        )
    _agree(kind, convention, f"'{path}'")
    said = convention or "opencv world_from_camera"
    if kind == "colmap":
        texts = camera_texts.format_colmap(cameras, size=size)
        files = dict(zip(("images.txt", "cameras.txt"), (text.encode() for text in texts), strict=True))
    elif kind == "npy":
        stream = io.BytesIO()
        np.save(stream, from_opencv(cameras.world_from_camera, said))
        files = {"": stream.getvalue()}
    elif kind == "tum":
        files = {"": camera_texts.format_tum(cameras).encode()}
    elif kind == "realestate":
        files = {"": camera_texts.format_realestate(cameras, size=size).encode()}
    else:
        made: dict[str, Any] = {"nerfstudio": nerfstudio_json, "camera_path": _camera_path_json}
        content = made[kind](cameras, size) if kind in made else cameras_json(cameras, size, said)
        files = {"": (json.dumps(content, indent=1) + "\n").encode()}
    for name, data in files.items():
        with writing(path / name), atomic(path / name) as partial:
            partial.write_bytes(data)


def cameras_json(cameras: CameraPath, size: tuple[int, int], convention: Convention) -> dict[str, Any]:
    """What a file of the kind `json` holds."""
    said: dict[str, Any] = {"convention": convention, "size": list(size)}
    said["matrices"] = from_opencv(cameras.world_from_camera, convention).tolist()
    said["intrinsics"] = cameras.intrinsics.tolist()
    said |= {} if cameras.times is None else {"times": cameras.times.tolist()}
    return said | ({} if cameras.names is None else {"names": list(cameras.names)})


def nerfstudio_json(cameras: CameraPath, size: tuple[int, int]) -> dict[str, Any]:
    """What a transforms.json holds: the world stays as it is, without an `applied_transform`."""
    names = cameras.names or tuple(f"images/{k:05d}.png" for k in range(len(cameras)))
    poses = from_opencv(cameras.world_from_camera, FIXED["nerfstudio"])
    frames = [
        {"file_path": name, "transform_matrix": pose.tolist()}
        | {"fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2]}
        for name, pose, k in zip(names, poses, cameras.intrinsics, strict=True)
    ]
    return {"camera_model": "OPENCV", "w": size[1], "h": size[0], "frames": frames}


def _camera_path_json(cameras: CameraPath, size: tuple[int, int]) -> dict[str, Any]:
    """What a camera_path.json holds; UserError for cameras that no field of view describes."""
    (height, width), k = size, cameras.intrinsics
    plain = pinhole(
        np.stack([k[:, 1, 1], k[:, 1, 1], 0 * k[:, 0, 0] + width / 2, 0 * k[:, 0, 0] + height / 2], -1)
    )
    if not np.allclose(k, plain, rtol=1e-6):
        what = "has square pixels and its centre in the middle"
        raise UserError(f"a camera of camera_path.json {what}, these have not: write another kind of file")
    views = np.degrees(2 * np.arctan(height / 2 / k[:, 1, 1]))
    poses = from_opencv(cameras.world_from_camera, FIXED["camera_path"]).reshape(-1, 16)
    path = [
        {"camera_to_world": pose.tolist(), "fov": float(view), "aspect": width / height}
        for pose, view in zip(poses, views, strict=True)
    ]
    times = np.zeros(1) if cameras.times is None else cameras.times
    lasts = float(times[-1] - times[0])
    fps = (len(cameras) - 1) / lasts if lasts > 0 else camera_texts.RATE
    head = {"camera_type": "perspective", "render_height": height, "render_width": width, "fps": fps}
    return head | {"seconds": len(cameras) / fps, "camera_path": path}


def _file_in(path: Path) -> Path:
    """The file itself, or that of a folder which has the cameras."""
    if not path.is_dir():
        return path
    for name in ("images.txt", "sparse/0/images.txt", "sparse/images.txt", "transforms.json"):
        if (path / name).is_file():
            return path / name
    if list(path.glob("**/images.bin")):
        mend = "convert it by `colmap model_converter --output_type TXT`"
        raise UserError(f"'{path}' has a binary model of COLMAP: {mend}")
    raise UserError(f"'{path}' has neither COLMAP's images.txt nor a transforms.json: name the file itself")


def _bytes_of(file: Path) -> bytes:
    try:
        if file.stat().st_size > LONGEST:
            raise UserError(f"'{file}' is larger than any file of cameras: give another")
        data = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no file '{file}': name one of cameras") from None
    except OSError as error:
        raise UserError(f"'{file}' cannot be read ({error.strerror}): name a file of cameras") from None
    if not data.strip():
        raise UserError(f"'{file}' is empty: give a file with cameras")
    return data


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where} is no file of cameras: known are {KNOWN}") from None


def _array(data: bytes, where: str) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{where} is a damaged or unknown array ({error}): save it again") from None


def _kind_of_text(text: str, where: str) -> CameraFileKind:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    first = next((line for line in lines if "://" not in line), "")
    words, count = first.split(), len(numbers_of(first) or ())
    if lines and "://" in lines[0]:
        return "realestate"
    if count in (camera_texts.TUM_NUMBERS, camera_texts.REALESTATE_NUMBERS):
        return "tum" if count == camera_texts.TUM_NUMBERS else "realestate"
    if len(words) >= 10 and numbers_of(" ".join(words[:9])) is not None:
        return "colmap"
    if len(words) > 3 and words[1] in camera_texts.LENSES:
        raise UserError(f"{where} is COLMAP's list of lenses: name images.txt, or their folder")
    raise UserError(f"{where} is no file of cameras: known are {KNOWN}")


def _agree(kind: str, convention: Convention | None, where: str) -> None:
    """UserError where a kind of file has another convention than is asked for."""
    if convention is not None and FIXED.get(kind, convention) != _said(convention, where):
        raise UserError(
            f"{where} is of the kind {kind}, which is '{FIXED[kind]}', not '{convention}': leave it out"
        )


def _stated(matrices: Any, stated: Any, convention: Convention | None, where: str) -> np.ndarray:
    """`world_from_camera` of matrices whose file states its convention, or for which it is given."""
    said = convention if stated is None else stated
    if said is None:
        mend = f'add "convention" to it or give one, of {", ".join(CONVENTIONS)}'
        raise UserError(f"{where} does not say its convention: {mend}")
    if convention is not None and _said(said, where) != convention:
        raise UserError(f"{where} states '{said}', not '{convention}': leave the convention out")
    return to_opencv(matrices, said, where)


def _needed(intrinsics: np.ndarray | None, where: str) -> np.ndarray:
    if intrinsics is None:
        raise UserError(f"{where} has no intrinsics: give those of the camera, in pixels (intrinsics)")
    return intrinsics


def _read_objects(
    content: Any,
    where: str,
    size: tuple[int, int],
    convention: Convention | None,
    intrinsics: np.ndarray | None,
) -> CameraPath:
    """The cameras of what a file of JSON holds."""
    if isinstance(content, dict) and isinstance(content.get("camera_path"), list):
        _agree("camera_path", convention, where)
        return _read_camera_path(content, where, size)
    if isinstance(content, dict) and isinstance(content.get("frames"), list):
        _agree("nerfstudio", convention, where)
        return _read_nerfstudio(content, where, size, intrinsics)
    fields = content if isinstance(content, dict) else {"matrices": content}
    if "matrices" not in fields:
        raise UserError(f"{where} is no file of cameras: known are {KNOWN}")
    poses = _stated(fields["matrices"], fields.get("convention"), convention, where)
    names = fields.get("names")
    names = None if names is None else conform(tuple[str, ...], names, f"{where}: names")
    own = fields.get("intrinsics")
    path = CameraPath(poses, _needed(intrinsics if own is None else own, where), fields.get("times"), names)
    if own is None:
        return path
    height, width = conform(tuple[Side, Side], fields.get("size", list(size)), f"{where}: size")
    return replace(path, intrinsics=scale_intrinsics(path.intrinsics, (size[1] / width, size[0] / height)))


def _read_nerfstudio(
    content: dict[str, Any], where: str, size: tuple[int, int], intrinsics: np.ndarray | None
) -> CameraPath:
    """The cameras of a transforms.json in the world that they had before its `applied_transform`, by name."""
    model = content.get("camera_model", "OPENCV")
    if model not in STRAIGHT:
        raise UserError(
            f"{where} has the lens '{model!s:.30}', known are {', '.join(STRAIGHT)}: undistort it"
        )
    of = {"file_path": str, "transform_matrix": Any}
    frames = [
        (required(of, frame, f"{where}: frames[{k}]"), frame) for k, frame in enumerate(content["frames"])
    ]
    frames.sort(key=lambda frame: by_number(frame[0]["file_path"]))
    poses = to_opencv([found["transform_matrix"] for found, _ in frames], FIXED["nerfstudio"], where)
    if content.get("applied_transform") is not None:
        applied = rigid([content["applied_transform"]], f"{where}: applied_transform")[0]
        poses = invert(applied) @ poses
    lenses = [_nerfstudio_lens(content | frame, where, size) for _, frame in frames]
    names = tuple(found["file_path"] for found, _ in frames)
    if any(one is None for one in lenses):
        return CameraPath(poses, _needed(intrinsics, where), names=names)
    return CameraPath(poses, np.stack([one for one in lenses if one is not None]), names=names)


def _nerfstudio_lens(frame: dict[str, Any], where: str, size: tuple[int, int]) -> np.ndarray | None:
    """Intrinsics (3, 3) of a frame for pictures of `size`; None where it does not tell them."""
    given = {
        key: frame[key] for key in ("w", "h", "fl_x", "fl_y", "cx", "cy", "camera_angle_x") if key in frame
    }
    kinds: dict[str, Any] = {key: Signed if key in ("cx", "cy") else Positive for key in given}
    known = required(kinds, given, where)
    height, width = known.get("h", size[0]), known.get("w", size[1])
    if "fl_x" not in known and "camera_angle_x" not in known:
        return None
    focal = known.get("fl_x") or width / 2 / math.tan(known["camera_angle_x"] / 2)
    four = (focal, known.get("fl_y", focal), known.get("cx", width / 2), known.get("cy", height / 2))
    return scale_intrinsics(pinhole(np.array(four)), (size[1] / width, size[0] / height))


def _read_camera_path(content: dict[str, Any], where: str, size: tuple[int, int]) -> CameraPath:
    """The cameras of a camera_path.json: fields of view are from top to bottom, in degrees."""
    if content.get("camera_type", "perspective") != "perspective":
        raise UserError(
            f"{where} is of {content['camera_type']!r:.30} cameras: save it with perspective ones"
        )
    of = {"camera_to_world": Any, "fov": Annotated[float, Meta(ge=0.1, le=179)]}
    rows = [required(of, row, f"{where}: camera_path[{k}]") for k, row in enumerate(content["camera_path"])]
    try:
        matrices = np.array([np.reshape(row["camera_to_world"], (4, 4)) for row in rows], np.float64)
    except (ValueError, TypeError):
        raise UserError(f"{where} must have 16 numbers in every camera_to_world: mend them") from None
    height, width = size
    focal = np.array([height / 2 / math.tan(math.radians(row["fov"]) / 2) for row in rows])
    lenses = pinhole(np.stack([focal, focal, 0 * focal + width / 2, 0 * focal + height / 2], -1))
    fps = None if content.get("fps") is None else conform(Rate, content["fps"], f"{where}: fps")
    times = None if fps is None else np.arange(len(rows)) / fps
    return CameraPath(to_opencv(matrices, FIXED["camera_path"], where), lenses, times)
