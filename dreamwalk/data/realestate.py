"""RealEstate10K (Zhou et al., arXiv 1805.09817): cameras in a text per clip, frames taken from videos.

    RealEstate10K/train/0a1b2c3d4e5f6a7b.txt      cameras (`camera_texts`) by the microseconds of frames
    frames/train/0a1b2c3d4e5f6a7b/52553000.png    or .jpg: the frame of that time

The data set has the texts alone; the videos are on YouTube, and not all are there still. Lines without a
frame are passed over. Intrinsics are in widths and heights of the picture, and follow when it is cut to
another shape. Lengths are of no known unit, another one in each clip; the world is that of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from dreamwalk.camera_files import read_cameras
from dreamwalk.data.folders import PICTURES
from dreamwalk.data.posed_frames import PosedFrames, PosedScene, scene_of
from dreamwalk.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RealEstate(PosedFrames):
    """Cut RealEstate10K, its texts of cameras and the frames that you have of its videos, into clips.

    Clips lie end to end, and do not go over frames that are missing.
    """

    world: ClassVar[str] = "realestate"
    frames: Path | None = None
    """Folder of frames, laid out as that of the texts, `NAME/MICROSECONDS.png` for each `NAME.txt`; if left
    out they lie beside the texts."""

    @property
    def rate(self) -> float:
        return 1e6 / self.contents.step / self.stride

    def scene_files(self) -> list[Path]:
        files = sorted(self.folder.rglob("*.txt"))
        if not files:
            raise UserError(
                f"'{self.folder}' holds no texts of cameras: give the folder with RealEstate10K's .txt"
            )
        return files

    def scene(self, file: Path) -> PosedScene:
        path = read_cameras(file, size=(1, 1), convention="opencv camera_from_world")
        beside = (self.frames or self.folder) / file.relative_to(self.folder).with_suffix("")
        if not beside.is_dir():
            raise UserError(f"'{file}' has no folder of frames '{beside}': put it there, or say --frames")
        pictures = (picture for picture in beside.iterdir() if picture.suffix.lower() in PICTURES)
        known = {picture.stem: picture for picture in pictures}
        names = path.names or ()
        return scene_of(path, [known.get(name) for name in names], np.array(names, np.float64), f"'{file}'")
