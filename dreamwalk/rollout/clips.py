"""Clips from words, pictures and other clips: the plan of a whole clip, and who is asked at each step.

The plan is one of `schedules.methods.together`, walked by the one executor: frames that are known (a first
picture, a last one, a clip to go on from) are columns that begin clean, and a clip that is dreamt anew begins
below pure noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dreamwalk.layers.words import Words, beside
from dreamwalk.rollout.execute import KeyedNoise, Look, Predict, Solver, begin, rows
from dreamwalk.schedules.methods import together
from dreamwalk.schedules.plans import Plan
from dreamwalk.schedules.sigmas import Spacing, levels

Velocity = Callable[[Tensor, Tensor, Words], Tensor]
"""`v` of noisy latents at levels, told some words."""
Use = Literal["first", "ends", "before", "anew"]
"""What a given video is to a clip: its first frame, its first and last, what it goes on from, or what it is
made of anew."""


@dataclass(frozen=True)
class Order:
    """What is asked of a system of clips; None and 0 leave it to the system."""

    prompts: tuple[str, ...]
    negative: str = ""
    """What to be guided away from."""
    frames: int = 0
    size: tuple[int, int] | None = None
    """Height and width in pixels."""
    seed: int = 0
    """Row i of the clips has the seed `seed + i`."""
    steps: int = 0
    guidance: float | None = None
    """Weight of the words in classifier-free guidance; 1 is none."""
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
class Told:
    """`execute.Predict` of a backbone of whole clips that is told words, and what not to show.

    Classifier-free guidance (arXiv 2207.12598) asks for both opinions in one batch. `rescale` is that of
    arXiv 2305.08891, section 3.4, on the clean prediction, not on the velocity.
    """

    velocity: Velocity
    words: Words
    against: Words | None = None
    """Words to be guided away from; None for no guidance."""
    weight: float = 1.0
    rescale: float = 0.0

    def __call__(self, look: Look) -> Tensor:
        sigma = look.sigma[:, 0] if len(set(look.shown)) == 1 else look.sigma
        if self.against is None:
            return self.velocity(look.x, sigma, self.words)
        words = beside(self.words, self.against)
        told, untold = self.velocity(torch.cat([look.x] * 2), torch.cat([sigma] * 2), words).chunk(2)
        v = untold + self.weight * (told - untold)
        return self._rescaled(look, v, told) if self.rescale else v

    def _rescaled(self, look: Look, v: Tensor, told: Tensor) -> Tensor:
        sigma = look.sigma[:, :, None, None, None]
        guided, alone = look.x - sigma * v, look.x - sigma * told
        spread = alone.std((1, 2, 3, 4), keepdim=True) / guided.std((1, 2, 3, 4), keepdim=True).clamp(
            min=1e-6
        )
        scaled = guided * (1 + self.rescale * (spread - 1))
        return torch.where(sigma > 0, (look.x - scaled) / sigma.clamp(min=1e-6), v)


@dataclass(frozen=True)
class Windowed:
    """A `Predict` that is asked about overlapping windows in time and hears their weighted mean.

    MultiDiffusion (arXiv 2302.08113), as Movie Gen's upsampler does it (arXiv 2410.13720, section 3.1.5).
    """

    predict: Predict
    window: int
    overlap: int

    def __call__(self, look: Look) -> Tensor:
        count = look.x.shape[1]
        if count <= self.window:
            return self.predict(look)
        total, weight = torch.zeros_like(look.x), look.x.new_zeros(count, 1, 1, 1)
        starts = range(0, count - self.overlap, self.window - self.overlap)
        for start in sorted({min(start, count - self.window) for start in starts}):
            ramp = torch.arange(1, self.window + 1, device=look.x.device, dtype=look.x.dtype)
            share = torch.minimum(ramp, ramp.flip(0)).clamp(max=self.overlap + 1)[:, None, None, None]
            part = slice(start, start + self.window)
            seen = Look(
                look.x[:, part], look.shown[part], tuple(range(self.window)), look.groups[part],
                moves=look.moves[part],
            )  # fmt: skip
            total[:, part] += share * self.predict(seen)
            weight[part] += share
        return total / weight


def unfold(system: Any, order: Order, video: Tensor | None = None) -> Iterator[Moment]:
    """Dream a clip step by step; `video` uint8 `(b or 1, t, 3, h, w)` is used as `order.use` says.

    `system` is one of clips (`systems.moviegen`). ValueErrors as of `prepared`.
    """
    config = system.config
    plan, given, shape = prepared(system, order, video)
    noise = KeyedNoise(
        tuple(order.seed + row for row in range(len(order.prompts))), shape[1:], _device(system)
    )
    weight = config.guidance if order.guidance is None else order.guidance
    against = system.read([order.negative] * len(order.prompts)) if weight != 1 else None
    predict: Predict = Told(system.velocity, system.read(order.prompts), against, weight, order.rescale)
    if order.window:
        predict = Windowed(predict, order.window, order.window // 2)
    state = begin(plan, noise, given)
    for index in rows(plan, state, predict, noise, solver=order.solver):
        clean = state.x.clone()
        for slot, (v, _) in state.moved.items():
            clean[:, slot] -= plan.grid[plan.levels[index + 1][slot]] * v
        yield Moment(index + 1, len(plan.rows), state.x, clean)


def prepared(
    system: Any, order: Order, video: Tensor | None
) -> tuple[Plan, Tensor | None, tuple[int, int, int, int]]:  # fmt: skip
    """The plan of an order, the values of what it is given, and the shape (t', c, h', w') of its latents.

    ValueError with the nearest legal value for a count of frames, a size or a picture that does not fit.
    """
    config, codec = system.config, system.codec
    frames, size = order.frames or config.frames, order.size or config.size
    system.check(frames, size)
    count, (_, down, across) = codec.latent_frames(frames), codec.stride
    shape = count, codec.channels, size[0] // down, size[1] // across
    grid = levels(
        order.spacing,
        order.steps or config.steps,
        shift_by=config.shift if order.shift is None else order.shift,
    )
    if video is None:
        return together(grid, count), None, shape
    if tuple(video.shape[-2:]) != size:
        found = f"{video.shape[-2]}x{video.shape[-1]}"
        raise ValueError(
            f"the given pictures are {found} and the clip is {size[0]}x{size[1]}: scale them to it"
        )
    video = video.expand(len(order.prompts), -1, -1, -1, -1)
    if order.use == "anew":
        return *_anew(system, order, grid, video, frames), shape
    latents, known = _known(system, order.use, video, count)
    return together(grid, count, known=known), latents, shape


def _known(system: Any, use: Use, video: Tensor, count: int) -> tuple[Tensor, list[int]]:
    """Latents of what is known, and which of the clip's latents they are."""
    if use == "first":
        return system.encode(video[:, :1]), [0]
    if use == "before":
        latents = system.encode(video)
        if latents.shape[1] >= count:
            raise ValueError(
                f"the given video fills all {count} latent frames: ask for more frames than it has"
            )
        return latents, list(range(latents.shape[1]))
    if count < 3 or video.shape[1] < 2:
        raise ValueError("first and last frame need a given video of two frames and a clip of three latents")
    still = video[:, -1:].expand(-1, system.codec.stride[0] + 1, -1, -1, -1)
    return torch.cat([system.encode(video[:, :1]), system.encode(still)[:, -1:]], dim=1), [0, count - 1]


def _anew(
    system: Any, order: Order, grid: list[float], video: Tensor, frames: int
) -> tuple[Plan, Tensor]:  # fmt: skip
    """A plan that begins with the given video, as noisy as `strength` says."""
    if video.shape[1] != frames:
        raise ValueError(
            f"the given video has {video.shape[1]} frames and the clip {frames}: make them equal"
        )
    if not 0 < order.strength <= 1:
        raise ValueError(f"the strength lies above 0 and up to 1, got {order.strength}")
    rising = list(reversed(grid))
    level = min(range(1, len(rising)), key=lambda k: abs(rising[k] - order.strength))
    latents = system.encode(video)
    noise = KeyedNoise(
        tuple(order.seed + row for row in range(len(order.prompts))), tuple(latents.shape[2:]), latents.device
    )
    eps = torch.stack([noise(frame, 0) for frame in range(latents.shape[1])], dim=1)
    plan = together(grid, latents.shape[1], begin=level)
    mixed = (1 - rising[level]) * latents + rising[level] * eps
    return plan, mixed[:, : sum(plan.given)]


@torch.inference_mode()
def film(system: Any, order: Order, video: Tensor | None = None) -> Tensor:
    """The clips of an order in [-1, 1], `(b, t, 3, h, w)`."""
    *_, last = unfold(system, order, video)
    return system.codec.decode(last.latents, order.frames or system.config.frames).clamp(-1, 1)


def _device(system: Any) -> torch.device:
    return next(system.parameters()).device
