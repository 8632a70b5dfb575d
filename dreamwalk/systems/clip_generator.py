"""Clips from words, pictures and other clips: the plan of a whole clip, and what is given before it begins.

The plan is one of `schedules.clip_plans.together`, walked by the one executor: frames that are known (a first
picture, a last one, a clip to go on from) are columns that begin clean, and a clip that is dreamt anew begins
below pure noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dreamwalk.codecs import Codec
from dreamwalk.codecs.tiles import Tiling, stream_decode
from dreamwalk.conditions.hunyuan import HunyuanTextEncoder, Reading
from dreamwalk.errors import UserError
from dreamwalk.rollout.clip_predictor import ClipPredictor, TiledVelocity, Velocity, WindowedPredictor
from dreamwalk.rollout.execute import UPDATES, KeyedNoise, Noise, Predictor, begin, run
from dreamwalk.schedules.clip_plans import together
from dreamwalk.schedules.guidance import conditions, guided
from dreamwalk.schedules.plans import Plan
from dreamwalk.schedules.sigmas import spaced_sigmas
from dreamwalk.systems.clip_request import ClipRequest, Use, check, extent, steps_of, token
from dreamwalk.systems.system import System
from dreamwalk.systems.upscaling import resized


class ClipGenerator(System):
    """A system that dreams whole clips."""

    config: Any
    codec: Codec
    generates = "clips"


@dataclass(frozen=True)
class Moment:
    """A clip under way."""

    step: int
    steps: int
    latents: Tensor
    """`(b, t', c, h', w')`, noisy until the last step."""
    clean: Tensor
    """The clip as it is imagined so far: `x - sigma v`, by the last velocity."""


@dataclass(frozen=True)
class Hinted:
    """`Noise` through which a first latent shines, as HunyuanVideo begins when it is given a picture."""

    noise: Noise
    first: Tensor
    """`(b, c, h, w)`."""
    share: float

    def __call__(self, frame: int, use: int) -> Tensor:
        return (1 - self.share) * self.noise(frame, use) + self.share * self.first


@dataclass(frozen=True)
class Start:
    """Where a clip begins."""

    plan: Plan
    noise: Noise
    given: Tensor | None = None
    """Of the plan's given slots, `(b, k, c, h', w')`."""
    extra: Tensor | None = None
    """What is shown beside the latents, `(b, t', e, h', w')`."""


