"""Clips from the command line: what `dreamwalk sample` makes of a system of clips."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dreamwalk.codecs.tiles import Tiling
from dreamwalk.data.decoding import probe, read_frames
from dreamwalk.data.film import check_film, write_film
from dreamwalk.device.offload import Offloading
from dreamwalk.errors import UserError
from dreamwalk.images import Fit, fit_image, read_picture
from dreamwalk.progress import followed
from dreamwalk.rollout.execute import Solver
from dreamwalk.schedules.sigmas import Spacing
from dreamwalk.systems.clip_generator import ClipRequest, Use, frames_of, unfold
from dreamwalk.systems.clip_request import check_numbers, extent, steps_of
from dreamwalk.validation import Side, conform

DEFAULT = ClipRequest(())
LONGEST = 100_000
"""Frames, over an hour."""


@dataclass(frozen=True)
class SampleClip:
    """Dream a clip from words, and perhaps pictures or a video, and write it as a video."""

    out: Path
    """Where the video goes: an .mp4 file."""
    prompt: str = ""
    """What the clip shows."""
    negative: str = DEFAULT.negative
    """What it is guided away from."""
    image: tuple[Path, ...] = ()
    """A picture to begin with, or two: the first frame and the last."""
    video: Path | None = None
    """A video to go on from or, with `--use anew`, to dream anew; an upsampler makes it larger."""
    use: Use | None = None
    """What the pictures or the video are for; default: as said there."""
    fit: Fit | None = None
    """Scale pictures and videos of another size: whole between bars, stretched, or cut about the middle."""
    frames: int | None = None
    """Length of the clip; default: the system's, or that of a video that is dreamt anew or made larger."""
    size: tuple[int, int] | None = None
    """Height and width in pixels; default: the system's."""
    seed: int = DEFAULT.seed
    steps: int | None = None
    """Denoising passes; default: the system's."""
    guidance: float | None = None
    """Weight of the words in classifier-free guidance, 1 is none; default: the system's."""
    embedded: float | None = None
    """The scale that a backbone is told which was distilled from a guided one; default: the system's."""
    rescale: float = DEFAULT.rescale
    """How far guidance may not change the spread of the pictures, 0 to 1."""
    spacing: Spacing = DEFAULT.spacing
    shift: float | None = None
    """How far levels are moved towards noise; default: the system's."""
    solver: Solver = DEFAULT.solver
    strength: float = DEFAULT.strength
    """For `--use anew`: how much is dreamt anew, up to 1."""
    window: int = DEFAULT.window
    """Latent frames that are denoised at once, in windows that overlap; default: all of them."""
    area: tuple[int, int] | None = None
    """Height and width in pixels that are denoised at once, in tiles that share a quarter; default: all."""
    tile: int = 0
    """Decode in tiles of so many pixels a side, 32 frames each; default: all at once."""
    offload: Offloading = "none"
    """Keep the network's blocks in host memory, as they are or in eight bits, and bring them one by one."""
    device: Literal["cuda", "cpu"] | None = None
    """Default: an NVIDIA card if there is one."""

    def check(self) -> None:
        """UserError for what can be refused before anything is opened."""
        check_film(self.out)
        if not self.prompt.strip():
            raise UserError('say what to dream: `--prompt "walk through a brick hall"`, for instance')
        if self.image and self.video:
            raise UserError("pictures and a video are given: leave out `--image` or `--video`")
        if len(self.image) > 2:
            raise UserError(f"a clip has a first and a last picture, got {len(self.image)}: give two at most")
        check_numbers(self.order)
        conform(tuple[Side, Side] | None, self.size, "`--size`")
        conform(tuple[Side, Side] | None, self.area, "`--area`")
        if self.frames is not None and self.frames > LONGEST:
            raise UserError(f"a clip has {LONGEST} frames at most, got {self.frames}")
        if self.tile < 0 or self.window < 0 or self.window == 1:
            raise UserError("`--tile` is at least 1, and `--window` at least 2")

    @property
    def purpose(self) -> Use:
        """What the pictures or the video are for."""
        return self.use or ("before" if self.video else "ends" if len(self.image) == 2 else "first")

    @property
    def order(self) -> ClipRequest:
        """What is asked, before anything is known of the system or the given video."""
        return ClipRequest(
            (self.prompt,),
            negative=self.negative,
            frames=self.frames,
            size=self.size,
            seed=self.seed,
            steps=self.steps,
            guidance=self.guidance,
            embedded=self.embedded,
            rescale=self.rescale,
            spacing=self.spacing,
            shift=self.shift,
            solver=self.solver,
            use=self.purpose,
            strength=self.strength,
            window=self.window,
            area=self.area,
        )


