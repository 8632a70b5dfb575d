"""Latents of a folder of captioned videos and pictures: what `dreamwalk collect latents` does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from dreamwalk.data.folders import buckets, open_captioned
from dreamwalk.data.latents import cached_latents
from dreamwalk.distributed import pick_device
from dreamwalk.errors import UserError
from dreamwalk.images import Fit
from dreamwalk.systems.autoencode import Autoencode
from dreamwalk.systems.moviegen import Moviegen
from dreamwalk.systems.open import load


@dataclass(frozen=True)
class CollectLatents:
    """Encode a folder of videos and pictures, each with a text beside it, for training on their latents."""

    out: str
    """Folder for the latents; run the same command again to go on."""
    folder: str
    """Folder with clip.mp4 and clip.txt, picture.png and picture.txt, and so on."""
    codec: str
    """Whose codec encodes: the name of shipped weights, a weight file, or a run folder."""
    size: tuple[int, int] = (256, 256)
    """Height and width of a square of about as many pixels as clips of all shapes shall have."""
    frames: int = 33
    """Frames of a clip."""
    fps: float | None = None
    """Choose so many frames a second of faster videos; all are kept if left out."""
    fit: Fit = "cut"
    """How a file fills the size of the nearest shape: cut about its middle, stretched, or between bars."""
    pictures: bool = True
    """Take pictures too, as clips of one frame."""
    at_once: int = 1
    """Clips that are encoded together."""
    device: Literal["cuda", "cpu"] | None = None
    """Default: an NVIDIA card if there is one."""


def collect_latents(asked: CollectLatents) -> None:
    """Sort the files into sizes, say what went where, and encode. UserErrors as of those that do it."""
    system = load(asked.codec)
    if not isinstance(system, Autoencode | Moviegen):
        raise UserError(
            f"'{asked.codec}' is of the system {system.name}: latents of clips come from a codec of videos"
        )
    codec: Any = system.codec
    device = pick_device(asked.device)
    multiple = math.lcm(*codec.stride[1:], 16)
    lengths = dict.fromkeys([asked.frames] + [1] * asked.pictures)
    sizes = [size for n in lengths for size in buckets(asked.size, frames=n, multiple=multiple)]
    folder = open_captioned(asked.folder, sizes, fps=asked.fps, fit=asked.fit)
    print(folder.report())
    data = cached_latents(codec.to(device), folder, asked.out, at_once=asked.at_once, device=device)
    print(f"latents of {len(data)} clips in {len(data.buckets)} sizes: {asked.out}")
