"""RealEstate10K and DL3DV-10K, in files that are written here as theirs are."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from PIL import Image

from dreamwalk.camera_paths import CameraPath, camera_path
from dreamwalk.camera_texts import format_realestate
from dreamwalk.cameras import camera_rays, invert, project
from dreamwalk.commands.collect import collect
from dreamwalk.data.dl3dv import Dl3dv
from dreamwalk.data.posed_frames import Distortion
from dreamwalk.data.realestate import RealEstate
from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.images import resample

WIDE = (36, 64)
K = np.array([[50.0, 0, 32], [0, 50, 18], [0, 0, 1]])
MARK = np.array([[0.2, -0.1, 4.0]])
"""A point in the world that every picture shows as a bright spot."""


def walked(frames: int) -> CameraPath:
    path = camera_path("orbit:12,forward:0.5", intrinsics=K, frames=frames, depth=4)
    return CameraPath(path.world_from_camera, K, times=52.553 + np.arange(frames) * 0.033)


def show(path: CameraPath, at: int, lens: Distortion | None = None, scale: float = 1) -> np.ndarray:
    """The spot, as a camera of a path (and through a lens that distorts) sees it."""
    (pixel,), _ = project(MARK, intrinsics=K, world_from_camera=path.world_from_camera[at])
    if lens is not None:
        x, y = (pixel - [32, 18]) / 50
        square = x * x + y * y
        radial = 1 + lens.k1 * square + lens.k2 * square**2
        bent = x * radial + 2 * lens.p1 * x * y + lens.p2 * (square + 2 * x * x)
        sagged = y * radial + lens.p1 * (square + 2 * y * y) + 2 * lens.p2 * x * y
        pixel = np.array([50 * bent + 32, 50 * sagged + 18])
    rows, columns = np.mgrid[: int(36 * scale), : int(64 * scale)] + 0.5
    away = (columns - scale * pixel[0]) ** 2 + (rows - scale * pixel[1]) ** 2
    return np.repeat(np.round(250 * np.exp(-away / 8)).astype(np.uint8)[..., None], 3, axis=-1)


def spot(picture: np.ndarray) -> np.ndarray:
    """Where a picture shows it, x first."""
    light = picture[..., 0].astype(np.float64) * (picture[..., 0] > 40)
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    return np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()


def agrees(clip: Any, *, within: float) -> None:
    """Cameras of a clip put the spot where its frames show it."""
    pixels, _ = project(MARK, intrinsics=clip.intrinsics, world_from_camera=clip.world_from_camera)
    seen = np.stack([spot(frame) for frame in clip.video])
    np.testing.assert_allclose(pixels[:, 0], seen, atol=within)


def realestate(folder: Path, *, frames: int = 14, missing: tuple[int, ...] = ()) -> Path:
    path = walked(frames)
    for name in ("b1", "a0"):
        (folder / "train").mkdir(parents=True, exist_ok=True)
        text = format_realestate(path, size=WIDE, address=f"https://www.youtube.com/watch?v={name}")
        (folder / "train" / f"{name}.txt").write_text(text)
        beside = folder / "train" / name
        beside.mkdir()
        stamps = [line.split()[0] for line in text.splitlines()[1:]]
        for k in set(range(frames)) - set(missing):
            Image.fromarray(show(path, k)).save(beside / f"{stamps[k]}.png")
    return folder


@pytest.mark.parametrize("size", [(36, 64), (36, 36), (18, 40)])
@pytest.mark.parametrize("fit", ["cut", "letterbox", "stretch"])
def test_realestate_is_collected_and_its_cameras_agree_with_its_frames(
    fit: Any, size: tuple[int, int], tmp_path: Path
) -> None:
    """Whatever becomes of the frames, the intrinsics follow."""
    folder, out = realestate(tmp_path / "data"), tmp_path / "out"
    flags = ["--clip-frames", "6", "--size", str(size[0]), str(size[1]), "--fit", fit]
    collect(["realestate", "--folder", str(folder), "--out", str(out), *flags])
    data = Shards(out)
    assert len(data) == 4 and data.fps == pytest.approx(1 / 0.033, rel=1e-3)
    assert data.manifest["world"] == "realestate" and data.manifest["scenes"] == 2
    clip = data.clip(1)
    assert clip.actions.shape == (6, 0)
    np.testing.assert_allclose(clip.world_from_camera, walked(14).world_from_camera[6:12], atol=1e-6)
    agrees(clip, within=0.35)


def test_clips_do_not_go_over_missing_frames(tmp_path: Path) -> None:
    source = RealEstate(folder=realestate(tmp_path / "data", missing=(5,)), clip_frames=4, size=WIDE)
    assert [start for _, start in source.contents.clips] == [0, 5, 9] * 2
    assert (
        "2 scenes, 26 frames: 6 clips" in source.report() and "2 frames do not fill a clip" in source.report()
    )
    clips = list(source.clips(range(3)))
    np.testing.assert_allclose(clips[1].world_from_camera, walked(14).world_from_camera[6:10], atol=1e-6)
    # frames that were extracted at a third of the rate are neighbours
    thin = realestate(tmp_path / "thin", missing=tuple(k for k in range(14) if k % 3))
    source = RealEstate(folder=thin, clip_frames=5, size=WIDE)
    assert len(source) == 2 and source.rate == pytest.approx(1 / 0.099, rel=1e-3)
    # every second frame of all
    source = RealEstate(folder=realestate(tmp_path / "all"), clip_frames=5, size=WIDE, stride=2)
    (clip,) = source.clips(range(1))
    assert len(source) == 2 and source.rate == pytest.approx(1 / 0.066, rel=1e-3)
    np.testing.assert_allclose(clip.world_from_camera, walked(14).world_from_camera[:10:2], atol=1e-6)


def test_frames_may_lie_elsewhere_and_some_may_be_lost(tmp_path: Path) -> None:
    folder = realestate(tmp_path / "data")
    (tmp_path / "frames").mkdir()
    (folder / "train").rename(tmp_path / "frames" / "train")
    (folder / "train").mkdir()
    for text in (tmp_path / "frames" / "train").glob("*.txt"):
        text.rename(folder / "train" / text.name)
    (folder / "train" / "c2.txt").write_text((folder / "train" / "a0.txt").read_text())
    (folder / "train" / "d3.txt").write_text("https://www.youtube.com/watch?v=d3\n1 2 3\n")
    source = RealEstate(folder=folder, frames=tmp_path / "frames", clip_frames=14, size=WIDE)
    assert len(source) == 2
    assert "train/c2.txt: has no folder of frames" in source.report()
    assert "train/d3.txt: line 2 must be 19 finite numbers" in source.report()


APPLIED = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
LENS = Distortion(k1=-0.3, k2=0.08, p1=0.01, p2=-0.015)


def dl3dv(
    folder: Path, *, lens: Distortion | None = LENS, names: str = "frame_{:05d}.png", **other: Any
) -> Path:
    """Pictures at a quarter of the size that the intrinsics are for, frames in any order."""
    path, scene = walked(9), folder / "1K" / "0f9c"
    (scene / "images_4").mkdir(parents=True)
    frames = []
    for k in (7, 2, 0, 1, 8, 4, 3, 6, 5):
        name = names.format(k + 1)
        Image.fromarray(show(path, k, lens)).save(scene / "images_4" / name)
        stored = APPLIED @ path.world_from_camera[k] @ np.diag([1.0, -1, -1, 1])
        frames.append({"file_path": f"images/{name}", "transform_matrix": stored.tolist(), "colmap_im_id": k})
    content = {
        "w": 256,
        "h": 144,
        "fl_x": 200.0,
        "fl_y": 200.0,
        "cx": 128.0,
        "cy": 72.0,
        "camera_model": "OPENCV",
    }
    content |= {} if lens is None else {"k1": lens.k1, "k2": lens.k2, "p1": lens.p1, "p2": lens.p2}
    content |= {"applied_transform": APPLIED[:3].tolist(), "frames": frames}
    (scene / "transforms.json").write_text(json.dumps(content | other))
    return folder


@pytest.mark.parametrize("lens", [None, LENS])
@pytest.mark.parametrize("size", [(36, 64), (30, 30)])
def test_dl3dv_is_collected_undistorted(
    lens: Distortion | None, size: tuple[int, int], tmp_path: Path
) -> None:
    folder, out = dl3dv(tmp_path / "data", lens=lens), tmp_path / "out"
    flags = ["--images", "images_4", "--clip-frames", "9", "--size", str(size[0]), str(size[1]), "--fps", "8"]
    collect(["dl3dv", "--folder", str(folder), "--out", str(out), *flags])
    data = Shards(out)
    assert len(data) == 1 and data.fps == 8
    clip = data.clip(0)
    np.testing.assert_allclose(clip.world_from_camera, walked(9).world_from_camera, atol=1e-5)
    agrees(clip, within=0.35)


def test_numbers_of_frames_sort_as_people_count(tmp_path: Path) -> None:
    source = Dl3dv(folder=dl3dv(tmp_path, names="{}.png"), images="images_4", clip_frames=9, size=WIDE)
    (clip,) = source.clips(range(1))
    np.testing.assert_allclose(clip.world_from_camera, walked(9).world_from_camera, atol=1e-5)
    next(tmp_path.rglob("4.png")).unlink()
    assert Dl3dv(folder=tmp_path, images="images_4", clip_frames=5, size=WIDE).contents.clips[0][1] == 3


@pytest.mark.parametrize(
    ("other", "options", "sentence"),
    [
        ({}, {"images": "images_8"}, "has no 'images_8' beside it, there is images_4: say which by --images"),
        ({"k4": 0.1}, {}, "has a lens with k4, which is not known here"),
        ({"camera_model": "OPENCV_FISHEYE"}, {}, "has the lens 'OPENCV_FISHEYE'"),
        ({"frames": []}, {}, "must be matrices"),
        ({"w": "wide"}, {}, "must be a number"),
        ({}, {"clip_frames": 99}, "no scene has 99 frames one after another"),
    ],
)
def test_scenes_that_cannot_be_used(
    other: dict[str, Any], options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    given = {"images": "images_4", "clip_frames": 4, "size": WIDE} | options
    with pytest.raises(UserError, match=sentence):
        Dl3dv(folder=dl3dv(tmp_path, **other), **given).contents  # noqa: B018


def test_folders_without_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no transforms\.json"):
        len(Dl3dv(folder=tmp_path))
    with pytest.raises(UserError, match="holds no texts of cameras"):
        len(RealEstate(folder=tmp_path))
    with pytest.raises(UserError, match="strides 1 at least, got 64 of"):
        RealEstate(folder=tmp_path, stride=0)


def test_pictures_of_another_shape_and_fewer_than_before(tmp_path: Path) -> None:
    source = RealEstate(folder=realestate(tmp_path), clip_frames=6, size=WIDE)
    assert len(source) == 4
    pictures = sorted((tmp_path / "train" / "a0").iterdir())
    Image.new("RGB", (64, 48)).save(pictures[3])
    with pytest.raises(UserError, match="is of 48x64, its scene of 36x64"):
        next(source.clips(range(1)))
    for picture in pictures[8:]:
        picture.unlink()
    with pytest.raises(UserError, match="has changed: run the same command again"):
        next(source.clips(range(1, 2)))


def test_a_source_travels_to_other_processes(tmp_path: Path) -> None:
    source = RealEstate(folder=realestate(tmp_path), clip_frames=6, size=WIDE)
    assert len(source) == 4
    other = pickle.loads(pickle.dumps(source))
    for one, two in zip(source.clips(range(1, 3)), other.clips(range(1, 3)), strict=True):
        assert (one.video == two.video).all() and (one.world_from_camera == two.world_from_camera).all()


def test_distortion_is_that_of_colmap() -> None:
    """Its model OPENCV, at every pixel."""
    params = [*K[[0, 1, 0, 1], [0, 1, 2, 2]], LENS.k1, LENS.k2, LENS.p1, LENS.p2]
    camera = pycolmap.Camera(model="OPENCV", width=64, height=36, params=params)
    rays = camera_rays(K, WIDE).reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(LENS.places(K, WIDE).reshape(-1, 2), camera.img_from_cam(rays), atol=1e-9)


def test_a_lens_without_distortion_changes_nothing() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (36, 64, 3), np.uint8)
    assert (resample(picture, Distortion().places(K, WIDE)) == picture).all()
    moved = resample(picture, Distortion().places(K, WIDE) + np.array([1, 0]))
    assert (moved[:, :-1] == picture[:, 1:]).all() and (moved[:, -1] == picture[:, -1]).all()


def test_the_text_is_camera_from_world(tmp_path: Path) -> None:
    realestate(tmp_path)
    numbers = np.array((tmp_path / "train" / "a0.txt").read_text().splitlines()[5].split(), float)
    assert len(numbers) == 19 and (numbers[5:7] == 0).all()
    np.testing.assert_allclose(
        numbers[7:].reshape(3, 4), invert(walked(14).world_from_camera[4])[:3], atol=1e-12
    )
    np.testing.assert_allclose(numbers[1:5], [50 / 64, 50 / 36, 0.5, 0.5])
