"""`dreamwalk sample NAME --out v.mp4`: a walk, or a clip, by what the name holds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
import tyro
from torch import Tensor

from dreamwalk.clip import Clip
from dreamwalk.codecs import Codec
from dreamwalk.codecs.rgbd import codec_input
from dreamwalk.codecs.tiles import Tiling
from dreamwalk.commands.flags import check_seed, parse_flags, split_name
from dreamwalk.data.decoding import probe, read_frames
from dreamwalk.data.film import check_film, replay, write_film
from dreamwalk.data.walks import MAX_ACTIONS, Walk, read_walk
from dreamwalk.device.offload import Offloading
from dreamwalk.distributed import pick_device
from dreamwalk.errors import UserError
from dreamwalk.images import Fit, fit_image, read_picture
from dreamwalk.progress import followed
from dreamwalk.rollout.dream import Dream, WorldSpec, to_image
from dreamwalk.rollout.execute import UPDATES, Solver
from dreamwalk.schedules import guidance
from dreamwalk.schedules.guidance import Guide, unguided
from dreamwalk.schedules.staircase import Schedule
from dreamwalk.systems import conditionings
from dreamwalk.systems import open as systems
from dreamwalk.systems.artokens import ArTokens
from dreamwalk.systems.clip_generator import ClipGenerator
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.scheduled import schedule_plan, scheduled_frames
from dreamwalk.validation import Side, Steps, conform
from dreamwalk.weights.files import align_

LONGEST = 100_000
"""Frames, over an hour."""
ImageRole = Literal["first", "first-last", "continue", "redo", "upscale"]
"""What given images or a video are to a clip: its first frame, its first and last, its beginning, what it is
made of anew, or the same at a smaller size."""

ROLES: dict[str, Callable[[Tensor], conditionings.Conditioning]]
ROLES = {"first": conditionings.FirstFrame, "first-last": conditionings.FirstLast}
ROLES |= {"continue": conditionings.Continuation, "upscale": conditionings.Upscale}


def sample(argv: list[str]) -> None:
    """Run the verb."""
    name, rest = split_name(argv, "sample", ["nextframe.doom", "forcing.doom", "moviegen.doom"])
    made = systems.require_generative(name, "sample").generates if name else "frames"
    if made == "scenes":
        from dreamwalk.commands.sample_path import sample_path

        return sample_path(name, rest)
    run, flags = (sample_clip, SampleClip) if made == "clips" else (sample_walk, SampleWalk)
    asked: Any = parse_flags(flags, rest, prog=f"sample {name or 'NAME'}")
    check_film(asked.out)
    asked.check()
    print(f"{run(name, asked)} frames: {asked.out}")


@dataclass(frozen=True)
class SampleWalk:
    """Dream a walk and write it as a video."""

    out: Path
    """Where the video goes: an .mp4 file."""
    actions: Path | None = None
    """A walk, as the page records it (docs/data.md); default: what somebody did who began there."""
    frames: int | None = None
    """Length of the film; default: the walk's own, or 64. After a walk's end its last action is held."""
    schedule: str = ""
    """full, pyramid, chunks or next-frame (docs/systems/forcing.md); default: as when played."""
    lag: int | None = None
    """Rows between a chunk and the next, instead of the schedule's."""
    chunk: int | None = None
    """Frames denoised together, instead of the schedule's."""
    solver: Solver = "euler"
    guide_actions: float = 1.0
    """Classifier-free guidance on actions; 1 is none."""
    guide_history: float = 1.0
    """History guidance; 1 is none."""
    seed: int | None = None
    """Default: the walk's own, or 0."""
    start: int | None = None
    """Picture to begin from; default: the walk's own, or one that the seed draws."""
    steps: int | None = None
    """Denoising steps a frame; default: the walk's own, or the system's."""
    plan: Path | None = None
    """Also draw the schedule as a heat map (.png) and print it."""
    prompt: str = ""
    """What it shows, for tokens that were trained with captions."""

    def check(self) -> None:
        """UserError for what can be refused before anything is opened."""
        check_seed(self.seed)
        if self.frames is not None and not 1 <= self.frames <= MAX_ACTIONS:
            raise UserError(f"a film has at least one frame and at most {MAX_ACTIONS}, got {self.frames}")
        if self.steps is not None:
            conform(Steps, self.steps, "steps")
        _ = self.guide

    @property
    def scheduled(self) -> bool:
        """Whether anything is asked that real time does not do."""
        asked = self.schedule, self.lag is not None, self.chunk is not None, self.plan
        return any(asked) or self.solver != "euler" or self.guide is not unguided

    @property
    def guide(self) -> Guide:
        """The branches of every read."""
        if self.guide_actions != 1 and self.guide_history != 1:
            raise UserError("guide the actions or the history, not both at once")
        if self.guide_actions != 1:
            return guidance.conditions(self.guide_actions)
        return guidance.history(self.guide_history) if self.guide_history != 1 else unguided

    def schedule_for(self, system: Interactive, walk: Walk) -> Schedule:
        """UserError for an impossible one."""
        schedule = system.schedule(self.schedule or "next-frame", steps=walk.steps or None)
        return replace(schedule, **_given({"lag": self.lag, "chunk": self.chunk}))

    def walk(self, spec: WorldSpec) -> Walk:
        """The walk to dream: the file's, or a stroll, with the changes that were asked."""
        schema, drawn = spec.actions, np.random.default_rng(self.seed or 0).integers(len(spec.starts))
        if self.actions is not None:
            walk = read_walk(self.actions)
        else:
            start = int(drawn) if self.start is None else self.start
            frames = 64 if self.frames is None else self.frames
            actions = spec.stroll(start, frames - 1, seed=self.seed or 0)
            buttons, axes = schema.buttons, schema.axes
            walk = Walk(seed=0, buttons=buttons, axes=axes, actions=actions, start={"start": start})
        walk.check(schema)
        walk = msgspec.structs.replace(walk, actions=schema.canonical(walk.actions))
        if self.frames is not None:
            held = np.repeat(walk.actions[-1:], max(0, self.frames - 1 - len(walk)), axis=0)
            actions = np.concatenate([walk.actions, held])[: self.frames - 1]
            walk = msgspec.structs.replace(walk, actions=actions)
        start_options = None if self.start is None else {"start": self.start}
        changes = {"seed": self.seed, "steps": self.steps, "start": start_options}
        return msgspec.structs.replace(walk, **_given(changes))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def sample_walk(name: str, asked: SampleWalk) -> int:
    """Dream a walk and write it; gives the number of frames."""
    system = systems.load(name)
    if isinstance(system, ArTokens):
        return _sample_tokens(system, asked)
    if asked.prompt:
        raise UserError("this dream follows keys, not words: leave out `--prompt`")
    assert isinstance(system, Interactive)
    world = system.world()
    walk = asked.walk(world.world_spec)
    frames = replay(world, walk)
    if asked.scheduled:
        schedule, guide = asked.schedule_for(system, walk), asked.guide
        if asked.plan:
            plan = schedule_plan(system, schedule, guide)
            print(plan.show())
            print("approximate:", "; ".join(plan.approximate) or "nothing")
            from dreamwalk.evaluation.plots import plan_picture

            plan_picture(plan, asked.plan, title=f"{name}: {asked.schedule or 'next-frame'}")
        frames = scheduled_frames(system, world, walk, schedule, update=UPDATES[asked.solver], guide=guide)
    return write_film(asked.out, followed(frames, "dreaming", total=len(walk) + 1), fps=world.fps)


