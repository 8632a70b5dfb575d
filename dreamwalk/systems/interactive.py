"""What every dreaming system does alike: encode, begin from real frames, go on, and open as a world."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from dreamwalk.backbones import BackboneConfig, build_backbone
from dreamwalk.clip import Clip
from dreamwalk.codecs import CodecConfig, ViTCodecConfig, build_codec
from dreamwalk.conditions.actions import ActionEmbedding
from dreamwalk.errors import UserError
from dreamwalk.memory.neural_map import NeuralMap, NeuralMapConfig, PoseModel
from dreamwalk.rollout.dream import Decode, Dream, WorldSpec
from dreamwalk.rollout.execute import KeyedNoise, Predictor, Update, euler
from dreamwalk.rollout.frame_predictor import CachedFramePredictor, FramePredictor
from dreamwalk.rollout.onnx import OnnxDecoder, OnnxStep, fits
from dreamwalk.rollout.realtime import CameraState, EagerStep, Session, Step, commit_frame, denoise_frame
from dreamwalk.rollout.streaming import Moment, endless
from dreamwalk.schedules.ddim import ddim_sigmas
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.guidance import Guide, unguided
from dreamwalk.schedules.plans import MaskName
from dreamwalk.schedules.sigmas import shifted_sigmas
from dreamwalk.schedules.staircase import HistorySigma, Schedule, named_schedule
from dreamwalk.validation import Count, Positive, Share, Steps
from dreamwalk.world import ActionSchema

# A forked process lacks its parent's threads, and would wait for them without an end.
os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


@dataclass(frozen=True)
class InteractiveConfig:
    """The parts of a dreaming system, and how it is played."""

    codec: CodecConfig
    backbone: BackboneConfig
    actions: Count
    """Length of the action vector."""
    action_layers: int = 2
    """Linear layers of the action embedding."""
    steps: Steps = 4
    """Denoising passes a frame, when played."""
    shift: Positive = 3.0
    """How far the sampling grid (and training levels) are moved towards noise."""
    spacing: Literal["shifted", "ddim"] = "shifted"
    """Levels when played: evenly spaced and shifted, or those of DDIM, for which VP diffusions are made."""
    history_sigma: Share = 0.02
    """Level at which history is shown, when played."""
    window: int = 16
    """Frames that the cache remembers, when played."""
    map: NeuralMapConfig | None = None
    """A level to know by heart; the data then need poses."""
    lost: float = 0.1
    """Share of training clips that are not told where they are (`map`)."""
    sketching: bool = False
    """Train the map alone, which is quick and comes first."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the backbone's weights and of those that embed actions; the codec's are float32."""

    def sized(self, schema: ActionSchema, size: tuple[int, int]) -> Self:
        """The config for data with these actions and frames of `size` (h, w); UserError where none fits."""
        with torch.device("meta"):
            _, h, w = build_codec(self.codec).stride
        h, w = h * self.backbone.patch, w * self.backbone.patch
        grid = size[0] // h, size[1] // w
        if size != (grid[0] * h, grid[1] * w) or 0 in grid:
            near = [max(1, round(side / part)) * part for side, part in zip(size, (h, w), strict=True)]
            raise UserError(
                f"frames of {size[0]}x{size[1]} do not divide into squares of {h}x{w}: collect them again, "
                f"with `--size {near[0]} {near[1]}`"
            )
        grid = grid[0] * self.backbone.patch, grid[1] * self.backbone.patch
        return replace(self, actions=schema.size, backbone=replace(self.backbone, grid=grid))

    def __post_init__(self) -> None:
        codec, backbone = self.codec, self.backbone
        alike: list[tuple[str, Any, Any]] = [("channels", codec.channels, backbone.channels)]
        if isinstance(codec, ViTCodecConfig):
            alike.append(("grid", codec.grid, backbone.grid))
        for what, ours, theirs in alike:
            if ours != theirs:
                raise UserError(f"the codec and the backbone have another {what}, {ours} and {theirs}")


