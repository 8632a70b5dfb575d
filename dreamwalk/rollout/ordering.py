"""The flags of `dreamwalk sample` for systems of clips, and the film that they ask for.

dreamwalk sample moviegen.doom --prompt "walk through a brick hall, then turn left to a torch" --out v.mp4
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from dreamwalk.data.pictures import fit, read_picture
from dreamwalk.data.videos import read_frames
from dreamwalk.rollout.clips import Moment, Order, Use, unfold
from dreamwalk.rollout.execute import Solver
from dreamwalk.rollout.record import check_film, write_film
from dreamwalk.schedules.sigmas import Spacing


@dataclass(frozen=True)
class SampleClip:
    """Make a clip from words, pictures or another clip."""

    prompt: str = ""
    """What is to be seen."""
    out: Path = Path("clip.mp4")
    negative: str = ""
    """What is not."""
    image: tuple[Path, ...] = ()
    """A picture to begin with; or two, to begin and to end with."""
    video: Path | None = None
    """A clip to go on from, or with `--strength` to be made anew."""
    strength: float = 0.0
    """From which noise level the video is made anew; 0 goes on from it."""
    frames: int = 0
    """0 for as many as the system was trained on."""
    size: tuple[int, int] | None = None
    """Height and width in pixels."""
    fit: bool = False
    """Cut and scale pictures and video of another size to that of the clip."""
    seed: int = 0
    steps: int = 0
    guidance: float | None = None
    """Weight of the words; 1 is no guidance."""
    rescale: float = 0.0
    spacing: Spacing = "shifted"
    shift: float | None = None
    solver: Solver = "euler"
    window: int = 0
    """Latent frames seen at once; with 0 all are."""


def sample_clip(system: Any, asked: SampleClip) -> int:
    """Make the film, with a progress bar; gives its number of frames. ValueError for what cannot be made."""
    check_film(asked.out)
    if not asked.prompt:
        raise ValueError('a clip needs words: add `--prompt "walk through a brick hall"`')
    order, video = order_of(asked, system)
    with torch.inference_mode():
        moments = unfold(system, order, video)
        first = next(moments)
        *_, last = (first, *_tracked(moments, first))
        made = system.codec.decode(last.latents, order.frames or system.config.frames)[0].clamp(-1, 1)
        frames = ((made + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return write_film(asked.out, frames, fps=system.config.fps)


def _tracked(moments: Any, first: Moment) -> Any:
    return track(moments, "dreaming", total=first.steps - 1, console=Console(stderr=True), transient=True)


def order_of(asked: SampleClip, system: Any) -> tuple[Order, Tensor | None]:
    """What is asked of a system, and the pictures given to it, uint8 `(1, t, 3, h, w)`.

    ValueError for pictures of another size than the clip's, unless they may be cut.
    """
    size, frames = asked.size or system.config.size, asked.frames or system.config.frames
    video, use = _given(asked, size, frames)
    order = Order(
        (asked.prompt,), negative=asked.negative, frames=frames, size=size, seed=asked.seed,
        steps=asked.steps, guidance=asked.guidance, rescale=asked.rescale, spacing=asked.spacing,
        shift=asked.shift,
        solver=asked.solver, use=use, strength=asked.strength or 1.0, window=asked.window,
    )  # fmt: skip
    return order, video


def _given(asked: SampleClip, size: tuple[int, int], frames: int) -> tuple[Tensor | None, Use]:
    if asked.image and asked.video:
        raise ValueError("a clip begins with pictures or with a video: give `--image` or `--video`")
    if len(asked.image) > 2:
        raise ValueError(f"a clip has one picture to begin with and one to end with, got {len(asked.image)}")
    if asked.image:
        pictures = [_sized(read_picture(path), size, path, asked.fit) for path in asked.image]
        return _batched(pictures), "ends" if len(pictures) == 2 else "first"
    if asked.video is None:
        return None, "first"
    pictures = _read_video(asked.video, size, may_fit=asked.fit)
    anew = asked.strength > 0
    return _batched(pictures[:frames] if anew else pictures), "anew" if anew else "before"


def _read_video(path: Path, size: tuple[int, int], *, may_fit: bool) -> list[np.ndarray]:
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            found = stream.codec_context.height, stream.codec_context.width
        if found != size and not may_fit:
            raise ValueError(_mismatch(path, found, size))
        return list(read_frames(path, stride=1, size=size))
    except (av.FFmpegError, IndexError, FileNotFoundError):
        raise ValueError(f"'{path}' is not a video that can be read") from None


def _sized(picture: np.ndarray, size: tuple[int, int], path: Path, may_fit: bool) -> np.ndarray:
    if picture.shape[:2] != size and not may_fit:
        raise ValueError(_mismatch(path, picture.shape[:2], size))
    return fit(picture, size)


def _mismatch(path: Path, found: tuple[int, ...], size: tuple[int, int]) -> str:
    given, wanted = (f"{height}x{width}" for height, width in (found[:2], size))
    return f"'{path}' is {given} and the clip is {wanted}: add `--fit` to cut and scale it, or set `--size`"


def _batched(pictures: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)[None]