def _sample_tokens(system: ArTokens, asked: SampleWalk) -> int:
    """The same with tokens, which are neither scheduled nor denoised; UserError where that is asked."""
    if asked.scheduled or asked.steps is not None:
        raise UserError(
            "tokens come in the order that they were trained in: leave out schedule, guidance and steps"
        )
    if asked.prompt and system.text_encoder is None:
        raise UserError("these weights were trained without captions: leave out `--prompt`")
    if system.world_spec is None:
        raise UserError("these weights have no pictures to begin from: train them on a folder of clips")
    world = Dream(system, system.world_spec)
    walk = asked.walk(world.world_spec)
    whole = asked.prompt or not system.delta  # a world is walked in without words
    frames = _token_film(system, world, walk, prompt=asked.prompt) if whole else replay(world, walk)
    return write_film(asked.out, followed(frames, "dreaming", total=len(walk) + 1), fps=world.fps)


def _token_film(system: ArTokens, world: Dream, walk: Walk, *, prompt: str) -> Iterator[np.ndarray]:
    """Frames uint8 `(h, w, 3)`, made all together: tokens may stand for several."""
    first = world.opening(walk.start, seed=walk.seed)
    actions = torch.from_numpy(world.world_spec.learnt(walk.actions))[None]
    video = first.video.expand(-1, len(walk) + 1, -1, -1, -1)
    clip = Clip(video=video, actions=torch.cat([first.actions, actions], 1), caption=prompt)
    for frame in (codec_input(first, 3)[0, 0], *system.continued(clip, history=1, seed=walk.seed)[0]):
        yield to_image(frame)


