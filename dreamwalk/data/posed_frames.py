"""Data sets of scenes whose frames are pictures with cameras: what `realestate` and `dl3dv` share.

A scene is named by the file of its cameras. Clips lie end to end, and do not go over frames that are missing.
They have poses and intrinsics, and no actions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dreamwalk.camera_paths import CameraPath
from dreamwalk.cameras import camera_rays, scale_intrinsics
from dreamwalk.clip import Clip
from dreamwalk.data.decoding import grouped, map_files
from dreamwalk.errors import UserError
from dreamwalk.images import Fit, fit_image, fit_intrinsics, read_picture, resample
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.levels import Split

GAP = 1.5
"""Frames farther apart than so many times the usual step are not of one clip."""


class Distortion(NamedTuple):
    """Of a lens, by Brown's model (OpenCV's): radial and tangential coefficients."""

    k1: float = 0
    k2: float = 0
    k3: float = 0
    p1: float = 0
    p2: float = 0

    def places(self, intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Where the pixels of an undistorted picture of `size` (h, w) and these intrinsics (3, 3) lie in the
        distorted one: `(h, w, 2)`, x first."""
        x, y, _ = np.moveaxis(camera_rays(intrinsics, size).astype(np.float64), -1, 0)
        square = x * x + y * y
        radial = 1 + square * (self.k1 + square * (self.k2 + square * self.k3))
        bent = x * radial + 2 * self.p1 * x * y + self.p2 * (square + 2 * x * x)
        sagged = y * radial + self.p1 * (square + 2 * y * y) + 2 * self.p2 * x * y
        (fx, _, cx), (_, fy, cy), _ = np.asarray(intrinsics, np.float64)
        return np.stack([fx * bent + cx, fy * sagged + cy], axis=-1)


class PosedScene(NamedTuple):
    """The frames of one scene that are there, in order."""

    files: tuple[Path, ...]
    stamps: np.ndarray
    """When they were taken, in any unit, `(n,)`."""
    cameras: CameraPath
    """For pictures of `shape`."""
    shape: tuple[int, int]
    """Height and width of the pictures."""
    distortion: Distortion | None = None
    """Of the lens, the same for all, where there is any: its pictures are undistorted."""