def ordered(asked: SampleClip, system: Any) -> tuple[ClipRequest, Tensor | None]:
    """What `systems.clip_generator.unfold` needs: an order, and uint8 pictures `(1, t, 3, h, w)` or None.

    UserErrors as of `given`.
    """
    if system.config.enlarges > 1 and asked.use is None:
        asked = replace(asked, use="larger")
    video, frames = given(asked, system), asked.frames
    if video is not None and asked.purpose in ("anew", "larger"):
        frames = len(video) if frames is None else frames
    order = replace(asked.order, frames=frames)
    return order, None if video is None else torch.from_numpy(video).permute(0, 3, 1, 2)[None]


def given(asked: SampleClip, system: Any) -> np.ndarray | None:
    """The pictures or the video of an order, uint8 `(t, h, w, 3)`; a video thinned out to the system's pace.

    Of one to go on from the last frames are taken, as many as are whole latents and leave one to dream.
    UserError for files that are missing or of another size.
    """
    size = _given_size(asked, system)
    if asked.image:
        pictures = [read_picture(path) for path in asked.image]
        for path, picture in zip(asked.image, pictures, strict=True):
            _same_size(path, picture.shape[:2], size, asked.fit)
        return np.stack([fit_image(picture, size, asked.fit or "cut") for picture in pictures])
    if asked.video is None:
        return None
    facts = probe(asked.video)
    if facts.damage:
        print(f"note: {asked.video}: {facts.damage}", file=sys.stderr)
    _same_size(asked.video, facts.size, size, asked.fit)
    picks = facts.picks(min(system.config.fps, facts.rate)).tolist()
    most = asked.frames
    if most is None:
        most = len(picks) if asked.purpose == "larger" else system.config.frames
    if asked.purpose == "before":
        picks = picks[-max(1, most - system.codec.stride[0]) :]
        picks = picks[-_whole(len(picks), system.codec) :]
    else:
        picks = picks[:most]
    return np.stack(list(read_frames(asked.video, picks, size=size, how=asked.fit or "cut")))


def _given_size(asked: SampleClip, system: Any) -> tuple[int, int]:
    """Height and width that pictures must have: the clip's, or of one that is made larger its own."""
    if asked.purpose != "larger":
        return asked.size or system.config.size
    if asked.size:
        height, width = (side // system.config.enlarges for side in asked.size)
    elif asked.image:
        height, width = read_picture(asked.image[0]).shape[:2]
    else:
        height, width = probe(asked.video).size if asked.video else system.config.size
    return height, width


def _same_size(path: Path, found: Sequence[int], size: tuple[int, int], how: Fit | None) -> None:
    if tuple(found) != size and not how:
        raise UserError(
            f"'{path}' is {found[0]}x{found[1]} and the clip {size[0]}x{size[1]}: add `--fit letterbox`, "
            "stretch or cut, or choose a `--size`"
        )


def _whole(frames: int, codec: Any) -> int:
    """The most of so many frames that fill their last latent."""
    return next(n for n in range(frames, 0, -1) if codec.latent_frames(n + 1) > codec.latent_frames(n))


@torch.inference_mode()
def write_clip(asked: SampleClip, system: Any) -> int:
    """Dream what is asked, tell how far it is, and write it; gives the number of frames."""
    order, video = ordered(asked, system)
    if video is not None:
        video = video.to(next(system.parameters()).device)
    moments = unfold(system, order, video)
    *_, last = followed(moments, "dreaming", total=steps_of(system, order))
    frames, _ = extent(system, order, video)
    pieces = frames_of(system, order, last.latents, video=video, tiling=tiles(asked.tile, system.codec))
    pictures = followed(_pictures(pieces), "decoding", total=frames)
    return write_film(asked.out, pictures, fps=system.config.fps)


def tiles(side: int, codec: Any) -> Tiling | None:
    """Square tiles of 32 frames that share a quarter, in whole latents; None for a side of 0."""
    time, down, across = codec.stride
    frames = max(1, 16 // time) * time
    return (
        Tiling((2 * frames, side, side), (frames, side // 4 // down * down, side // 4 // across * across))
        if side
        else None
    )


def _pictures(pieces: Iterator[Tensor]) -> Iterator[np.ndarray]:
    for piece in pieces:
        for frame in piece[0]:
            yield ((frame.permute(1, 2, 0) + 1) * 127.5).round().byte().cpu().numpy()