@dataclass(frozen=True)
class SampleClip:
    """Generate a clip from text, and perhaps images or a video, and write it as a video."""

    out: Path
    """Where the video goes: an .mp4 file."""
    request: Annotated[ClipRequest, tyro.conf.arg(name="")] = field(default_factory=ClipRequest)
    prompt: str = ""
    """What the clip shows."""
    image: tuple[Path, ...] = ()
    """An image to begin with, or two: the first frame and the last."""
    video: Path | None = None
    """A video to go on from or, with `--use redo`, to make anew; an upsampler enlarges it."""
    use: ImageRole | None = None
    """What the images or the video are for; default: as said there."""
    fit: Fit | None = None
    """Scale images and videos of another size: whole between bars, stretched, or cut about the middle."""
    strength: float = 0.7
    """For `--use redo`: the noise that the video is given, up to 1, which forgets it."""
    tile: int = 0
    """Decode in tiles of so many pixels a side, 32 frames each; default: all at once."""
    offload: Offloading = "none"
    """Keep the network's blocks in host memory, as they are or in eight bits, and bring them one by one."""
    device: Literal["cuda", "cpu"] | None = None
    """Default: an NVIDIA card if there is one."""

    def check(self) -> None:
        """UserError for what can be refused before anything is opened."""
        request = self.request
        check_seed(request.seed)
        if not self.prompt.strip():
            raise UserError('say what to dream: `--prompt "walk through a brick hall"`, for instance')
        if self.image and self.video:
            raise UserError("pictures and a video are given: leave out `--image` or `--video`")
        if len(self.image) > 2:
            raise UserError(f"a clip has a first and a last picture, got {len(self.image)}: give two at most")
        request.check()
        conform(tuple[Side, Side] | None, request.size, "`--size`")
        conform(tuple[Side, Side] | None, request.area, "`--area`")
        if request.frames is not None and request.frames > LONGEST:
            raise UserError(f"a clip has {LONGEST} frames at most, got {request.frames}")
        if self.tile < 0 or request.window < 0 or request.window == 1:
            raise UserError("`--tile` is at least 1, and `--window` at least 2")

    def opened(self, system: ClipGenerator) -> SampleClip:
        """With a request that has the prompt and what the files hold; `system` may be on the meta device.

        UserError for files that are missing or of another size.
        """
        conditioning = _conditioning(self, system)
        return replace(self, request=replace(self.request, prompts=(self.prompt,), conditioning=conditioning))

    def tiling(self, codec: Codec) -> Tiling | None:
        """Square tiles of 32 frames that share a quarter, in whole latents."""
        if not self.tile:
            return None
        (time, down, across), side = codec.stride, self.tile
        frames = max(1, 16 // time) * time
        overlap = frames, side // 4 // down * down, side // 4 // across * across
        return Tiling((2 * frames, side, side), overlap)


def _conditioning(asked: SampleClip, system: ClipGenerator) -> conditionings.Conditioning:
    """What the images or the video of a request are to its clip."""
    default: ImageRole = "continue" if asked.video else "first-last" if len(asked.image) == 2 else "first"
    role = asked.use or ("upscale" if system.config.upscale > 1 else default)
    frames = _frames(asked, role, system)
    if frames is None:
        return conditionings.TextOnly()
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None]
    if role == "redo":
        return conditionings.Redo(video, asked.strength)
    return ROLES[role](video)


