"""`dreamwalk sample voyager.doom --image start.png --path orbit:30,forward:2 --out scene`: a scene."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from dreamwalk.camera_files import Convention, read_cameras
from dreamwalk.camera_moves import CameraMove
from dreamwalk.camera_paths import CameraPath, Easing, camera_path
from dreamwalk.cameras import intrinsics_matrix
from dreamwalk.commands.flags import check_seed, parse_flags
from dreamwalk.data.film import check_film, write_film
from dreamwalk.data.scene_files import Scene, check_scene_folder, write_scene
from dreamwalk.distributed import pick_device
from dreamwalk.errors import UserError
from dreamwalk.images import Fit, fit_image, read_picture
from dreamwalk.memory.frame_points import FAR
from dreamwalk.memory.world_cache import WorldCache, WorldCacheConfig
from dreamwalk.progress import followed
from dreamwalk.rollout.dream import from_image, to_image
from dreamwalk.systems import open as systems
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.path_sampling import ClipJoint, PathRequest, PathSampling
from dreamwalk.systems.voyager import Voyager, VoyagerConfig
from dreamwalk.validation import Count, Steps, conform


@dataclass(frozen=True)
class SamplePath:
    """Dream what lies along a camera path, from one picture, and write it as a scene."""

    out: Path
    """Where the scene goes: a new folder."""
    image: Path
    """The picture that the path begins with."""
    path: str = ""
    """Moves (docs/cameras.md), such as `orbit:30,forward:2`; in words, lengths are of the system's unit."""
    cameras: Path | None = None
    """A file of cameras instead of moves; they are taken from its first on."""
    convention: Convention | None = None
    """Of that file, if it does not say."""
    frames: int | None = None
    """Of a path of moves; default: two clips of the system."""
    easing: Easing = "linear"
    depth: Path | None = None
    """Depth of the picture: .npy in world units, or a 16-bit .png of them; 0 is the sky."""
    depth_scale: float = 1.0
    """World units of a count of that .png."""
    depth_model: str = ""
    """A folder or hub name of a depth-estimation model of transformers, for pictures without depth."""
    fov: float | None = None
    """Angle of view of the picture from left to right, in degrees; default: that of the training data."""
    fit: Fit = "cut"
    """Pictures of another size are cut about the middle, stretched, or shown whole between bars."""
    prompt: str = ""
    """What there is to see."""
    seed: int = 0
    steps: Steps | None = None
    """Denoising steps of a clip; default: the system's."""
    guidance: float | None = None
    joint: Annotated[ClipJoint, tyro.conf.arg(name="")] = field(default_factory=ClipJoint)
    cache: WorldCacheConfig = field(default_factory=WorldCacheConfig)
    """What is kept of frames."""
    keep_cache: Path | None = None
    """A folder for the world cache, which otherwise is gone at the end."""
    preview: Path | None = None
    """Instead of dreaming, draw what the picture alone shows along the path, into an .mp4 file."""
    device: Literal["cuda", "cpu"] | None = None
    """Default: an NVIDIA card if there is one."""

    def check(self) -> None:
        """UserError for what can be refused before anything is opened."""
        check_seed(self.seed)
        conform(Count, self.frames or 0, "`--frames`")
        if bool(self.path) == (self.cameras is not None):
            raise UserError("say where to go: give `--path orbit:30,forward:2`, or a file of `--cameras`")
        if self.fov is not None and not 0 < self.fov < 180:
            raise UserError(f"`--fov` lies between 0 and 180 degrees, got {self.fov}")
        if self.depth is not None and self.depth_model:
            raise UserError(
                "the depth is given, and a model for it too: leave out `--depth` or `--depth-model`"
            )
        check_scene_folder(self.out) if self.preview is None else check_film(self.preview)


def sample_path(name: str, argv: list[str]) -> None:
    """Run the verb."""
    asked: SamplePath = parse_flags(SamplePath, argv, prog=f"sample {name}")
    asked.check()
    system = systems.load(name)
    assert isinstance(system, Voyager)
    system.to(pick_device(asked.device))
    size = system.config.picture_size
    picture = from_image(fit_image(read_picture(asked.image), size, asked.fit))
    with closing(WorldCache(asked.cache, folder=asked.keep_cache)) as cache:
        _dream(asked, name, system, picture, cache)


def _dream(asked: SamplePath, name: str, system: Voyager, rgb: Tensor, cache: WorldCache) -> None:
    """Dream along the path from a picture `(3, h, w)` and write the scene, or only draw it."""
    depth = _depth(asked, system, rgb)
    cameras = _cameras(asked, system.config, depth)
    clip = ClipRequest((asked.prompt,), seed=asked.seed, steps=asked.steps, guidance=asked.guidance)
    poses, lenses = (torch.tensor(x).float() for x in (cameras.world_from_camera, cameras.intrinsics))
    request = PathRequest(rgb, depth, poses, lenses, clip, asked.joint)
    if asked.preview is not None:
        cache.insert(rgb[None], depth[None], poses[:1], lenses[:1], time=0)
        shown = pictures_of(cache.render(poses, lenses, size=system.config.picture_size).rgb)
        print(f"{write_film(asked.preview, shown, fps=system.config.fps)} frames: {asked.preview}")
        return
    sampling = PathSampling(system, request, cache)
    for _ in followed(sampling.steps(), "dreaming", total=len(sampling.plan.rows)):
        pass
    frames, far = sampling.frames()
    facts = ("prompt", "seed", "path", "steps")
    told = {"system": name, **{fact: getattr(asked, fact) for fact in facts}, "image": asked.image.name}
    told |= asdict(asked.joint)
    made = pictures_of(frames), far.numpy(), cameras, cache
    write_scene(asked.out, cached_scene(*made, told=told, fps=system.config.fps))
    print(f"{len(cameras)} frames, {len(cache):,} points: {asked.out}")


