"""Scenes as folders, read again by tools of others."""

import json
import resource
from pathlib import Path

import av
import numpy as np
import plyfile
import pycolmap
import pytest
import trimesh
from PIL import Image

from dreamwalk.camera_files import read_cameras
from dreamwalk.camera_paths import CameraPath, camera_path
from dreamwalk.cameras import camera_rays, depth_discontinuities, depth_normals, project
from dreamwalk.data.point_files import depth_surface, write_gaussians, write_glb, write_ply
from dreamwalk.data.scene_files import Scene, check_scene_folder, scene_of_frames, write_scene
from dreamwalk.errors import UserError

SIZE = (36, 48)
K = np.array([[40.0, 0, 24], [0, 42, 18], [0, 0, 1]])
FLOOR, WALL = np.array([0.0, -1, 0]), np.array([0.0, 0, -1])


def seen(pose: np.ndarray, lens: np.ndarray = K) -> np.ndarray:
    """Depth of a floor 1 below, a wall 8 ahead, and in front of it a board 3 ahead, left of the middle."""
    rays, place = camera_rays(lens, SIZE).astype(np.float64) @ pose[:3, :3].T, pose[:3, 3]
    with np.errstate(divide="ignore"):
        floor, wall, board = ((d - place[k]) / rays[..., k] for k, d in ((1, 1.0), (2, 8.0), (2, 3.0)))
    hit = place + board[..., None] * rays
    board = np.where((np.abs(hit[..., 0] + 0.5) < 0.4) & (np.abs(hit[..., 1]) < 0.5), board, np.inf)
    every = np.stack([floor, wall, board])
    return np.where(every > 0, every, np.inf).min(0)


def scene(frames: int = 3, **options: object) -> Scene:
    start = np.eye(4)
    cameras = camera_path("orbit:10", intrinsics=K, frames=frames, first=start, depth=5)
    depth = np.stack([seen(pose) for pose in cameras.world_from_camera])
    pictures = np.random.default_rng(0).integers(0, 256, (frames, *SIZE, 3), np.uint8)
    given: dict[str, object] = {"metadata": {"seed": 3, "prompt": "a wall", "scale": 1.0}} | options
    return scene_of_frames(pictures, depth, cameras, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scene]:
    made, folder = scene(), tmp_path_factory.mktemp("scenes") / "wall"
    write_scene(folder, made)
    return folder, made


def test_normals_face_the_camera_and_end_at_edges() -> None:
    """Of a floor however far, of a wall and of a board, seen aslant; none along the board's outline."""
    pose = camera_path("pan:15,tilt:-5,roll:20", intrinsics=K, frames=4).world_from_camera[-1]
    depth = seen(pose)
    normals = depth_normals(depth, intrinsics=K, world_from_camera=pose)
    known = np.linalg.norm(normals, axis=-1) > 0
    assert 0.8 < known.mean() < 1
    right = np.stack([np.abs(normals @ way - 1) < 0.02 for way in (FLOOR, WALL)]).any(0)
    creases = known & ~right  # where the floor meets the wall, both are in the neighbourhood
    assert creases.mean() < 0.06
    jump = np.abs(np.diff(depth, axis=1)) > 2
    assert jump.any() and not known[:, 1:][jump].any() and not known[:, :-1][jump].any()
    rays = camera_rays(K, SIZE) @ pose[:3, :3].T
    assert (np.sum(normals * rays, -1)[known] < 0).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1)[known], 1)


def test_edges_of_depth() -> None:
    flat = np.full((7, 8), 2.0)
    assert not depth_discontinuities(flat).any()
    unknown = flat.copy()
    unknown[3, 4] = np.nan
    around = np.argwhere(depth_discontinuities(unknown)).tolist()
    assert around == [[2, 4], [3, 3], [3, 4], [3, 5], [4, 4]]
    slope = 1 / np.linspace(0.5, 0.01, 50)[None].repeat(4, 0)  # to 50 times as far in 50 pixels, a plane
    assert not depth_discontinuities(slope).any()