def _frames(asked: SampleClip, role: ImageRole, system: ClipGenerator) -> np.ndarray | None:
    """The images or the video, uint8 `(t, h, w, 3)`; a video at the system's frame rate or below.

    To continue a video its last frames are taken, as many as are whole latents and leave one to generate.
    """
    if not asked.image and not asked.video:
        return None
    config, how, size = system.config, asked.fit or "cut", _input_size(asked, role, system)
    if asked.image:
        pictures = [read_picture(path) for path in asked.image]
        for path, picture in zip(asked.image, pictures, strict=True):
            _require_size(path, picture.shape[:2], size, asked.fit)
        return np.stack([fit_image(picture, size, how) for picture in pictures])
    assert asked.video is not None
    facts = probe(asked.video)
    if facts.damage:
        print(f"note: {asked.video}: {facts.damage}", file=sys.stderr)
    _require_size(asked.video, facts.size, size, asked.fit)
    picks = facts.picks(min(config.fps, facts.rate)).tolist()
    most = asked.request.frames or (len(picks) if role == "upscale" else config.frames)
    if role == "continue":
        picks = picks[-max(1, most - system.codec.stride[0]) :]
        picks = picks[-_whole(len(picks), system.codec) :]
    return np.stack(list(read_frames(asked.video, picks[:most], size=size, how=how)))


def _input_size(asked: SampleClip, role: ImageRole, system: ClipGenerator) -> tuple[int, int]:
    """Height and width that images must have: the clip's, or to be enlarged their own."""
    size, factor = asked.request.size, system.config.upscale
    if role != "upscale":
        return size or system.config.size
    if size:
        return size[0] // factor, size[1] // factor
    if asked.video:
        return probe(asked.video).size
    height, width = read_picture(asked.image[0]).shape[:2]
    return height, width


def _require_size(path: Path, found: Sequence[int], size: tuple[int, int], how: Fit | None) -> None:
    if tuple(found) != size and not how:
        raise UserError(
            f"'{path}' is {found[0]}x{found[1]} and the clip {size[0]}x{size[1]}: add `--fit letterbox`, "
            "stretch or cut, or choose a `--size`"
        )


def _whole(frames: int, codec: Codec) -> int:
    """The most of so many frames that fill their last latent."""
    return next(n for n in range(frames, 0, -1) if codec.latent_frames(n + 1) > codec.latent_frames(n))


def sample_clip(name: str, asked: SampleClip) -> int:
    """Generate a clip where it has room, and write it; gives the number of frames."""
    from dreamwalk.commands import clip_memory

    device, outline = pick_device(asked.device), systems.meta_system(name)
    clip_memory.require_pictures(asked, outline)
    asked = asked.opened(outline)
    clip_memory.require_room(asked, outline, device)
    with clip_memory.shortage_told(asked):
        system = systems.load_mmap(name)
        assert isinstance(system, ClipGenerator)
        align_(clip_memory.placed(asked, system, device))
        return write_clip(asked, system)


@torch.inference_mode()
def write_clip(asked: SampleClip, system: ClipGenerator) -> int:
    """Generate the clip of an opened request and write it; gives the number of frames."""
    request, settings = asked.request, system.settings(asked.request)
    *_, last = followed(system.generate(request), "dreaming", total=settings.steps)
    pieces = system.decode(request, last.latents, asked.tiling(system.codec))
    pictures = (to_image(frame) for piece in pieces for frame in piece[0])
    frames = followed(pictures, "decoding", total=settings.frames)
    return write_film(asked.out, frames, fps=system.config.fps)
