"""A generated scene as a folder that other tools open, with the exact cameras that it was made along.

    scene/
      scene.json                cameras (`camera_files`), metadata such as seed and prompt, fps, depth_scale
      video.mp4
      images/00000.png          the frames without loss
      depth/00000.png           16 bits: counts of `depth_scale` world units, 0 is unknown
      depth.npy                 float32 (t, h, w)
      points.ply                points with colours and normals
      gaussians.ply             the points as flat Gaussians, for viewers of 3D Gaussian Splatting
      points.glb surface.glb    the points; the first frame as triangles
      transforms.json           nerfstudio, with points.ply to begin from
      sparse/0/                 COLMAP: cameras.txt, images.txt, points3D.txt

All of them are in one world. With `images` beside them, the folder is a data set of COLMAP and of nerfstudio.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamwalk.camera_files import cameras_json, nerfstudio_json, write_cameras
from dreamwalk.camera_paths import CameraPath
from dreamwalk.cameras import depth_normals, unproject
from dreamwalk.data.film import write_film
from dreamwalk.data.point_files import depth_surface, write_gaussians, write_glb, write_ply
from dreamwalk.errors import UserError, require_writable, writing

COUNTS = 65535
"""The largest value of a 16-bit picture."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What was generated along a camera path; UserError for arrays that do not belong together."""

    frames: np.ndarray
    """uint8 `(t, h, w, 3)`."""
    depth: np.ndarray
    """Planar, in world units, float `(t, h, w)`, 0 where unknown."""
    cameras: CameraPath
    """`t` of them."""
    points: np.ndarray
    """World coordinates, float `(n, 3)`."""
    colours: np.ndarray
    """uint8 `(n, 3)`."""
    normals: np.ndarray
    """Unit, float `(n, 3)`, 0 where unknown."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What JSON can hold: seed, prompt, scale and the like."""
    footprints: np.ndarray | None = None
    """World size of the pixel that saw each point, `(n,)`; by default that of the nearest camera."""
    fps: float = 24.0

    def __post_init__(self) -> None:
        t, n = len(self.cameras), len(self.points)
        if self.frames.dtype != np.uint8 or self.frames.shape[::3] != (t, 3) or self.frames.ndim != 4:
            raise UserError(
                f"a scene of {t} cameras has uint8 frames ({t}, h, w, 3), got {self.frames.shape}"
            )
        of_points = {"points": (n, 3), "colours": (n, 3), "normals": (n, 3), "footprints": (n,)}
        for name, shape in ({"depth": self.frames.shape[:3]} | of_points).items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise UserError(f"{name} of this scene must be of shape {shape}, got {array.shape}")
            if array is not None and name != "depth" and not np.isfinite(array).all():
                raise UserError(
                    f"{name} of this scene have numbers that are not finite: leave those points out"
                )
        if self.colours.dtype != np.uint8:
            raise UserError(f"colours of points are uint8, got {self.colours.dtype}")
        if not n:
            raise UserError(
                "a scene has one point at least, and here no depth is known: give depth in world units"
            )
        try:
            json.dumps(dict(self.metadata), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"the metadata of a scene must be what JSON can hold ({error}): change that"
            ) from None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.frames.shape[1], self.frames.shape[2]


def scene_of_frames(
    frames: np.ndarray,
    depth: np.ndarray,
    cameras: CameraPath,
    *,
    metadata: Mapping[str, Any] | None = None,
    fps: float = 24.0,
) -> Scene:
    """A scene whose points are all pixels of its frames that have a normal: what is known and on no edge.

    Nothing is merged: a surface that many frames show has the points of them all. UserError for arrays that
    do not belong together, or where no depth is known.
    """
    if depth.shape != frames.shape[:3] or len(depth) != len(cameras):
        given = f"{frames.shape[:3]}, {depth.shape} and {len(cameras)}"
        raise UserError(f"frames, depth and cameras must be of one number and size, got {given}")
    lenses, poses = cameras.intrinsics, cameras.world_from_camera
    normals = depth_normals(depth, intrinsics=lenses, world_from_camera=poses)
    kept = np.linalg.norm(normals, axis=-1) > 0
    places = unproject(np.where(kept, depth, 0), intrinsics=lenses, world_from_camera=poses)
    sizes = depth / lenses[:, 0, 0][:, None, None]
    found = (places[kept], frames[kept], normals[kept])
    return Scene(frames, depth, cameras, *found, metadata or {}, sizes[kept], fps)


