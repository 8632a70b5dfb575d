"""Files of cameras: there and back in every kind and convention, and against files written by hand."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamwalk.camera_files import (
    CONVENTIONS,
    CameraFileKind,
    Convention,
    from_opencv,
    read_cameras,
    to_opencv,
    write_cameras,
)
from dreamwalk.camera_paths import CameraPath
from dreamwalk.cameras import rotation_from_quaternion
from dreamwalk.errors import UserError

SIZE = (48, 64)
K = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
EYE = np.eye(4).tolist()


def drawn(seed: int, *, cameras: int = 5, plain: bool = True) -> CameraPath:
    """Cameras all over the place; those that are not `plain` have pixels and centres of their own."""
    draw = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (cameras, 1, 1))
    poses[:, :3, :3] = rotation_from_quaternion(draw.normal(size=(cameras, 4)))
    poses[:, :3, 3] = draw.normal(size=(cameras, 3)) * 10.0 ** draw.integers(-3, 4)
    lenses = np.tile(K, (cameras, 1, 1))
    if not plain:
        lenses[:, [0, 1, 0, 1], [0, 1, 2, 2]] *= draw.uniform(0.7, 1.3, (cameras, 4))
    names = tuple(f"images/{k}.png" for k in range(8, 8 + cameras))
    return CameraPath(poses, lenses, np.cumsum(draw.integers(1, 90_000, cameras)) / 1e6, names)


def same(back: CameraPath, path: CameraPath, *, lenses: bool = True) -> None:
    far = 1 + np.abs(path.world_from_camera[:, :3, 3]).max()
    np.testing.assert_allclose(back.world_from_camera, path.world_from_camera, atol=1e-12 * far)
    if lenses:
        np.testing.assert_allclose(back.intrinsics, path.intrinsics, rtol=1e-12)


ONCE = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ONCE
@given(st.integers(0, 10_000))
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("kind", ["json", "npy"])
def test_matrices_go_there_and_back(kind: Any, convention: Convention, tmp_path: Path, seed: int) -> None:
    """In every convention, to the last digits of float64."""
    path, file = drawn(seed, plain=False), tmp_path / f"path.{kind}"
    write_cameras(file, path, size=SIZE, kind=kind, convention=convention)
    stated: Any = None if kind == "json" else convention
    same(read_cameras(file, size=SIZE, convention=stated, intrinsics=path.intrinsics), path)
    if kind == "json":
        back = read_cameras(file, size=SIZE)
        assert (back.times == path.times).all() and back.names == path.names
        np.testing.assert_allclose(
            read_cameras(file, size=(96, 64)).intrinsics[:, 1], 2 * path.intrinsics[:, 1]
        )
    np.testing.assert_allclose(
        to_opencv(from_opencv(path.world_from_camera, convention), convention, "here"),
        path.world_from_camera,
        rtol=1e-9,
        atol=1e-9,
    )


@ONCE
@given(st.integers(0, 10_000))
@pytest.mark.parametrize("kind", [kind for kind in get_args(CameraFileKind) if kind not in ("json", "npy")])
def test_files_of_others_go_there_and_back(kind: Any, tmp_path: Path, seed: int) -> None:
    path = drawn(seed, plain=kind == "camera_path")
    file = tmp_path / f"{kind}.any"
    write_cameras(file, path, size=SIZE, kind=kind)
    back = read_cameras(file, size=SIZE, intrinsics=path.intrinsics if kind == "tum" else None)
    same(back, path)
    if kind in ("tum", "realestate"):
        np.testing.assert_allclose(back.times, path.times, atol=1e-9)
    if kind in ("nerfstudio", "colmap"):
        assert back.names == path.names, "sorted as people count: 8, 9, 10"


def test_axes_of_opengl(tmp_path: Path) -> None:
    """It looks along its -z, and y is up: as an OpenCV camera whose y and z point the other way."""
    pose = np.diag([1.0, -1, -1, 1])
    pose[:3, 3] = [1, 2, 3]
    np.save(tmp_path / "a.npy", pose[None])
    path = read_cameras(tmp_path / "a.npy", size=SIZE, convention="opengl world_from_camera", intrinsics=K)
    assert path.world_from_camera[0].tolist() == [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    path = read_cameras(tmp_path / "a.npy", size=SIZE, convention="opencv camera_from_world", intrinsics=K)
    np.testing.assert_allclose(path.world_from_camera[0, :3, 3], [-1, 2, 3])


def test_a_realestate_file(tmp_path: Path) -> None:
    """Written by hand as theirs are: the camera stands 2 along x, so the world is 2 to its left."""
    row = "{} 0.5 0.9 0.5 0.5 0.0 0.0 1 0 0 -2 0 1 0 0 0 0 1 0.5"
    text = "https://www.youtube.com/watch?v=abc\n" + "\n".join(
        row.format(stamp) for stamp in (52553000, 52586000)
    )
    (tmp_path / "a.txt").write_text(text)
    path = read_cameras(tmp_path / "a.txt", size=(90, 160))
    assert path.world_from_camera[0, :3, 3].tolist() == [2, 0, -0.5]
    assert path.intrinsics[1].tolist() == [[80, 0, 80], [0, 81, 45], [0, 0, 1]]
    assert path.names == ("52553000", "52586000") and path.times is not None
    assert path.times.tolist() == [52.553, 52.586]


def test_a_colmap_model(tmp_path: Path) -> None:
    """With points, blank lines, names with spaces, and a lens that is no pinhole, as COLMAP writes them."""
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    images = "# a list\n3 1 0 0 0 0 0 5 2 b 10.png\n1.5 2.5 -1 3.5 4.5 7\n1 0 0 1 0 1 0 0 1 b 9.png\n\n"
    cameras = "# lenses\n1 PINHOLE 128 96 100 110 64 48\n2 OPENCV 64 48 50 55 32 24 0.1 0 0 0\n"
    (tmp_path / "sparse" / "0" / "images.txt").write_text(images)
    (tmp_path / "sparse" / "0" / "cameras.txt").write_text(cameras)
    path = read_cameras(tmp_path, size=SIZE)
    assert path.names == ("b 9.png", "b 10.png")
    np.testing.assert_allclose(
        path.world_from_camera[1], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -5], [0, 0, 0, 1]]
    )
    # half a turn about y
    np.testing.assert_allclose(
        path.world_from_camera[0, :3], [[-1, 0, 0, 1], [0, 1, 0, 0], [0, 0, -1, 0]], atol=1e-12
    )
    np.testing.assert_allclose(path.intrinsics, [[[50, 0, 32], [0, 55, 24], [0, 0, 1]]] * 2)


def test_a_transforms_json_with_an_applied_transform(tmp_path: Path) -> None:
    """As nerfstudio and DL3DV write it: COLMAP's world with swapped axes, OpenGL cameras, any order."""
    applied = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    true = drawn(3)
    stored = applied @ true.world_from_camera @ np.diag([1.0, -1, -1, 1])
    frames = [
        {"file_path": f"images/frame_{k:05d}.png", "transform_matrix": stored[k].tolist()}
        for k in (4, 1, 0, 3, 2)
    ]
    content = {
        "w": 128,
        "h": 96,
        "fl_x": 100,
        "fl_y": 110,
        "cx": 64,
        "cy": 48,
        "k1": 0.1,
        "camera_model": "OPENCV",
    }
    content |= {"applied_transform": applied[:3].tolist(), "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    path = read_cameras(tmp_path, size=SIZE)
    np.testing.assert_allclose(path.world_from_camera, true.world_from_camera, atol=1e-9)
    assert path.intrinsics[0].tolist() == [[50, 0, 32], [0, 55, 24], [0, 0, 1]]
    assert path.names is not None and path.names[0] == "images/frame_00000.png"
    del content["fl_x"], content["fl_y"]
    content["camera_angle_x"] = np.pi / 2
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    assert read_cameras(tmp_path, size=SIZE).intrinsics[0, 0, 0] == pytest.approx(32)


def test_a_camera_path_json(tmp_path: Path) -> None:
    rows = [{"camera_to_world": np.diag([1, -1, -1, 1]).reshape(-1).tolist(), "fov": fov} for fov in (90, 60)]
    content = {"camera_type": "perspective", "render_height": 96, "fps": 10, "camera_path": rows}
    (tmp_path / "camera_path.json").write_text(json.dumps(content))
    path = read_cameras(tmp_path / "camera_path.json", size=SIZE)
    assert path.world_from_camera[0].tolist() == EYE
    np.testing.assert_allclose(path.intrinsics[:, 0, 0], [24, 24 / np.tan(np.pi / 6)])
    assert path.times is not None and path.times.tolist() == [0, 0.1]
    with pytest.raises(UserError, match="square pixels and its centre in the middle"):
        write_cameras(tmp_path / "b.json", drawn(0, plain=False), size=SIZE, kind="camera_path")


NERF = {"file_path": "a.png", "transform_matrix": EYE}
MINE = {"convention": "opencv world_from_camera", "intrinsics": K.tolist()}
ROW = "0 0.5 0.9 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0\n"
WRONG: dict[str, tuple[str, str]] = {
    "empty": ("", "is empty: give a file"),
    "spaces": (" \n\n", "is empty"),
    "words": ("dear reader", "is no file of cameras: known are json, npy"),
    "json": ("[1, 2", "is not valid JSON"),
    "other json": ('{"a": 1}', "is no file of cameras"),
    "unstated": (
        json.dumps([EYE]),
        'does not say its convention: add "convention" to it or give one, of opencv',
    ),
    "unknown": (
        json.dumps({"convention": "blender", "matrices": [EYE]}),
        "has the convention 'blender': choose",
    ),
    "no lens": (
        json.dumps({"convention": CONVENTIONS[0], "matrices": [EYE]}),
        "has no intrinsics: give those",
    ),
    "shape": (json.dumps(MINE | {"matrices": [[1, 2]]}), r"must be matrices \(n, 4, 4\) or \(n, 3, 4\), got"),
    "ragged": (json.dumps(MINE | {"matrices": [[1], [1, 2]]}), "must be an array of numbers"),
    "none": (json.dumps(MINE | {"matrices": []}), r"got \(0,\)"),
    "nan": (
        json.dumps(MINE | {"matrices": [(np.eye(4) * np.nan).tolist()]}),
        "not finite: leave that frame out",
    ),
    "scale": (
        json.dumps(MINE | {"matrices": [np.diag([2, 2, 2, 1]).tolist()]}),
        "matrix 0 is no rotation and",
    ),
    "mirror": (
        json.dumps(MINE | {"matrices": [EYE, np.diag([1, 1, -1, 1]).tolist()]}),
        "matrix 1 is a reflection",
    ),
    "transposed": (
        json.dumps(MINE | {"matrices": [[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 2, 3, 1]]]}),
        "is transposed: give its transpose",
    ),
    "row": (json.dumps(MINE | {"matrices": [np.ones((4, 4)).tolist()]}), "does not end in the row 0 0 0 1"),
    "skew": (
        json.dumps(MINE | {"matrices": [EYE], "intrinsics": np.ones((3, 3)).tolist()}),
        "a pinhole camera",
    ),
    "names": (json.dumps(MINE | {"matrices": [EYE], "names": ["a", "b"]}), "2 names of 1 cameras"),
    "times": (json.dumps(MINE | {"matrices": [EYE], "times": [1, 2]}), r"are \(1,\) finite seconds"),
    "fisheye": (
        json.dumps({"camera_model": "OPENCV_FISHEYE", "frames": [NERF]}),
        "has the lens 'OPENCV_FISHEYE'",
    ),
    "nerf lens": (json.dumps({"frames": [NERF]}), "has no intrinsics"),
    "nerf field": (json.dumps({"frames": [{"file_path": "a"}]}), r"frames\[0\] lacks 'transform_matrix'"),
    "nerf none": (json.dumps({"frames": []}), r"got \(0,\)"),
    "panorama": (
        json.dumps({"camera_type": "equirectangular", "camera_path": [1]}),
        "of 'equirectangular' cameras",
    ),
    "16": (json.dumps({"camera_path": [{"camera_to_world": [1], "fov": 50}]}), "must have 16 numbers"),
    "tum": (
        "0 0 0 0 0 0 0 1\n1 0 0 0 0 0 0\n",
        "line 2 must be 8 finite numbers, got '1 0 0 0 0 0 0': mend it",
    ),
    "tum zero": ("0 0 0 0 0 0 0 0\n", "camera 0 has a quaternion of length 0"),
    "realestate": (f"https://a\n{ROW}1 2 3\n", "line 3 must be 19 finite numbers"),
    "no rows": ("https://a\n", "has no camera"),
    "lenses": ("1 PINHOLE 64 48 50 50 32 24\n", "is COLMAP's list of lenses: name images.txt"),
    "colmap alone": ("1 1 0 0 0 0 0 0 1 a.png\n\n", "there is no file '.*cameras.txt'"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_wrong_with_a_file_is_said(name: str, tmp_path: Path) -> None:
    text, sentence = WRONG[name]
    (tmp_path / "a.any").write_text(text)
    given = K if name.startswith("tum") else None
    with pytest.raises(UserError, match=sentence) as error:
        read_cameras(tmp_path / "a.any", size=SIZE, intrinsics=given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "cameras", "sentence"),
    [
        (
            "1 1 0 0 0 0 0 0 7 a.png\n\n",
            "1 PINHOLE 64 48 50 50 32 24\n",
            "'a.png' has camera 7, which cameras.txt",
        ),
        ("1 1 0 0 0 0 0 0 1 a.png\n\n", "1 THIN_PRISM 64 48 50 50 32 24\n", "has the model 'THIN_PRISM'"),
        ("1 1 0 0 0 0 0 0 1 a.png\n\n", "1 PINHOLE 64 48 50\n", "must be an id, a model, width, height"),
        ("1 1 0 0 0 0 0 0 1 a.png\n\n1 2\n", "1 PINHOLE 64 48 50 50 32 24\n", "line 3 must be 'id qw qx"),
    ],
)
def test_a_broken_colmap_model(images: str, cameras: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "images.txt").write_text(images)
    (tmp_path / "cameras.txt").write_text(cameras)
    with pytest.raises(UserError, match=sentence):
        read_cameras(tmp_path, size=SIZE)


def test_another_convention_than_is_asked_for(tmp_path: Path) -> None:
    write_cameras(tmp_path / "a.json", drawn(0), size=SIZE, kind="json")
    with pytest.raises(UserError, match="states 'opencv world_from_camera', not 'opengl world_from_camera'"):
        read_cameras(tmp_path / "a.json", size=SIZE, convention="opengl world_from_camera")
    write_cameras(tmp_path / "t.json", drawn(0), size=SIZE, kind="nerfstudio")
    with pytest.raises(UserError, match="kind nerfstudio, which is 'opengl world_from_camera', not 'opencv"):
        read_cameras(tmp_path / "t.json", size=SIZE, convention="opencv world_from_camera")
    np.save(tmp_path / "a.npy", drawn(0).world_from_camera)
    with pytest.raises(UserError, match="does not say its convention"):
        read_cameras(tmp_path / "a.npy", size=SIZE, intrinsics=K)
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:90])
    with pytest.raises(UserError, match="damaged or unknown array"):
        read_cameras(tmp_path / "b.npy", size=SIZE, intrinsics=K)


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read_cameras(tmp_path / "no.json", size=SIZE)
    with pytest.raises(UserError, match=r"neither COLMAP's images.txt nor a transforms.json"):
        read_cameras(tmp_path, size=SIZE)
    (tmp_path / "images.bin").write_bytes(b"1")
    with pytest.raises(UserError, match="binary model of COLMAP: convert it by"):
        read_cameras(tmp_path, size=SIZE)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_cameras(tmp_path / "file" / "a.json", drawn(0), size=SIZE, kind="json")


LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3) | st.just(EYE)
VALUES = st.recursive(
    LEAVES, lambda of: st.lists(of, max_size=3) | st.dictionaries(st.just("a"), of, max_size=1)
)
POSED = {"file_path": "1.png", "transform_matrix": EYE}
TURNED = {"camera_to_world": np.eye(4).reshape(-1).tolist(), "fov": 50}
WHOLE: list[dict[str, Any]] = [
    MINE | {"matrices": [EYE], "size": [48, 64], "times": [1], "names": ["a"]},
    {
        "w": 64,
        "h": 48,
        "fl_x": 50,
        "fl_y": 50,
        "cx": 3,
        "cy": 3,
        "applied_transform": EYE[:3],
        "frames": [POSED],
    },
    {"w": 64, "camera_angle_x": 1, "camera_model": "OPENCV", "frames": [POSED | {"cx": 1}]},
    {"camera_type": "perspective", "fps": 10, "camera_path": [TURNED]},
]


@st.composite
def damaged(draw: Any) -> Any:
    """A good file of JSON with one value, anywhere, of another kind."""
    content = json.loads(json.dumps(draw(st.sampled_from(WHOLE))))
    place, key = content, draw(st.sampled_from(sorted(content)))
    while isinstance(place[key], list | dict) and place[key] and draw(st.booleans()):
        place = place[key]
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = draw(VALUES)
    return content


LINES = st.lists(
    st.lists(st.sampled_from(["0", "1", "-2.5", "nan", "1e400", "#", "a.png", "PINHOLE", "://", ","]))
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=60) | VALUES | damaged() | damaged() | LINES)
def test_whatever_lies_in_a_file_is_cameras_or_one_sentence(tmp_path: Path, content: Any) -> None:
    if isinstance(content, list) and all(isinstance(line, list) for line in content):
        content = "\n".join(" ".join(map(str, line)) for line in content).encode()
    (tmp_path / "any").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    try:
        path = read_cameras(tmp_path / "any", size=SIZE, intrinsics=K)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(path.world_from_camera).all()
