"""The executor: walk a schedule, pass by pass, with the cache frozen, and commit what is finished.

One frame is N denoising passes that read the cache and one commit pass that writes it. The commit pass shows
the finished frame at a small, correctly labelled noise level, as history was shown in training: it keeps
small errors from being taken at face value, and labelling matters more than noising (a mislabelled level of
0.1 biases twenty times more than a labelled one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dreamwalk.backbones.framedit import FrameDiT
from dreamwalk.layers.attention import KeyValues
from dreamwalk.layers.cache import RingCache
from dreamwalk.schedules.draws import Draws
from dreamwalk.schedules.flow import perturb
from dreamwalk.schedules.sigmas import sigma_grid


class Step(Protocol):
    """One pass over one frame on a cache, which is only read: gives `v` and the fresh keys and values."""

    def __call__(
        self, x: Tensor, sigma: float, action: Tensor, cache: RingCache, views: Tensor | None = None
    ) -> tuple[Tensor, Sequence[KeyValues]]: ...


class EagerStep:
    """The pass in plain PyTorch, or compiled: the same function either way."""

    def __init__(self, conditions: nn.Module, backbone: FrameDiT) -> None:
        self.conditions, self.backbone = conditions, backbone
        self.predict = backbone.predict

    def compile(self) -> EagerStep:
        """Compile the pass; shapes are static, so a GPU replays it as one CUDA graph."""
        mode = "reduce-overhead" if next(self.backbone.parameters()).is_cuda else "default"
        self.predict = torch.compile(self.backbone.predict, mode=mode, fullgraph=True)
        return self

    @torch.inference_mode()
    def __call__(
        self, x: Tensor, sigma: float, action: Tensor, cache: RingCache, views: Tensor | None = None
    ) -> tuple[Tensor, Sequence[KeyValues]]:
        levels = torch.full(x.shape[:2], sigma, device=x.device)
        rope = self.backbone.rope(self.backbone.times(x, cache))
        bias = cache.bias(self.backbone.config.tokens)
        return self.predict(x, levels, self.conditions(action), rope, bias, cache, views)


@dataclass(frozen=True)
class Whereabouts:
    """Where each row of a walk stands, in a level that is known by heart."""

    pose: Tensor
    """`world_from_camera` `(b, 4, 4)`."""
    move: Tensor
    """How far the last action led, `(b, 3)` in world units."""
    intrinsics: Tensor
    """`(b, 3, 3)` in pixels."""

    def to(self, device: torch.device | str) -> Whereabouts:
        return Whereabouts(self.pose.to(device), self.move.to(device), self.intrinsics.to(device))


@dataclass
class Session:
    """All mutable state of one walk. Modules hold none, so one set of weights serves many sessions."""

    cache: RingCache
    seed: int
    steps: int
    history_level: float
    shift_by: float
    shape: tuple[int, int, int]
    """Latents of a frame, `(c, h, w)`."""
    where: Whereabouts | None = None

    def clone(self) -> Session:
        """A snapshot that later passes leave alone."""
        return replace(self, cache=self.cache.clone())

    def to(self, device: torch.device | str) -> Session:
        """The same session on another device."""
        where = self.where and self.where.to(device)
        return replace(self, cache=self.cache.to(device), where=where)

    def noise(self, kind: int) -> Tensor:
        """Noise `(1, 1, c, h, w)` of the frame that comes next, keyed by seed, frame and kind of use."""
        keys = [(self.seed, self.cache.frames, kind)] * self.cache.keys.shape[1]
        return Draws(keys, device=self.cache.keys.device).normal(1, *self.shape)


def denoise_frame(
    step: Step, session: Session, action: Tensor, *, views: Tensor | None = None,
    timings: dict[str, Any] | None = None,
) -> Tensor:  # fmt: skip
    """Dream one frame that `action` `(b, 1, a)` leads into, and commit it; gives latents `(b, 1, c, h, w)`.

    `timings` receives the milliseconds of the stages `denoise` and `commit`.
    """
    began = perf_counter()
    x = session.noise(0)
    for now, following in pairwise(sigma_grid(session.steps, shift_by=session.shift_by).tolist()):
        x = x + (following - now) * step(x, now, action, session.cache, views)[0]
    denoised = perf_counter()
    commit_frame(step, session, x, action, views=views)
    if timings is not None:
        timings["denoise"] = 1000 * (denoised - began)
        timings["commit"] = 1000 * (perf_counter() - denoised)
    return x


def commit_frame(
    step: Step, session: Session, latents: Tensor, action: Tensor, *, views: Tensor | None = None
) -> None:
    """Make a finished frame part of the history: one pass at the history level; its keys and values stay."""
    level = torch.full(latents.shape[:2], session.history_level, device=latents.device)
    shown = perturb(latents, session.noise(1), level)
    session.cache.write(step(shown, session.history_level, action, session.cache, views)[1])