def check_scene_folder(folder: Path | str) -> None:
    """UserError unless a scene can be written there, where nothing is or an empty folder; worth asking before
    long work."""
    folder = Path(folder)
    require_writable(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"there is something in '{folder}' already: choose another folder for the scene")


def write_scene(folder: Path | str, scene: Scene) -> None:
    """Write a scene into a new folder, or an empty one; it is there as a whole or not at all.

    UserError when there is something in the folder, or it cannot be written, or the disk is full.
    """
    folder = Path(folder)
    check_scene_folder(folder)
    names = tuple(f"images/{k:05d}.png" for k in range(len(scene.frames)))
    cameras, size = replace(scene.cameras, names=names), scene.size
    first = cameras.world_from_camera[0]
    with writing(folder), _whole(folder) as partial:
        scale = _write_depth(partial, scene.depth)
        head = {"metadata": dict(scene.metadata), "fps": scene.fps, "depth_scale": scale}
        _write_json(partial / "scene.json", head | cameras_json(cameras, size, "opencv world_from_camera"))
        _write_frames(partial, scene, names)
        points, colours = scene.points, scene.colours
        write_ply(partial / "points.ply", points, colours=colours, normals=scene.normals)
        sizes = _footprints(scene) if scene.footprints is None else scene.footprints
        write_gaussians(
            partial / "gaussians.ply", points, colours=colours, normals=scene.normals, footprints=sizes
        )
        write_glb(partial / "points.glb", points, colours=colours, seen_by=first)
        lens = cameras.intrinsics[0]
        surface, triangles, pixels = depth_surface(scene.depth[0], intrinsics=lens, world_from_camera=first)
        if len(triangles):
            paint = scene.frames[0].reshape(-1, 3)[pixels]
            write_glb(partial / "surface.glb", surface, colours=paint, triangles=triangles, seen_by=first)
        _write_json(
            partial / "transforms.json", nerfstudio_json(cameras, size) | {"ply_file_path": "points.ply"}
        )
        model = partial / "sparse" / "0"
        bare = replace(cameras, names=tuple(Path(name).name for name in names))
        write_cameras(model, bare, size=size, kind="colmap")
        _write_points(model / "points3D.txt", points, colours)


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write into, which becomes it when all went well and is removed when not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.absolute().with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        yield partial
        partial.replace(folder)
    except UserError as error:
        raise UserError(str(error).replace(str(partial), str(folder))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def _write_frames(folder: Path, scene: Scene, names: tuple[str, ...]) -> None:
    """Pictures, and a film of them, whose sides are even as players want them."""
    (folder / "images").mkdir()
    for name, frame in zip(names, scene.frames, strict=True):
        Image.fromarray(frame).save(folder / name)
    height, width = scene.size
    even = np.pad(scene.frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    write_film(folder / "video.mp4", even, fps=scene.fps)


def _write_depth(folder: Path, depth: np.ndarray) -> float:
    """Depth as float32 and as 16-bit pictures, of which a count is so many world units."""
    known = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
    np.save(folder / "depth.npy", known)
    scale = float(known.max()) / COUNTS or 1.0
    counts = np.where(known > 0, np.clip(np.round(known / scale), 1, COUNTS), 0).astype(np.uint16)
    (folder / "depth").mkdir()
    for k, picture in enumerate(counts):
        Image.fromarray(picture).save(folder / "depth" / f"{k:05d}.png")
    return scale


def _write_points(path: Path, points: np.ndarray, colours: np.ndarray) -> None:
    """COLMAP's points3D.txt, of points that no track leads to."""
    rows = np.concatenate(
        [np.arange(1, len(points) + 1)[:, None], points, colours, 0 * points[:, :1]], axis=1
    )
    head = "POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[]"
    np.savetxt(path, rows, fmt="%d %.9g %.9g %.9g %d %d %d %d", header=head)


def _footprints(scene: Scene) -> np.ndarray:
    """World sizes (n,) of pixels by the distance of each point from the camera that is nearest to it."""
    nearest = np.full(len(scene.points), np.inf)
    for pose, lens in zip(scene.cameras.world_from_camera, scene.cameras.intrinsics, strict=True):
        nearest = np.minimum(nearest, np.linalg.norm(scene.points - pose[:3, 3], axis=1) / lens[0, 0])
    return nearest