def test_the_cloud_in_trimesh_and_plyfile(written: tuple[Path, Scene]) -> None:
    folder, made = written
    cloud = trimesh.load(folder / "points.ply")
    np.testing.assert_allclose(cloud.vertices, made.points, rtol=1e-6)
    assert (cloud.colors[:, :3] == made.colours).all()
    file = plyfile.PlyData.read(folder / "points.ply")
    assert file.byte_order == "<" and not file.text
    found = file["vertex"]
    assert [p.name for p in found.properties] == ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]
    np.testing.assert_allclose(np.stack([found[n] for n in ("nx", "ny", "nz")], 1), made.normals, atol=1e-6)


def test_the_gaussians_in_plyfile(written: tuple[Path, Scene]) -> None:
    """Names, types and codes as in 3D Gaussian Splatting; thin along the normal, wide by the footprint."""
    folder, made = written
    found = plyfile.PlyData.read(folder / "gaussians.ply")["vertex"]
    names = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert [p.name for p in found.properties] == names.split()
    assert all(p.val_dtype == "f4" for p in found.properties)
    table = {name: np.asarray(found[name], np.float64) for name in names.split()}
    assert 1 / (1 + np.exp(-table["opacity"][0])) == pytest.approx(0.95)
    painted = 0.28209479177387814 * table["f_dc_1"] + 0.5
    np.testing.assert_allclose(painted * 255, made.colours[:, 1], atol=1e-3)
    np.testing.assert_allclose(np.exp(table["scale_0"]), 0.6 * made.footprints, rtol=1e-5)
    np.testing.assert_allclose(table["scale_2"], table["scale_0"] + np.log(0.05), rtol=1e-5)
    turns = [
        pycolmap.Rotation3d([table[f"rot_{k}"][i] for k in (1, 2, 3, 0)]) for i in range(0, len(painted), 97)
    ]
    thin = [turn.matrix()[:, 2] for turn in turns]
    np.testing.assert_allclose(thin, made.normals[::97], atol=1e-5)


def test_gaussians_of_all_directions(tmp_path: Path) -> None:
    """Also straight away from z, and without a normal, where they are round."""
    normals = np.array([[0, 0, 1.0], [0, 0, -1], [1, 0, 0], [0, 0, 0]])
    given = {"colours": np.zeros((4, 3), np.uint8), "normals": normals, "footprints": np.ones(4)}
    write_gaussians(tmp_path / "g.ply", np.zeros((4, 3)), **given)
    found = plyfile.PlyData.read(tmp_path / "g.ply")["vertex"]
    rows = np.stack([found[f"rot_{k}"] for k in (1, 2, 3, 0)], 1)
    thin = [pycolmap.Rotation3d(row.astype(float)).matrix()[:, 2] for row in rows]
    np.testing.assert_allclose(thin[:3], normals[:3], atol=1e-6)
    np.testing.assert_allclose(found["scale_2"] - found["scale_0"], [np.log(0.05)] * 3 + [0], atol=1e-6)


def test_points_and_surface_in_trimesh(written: tuple[Path, Scene]) -> None:
    """Upright for the first camera: what is ahead and up in it has -z and +y."""
    folder, made = written
    loaded = trimesh.load(folder / "points.glb")
    (cloud,) = loaded.dump()
    np.testing.assert_allclose(cloud.vertices, made.points * [1, -1, -1], atol=1e-5)
    surface = trimesh.load(folder / "surface.glb").to_geometry()
    assert len(surface.faces) > 2000
    assert (np.sum(surface.face_normals * surface.triangles_center, axis=1) < 0).all(), "all face the camera"
    depths = -surface.triangles[..., 2]
    board = np.isclose(depths, 3, atol=1e-4) & (surface.triangles[..., 1] > -0.6)
    assert board.all(1).sum() > 50, "the board is there"
    assert np.ptp(depths[board.any(1)], axis=1).max() < 0.5, "and nothing joins it with the wall, 5 behind it"


