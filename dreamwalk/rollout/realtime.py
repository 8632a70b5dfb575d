"""Dreaming in real time: frame after frame on a ring cache, with static shapes.

A frame is a plan of its own (`frame_plan`), executed like every plan: N denoising passes that read the cache
and one commit pass that writes it. The history lies in the cache and not in the plan. The commit pass shows
the finished frame at a small, correctly labelled noise level, as history was shown in training: it keeps
small errors from being taken at face value, and labelling matters more than noising (a mislabelled level of
0.1 biases twenty times more than a labelled one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from time import perf_counter
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import NOTHING, FrameBackbone, FrameInputs, Recalled
from dreamwalk.backbones.memory_stdit import MemorySTDiT, MemoryView
from dreamwalk.layers.attention import KeyValues
from dreamwalk.layers.cache import Cache, ExtendedCache, RingCache
from dreamwalk.memory.contract import CameraState, Memory, MemoryModel, Recollection
from dreamwalk.rollout.execute import ModelInput, Update, euler, execute
from dreamwalk.schedules.flow import renoise
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.plans import ForwardSpec, Pass, Plan


class FramePass(Protocol):
    """One pass over one frame on a cache, which is only read: gives `v` and the fresh keys and values."""

    def __call__(
        self, x: Tensor, sigma: float, action: Tensor, cache: Cache, recalled: Recalled = NOTHING
    ) -> tuple[Tensor, Sequence[KeyValues]]: ...


class EagerPass:
    """The pass in plain PyTorch, or compiled: the same function either way."""

    def __init__(self, conditions: nn.Module, backbone: FrameBackbone) -> None:
        self.conditions, self.backbone = conditions, backbone
        self.predict = backbone.predict

    def compile(self) -> EagerPass:
        """Compile the pass; shapes are static, so a GPU replays it as one CUDA graph."""
        mode = "reduce-overhead" if next(self.backbone.parameters()).is_cuda else "default"
        self.predict = torch.compile(self.backbone.predict, mode=mode, fullgraph=True)
        return self

    @torch.inference_mode()
    def __call__(
        self, x: Tensor, sigma: float, action: Tensor, cache: Cache, recalled: Recalled = NOTHING
    ) -> tuple[Tensor, Sequence[KeyValues]]:
        sigmas = torch.full(x.shape[:2], sigma, device=x.device)
        rope = self.backbone.rope(self.backbone.times(x, cache))
        bias = self.backbone.bias(cache)
        return self.predict(x, sigmas, FrameInputs(self.conditions(action), recalled), rope, bias, cache)


@dataclass(kw_only=True)
class WalkState:
    """What a world asks of the mutable state of one dream; a system adds its own. Modules hold none, so one
    set of weights serves many sessions."""

    seed: int
    steps: int = 0
    """Denoising passes of a frame; 0 where nothing is denoised."""
    memory: Memory = field(default_factory=MemoryModel().begin)
    camera: CameraState | None = None
    shown: Tensor | None = None
    """The last frame in [-1, 1], RGB `(b, 3, h, w)` or RGB-D, where it is not made of its latents alone."""

    def clone(self) -> Self:
        """A snapshot that later passes leave alone."""
        raise NotImplementedError


@dataclass(kw_only=True)
class Session(WalkState):
    """The state of a dream on a ring cache."""

    cache: RingCache
    history_sigma: float
    shape: tuple[int, int, int]
    """Latents of a frame, `(c, h, w)`."""
    still_frames: tuple[int, ...] = ()
    """Frames for which each row has not moved."""

    def move(self, camera: CameraState | None) -> None:
        """Take the camera to where an action led. A row that stays there keeps the noise of the frame before,
        or what a sampler makes of new noise would flicker."""
        if camera is not None and self.camera is not None:
            same = (camera.pose - self.camera.pose).abs().amax((1, 2)) < 1e-6
            before = self.still_frames or (0,) * len(same)
            pairs = zip(before, same.tolist(), strict=True)
            self.still_frames = tuple(count + 1 if stays else 0 for count, stays in pairs)
        self.camera = camera

    def clone(self) -> Self:
        return replace(self, cache=self.cache.clone(), memory=self.memory.clone())

    def to(self, device: torch.device | str) -> Session:
        """The same session on another device."""
        camera = self.camera and self.camera.to(device)
        return replace(self, cache=self.cache.to(device), memory=self.memory.to(device), camera=camera)

    def noise(self, frame: int, use: int) -> Tensor:
        """Noise `(b, c, h, w)` of the next frame (`frame` 0)."""
        batch, device = self.cache.keys.shape[1], self.cache.keys.device
        frames = (self.cache.frames + frame - still for still in self.still_frames or (0,) * batch)
        keys = [(self.seed, number, use) for number in frames]
        return KeyedGenerator(keys, device=device).normal(*self.shape)


@torch.inference_mode()
def extended(session: Session, found: Recollection, conditions: nn.Module, backbone: FrameBackbone) -> Cache:
    """The session's cache with recalled frames in it, which see one another: one pass a frame, not one a
    step. A backbone with a memory part of its own reads them there; to others those of the window are no
    news."""
    if isinstance(backbone, MemorySTDiT):
        return _with_view(session, found, conditions, backbone)
    frames = found.frames and found.frames.before(session.cache.frames - session.cache.window)
    if not frames:
        return session.cache
    x, device = frames.latents, frames.latents.device
    keys = ([(session.seed, time, 1)] * len(x) for time in frames.times)
    noise = [KeyedGenerator(key, device=device).normal(*session.shape) for key in keys]
    x = renoise(x, torch.stack(noise, 1), 0.0, frames.sigma)
    sigmas = torch.full(x.shape[:2], frames.sigma, device=device)
    rope = backbone.rope(torch.tensor(frames.times, device=device))
    mask = backbone.mask(torch.ones(2 * (x.shape[1],), dtype=torch.bool, device=device))
    _, recalled = backbone.predict(x, sigmas, FrameInputs(conditions(frames.actions)), rope, mask, None)
    return ExtendedCache(session.cache, recalled)


def _with_view(session: Session, found: Recollection, conditions: nn.Module, backbone: MemorySTDiT) -> Cache:
    """The session's cache, or its window read anew, with recalled frames as the next frame sees them from its
    camera; these are shown with an action of zeros, as published."""
    if found.units is None or session.camera is None:
        return session.cache
    (units, target), window = found.units, found.window
    poses, now = target.cameras.pose, target.time
    if window is not None:
        assert window.poses is not None
        times = torch.tensor(window.times, device=now.device)
        poses = torch.cat([window.poses, poses], 1)
        now = torch.cat([times.expand(len(now), -1), now], 1)
    still = torch.zeros_like(session.camera.action)[:, None].expand(-1, units.time.shape[1], -1)
    seen = {"cameras": units.cameras.pose, "times": units.time, "poses": poses, "now": now}
    view = MemoryView.of(units.latents, conditions(still), **seen)
    if window is None:
        return backbone.recall_cache(session.cache, view)
    return backbone.window_cache(window.latents, conditions(window.actions), view, times=times)


@lru_cache(maxsize=64)
def frame_plan(sigmas: tuple[float, ...], history_sigma: float, *, given: bool = False) -> Plan:
    """One frame down rising `sigmas` and committed, shown at `history_sigma`; a `given` one is committed."""
    levels = [] if given else list(range(len(sigmas) - 1, 0, -1))
    rows = [Pass((ForwardSpec((0,), (sigmas[level],), (0,)),)) for level in levels]
    rows.append(Pass((ForwardSpec((0,), (history_sigma,), (0,)),), commit=(0,)))
    return Plan(sigmas, (0,), (given,), tuple((level,) for level in (*levels, 0, 0)), tuple(rows))


@dataclass
class _RingPredictor:
    """`execute.Predictor` for the plan of one frame, behind which the history lies in a ring cache."""

    frame_pass: FramePass
    session: Session
    action: Tensor
    recalled: Recalled
    cache: Cache
    guidance: float = 1.0
    """Over recalled frames; 1 for none."""
    seconds: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    """Spent in passes that commit, and in those that do not."""

    def __call__(self, branches: Sequence[ModelInput]) -> list[Tensor]:
        (frame,), began = branches, perf_counter()
        given = frame.x, frame.input_sigma[0], self.action, self.cache
        v, fresh = self.frame_pass(*given, self.recalled)
        if commits := frame.commits[0]:
            self.session.cache.write(fresh)
        elif self.guidance != 1 and self.recalled.visible is not None:
            hidden = self.recalled._replace(visible=torch.zeros_like(self.recalled.visible))
            v = v + (self.guidance - 1) * (v - self.frame_pass(*given, hidden)[0])
        self.seconds[commits] += perf_counter() - began
        return [v]


def denoise_frame(
    frame_pass: FramePass,
    session: Session,
    action: Tensor,
    *,
    sigmas: tuple[float, ...],
    recalled: Recalled = NOTHING,
    cache: Cache | None = None,
    guidance: float = 1.0,
    update: Update = euler,
    timings: dict[str, float] | None = None,
) -> Tensor:
    """Dream one frame that `action` `(b, 1, a)` leads into, and commit it; gives latents `(b, 1, c, h, w)`.

    `sigmas` rise; `recalled` and a `cache` of the session with more in it are what memory recalls, and
    `guidance` over its frames takes another pass a step. `timings` receives the milliseconds of the stages
    `denoise` and `commit`.
    """
    predictor = _RingPredictor(frame_pass, session, action, recalled, cache or session.cache, guidance)
    x = execute(frame_plan(sigmas, session.history_sigma), predictor, session.noise, update=update)
    if timings is not None:
        seconds = predictor.seconds
        timings["denoise"], timings["commit"] = 1000 * seconds[False], 1000 * seconds[True]
    return x


def commit_frame(
    frame_pass: FramePass,
    session: Session,
    latents: Tensor,
    action: Tensor,
    *,
    recalled: Recalled = NOTHING,
    cache: Cache | None = None,
) -> None:
    """Make a known frame part of the history: one pass at the history's noise level; its keys and values
    stay."""
    plan = frame_plan((0.0, 1.0), session.history_sigma, given=True)
    predictor = _RingPredictor(frame_pass, session, action, recalled, cache or session.cache)
    execute(plan, predictor, session.noise, given=latents)
