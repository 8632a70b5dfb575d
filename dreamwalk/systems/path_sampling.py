"""Scenes along paths of any length: clip after clip, each told what a world cache shows of the ones before.

Voyager (arXiv 2506.04225), section 4.3, smooth video sampling. Clips share `overlap` of their frames with the
one before: these begin as it left them, with noise of `strength`, and become the mean of both. The whole is
one plan (`schedules.clip_plans.overlapped`); when the steps of a clip are done, its frames go into the cache,
and what that shows along the next clip is what the next one is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.memory.frame_points import FAR
from dreamwalk.memory.point_tiles import TileBudget
from dreamwalk.memory.world_cache import WorldCache, WorldCacheConfig, aligned_depth
from dreamwalk.rollout.clip_predictor import ClipPredictor
from dreamwalk.rollout.execute import KeyedNoise, ModelInput, begin, run
from dreamwalk.schedules.clip_plans import overlapped
from dreamwalk.schedules.guidance import conditions, guided
from dreamwalk.schedules.plans import Plan
from dreamwalk.schedules.sigmas import spaced_sigmas
from dreamwalk.systems.along_path import SEEN, AlongPath
from dreamwalk.systems.clip_generator import ClipSettings
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.voyager import Voyager
from dreamwalk.validation import Share

PathMemory = Literal["cache", "picture"]


@dataclass(frozen=True)
class ClipJoint:
    """How a clip goes on from the one before."""

    overlap: Share = 0.5
    """Share of a clip that it has in common with the one before."""
    strength: Share = 0.6
    """Noise that what they have in common begins with."""
    smooth: Share = 0.0
    """Noise from which all clips together are denoised once more at the end; 0: not at all."""


@dataclass(frozen=True, eq=False)
class PathRequest:
    """A picture with depth, and the cameras of `n` frames, of which the first is the picture's own."""

    picture: Tensor
    """`(3, h, w)` in [-1, 1]."""
    depth: Tensor
    """Planar, in world units, 0 for the sky, `(h, w)`."""
    poses: Tensor
    """`world_from_camera`, `(n, 4, 4)`."""
    intrinsics: Tensor
    """`(n, 3, 3)` in pixels."""
    clip: ClipRequest = field(default_factory=lambda: ClipRequest(("",)))
    """Prompt, seed and numbers of sampling; the rest of it is not asked."""
    joint: ClipJoint = field(default_factory=ClipJoint)
    memory: PathMemory = "cache"
    """What a clip is told: what the cache shows, or its own first frame alone."""
    time: int = 0
    """Number of the first frame in the cache."""


@dataclass(frozen=True)
class PathStep:
    """Where sampling is."""

    step: int
    steps: int
    finished: int
    """Clips."""
    clips: int


def clip_strides(system: Voyager, joint: ClipJoint) -> tuple[int, int, int]:
    """Latent frames of a clip, those that it shares with the one before, and frames from one clip's first to
    the next one's; UserError for a system whose clips do not go on from one another."""
    config, codec = system.config, system.codec
    if config.discard_frames:
        raise UserError(
            "this system cuts off the first frames of its clips, so that they do not go on from one "
            "another: sample its clips one by one with `sample_rgbd`"
        )
    if config.depth == "none":
        raise UserError("this system dreams no depth, of which a cache is made: take one that does")
    length = codec.latent_frames(config.frames)
    shared = min(round(joint.overlap * length), length - 1)
    return length, shared, (length - shared) * codec.stride[0]