class Interactive(nn.Module):
    """A frozen codec, an action embedding, a backbone, and perhaps a map of the level that it dreams of."""

    about: dict[str, Any] | None = None
    """Metadata of the file that the weights came from."""
    walkable: WorldSpec | None = None
    """Actions, starts and pace, when the weights came from a file that has them."""

    def __init__(self, config: InteractiveConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = build_codec(config.codec).requires_grad_(False)
        self.actions = ActionEmbedding(config.actions, config.backbone.width, layers=config.action_layers)
        self.backbone = build_backbone(config.backbone)
        for part in (self.actions, self.backbone):
            part.to(getattr(torch, config.precision))
        if config.map:
            grid, stride, width = config.backbone.token_grid, self.codec.stride[2], config.backbone.width
            stride, channels = stride * config.backbone.patch, config.backbone.channels
            self.map = NeuralMap(config.map, grid=grid, stride=stride, channels=channels, width=width)
            self.odometer = PoseModel(config.map, actions=config.actions)
        self._engines: dict[tuple[int, torch.device], tuple[Step, Decode]] = {}

    @property
    def blocks(self) -> nn.ModuleList:
        """What is sharded, compiled and checkpointed."""
        return self.backbone.blocks

    def prepare(self, clips: Callable[[], Clip]) -> None:
        """Nothing is computed from data before the first step: the codec arrives trained."""

    def encode(self, video: Tensor) -> Tensor:
        """uint8 video `(b, t, 3, h, w)` to latents `(b, t, c, h, w)`; UserError for another size."""
        (rows, columns), (_, down, across) = self.config.backbone.grid, self.codec.stride
        if video.shape[-2:] != (rows * down, columns * across):
            size, wanted = f"{video.shape[-2]}x{video.shape[-1]}", f"{rows * down}x{columns * across}"
            raise UserError(f"these frames are {size} and the system is for {wanted}: collect that size")
        with torch.no_grad():
            own = next(self.codec.parameters()).dtype
            latents = self.codec.encode((video.float() / 127.5 - 1).to(own))
        return latents.to(torch.promote_types(own, torch.float32))

    def loss(self, clip: Clip, generator: KeyedGenerator) -> dict[str, Tensor]:
        """The loss of a batched clip, `loss`, and more to tell; UserError without the poses of a map."""
        x = self.encode(clip.video)
        if not self.config.map:
            return self.dream_loss(x, self.actions(clip.actions), None, generator)
        if clip.world_from_camera is None or clip.intrinsics is None:
            raise UserError(
                "these data have no poses to learn a map from: train `nextframe.game`, which needs none"
            )
        features = self.map(clip.world_from_camera, clip.intrinsics)
        sketch = self.error(x, self.map.sketch(features)).mean()
        if self.config.sketching:
            return {"loss": sketch}
        found = (generator.uniform(1) >= self.config.lost)[..., None, None]
        views = found * self.map.to_tokens(features)
        dreamt = self.dream_loss(x, self.actions(clip.actions), views, generator)
        return dreamt | {"loss": dreamt["loss"] + sketch, "sketch": sketch.detach()}

    def error(self, x: Tensor, dreamt: Tensor) -> Tensor:
        """Squared error of every frame of `dreamt` latents, `(b, t)`, each channel as loud as in pixels."""
        return (self.codec.loudness * (dreamt - x).square()).mean(dim=(2, 3, 4))

    def dream_loss(
        self, x: Tensor, conditions: Tensor, views: Tensor | None, generator: KeyedGenerator
    ) -> dict[str, Tensor]:
        """The loss of latents `x` `(b, t, c, h, w)`, of which `views` are known by heart."""
        raise NotImplementedError

    def step(self) -> Step:
        """The pass that sessions of this system run, in plain PyTorch."""
        return EagerStep(self.actions, self.backbone)

    @torch.inference_mode()
    def begin(self, start: Clip, *, seed: int = 0, step: Step | None = None) -> Session:
        """A session whose history is the batched clip `start` (one frame is enough)."""
        step, config = step or self.step(), self.config
        latents = self.encode(start.video)
        cache = self.backbone.cache(config.window, batch=latents.shape[0])
        shape = (latents.shape[2], latents.shape[3], latents.shape[4])
        session = Session(cache, seed, config.steps, config.history_sigma, shape)
        for i in range(latents.shape[1]):
            session.where = self.whereabouts(start, i)
            action = start.actions[:, i : i + 1]
            commit_frame(step, session, latents[:, i : i + 1], action, views=self.views(session.where))
        return session

    @torch.inference_mode()
    def moments(
        self,
        start: Clip,
        actions: Tensor,
        *,
        schedule: Schedule,
        seed: int = 0,
        cached: bool = True,
        update: Update = euler,
        guide: Guide = unguided,
    ) -> Iterator[Moment]:
        """Dream on from the batched clip `start` on any schedule; a moment a row, without an end.

        `actions` `(b, n, a)` lead into the frames after `start`; after them the last one is held. Memory does
        not grow. `endless.frames` takes the finished frames out of it.
        """
        latents, script = self.encode(start.video), Script(self, start, actions)
        reader: Predictor = (CachedFramePredictor if cached else FramePredictor)(self.backbone, script)
        noise = KeyedNoise((seed,) * len(latents), tuple(latents.shape[2:]), latents.device)
        grid, level = list(reversed(self.grid(schedule.steps))), self.shown_history
        yield from endless(
            schedule, grid, latents, reader, noise, history_sigma=level, update=update, guide=guide
        )

    def schedule(self, name: str, *, steps: int | None = None) -> Schedule:
        """A schedule by its name (`schedules.staircase.SCHEDULES`) for the window of this system."""
        return named_schedule(
            name,
            steps=self.config.steps if steps is None else steps,
            window=self.config.window + 1,
            mask=self.mask,
        )

    @property
    def mask(self) -> MaskName:
        """Who sees whom among frames: as it was trained."""
        return "causal"

    @property
    def shown_history(self) -> HistorySigma:
        """At which level finished frames are shown."""
        return self.config.history_sigma

    def whereabouts(self, clip: Clip, index: int) -> CameraState | None:
        """Where frame `index` of a batched clip was seen from; None where that is not known or not asked."""
        if not self.config.map or clip.world_from_camera is None or clip.intrinsics is None:
            return None
        poses = clip.world_from_camera
        move = poses[:, index, :3, 3] - poses[:, max(index - 1, 0), :3, 3]
        pose, intrinsics = poses[:, index].float(), clip.intrinsics[:, index].float()
        return CameraState(pose, move.float(), clip.actions[:, index], intrinsics)

    def views(self, here: CameraState | None) -> Tensor | None:
        """What is known of the surroundings, `(b, 1, n, d)`."""
        if here is None:
            return None
        return self.map.to_tokens(self.map(here.pose[:, None], here.intrinsics[:, None]))

    def led(self, here: CameraState | None, action: Tensor) -> CameraState | None:
        """Where `action` `(b, a)` leads."""
        if here is None:
            return None
        pose, move = self.odometer(here.pose, here.move, here.action, action)
        return replace(here, pose=pose, move=move, action=action)

    @torch.inference_mode()
    def advance(
        self,
        session: Session,
        action: Tensor,
        *,
        step: Step | None = None,
        timings: dict[str, float] | None = None,
    ) -> Tensor:
        """Latents `(b, 1, c, h, w)` of the next frame, which `action` `(b, a)` leads into."""
        began = perf_counter()
        session.go(self.led(session.where, action))
        views = self.views(session.where)
        if views is not None and timings is not None:
            timings["map"] = 1000 * (perf_counter() - began)
        return denoise_frame(
            step or self.step(),
            session,
            action[:, None],
            grid=self.grid(session.steps),
            views=views,
            timings=timings,
        )

    def grid(self, steps: int) -> tuple[float, ...]:
        """Rising sigmas from clean to noise, of `steps` denoising passes."""
        ddim = self.config.spacing == "ddim"
        levels = ddim_sigmas(steps) if ddim else shifted_sigmas(steps, shift_by=self.config.shift)
        return tuple(reversed(levels.tolist()))

    def world(self, *, seed: int | None = None, render_mode: str | None = None) -> Dream:
        """A dream to walk in, a `gymnasium.Env`; on a CPU through ONNX Runtime where that can hold it.

        UserError without starts.
        """
        if self.walkable is None:
            raise UserError(
                "this system has random weights: open some with `dreamwalk.load` to walk in its dream"
            )
        device = next(self.parameters()).device
        world = Dream(self, self.walkable, device=device, render_mode=render_mode)
        world.reset(seed=seed)
        return world

    def engine(self) -> tuple[Step, Decode]:
        """The pass and the decoder, made once in a process and shared by all worlds of this system."""
        place = os.getpid(), next(self.parameters()).device
        if (
            place not in self._engines
        ):  # a forked process keeps its parent's: freeing that waits for its threads
            self._engines[place] = self._make_engine(place[1])
        return self._engines[place]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engines": {}}  # they can neither be copied nor sent to another process

    def _make_engine(self, device: torch.device) -> tuple[Step, Decode]:
        if device.type == "cuda":
            return EagerStep(self.actions, self.backbone).compile(), torch.compile(self.codec.decode)
        config, step, decode = self.config, self.step(), self.codec.decode
        if fits(self.backbone):
            step = OnnxStep(self.actions, self.backbone, actions=config.actions, window=config.window)
        if fits(self.codec):
            decode = OnnxDecoder(self.codec, (config.backbone.channels, *config.backbone.grid))
        return step, decode

    @torch.inference_mode()
    def preview(self, clip: Clip) -> Tensor:
        """The dream of `clip` from its first frame under its actions, in [-1, 1] `(b, t, 3, h, w)`."""
        first = clip.first(1)
        session, latents = self.begin(first), [self.encode(clip.video[:, :1])]
        latents += [self.advance(session, clip.actions[:, i]) for i in range(1, len(clip))]
        return self.codec.decode(torch.cat(latents, 1)).clamp(-1, 1)


class Script:
    """`reading.Script` of a walk: its actions and, in a level that is known by heart, where they lead."""

    REMEMBERED = 64
    """Frames back that can still be asked for."""

    def __init__(self, system: Interactive, start: Clip, actions: Tensor) -> None:
        self.system, self.start = system, start
        self.actions = torch.cat([start.actions, actions], dim=1)
        self.known: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.reached, self.here = -1, system.whereabouts(start, 0)

    def __call__(self, frames: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        while self.reached < max(frames):
            self._go_on()
        conditions, views = zip(*(self.known[frame] for frame in frames), strict=True)
        return torch.cat(conditions, 1), torch.cat(views, 1) if self.here is not None else None

    def _go_on(self) -> None:
        self.reached = frame = self.reached + 1
        action = self.actions[:, min(frame, self.actions.shape[1] - 1)]
        if frame < len(self.start):
            self.here = self.system.whereabouts(self.start, frame)
        else:
            self.here = self.system.led(self.here, action)
        self.known[frame] = self.system.actions(action[:, None]), self.system.views(self.here)
        self.known.pop(frame - self.REMEMBERED, None)