def unfold(
    system: Any, order: ClipRequest, video: Tensor | None = None, *, noise: Noise | None = None
) -> Iterator[Moment]:
    """Dream a clip step by step; `video` uint8 `(b or 1, t, 3, h, w)` is used as `order.use` says.

    `system` is one of clips (`systems.moviegen`). `noise` is drawn from the order's seed unless it is given.
    UserErrors as of `prepared`.
    """
    config = system.config
    start = prepared(system, order, video, noise=noise)
    plan = guided(start.plan, conditions(_guidance(system, order), rescale=order.rescale))
    text, *rest = (system.read(*reading) for reading in readings(system, order, video))
    negative = rest[0] if rest else None
    embedded = config.embedded if order.embedded is None else order.embedded
    velocity = _tiled(system, order.area) if order.area else system.velocity
    predictor: Predictor = ClipPredictor(velocity, text, negative, embedded, start.extra)
    if order.window:
        predictor = WindowedPredictor(predictor, order.window, order.window // 2)
    state, update = begin(plan, start.noise, start.given), UPDATES[order.solver]
    for index in run(plan, state, predictor, start.noise, update=update):
        clean = state.x.clone()
        for slot, (v, _) in state.last_step.items():
            clean[:, slot] -= plan.sigmas[plan.levels[index + 1][slot]] * v
        yield Moment(index + 1, len(plan.rows), state.x, clean)


def readings(system: Any, order: ClipRequest, video: Tensor | None) -> list[Reading]:
    """What is read for an order: the prompts, with the first picture if there is one, and where there is
    guidance the words against it, with the picture that a published reader has for them."""
    reader, first = system.letters, None if video is None else video[:, 0]
    looks = first is not None and isinstance(reader, HunyuanTextEncoder)
    against = [order.negative] * len(order.prompts), reader.against(first) if looks else None
    return [(order.prompts, first)] + [against] * (_guidance(system, order) != 1)


def _guidance(system: Any, order: ClipRequest) -> float:
    return system.config.guidance if order.guidance is None else order.guidance


def prepared(system: Any, order: ClipRequest, video: Tensor | None, *, noise: Noise | None = None) -> Start:
    """The plan of an order, and the values of what it is given.

    UserError for what cannot be had, as of `systems.clip_request.check`.
    """
    config, codec = system.config, system.codec
    check(system, order, video)
    frames, size = extent(system, order, video)
    count, (_, down, across) = codec.latent_frames(frames + lead(system, video)), codec.stride
    shape = codec.channels, size[0] // down, size[1] // across
    seeds = tuple(order.seed + row for row in range(len(order.prompts)))
    noise = noise or KeyedNoise(seeds, shape, _device(system))
    moved = config.shift if order.shift is None else order.shift
    grid = spaced_sigmas(order.spacing, steps_of(system, order), shift_by=moved)
    extra = torch.zeros(len(seeds), count, config.backbone.cond_channels, *shape[1:], device=_device(system))
    if video is None:
        return Start(together(grid, count), noise, None, extra if config.backbone.cond_channels else None)
    video = video.expand(len(seeds), -1, -1, -1, -1)
    if order.use == "larger":
        return Start(together(grid, count), noise, None, system.encode(resized(video, size)))
    if order.use == "anew":
        return _anew(system, order, grid, video, noise)
    latents, known = _known(system, order.use, video, count)
    if config.hint:
        noise = Hinted(noise, latents[:, 0], config.hint)
    if config.backbone.cond_channels:
        return Start(together(grid, count), noise, None, shown_beside(latents, count))
    return Start(together(grid, count, known=known), noise, latents)


def _tiled(system: Any, area: tuple[int, int]) -> Velocity:
    """The system's velocity, tile by tile; neighbours share a quarter, in whole tokens, but one at least."""
    _, p, q = system.config.backbone.patch
    counts = [side // unit for side, unit in zip(area, token(system), strict=True)]
    shared = [min(-(-n // 4), n - 1) for n in counts]
    return TiledVelocity(system.velocity, (counts[0] * p, counts[1] * q), (shared[0] * p, shared[1] * q))


def lead(system: Any, video: Tensor | None) -> int:
    """Frames before the clip that are dreamt and cut off: none where it does not begin with a picture."""
    return 0 if video is None else system.config.lead


def shown_beside(latents: Tensor, count: int) -> Tensor:
    """The first latents `(b, k, c, h, w)` of `count`, zeros after them, and where they are as one channel
    more: `(b, count, c + 1, h, w)`."""
    b, k, c, h, w = latents.shape
    extra = latents.new_zeros(b, count, c + 1, h, w)
    extra[:, :k, :c], extra[:, :k, c] = latents, 1.0
    return extra


def _known(system: Any, use: Use, video: Tensor, count: int) -> tuple[Tensor, list[int]]:
    """Latents of what is known, and which of the clip's latents they are."""
    if use == "first":
        return system.encode(video[:, :1]), [0]
    if use == "before":
        latents = system.encode(video)
        if latents.shape[1] >= count:
            raise UserError(
                f"the given video fills all {count} latent frames: ask for more frames than it has"
            )
        return latents, list(range(latents.shape[1]))
    if count < 3 or video.shape[1] < 2:
        raise UserError("first and last frame need a given video of two frames and a clip of three latents")
    still = video[:, -1:].expand(-1, system.codec.stride[0] + 1, -1, -1, -1)
    return torch.cat([system.encode(video[:, :1]), system.encode(still)[:, -1:]], dim=1), [0, count - 1]


def _anew(system: Any, order: ClipRequest, grid: list[float], video: Tensor, noise: Noise) -> Start:
    """Begin with the given video, as noisy as `strength` says."""
    if not 0 < order.strength <= 1:
        raise UserError(f"the strength lies above 0 and up to 1, got {order.strength}")
    rising = list(reversed(grid))
    level = min(range(1, len(rising)), key=lambda k: abs(rising[k] - order.strength))
    latents = system.encode(video)
    eps = torch.stack([noise(frame, 0) for frame in range(latents.shape[1])], dim=1)
    plan = together(grid, latents.shape[1], begin=level)
    mixed = (1 - rising[level]) * latents + rising[level] * eps
    return Start(plan, noise, mixed[:, : sum(plan.given)])


def frames_of(
    system: Any,
    order: ClipRequest,
    latents: Tensor,
    *,
    video: Tensor | None = None,
    tiling: Tiling | None = None,
) -> Iterator[Tensor]:
    """The frames of a finished clip in [-1, 1], `(b, some, 3, h, w)`, tile by tile or all at once.

    `video` is what `unfold` was given.
    """
    cut = lead(system, video)
    frames = cut + extent(system, order, video)[0]
    pieces = (
        stream_decode(system.codec, latents, tiling, frames=frames)
        if tiling
        else iter([system.codec.decode(latents, frames)])
    )
    for piece in pieces:
        yield piece[:, cut:].clamp(-1, 1)
        cut = max(0, cut - piece.shape[1])


@torch.inference_mode()
def film(system: Any, order: ClipRequest, video: Tensor | None = None) -> Tensor:
    """The clips of an order in [-1, 1], `(b, t, 3, h, w)`."""
    *_, last = unfold(system, order, video)
    return torch.cat(list(frames_of(system, order, last.latents, video=video)), dim=1)


def _device(system: Any) -> torch.device:
    return next(system.parameters()).device