class PosedContents(NamedTuple):
    """What can be used of a folder."""

    clips: tuple[tuple[Path, int], ...]
    """The file of cameras of each clip, and its first frame among those of its scene."""
    frames: int
    """In all scenes, also those that fill no clip."""
    scenes: int
    step: float
    """From a frame to the next, the median of scenes, in their unit of time."""
    left_out: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class PosedFrames:
    """What sources of scenes with cameras share; a source says which files there are and reads one."""

    world: ClassVar[str] = ""
    folder: Path
    """Folder with the data set, or a part of it."""
    split: Split = "train"
    clip_frames: int = 64
    stride: int = 1
    """Take every n-th frame."""
    size: tuple[int, int] = (96, 128)
    """Height and width of the frames."""
    fit: Fit = "cut"
    """What becomes of frames of another shape: cut about the middle, stretched, or whole between bars."""

    def __post_init__(self) -> None:
        if self.clip_frames < 1 or self.stride < 1 or min(self.size) < 1:
            given = f"{self.clip_frames} of {self.size}, stride {self.stride}"
            raise UserError(f"clips have 1 frame, frames 1 pixel and strides 1 at least, got {given}")

    def scene_files(self) -> list[Path]:
        """The files of cameras in the folder, in order."""
        raise NotImplementedError

    def scene(self, file: Path) -> PosedScene:
        """The scene of a file of cameras; UserError when it cannot be used."""
        raise NotImplementedError

    @property
    def rate(self) -> float:
        """Frames per second of the clips."""
        raise NotImplementedError

    @property
    def schema(self) -> ActionSchema:
        return ActionSchema(())

    @cached_property
    def contents(self) -> PosedContents:
        """The clips of the folder, each scene looked at once. UserError when there is none."""
        files = self.scene_files()
        looks = map_files(self._look, files)
        clips, steps, frames, left_out = [], [], 0, []
        for file, look in zip(files, looks, strict=True):
            if isinstance(look, UserError):
                left_out.append((self._named(file), str(look).removeprefix(f"'{file}'").lstrip(", ")))
                continue
            starts, step, count = look
            clips += [(file, start) for start in starts]
            steps.append(step)
            frames += count
        if not clips:
            why = "; ".join(grouped(left_out)) or f"no scene has {self.clip_frames} frames one after another"
            raise UserError(
                f"nothing in '{self.folder}' can be used ({why}): choose another, or shorter clips"
            )
        return PosedContents(tuple(clips), frames, len(steps), float(np.median(steps)), left_out)

    def describe(self) -> dict[str, Any]:
        clips = [(self._named(file), start) for file, start in self.contents.clips]
        digest = hashlib.sha256(json.dumps(clips).encode()).hexdigest()
        place = {"world": self.world, "level": self.folder.name, "split": self.split}
        return {
            **place,
            "fit": self.fit,
            "stride": self.stride,
            "scenes": self.contents.scenes,
            "clips": digest,
        }

    def report(self) -> str:
        """What is taken, and what is left out and why, in a few lines."""
        found, used = self.contents, len(self) * self.clip_frames * self.stride
        lines = [f"{found.scenes} scenes, {found.frames} frames: {len(self)} clips at {self.rate:g} a second"]
        lines += [f"left out: {line}" for line in grouped(found.left_out)]
        if used < found.frames:
            rest = f"{found.frames - used} frames do not fill a clip of {self.clip_frames}, or stand alone"
            lines.append(f"not used: {rest}")
        return "\n".join(lines)

    def __len__(self) -> int:
        """Whole clips in all the scenes."""
        return len(self.contents.clips)

    def clips(self, indices: range) -> Iterator[Clip]:
        chosen = [self.contents.clips[index] for index in indices]
        for file, group in groupby(chosen, lambda place: place[0]):
            scene, places = self.scene(file), None
            if scene.distortion is not None:
                places = scene.distortion.places(scene.cameras.intrinsics[0], scene.shape)
            for _, start in group:
                yield self._cut(scene, start, places)

    def _look(self, file: Path) -> tuple[list[int], float, int] | UserError:
        """Where the clips of a scene begin, its usual step in time and its frames, or why it is of no use."""
        try:
            scene = self.scene(file)
        except UserError as why:
            return why
        steps, length = np.diff(scene.stamps), (self.clip_frames - 1) * self.stride + 1
        usual = float(np.median(steps)) if len(steps) else 1.0
        ends = [*(np.flatnonzero(steps > GAP * usual) + 1), len(scene.files)]
        starts: list[int] = []
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            starts += range(int(begin), int(end) - length + 1, self.clip_frames * self.stride)
        return starts, usual, len(scene.files)

    def _cut(self, scene: PosedScene, start: int, places: np.ndarray | None) -> Clip:
        """The clip that begins at a frame; `places` are where undistorted pixels lie, if anywhere else."""
        rows = np.arange(self.clip_frames) * self.stride + start
        if rows[-1] >= len(scene.files):
            raise UserError(f"'{self.folder}' has changed: run the same command again")
        lenses = [
            fit_intrinsics(lens, scene.shape, self.size, self.fit) for lens in scene.cameras.intrinsics[rows]
        ]
        return Clip(
            video=np.stack([self._picture(scene, scene.files[row], places) for row in rows]),
            actions=np.zeros((len(rows), 0), np.float32),
            world_from_camera=scene.cameras.world_from_camera[rows].astype(np.float32),
            intrinsics=np.stack(lenses),
        )

    def _picture(self, scene: PosedScene, file: Path, places: np.ndarray | None) -> np.ndarray:
        picture = read_picture(file)
        if picture.shape[:2] != scene.shape:
            one, others = (f"{height}x{width}" for height, width in (picture.shape[:2], scene.shape))
            raise UserError(f"'{file}' is of {one}, its scene of {others}: extract that scene again")
        picture = picture if places is None else resample(picture, places)
        return fit_image(picture, self.size, self.fit)

    def _named(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()


def scene_of(path: CameraPath, files: Sequence[Path | None], stamps: np.ndarray, where: str) -> PosedScene:
    """The scene of those cameras of a path, of pictures of size (1, 1), whose picture is there; all are taken
    to be of the shape of the first. UserError where none is there."""
    rows = np.array([k for k, file in enumerate(files) if file is not None and file.is_file()], int)
    if not len(rows):
        raise UserError(f"{where} has no pictures: put them there, or say where they are")
    found = tuple(file for file in (files[row] for row in rows) if file is not None)
    height, width = read_picture(found[0]).shape[:2]
    lenses = scale_intrinsics(path.intrinsics[rows], (width, height))
    return PosedScene(found, stamps[rows], CameraPath(path.world_from_camera[rows], lenses), (height, width))