def cached_scene(
    frames: np.ndarray,
    depth: np.ndarray,
    cameras: CameraPath,
    cache: WorldCache,
    *,
    told: Mapping[str, Any],
    fps: float,
) -> Scene:
    """Frames uint8 `(t, h, w, 3)` and depth `(t, h, w)` along a path, with all points of a cache but the sky;
    `told` is the scene's metadata."""
    rows = "position", "rgb", "normal", "footprint"
    place, colours, normals, sizes = cached_points(cache, rows, around=cameras.world_from_camera[0, :3, 3])
    facing = normals.astype(np.float32) / 127.5 - 1
    return Scene(frames, depth, cameras, place, colours, facing, told, sizes, fps)


def cached_points(cache: WorldCache, rows: Sequence[str], *, around: np.ndarray) -> list[np.ndarray]:
    """Those rows of `Surfels` of all points of a cache but the sky, which is far from the place `around`
    `(3,)`: `(n, 3)` or `(n,)`."""
    parts = list(cache.tiles.all_points())
    columns = {
        row: np.concatenate([getattr(part, row).numpy() for part in parts], -1).T
        for row in {"position", *rows}
    }
    seen = np.linalg.norm(columns["position"] - around, axis=1) < FAR / 2
    return [columns[row][seen] for row in rows]


def pictures_of(frames: Tensor) -> np.ndarray:
    """uint8 `(t, h, w, 3)` of frames `(t, 3, h, w)` in [-1, 1]."""
    return np.stack([to_image(frame) for frame in frames])


def picture_lens(config: VoyagerConfig, fov: float | None = None) -> np.ndarray:
    """The intrinsics `(3, 3)` of a picture of which nothing else is known than its angle of view in degrees,
    if that."""
    h, w = config.picture_size
    focal = config.focal[0] * w, config.focal[1] * h
    if fov is not None:
        across = w / 2 / math.tan(math.radians(fov) / 2)
        focal = across, across * focal[1] / focal[0]
    return intrinsics_matrix(*focal, cx=w / 2, cy=h / 2)


def path_cameras(
    config: VoyagerConfig,
    moves: str | Sequence[CameraMove],
    *,
    lens: np.ndarray,
    depth: np.ndarray,
    frames: int | None = None,
    easing: Easing = "linear",
) -> CameraPath:
    """The cameras of moves in the system's unit, in world units, from the origin on; `depth` `(h, w)` is that
    of the first one's picture."""
    h, w = depth.shape
    centre = depth[h // 3 : -(h // 3), w // 3 : -(w // 3)]
    near = float(np.median(centre[centre > 0])) / config.unit if (centre > 0).any() else None
    path = camera_path(moves, intrinsics=lens, frames=frames, depth=near, easing=easing)
    poses = path.world_from_camera.copy()
    poses[:, :3, 3] *= config.unit
    return replace(path, world_from_camera=poses)


def _cameras(asked: SamplePath, config: VoyagerConfig, depth: Tensor) -> CameraPath:
    """The cameras to go along, in world units."""
    lens = picture_lens(config, asked.fov)
    if asked.cameras is not None:
        size = config.picture_size
        return read_cameras(asked.cameras, size=size, convention=asked.convention, intrinsics=lens)
    frames = asked.frames or 2 * config.frames
    easing = asked.easing
    return path_cameras(config, asked.path, lens=lens, depth=depth.numpy(), frames=frames, easing=easing)


def _depth(asked: SamplePath, system: Voyager, rgb: Tensor) -> Tensor:
    """The picture's depth in world units, `(h, w)`."""
    size = rgb.shape[1], rgb.shape[2]
    if asked.depth is not None:
        return _read_depth(asked.depth, asked.depth_scale, size)
    if asked.depth_model:
        from dreamwalk.conditions.depth_estimation import estimate_depth

        return estimate_depth(asked.depth_model, rgb, unit=system.config.unit)
    found = system.estimated_depth(rgb[None].to(system.device))
    if found is None:
        raise UserError("nothing is known of the picture's depth: give `--depth` or a `--depth-model`")
    return found[0].cpu()


def _read_depth(path: Path, scale: float, size: tuple[int, int]) -> Tensor:
    """A file's depth; UserError for one that is broken, of another size, or tells nothing."""
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as opened:
                values = np.asarray(opened).astype(np.float32) * scale
    except FileNotFoundError:
        raise UserError(f"there is no depth at '{path}'") from None
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' is no depth that can be read: give .npy or a 16-bit .png") from error
    if values.shape != size:
        raise UserError(
            f"'{path}' is {'x'.join(map(str, values.shape))} and the picture {size[0]}x{size[1]}: scale it"
        )
    depth = torch.from_numpy(np.asarray(values, np.float32))
    if not depth.isfinite().all() or (depth < 0).any():
        raise UserError(
            f"'{path}' has depths that are negative or no numbers: set those to 0, which is the sky"
        )
    if not (depth > 0).any():
        raise UserError(f"'{path}' has no depth above 0: give one that was measured or estimated")
    return depth