def test_colours_of_a_glb_are_linear(tmp_path: Path) -> None:
    """sRGB 188 is half of the light, and 10 is 0.3 percent of it (IEC 61966-2-1)."""
    colours = np.array([[0, 188, 255], [10, 10, 10]], np.uint8)
    write_glb(tmp_path / "a.glb", np.array([[0.0, 0, 1], [1, 2, 3]]), colours=colours)
    data = (tmp_path / "a.glb").read_bytes()
    size = int.from_bytes(data[12:16], "little")
    head = json.loads(data[20 : 20 + size])
    assert len(data) == int.from_bytes(data[8:12], "little") and data[:4] == b"glTF"
    assert head["accessors"][0]["max"] == [1, 2, 3] and head["materials"][0]["extensions"]
    paint = np.frombuffer(data[-16:], "<u2").reshape(2, 4) / 65535
    np.testing.assert_allclose(paint, [[0, 0.5029, 1, 1], [0.00304] * 3 + [1]], atol=1e-4)


def test_a_surface_is_cut_at_edges() -> None:
    depth = np.full((6, 8), 2.0)
    depth[:, 4:] = 6
    depth[0, 0] = 0
    points, triangles, pixels = depth_surface(depth, intrinsics=K, world_from_camera=np.eye(4))
    assert pixels.tolist() == list(range(1, 48)) and (points[:, 2] == depth.reshape(-1)[1:]).all()
    z = points[triangles][..., 2]
    assert (z.min(1) == z.max(1)).all() and z.min() == 2
    assert len(triangles) == 2 * 5 * 6 - 1


def test_the_model_in_pycolmap(written: tuple[Path, Scene]) -> None:
    folder, made = written
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    assert len(model.images) == 3 and len(model.points3D) == len(made.points)
    for image in model.images.values():
        k = int(Path(image.name).stem)
        assert (folder / "images" / image.name).is_file()
        true = np.linalg.inv(made.cameras.world_from_camera[k])
        np.testing.assert_allclose(image.cam_from_world().matrix(), true[:3], atol=1e-12)
        camera = model.cameras[image.camera_id]
        np.testing.assert_allclose(camera.calibration_matrix(), K, atol=1e-12)
        assert (camera.width, camera.height) == SIZE[::-1]
        point = model.points3D[5]
        pixel, _ = project(point.xyz[None], intrinsics=K, world_from_camera=made.cameras.world_from_camera[k])
        np.testing.assert_allclose(image.project_point(point.xyz), pixel[0], atol=1e-6)
    np.testing.assert_allclose(model.points3D[7].xyz, made.points[6], rtol=1e-6)
    assert (model.points3D[7].color == made.colours[6]).all()


def test_a_model_that_pycolmap_writes_is_read(written: tuple[Path, Scene], tmp_path: Path) -> None:
    folder, made = written
    pycolmap.Reconstruction(folder / "sparse" / "0").write_text(tmp_path)
    back = read_cameras(tmp_path, size=SIZE)
    np.testing.assert_allclose(back.world_from_camera, made.cameras.world_from_camera, atol=1e-12)
    np.testing.assert_allclose(back.intrinsics, made.cameras.intrinsics)
    assert back.names == ("00000.png", "00001.png", "00002.png")


def test_the_exact_cameras_are_read_again(written: tuple[Path, Scene]) -> None:
    folder, made = written
    for path in (folder / "scene.json", folder / "transforms.json", folder / "sparse" / "0"):
        back = read_cameras(path, size=SIZE)
        np.testing.assert_allclose(back.world_from_camera, made.cameras.world_from_camera, atol=1e-12)
        np.testing.assert_allclose(back.intrinsics, made.cameras.intrinsics)
    transforms = json.loads((folder / "transforms.json").read_text())
    assert (folder / transforms["ply_file_path"]).is_file()
    assert all((folder / frame["file_path"]).is_file() for frame in transforms["frames"])
    content = json.loads((folder / "scene.json").read_text())
    assert content["metadata"] == {"seed": 3, "prompt": "a wall", "scale": 1.0} and content["fps"] == 24