class PathSampling:
    """The sampling of one request. UserError for paths that the system cannot follow."""

    def __init__(self, system: Voyager, request: PathRequest, cache: WorldCache) -> None:
        self.system, self.request, self.cache = system, request, cache
        config = system.config
        self.length, self.shared, self.stride = clip_strides(system, request.joint)
        n = len(request.poses)
        self.clips = 1 + max(0, -(-(n - config.frames) // self.stride))
        held = torch.arange(config.frames + (self.clips - 1) * self.stride).clamp(max=n - 1)
        self.poses, self.intrinsics = request.poses[held].float(), request.intrinsics[held].float()
        self._first = request.picture, request.depth
        h, w = request.depth.shape
        known = torch.zeros(1, 1, h, w)
        blank = known[:, :, None].expand(-1, -1, 3, -1, -1), known, known > 0
        still = AlongPath(request.picture[None], request.depth[None], *blank).ranged(config.headroom)
        self.depth_range = still.depth_range
        self.fits: list[tuple[float, float]] = []
        """Scale and bias by which each clip's depth is aligned."""
        self._paths: list[AlongPath] = []
        """What was known of each clip."""
        self.plan = self._plan(system.settings(replace(request.clip, conditioning=still)))

    def _plan(self, settings: ClipSettings) -> Plan:
        """All clips."""
        asked = self.request
        sigmas = spaced_sigmas(asked.clip.spacing, settings.steps, shift_by=settings.shift)
        level, smooth = (_level(sigmas, sigma) for sigma in (asked.joint.strength, asked.joint.smooth))
        frames = self.length + (self.clips - 1) * (self.length - self.shared)
        sizes = {"clip": self.length, "overlap": self.shared, "level": max(level, 1)}
        plan = overlapped(sigmas, frames, **sizes, smooth=min(smooth, len(sigmas) - 2))
        return guided(plan, conditions(settings.guidance, rescale=asked.clip.rescale))

    @torch.inference_mode()
    def steps(self) -> Iterator[PathStep]:
        """Sample, and fill the cache; `frames` has the frames afterwards."""
        system, asked = self.system, self.request
        first = self.poses[:1], self.intrinsics[:1]
        self.cache.insert(asked.picture[None], asked.depth[None], *first, time=asked.time)
        path = self._path(0, self._first)
        asked_clip = replace(asked.clip, conditioning=path)
        system.check(asked_clip)
        plan, settings = self.plan, system.settings(asked_clip)
        text, *negative = (system.text_encoder(*inputs) for inputs in system.text_inputs(asked_clip))
        base = ClipPredictor(system.velocity, text, next(iter(negative), None), settings.embedded_guidance)
        predictor = _AlongClips(base, {0: system.path_channels(path)})
        noise = KeyedNoise((asked.clip.seed,), system.latent_shape(asked_clip)[2:], system.device)
        self.state, done = begin(plan, noise, None), 0
        for index in run(plan, self.state, predictor, noise):
            if done < self.clips and not any(plan.levels[index + 1][slot] for slot in self._slots(done)):
                first = self._remember(done)
                done += 1
                if done < self.clips:
                    channels = system.path_channels(self._path(done, first))
                    predictor.cond[done * (self.length - self.shared)] = channels
            yield PathStep(index + 1, len(plan.rows), done, self.clips)

    @torch.inference_mode()
    def frames(self) -> tuple[Tensor, Tensor]:
        """Frames in [-1, 1] `(n, 3, h, w)` and their depth in world units `(n, h, w)`; of what two clips
        share, the mean. Where sampling was stopped, those of the clips that are finished, one at least."""
        parts = [self._decoded(i) for i in range(len(self.fits))]
        made = self.system.config.frames + (len(parts) - 1) * self.stride
        n = min(len(self.request.poses), made)
        rgb, depth = (torch.zeros(made, *part.shape[1:]) for part in parts[0])
        count = torch.zeros(made, 1, 1)
        for i, (colours, far) in enumerate(parts):
            at = slice(i * self.stride, i * self.stride + len(colours))
            rgb[at] += colours.cpu()
            depth[at] += aligned_depth(far, *self.fits[i]).cpu()
            count[at] += 1
        rgb, depth = rgb / count[:, None], depth / count
        rgb[0], depth[0] = self.request.picture, self.request.depth
        return rgb[:n], depth[:n]

    def _slots(self, clip: int) -> range:
        return range(clip * self.length, (clip + 1) * self.length)

    def _decoded(self, clip: int) -> tuple[Tensor, Tensor]:
        """A clip as it is now: colours `(t, 3, h, w)` and depth `(t, h, w)`."""
        video = self.system.codec.decode(self.state.x[:, list(self._slots(clip))], self.system.config.frames)
        made = self.system.finished(video.clamp(-1, 1), self._paths[clip])
        assert made.depth is not None
        return made.rgb[0], made.depth[0]

    def _remember(self, clip: int) -> tuple[Tensor, Tensor]:
        """Put the new frames of a finished clip into the cache; gives the first frame of the next one."""
        rgb, depth = (part.cpu() for part in self._decoded(clip))
        begin, length = clip * self.stride, len(rgb)
        at = slice(begin, begin + length)
        self.fits.append(self.cache.fit(depth, self.poses[at], self.intrinsics[at]))
        depth = aligned_depth(depth, *self.fits[-1])
        new = length - self.stride if clip else 1
        cameras = self.poses[at][new:], self.intrinsics[at][new:]
        self.cache.insert(rgb[new:], depth[new:], *cameras, time=self.request.time + begin + new)
        self.cache.commit()
        return rgb[self.stride % length], depth[self.stride % length]

    def _path(self, clip: int, first: tuple[Tensor, Tensor]) -> AlongPath:
        """What the cache shows along the next clip, `clip`."""
        at = slice(clip * self.stride, clip * self.stride + self.system.config.frames)
        size = self.request.depth.shape[0], self.request.depth.shape[1]
        cache = self.cache
        if self.request.memory == "picture":
            cache = WorldCache(WorldCacheConfig(budget=TileBudget(points=None)))
            cache.insert(first[0][None], first[1][None], self.poses[at][:1], self.intrinsics[at][:1], time=0)
        view = cache.render(self.poses[at], self.intrinsics[at], size=size)
        coming = slice(at.stop, at.stop + self.stride)  # read while this clip is dreamt
        self.cache.prefetch(self.poses[coming], self.intrinsics[coming], size=size)
        depth = view.depth.masked_fill(view.depth > FAR / 2, 0)
        parts = view.rgb[None], depth[None], view.mask[None] > SEEN
        self._paths.append(AlongPath(first[0][None], first[1][None], *parts, self.depth_range))
        return self._paths[-1]


@dataclass(frozen=True)
class _AlongClips:
    """`Predictor` of clips of one plan, each with its own channels beside the latents."""

    base: ClipPredictor
    cond: dict[int, Tensor]
    """By the first latent frame of a clip."""

    def __call__(self, branches: Sequence[ModelInput]) -> list[Tensor]:
        start = branches[0].frames[0]
        moved = [
            replace(branch, frames=tuple(frame - start for frame in branch.frames)) for branch in branches
        ]
        return replace(self.base, cond=self.cond[start])(moved)


def _level(sigmas: Sequence[float], sigma: float) -> int:
    """The level, counted from clean, whose sigma is nearest."""
    rising = list(reversed(sigmas))
    return min(range(len(rising)), key=lambda k: abs(rising[k] - sigma))
