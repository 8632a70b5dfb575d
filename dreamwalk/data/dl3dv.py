"""DL3DV-10K (Ling et al., arXiv 2312.16256): walks with a camera, with the cameras that COLMAP found.

    1K/<hash>/transforms.json            nerfstudio's, OpenGL; `applied_transform` is undone (`camera_files`)
    1K/<hash>/images_8/frame_00001.png   480 x 270, or images_4, 960 x 540: the `images/frame_00001.png` there

Frames are in the order of their names, and those that COLMAP could not place are passed over. Intrinsics are
of the full size and scaled to the pictures that are read. Pictures are undistorted, with the same intrinsics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dreamwalk.camera_files import read_cameras
from dreamwalk.data.posed_frames import Distortion, PosedFrames, PosedScene, scene_of
from dreamwalk.errors import UserError
from dreamwalk.validation import Positive, Signed, read_json, required

MEND = "unpack that scene again"


@dataclass(frozen=True, kw_only=True)
class Dl3dv(PosedFrames):
    """Cut DL3DV-10K, folders with a transforms.json and pictures, into clips.

    Clips lie end to end, and do not go over frames that are missing.
    """

    world: ClassVar[str] = "dl3dv"
    images: str = "images_8"
    """Which of the folders of pictures of each scene."""
    fps: float = 5.0
    """Frames per second of the data set, which does not say it; only how clips play depends on it."""

    @property
    def rate(self) -> float:
        return self.fps / self.stride

    def scene_files(self) -> list[Path]:
        files = sorted(self.folder.rglob("transforms.json"))
        if not files:
            raise UserError(f"'{self.folder}' holds no transforms.json: give the folder with DL3DV's scenes")
        return files

    def scene(self, file: Path) -> PosedScene:
        pictures = file.parent / self.images
        if not pictures.is_dir():
            there = ", ".join(sorted(found.name for found in file.parent.glob("images*"))) or "none"
            raise UserError(
                f"'{file}' has no '{self.images}' beside it, there is {there}: say which by --images"
            )
        path = read_cameras(file, size=(1, 1), convention="opengl world_from_camera")
        names = [Path(name) for name in path.names or ()]
        numbers = [int((re.findall(r"[0-9]+", name.stem) or [k])[-1]) for k, name in enumerate(names)]
        found = scene_of(
            path, [pictures / name.name for name in names], np.array(numbers, float), f"'{file}'"
        )
        distortion = _distortion(file)
        if not any(distortion):
            return found
        if np.ptp(found.cameras.intrinsics, axis=0).any():
            raise UserError(f"'{file}' has several lenses that distort: undistort its pictures first")
        return found._replace(distortion=distortion)


def _distortion(file: Path) -> Distortion:
    """Of the lens of a transforms.json; UserError for one of another model or pictures of unknown size."""
    content: dict[str, Any] = read_json(file, dict[str, Any], mend=MEND)
    known = [name for name in (*Distortion._fields, "k4") if name in content]
    required({"w": Positive, "h": Positive}, content, f"'{file}'")
    given = required(dict.fromkeys(known, Signed), content, f"'{file}'")
    if given.pop("k4", 0):
        raise UserError(f"'{file}' has a lens with k4, which is not known here: undistort its pictures first")
    return Distortion(**given)