def test_pictures_film_and_depth(written: tuple[Path, Scene]) -> None:
    folder, made = written
    for k in range(3):
        with Image.open(folder / "images" / f"{k:05d}.png") as picture:
            assert (np.asarray(picture) == made.frames[k]).all()
    scale = json.loads((folder / "scene.json").read_text())["depth_scale"]
    with Image.open(folder / "depth" / "00001.png") as picture:
        assert picture.mode.startswith("I;16")
        counts = np.asarray(picture).astype(np.float64)
    known = np.isfinite(made.depth[1])
    np.testing.assert_allclose(counts[known] * scale, made.depth[1][known], atol=scale)
    exact = np.load(folder / "depth.npy")
    assert exact.dtype == np.float32
    np.testing.assert_allclose(exact[1][known], made.depth[1][known], rtol=1e-6)
    with av.open(str(folder / "video.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 3 and frames[0].shape == (*SIZE, 3)


def test_odd_sizes_unknown_depth_and_points_of_a_cache(tmp_path: Path) -> None:
    """Without a surface, and with footprints by the nearest camera."""
    cameras = CameraPath(np.eye(4)[None], K)
    points, colours = np.array([[0.0, 0, 4]]), np.zeros((1, 3), np.uint8)
    frames, depth = np.zeros((1, 35, 47, 3), np.uint8), np.zeros((1, 35, 47))
    write_scene(tmp_path / "s", Scene(frames, depth, cameras, points, colours, np.zeros((1, 3))))
    assert not (tmp_path / "s" / "surface.glb").exists()
    found = plyfile.PlyData.read(tmp_path / "s" / "gaussians.ply")["vertex"]
    assert np.exp(found["scale_0"][0]) == pytest.approx(0.6 * 4 / 40)


def test_a_ply_without_normals(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", np.eye(3), colours=np.eye(3, dtype=np.uint8))
    assert (np.asarray(trimesh.load(tmp_path / "a.ply").vertices) == np.eye(3)).all()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """One sentence; neither half a scene nor a hidden folder is left, and there is room for another try."""
    made, limits = scene(), resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (1000, 30_000, 100_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(UserError, match=r"cannot be written .*: free some space there") as error:
                write_scene(tmp_path / "s", made)
            assert f"'{tmp_path}/s" in str(error.value) and "partial" not in str(error.value)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not list(tmp_path.iterdir())
    write_scene(tmp_path / "s", made)
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "s").iterdir()}
    with pytest.raises(UserError, match=r"there is something in '.*s' already: choose another folder"):
        write_scene(tmp_path / "s", made)
    assert before == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "s").iterdir()}
    (tmp_path / "file").write_text("dear reader")
    with pytest.raises(UserError, match="is in the way"):
        check_scene_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frames": np.zeros((1, 36, 48, 3), np.float32)}, r"has uint8 frames \(1, h, w, 3\)"),
        ({"frames": np.zeros((2, 36, 48, 3), np.uint8)}, r"got \(2, 36, 48, 3\)"),
        ({"depth": np.zeros((1, 36, 47))}, r"depth of this scene must be of shape \(1, 36, 48\)"),
        ({"normals": np.zeros((2, 3))}, r"normals of this scene must be of shape \(1, 3\)"),
        ({"points": np.full((1, 3), np.nan)}, "points of this scene have numbers that are not finite"),
        ({"colours": np.zeros((1, 3))}, "colours of points are uint8"),
        ({"points": np.zeros((0, 3))}, "must be of shape"),
        ({"metadata": {"seed": np.zeros(2)}}, "must be what JSON can hold"),
        ({"metadata": {"seed": float("nan")}}, "must be what JSON can hold"),
    ],
)
def test_scenes_that_do_not_fit_together(change: dict[str, object], sentence: str) -> None:
    whole: dict[str, object] = {"frames": np.zeros((1, 36, 48, 3), np.uint8), "depth": np.ones((1, 36, 48))}
    whole |= {"cameras": CameraPath(np.eye(4)[None], K), "points": np.zeros((1, 3))}
    whole |= {"colours": np.zeros((1, 3), np.uint8), "normals": np.zeros((1, 3))}
    with pytest.raises(UserError, match=sentence):
        Scene(**(whole | change))  # type: ignore[arg-type]


def test_no_known_depth_makes_no_scene() -> None:
    with pytest.raises(UserError, match=r"one number and size, got \(1, 36, 48\), \(2, 36, 48\) and 1"):
        scene_of_frames(
            np.zeros((1, 36, 48, 3), np.uint8), np.ones((2, 36, 48)), CameraPath(np.eye(4)[None], K)
        )
    with pytest.raises(UserError, match="no depth is known"):
        scene_of_frames(
            np.zeros((1, 36, 48, 3), np.uint8), np.zeros((1, 36, 48)), CameraPath(np.eye(4)[None], K)
        )
