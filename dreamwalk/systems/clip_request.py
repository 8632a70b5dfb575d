"""What is asked of a system of clips, and whether it can be had.

What cannot is refused in one sentence, with the nearest that can.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from dreamwalk.data.walks import check_steps
from dreamwalk.errors import UserError
from dreamwalk.rollout.execute import Solver
from dreamwalk.schedules.sigmas import Spacing

Use = Literal["first", "ends", "before", "anew", "larger"]
"""What a given video is to a clip: its first frame, its first and last, what it goes on from, what it is made
of anew, or the same at a smaller size."""


@dataclass(frozen=True)
class ClipRequest:
    """What is asked of a system of clips; None leaves it to the system."""

    prompts: tuple[str, ...]
    negative: str = ""
    """What to be guided away from."""
    frames: int | None = None
    size: tuple[int, int] | None = None
    """Height and width in pixels."""
    seed: int = 0
    """Row i of the clips has the seed `seed + i`."""
    steps: int | None = None
    guidance: float | None = None
    """Weight of the words in classifier-free guidance; 1 is none."""
    embedded: float | None = None
    """The scale that a backbone is told which was distilled from a guided one."""
    rescale: float = 0.0
    """How far the spread of the guided clean prediction is brought back to that of the told one, 0 to 1."""
    spacing: Spacing = "shifted"
    shift: float | None = None
    solver: Solver = "euler"
    use: Use = "first"
    """What the given video is for."""
    strength: float = 0.7
    """For `anew`: the level from which the given video is dreamt anew, 1 forgets it."""
    window: int = 0
    """Latent frames that the backbone sees at once, in windows that overlap by half; 0 is all of them."""
    area: tuple[int, int] | None = None
    """Height and width in pixels that the backbone sees at once, in tiles that share a quarter with the next;
    None is all."""


def extent(system: Any, order: ClipRequest, video: Tensor | None) -> tuple[int, tuple[int, int]]:
    """Frames, height and width of the clip that is asked for; one that is made larger has those of the given
    video, `enlarges` times as large."""
    config = system.config
    frames, (height, width) = config.frames, config.size
    if video is not None and order.use == "larger":
        frames, (height, width) = video.shape[1], (config.enlarges * side for side in video.shape[-2:])
    return frames if order.frames is None else order.frames, order.size or (height, width)


def steps_of(system: Any, order: ClipRequest) -> int:
    """Denoising passes of what is asked for."""
    return system.config.steps if order.steps is None else order.steps


def check(system: Any, order: ClipRequest, video: Tensor | None) -> None:
    """UserError, with the nearest legal value, for frames, a size, an area, or a given video that does not
    fit."""
    check_numbers(order)
    _, size = extent(system, order, video)
    _whole_tokens(system, size, what="clips")
    if order.area:
        _whole_tokens(system, order.area, what="tiles")
    _trained(system, video, order.use)
    if video is not None:
        _fits(system, order, video)


def check_numbers(order: ClipRequest) -> None:
    """UserError for a number that no system takes."""
    if order.frames is not None and order.frames < 1:
        raise UserError(f"a clip has at least one frame, got {order.frames}")
    if order.steps is not None:
        check_steps(order.steps)
    for name in ("guidance", "embedded", "rescale", "shift", "strength"):
        value = getattr(order, name)
        if value is not None and not math.isfinite(value):
            raise UserError(f"{name} must be a finite number, got {value}")
    if order.shift is not None and order.shift <= 0:
        raise UserError(f"shift must be above 0, got {order.shift}")


def token(system: Any) -> tuple[int, int]:
    """Height and width of a token in pixels."""
    (_, down, across), (_, p, q) = system.codec.stride, system.config.backbone.patch
    return down * p, across * q


def _whole_tokens(system: Any, size: tuple[int, int], *, what: str) -> None:
    units = token(system)
    if any(side < unit or side % unit for side, unit in zip(size, units, strict=True)):
        near = "x".join(str(max(1, round(s / u)) * u) for s, u in zip(size, units, strict=True))
        (h, w), whole = size, "x".join(map(str, units))
        raise UserError(f"{what} of {h}x{w} do not divide by {whole}: the nearest size is {near}")


def _trained(system: Any, video: Tensor | None, use: Use) -> None:
    """UserError for a use that this system was not trained for, and for a video that is missing."""
    config, larger = system.config, video is not None and use == "larger"
    known = video is not None and use != "anew"
    if config.enlarges > 1 and not larger:
        raise UserError("this system only makes clips larger: give it one, and use it as `larger`")
    if config.enlarges == 1 and larger:
        raise UserError(
            "this system was not trained to make clips larger: train one that `moviegen.upsampler` describes"
        )
    if known and not larger and not config.pictured:
        raise UserError("this system was not trained to go on from pictures: leave them out")
    if not known and config.pictured == 1:
        raise UserError("this system goes on from a picture: give it one")
    if video is not None and config.backbone.cond_channels and use not in ("first", "larger"):
        raise UserError(
            "this system is shown pictures beside the latents, and was trained with a first one only: "
            "use the given video as `first`"
        )


def _fits(system: Any, order: ClipRequest, video: Tensor) -> None:
    """UserError for pictures of another size, and for a video of another length where it is all there is."""
    (frames, size), found = extent(system, order, video), tuple(video.shape[-2:])
    needed = tuple(side // system.config.enlarges for side in size)
    if found != needed:
        raise UserError(
            f"the given pictures are {found[0]}x{found[1]} and the clip of {size[0]}x{size[1]} needs "
            f"{needed[0]}x{needed[1]}: scale them to it"
        )
    if order.use in ("anew", "larger") and video.shape[1] != frames:
        raise UserError(f"the given video has {video.shape[1]} frames and the clip {frames}: make them equal")
