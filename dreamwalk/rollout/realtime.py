"""Walking in real time: frame after frame on a ring cache, with static shapes.

A frame is a plan of its own (`frame_plan`), executed like every plan: N denoising passes that read the cache
and one commit pass that writes it. The history lies in the cache and not in the plan. The commit pass shows
the finished frame at a small, correctly labelled noise level, as history was shown in training: it keeps
small errors from being taken at face value, and labelling matters more than noising (a mislabelled level of
0.1 biases twenty times more than a labelled one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import FrameBackbone
from dreamwalk.layers.attention import KeyValues
from dreamwalk.layers.cache import RingCache
from dreamwalk.rollout.execute import ModelInput, Update, euler, execute
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.plans import ForwardSpec, Pass, Plan


class Step(Protocol):
    """One pass over one frame on a cache, which is only read: gives `v` and the fresh keys and values."""

    def __call__(
        self, x: Tensor, sigma: float, action: Tensor, cache: RingCache, views: Tensor | None = None
    ) -> tuple[Tensor, Sequence[KeyValues]]: ...


class EagerStep:
    """The pass in plain PyTorch, or compiled: the same function either way."""

    def __init__(self, conditions: nn.Module, backbone: FrameBackbone) -> None:
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
        bias = self.backbone.bias(cache)
        return self.predict(x, levels, self.conditions(action), rope, bias, cache, views)


@dataclass(frozen=True)
class CameraState:
    """Where each row of a walk stands, in a level that is known by heart."""

    pose: Tensor
    """`world_from_camera` `(b, 4, 4)`."""
    move: Tensor
    """How far the last action led, `(b, 3)` in world units."""
    action: Tensor
    """That action, `(b, a)`."""
    intrinsics: Tensor
    """`(b, 3, 3)` in pixels."""

    def to(self, device: torch.device | str) -> CameraState:
        return CameraState(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass
class Session:
    """All mutable state of one walk. Modules hold none, so one set of weights serves many sessions."""

    cache: RingCache
    seed: int
    steps: int
    history_sigma: float
    shape: tuple[int, int, int]
    """Latents of a frame, `(c, h, w)`."""
    where: CameraState | None = None
    stood: tuple[int, ...] = ()
    """Frames for which each row has not moved."""

    def go(self, where: CameraState | None) -> None:
        """Move to where an action led. Who stays there keeps the noise of the frame before, or what a sampler
        makes of new noise would flicker."""
        if where is not None and self.where is not None:
            same = (where.pose - self.where.pose).abs().amax((1, 2)) < 1e-6
            before = self.stood or (0,) * len(same)
            self.stood = tuple(k + 1 if s else 0 for k, s in zip(before, same.tolist(), strict=True))
        self.where = where

    def clone(self) -> Session:
        """A snapshot that later passes leave alone."""
        return replace(self, cache=self.cache.clone())

    def to(self, device: torch.device | str) -> Session:
        """The same session on another device."""
        where = self.where and self.where.to(device)
        return replace(self, cache=self.cache.to(device), where=where)

    def noise(self, frame: int, use: int) -> Tensor:
        """Noise `(b, c, h, w)` of the frame that comes next (`frame` 0)."""
        batch, device = self.cache.keys.shape[1], self.cache.keys.device
        frames = (self.cache.frames + frame - stood for stood in self.stood or (0,) * batch)
        return KeyedGenerator([(self.seed, number, use) for number in frames], device=device).normal(
            *self.shape
        )


@lru_cache(maxsize=64)
def frame_plan(grid: tuple[float, ...], history_sigma: float, *, given: bool = False) -> Plan:
    """One frame down a rising `grid` and committed, shown at `history_sigma`; a `given` one is committed."""
    levels = [] if given else list(range(len(grid) - 1, 0, -1))
    rows = [Pass((ForwardSpec((0,), (grid[level],), (0,)),)) for level in levels]
    rows.append(Pass((ForwardSpec((0,), (history_sigma,), (0,)),), commit=(0,)))
    return Plan(grid, (0,), (given,), tuple((level,) for level in (*levels, 0, 0)), tuple(rows))


@dataclass
class _RingReader:
    """`execute.Predictor` for the plan of one frame, behind which the history lies in a ring cache."""

    step: Step
    session: Session
    action: Tensor
    views: Tensor | None
    seconds: dict[bool, float]
    """Spent in passes that commit, and in those that do not."""

    def __call__(self, branches: Sequence[ModelInput]) -> list[Tensor]:
        (frame,), began = branches, perf_counter()
        v, fresh = self.step(frame.x, frame.input_sigma[0], self.action, self.session.cache, self.views)
        if commits := frame.commits[0]:
            self.session.cache.write(fresh)
        self.seconds[commits] += perf_counter() - began
        return [v]


def denoise_frame(
    step: Step,
    session: Session,
    action: Tensor,
    *,
    grid: tuple[float, ...],
    views: Tensor | None = None,
    update: Update = euler,
    timings: dict[str, float] | None = None,
) -> Tensor:
    """Dream one frame that `action` `(b, 1, a)` leads into, and commit it; gives latents `(b, 1, c, h, w)`.

    `grid` are rising sigmas. `timings` receives the milliseconds of the stages `denoise` and `commit`.
    """
    reader = _RingReader(step, session, action, views, {False: 0.0, True: 0.0})
    x = execute(frame_plan(grid, session.history_sigma), reader, session.noise, update=update)
    if timings is not None:
        timings["denoise"], timings["commit"] = (1000 * reader.seconds[commits] for commits in (False, True))
    return x


def commit_frame(
    step: Step, session: Session, latents: Tensor, action: Tensor, *, views: Tensor | None = None
) -> None:
    """Make a known frame part of the history: one pass at the history level; its keys and values stay."""
    reader = _RingReader(step, session, action, views, {False: 0.0, True: 0.0})
    plan = frame_plan((0.0, 1.0), session.history_sigma, given=True)
    execute(plan, reader, session.noise, given=latents)
