"""Interactive systems: what world models that are walked in, frame after frame, have in common.

A system of this family encodes frames, is given actions and what its memory recalls, and adds only how it is
trained (`loss_of_latents`). It is sampled in two ways: `advance` dreams the next frame in real time, and
`stream` dreams on any schedule.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import FrameInputs, Recalled
from dreamwalk.clip import Clip, FittingData
from dreamwalk.codecs.rgbd import codec_input
from dreamwalk.conditions.actions import ActionEmbedding
from dreamwalk.errors import UserError
from dreamwalk.layers.cache import Cache
from dreamwalk.memory.contract import CameraState, FinishedFrame, Recollection, TokenSizes
from dreamwalk.rollout.dream import Decode, WorldSpec
from dreamwalk.rollout.execute import KeyedNoise, Predictor, Update, euler
from dreamwalk.rollout.frame_predictor import CachedFramePredictor, FramePredictor
from dreamwalk.rollout.onnx import OnnxDecoder, OnnxPass, fits
from dreamwalk.rollout.realtime import (
    EagerPass,
    FramePass,
    Session,
    WalkState,
    commit_frame,
    denoise_frame,
    extended,
)
from dreamwalk.rollout.streaming import StreamConditions, StreamStep, finished_frames, stream
from dreamwalk.schedules.flow import add_noise, denoised
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.guidance import Guide, unguided
from dreamwalk.schedules.plans import MaskName
from dreamwalk.schedules.sigmas import rising_sigmas
from dreamwalk.schedules.staircase import HistorySigma, Schedule, named_schedule
from dreamwalk.systems.interactive_config import InteractiveConfig
from dreamwalk.systems.walkable import Walkable, check_starts

# A forked process lacks its parent's threads, and would wait for them without an end.
os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


class Interactive(Walkable):
    """A frozen codec, an action embedding, a backbone over latent frames, and a memory."""

    config: InteractiveConfig

    def __init__(self, config: InteractiveConfig) -> None:
        super().__init__()
        self.config, backbone = config, config.backbone
        self.codec = config.codec.build().requires_grad_(False)
        stride = self.codec.stride
        self.actions = ActionEmbedding(
            config.actions, backbone.width, layers=config.action_layers, stride=stride[0]
        )
        self.backbone = backbone.build()
        for part in (self.actions, self.backbone):
            part.to(getattr(torch, config.precision))
        sizes = TokenSizes.of(backbone, self.codec, actions=config.actions, window=config.window)
        self.memory = config.memory.build(sizes)
        if self.memory.memory_blocks:
            self.backbone.add_memory_blocks(self.memory.memory_blocks)
        self._engines: dict[tuple[int, torch.device], tuple[FramePass, Decode]] = {}

    @property
    def blocks(self) -> nn.ModuleList:
        return self.backbone.blocks

    @property
    def action_size(self) -> int:
        return self.config.actions

    @property
    def passes(self) -> float:
        return self.config.steps

    @property
    def timed_steps(self) -> tuple[int, ...]:
        return 1, 2, 4

    @property
    def working_bytes(self) -> int:
        return self.backbone.cache_bytes(self.config.window)

    def fit_from_data(self, data: FittingData) -> None:
        """Fit the pose model of the memory, and a linear code that did not arrive with a trained codec."""
        self.memory.fit_from_data(data)
        if not self.codec.fitted:
            self.codec.fit(codec_input(data.large_batch(), self.codec.image_channels))

    def encode(self, clip: Clip) -> Tensor:
        """Latents `(b, t', c, h, w)` of a batched clip; UserError for another size, or without depth that is
        needed."""
        video = codec_input(clip, self.codec.image_channels)
        (rows, columns), (_, down, across) = self.config.backbone.grid, self.codec.stride
        if video.shape[-2:] != (rows * down, columns * across):
            size, wanted = f"{video.shape[-2]}x{video.shape[-1]}", f"{rows * down}x{columns * across}"
            raise UserError(f"these frames are {size} and the system is for {wanted}: collect that size")
        with torch.no_grad():
            latents = self.codec.encode(video.to(self.codec.dtype))
        return latents.to(torch.promote_types(self.codec.dtype, torch.float32))

    def restored(self, clip: Clip) -> Tensor:
        return self.codec.decode(self.encode(clip), len(clip))

    def _shown(self, predicted: Tensor, session: WalkState) -> Tensor:
        return self.codec.decode(predicted)[:, 0] if session.shown is None else session.shown

    def check_world(self, spec: WorldSpec, source: str) -> None:
        (rows, columns), (_, down, across) = self.config.backbone.grid, self.codec.stride
        check_starts(spec, source, actions=self.config.actions, size=(rows * down, columns * across))

    def latent_clip(self, clip: Clip) -> Clip:
        """A clip as the latent frames see it: with the cameras of the last frame of each.

        UserError for a length that leaves the last latent frame unfilled.
        """
        stride, length = self.codec.stride[0], len(clip)
        if stride == 1 or clip.world_from_camera is None:
            return clip
        last = slice((length - 1) % stride, None, stride)
        intrinsics = None if clip.intrinsics is None else clip.intrinsics[:, last]
        return replace(clip, world_from_camera=clip.world_from_camera[:, last], intrinsics=intrinsics)

    def loss(self, clip: Clip, generator: KeyedGenerator) -> dict[str, Tensor]:
        """The loss of a batched clip, `loss`, and more to log; UserError for clips without what memory
        needs."""
        x, clip = self.encode(clip), self.latent_clip(clip)
        recalled, terms = self.memory.recalled_of_clip(clip, x, generator, system=self)
        if self.config.memory_only:
            return {"loss": torch.stack(list(terms.values())).sum(), **terms}
        inputs = FrameInputs(self.actions(clip.actions), recalled)
        losses = self.loss_of_latents(x, inputs, generator)
        for name, term in terms.items():
            losses |= {"loss": losses["loss"] + term, name: term.detach()}
        return losses

    def error(self, x: Tensor, prediction: Tensor) -> Tensor:
        """Squared error of every latent frame, `(b, t)`, with each channel weighted as its error shows in
        pixels."""
        return (self.codec.channel_weights * (prediction - x).square()).mean(dim=(2, 3, 4))

    def predicted(
        self, clip: Clip, x: Tensor, sigma: Tensor, *, recalled: Recalled, generator: KeyedGenerator
    ) -> Tensor:
        """Latents as the backbone predicts them in one pass from noise levels `sigma` `(b, t)`; without
        gradients where the memory alone is trained."""
        noisy = add_noise(x, generator.normal(*x.shape[1:]), sigma)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.memory_only):
            v = self.backbone(noisy, sigma, self.actions(clip.actions), recalled=recalled)
        return denoised(noisy, v, sigma)

    def loss_of_latents(self, x: Tensor, inputs: FrameInputs, generator: KeyedGenerator) -> dict[str, Tensor]:
        """The loss of latents `x` `(b, t, c, h, w)`."""
        raise NotImplementedError

    def frame_pass(self) -> FramePass:
        """The pass that sessions of this system run, in plain PyTorch."""
        return EagerPass(self.actions, self.backbone)

    @torch.inference_mode()
    def begin(self, start: Clip, *, seed: int = 0, frame_pass: FramePass | None = None) -> Session:
        """A session whose history is the batched clip `start` (one frame is enough)."""
        if start.depth is None and self.codec.image_channels == 4:
            start = replace(start, depth=self.memory.picture_depth(start.video.float() / 127.5 - 1))
        frame_pass, config, latents = frame_pass or self.frame_pass(), self.config, self.encode(start)
        shown = codec_input(start, self.codec.image_channels) if self.memory.keeps_pixels else None
        cache = self.backbone.cache(config.window, batch=latents.shape[0])
        memory, shape = self.memory.begin(), (latents.shape[2], latents.shape[3], latents.shape[4])
        session = Session(
            seed=seed,
            steps=config.steps,
            memory=memory,
            cache=cache,
            history_sigma=config.history_sigma,
            shape=shape,
        )
        start, stride = self.latent_clip(start), self.codec.stride[0]
        first = (len(start.actions[0]) - 1) % stride + 1
        for i in range(latents.shape[1]):
            session.camera = CameraState.of_clip(start, i)
            actions = start.actions[:, max(0, first + (i - 1) * stride) : first + i * stride]
            recalled, past = self._to_inputs(session, self._recall(session))
            x = latents[:, i : i + 1]
            commit_frame(frame_pass, session, x, actions, recalled=recalled, cache=past)
            session.shown = None if shown is None else shown[:, i * stride]
            self._remember(session, latents[:, i], actions[:, -1], dreamed=False)
        return session

    @torch.inference_mode()
    def advance(
        self,
        session: WalkState,
        action: Tensor,
        *,
        camera: CameraState | None = None,
        frame_pass: FramePass | None = None,
        decode: Decode | None = None,
        timings: dict[str, float] | None = None,
    ) -> Tensor:
        """Latents `(b, 1, c, h, w)` of the next frame, which `action` `(b, a)` leads into; seen from
        `camera`, if that is known better than by the memory's own pose model.

        Where the memory keeps pixels, `session.shown` is then the frame as RGB-D."""
        if self.actions.stride > 1:
            raise UserError(
                f"this codec makes one latent of {self.actions.stride} frames: dream on a schedule, "
                "with `dreamwalk sample NAME --schedule chunks`"
            )
        assert isinstance(session, Session)
        began = perf_counter()
        session.move(camera or self.memory.next_camera(session.camera, action, session.memory))
        found = self._recall(session)
        recalled, cache = self._to_inputs(session, found)
        if timings is not None and (cache is not session.cache or any(x is not None for x in recalled)):
            timings["memory"] = 1000 * (perf_counter() - began)
        x = denoise_frame(
            frame_pass or self.frame_pass(),
            session,
            action[:, None],
            sigmas=self.sigmas(session.steps),
            recalled=recalled,
            cache=cache,
            guidance=self.memory.guidance,
            timings=timings,
        )
        if self.memory.keeps_pixels:
            began = perf_counter()
            session.shown = self.memory.refine((decode or self.codec.decode)(x)[:, 0], found, action)
            if timings is not None:
                timings["decode"] = 1000 * (perf_counter() - began)
        began = perf_counter()
        self._remember(session, x[:, 0], action)
        if timings and "memory" in timings:
            timings["memory"] += 1000 * (perf_counter() - began)
        return x

    def _recall(self, session: Session) -> Recollection:
        """For the next frame."""
        return session.memory.recall(session.camera, session.cache.frames)

    def _to_inputs(self, session: Session, found: Recollection) -> tuple[Recalled, Cache]:
        """What the backbone is given of it, and the cache, with the frames in it that are recalled."""
        inputs = self.memory.to_inputs(found, self.codec)
        return inputs, extended(session, found, self.actions, self.backbone)

    def _remember(self, session: Session, latents: Tensor, action: Tensor, *, dreamed: bool = True) -> None:
        time = session.cache.frames - 1
        session.memory.write(FinishedFrame(latents, action, session.camera, time, session.shown, dreamed))

    @torch.inference_mode()
    def stream(
        self,
        start: Clip,
        actions: Tensor,
        *,
        schedule: Schedule,
        seed: int = 0,
        cached: bool = True,
        update: Update = euler,
        guide: Guide = unguided,
    ) -> Iterator[StreamStep]:
        """Continue the batched clip `start` on any schedule; a step a row, without an end.

        `actions` `(b, n, a)` lead into the frames after `start`; after them the last one is held. Memory use
        does not grow. `streaming.finished_frames` gives the finished frames of it. UserError for frames that
        are recalled by a part of the backbone.
        """
        if self.memory.one_by_one:
            raise UserError("what this backbone recalls it sees frame by frame: walk in it, with `play`")
        latents, clip = self.encode(start), self.latent_clip(start)
        conditions = StreamConditions(self.actions, self.memory, self.codec, clip, actions)
        kind = CachedFramePredictor if cached else FramePredictor
        predictor: Predictor = kind(self.backbone, conditions)
        noise = KeyedNoise((seed,) * len(latents), tuple(latents.shape[2:]), latents.device)
        yield from stream(
            schedule,
            list(reversed(self.sigmas(schedule.steps))),
            latents,
            predictor,
            noise,
            history_sigma=self.shown_history,
            update=update,
            guide=guide,
            memory=conditions,
        )

    def schedule(self, name: str, *, steps: int | None = None) -> Schedule:
        """A schedule by its name (`schedules.staircase.SCHEDULES`) for the window of this system."""
        steps = self.config.steps if steps is None else steps
        return named_schedule(name, steps=steps, window=self.config.window + 1, mask=self.mask)

    @property
    def mask(self) -> MaskName:
        """Which frames a frame sees: as in training."""
        return "causal"

    @property
    def shown_history(self) -> HistorySigma:
        """Noise level at which finished frames are shown."""
        return self.config.history_sigma

    def sigmas(self, steps: int) -> tuple[float, ...]:
        """Rising noise levels, from clean to noise, of `steps` denoising steps."""
        return rising_sigmas(self.config.spacing, steps, shift_by=self.config.shift)

    def engine(self) -> tuple[FramePass, Decode]:
        """The pass and the decoder, made once in a process and shared by all worlds of this system."""
        key = os.getpid(), next(self.parameters()).device
        # a forked process keeps its parent's: freeing that waits for its threads
        if key not in self._engines:
            self._engines[key] = self._make_engine(key[1])
        return self._engines[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engines": {}}  # they can neither be copied nor sent to another process

    def _make_engine(self, device: torch.device) -> tuple[FramePass, Decode]:
        if device.type == "cuda":
            return EagerPass(self.actions, self.backbone).compile(), torch.compile(self.codec.decode)
        config, frame_pass = self.config, self.frame_pass()
        decode: Decode = self.codec.decode
        of_frames = self.codec.stride[0] == 1
        if fits(self.backbone) and of_frames and not self.memory.recalls_frames:
            sizes = {"actions": config.actions, "window": config.window}
            frame_pass = OnnxPass(self.actions, self.backbone, **sizes, blank=self.memory.blank)
        if fits(self.codec) and of_frames:
            decode = OnnxDecoder(self.codec, (config.backbone.channels, *config.backbone.grid))
        return frame_pass, decode

    @torch.inference_mode()
    def preview(self, clip: Clip) -> Tensor:
        """The dream of `clip` from its first frame under its actions, in [-1, 1] `(b, t, 3, h, w)`."""
        first, count = clip.first(1), self.codec.latent_frames(len(clip))
        if self.memory.keeps_pixels or self.memory.one_by_one:
            session = self.begin(first)
            video = [codec_input(first, self.codec.image_channels)]
            for i in range(1, len(clip)):
                x = self.advance(session, clip.actions[:, i], camera=CameraState.of_clip(clip, i))
                video.append(self.codec.decode(x) if session.shown is None else session.shown[:, None])
            return torch.cat(video, 1)[:, :, :3].clamp(-1, 1)
        steps = self.stream(first, clip.actions[:, 1:], schedule=self.schedule("next-frame"))
        latents = [self.encode(first), *finished_frames(steps, count - 1)]
        return self.codec.decode(torch.cat(latents, 1), len(clip)).clamp(-1, 1)
