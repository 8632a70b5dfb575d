"""`dreamwalk play NAME`: the game, a dream beside its game, clips from text, or scenes, in a page.

torch is imported only where a system is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dreamwalk.commands.flags import parse_flags, split_name
from dreamwalk.errors import UserError
from dreamwalk.serve import (
    AppConfig,
    Clips,
    GalleryStart,
    Levels,
    Progress,
    ServerConfig,
    WebClipRequest,
    serve,
)
from dreamwalk.world import World

if TYPE_CHECKING:
    from dreamwalk.rollout.dream import WorldSpec
    from dreamwalk.systems.clip_generator import ClipGenerator
    from dreamwalk.systems.interactive import Interactive
    from dreamwalk.systems.walkable import Walkable

PREVIEWS = 6
"""How often a clip under way is shown."""
PREVIEWED = 3
"""Latent frames that are shown of it."""
DISSOLVES = "This dream knows one level by heart, '{}': in a second your picture melts into walls like those."
LACKING = "With ViZDoom (pip install vizdoom) every seed is a level of its own, and the real game beside it."


@dataclass(frozen=True)
class Play(ServerConfig):
    """Open a page on this machine in which you walk."""

    level: str = "home"
    """Level of the real game, for `dreamwalk play doom`."""
    device: Literal["cuda", "cpu"] | None = None
    """Default: an NVIDIA card if there is one."""


def play(argv: list[str]) -> None:
    """Run the verb: shipped weights, a weight file, a run folder, or `doom` for the game itself."""
    name, rest = split_name(argv, "play", ["nextframe.doom", "doom"])
    asked = parse_flags(Play, rest, prog=f"play {name or 'NAME'}")
    serve(game_app(asked.level) if name == "doom" else open_app(name, asked.device), asked)


def game_app(level: str) -> AppConfig:
    """The game alone, with its gallery of poses."""
    from dreamwalk.worlds.doom import Doom

    with closing(Doom(level)) as world:
        options: list[dict[str, Any]] = [{"start": k} for k in range(len(world.level.starts))] or [{}]
        pictures = [world.reset(seed=k, options=each)[0] for k, each in enumerate(options)]
        names = [f"{level} {k + 1}" for k in range(len(options))]
        starts, actions = list(map(GalleryStart, names, pictures, options)), world.actions
    about = {"what": "The real game: ViZDoom with Freedoom's assets, without monsters."}
    title = game_title(level)
    return AppConfig(title, game=lambda: Doom(level), starts=starts, notes=about, actions=actions)


def game_title(level: str) -> str:
    """Name of the real game on a level."""
    return f"doom: {level}"


def open_app(name: str, device: str | None = None) -> AppConfig:
    """What the weights called `name` can show; UserError when they are of a system that shows nothing."""
    from dreamwalk.distributed import pick_device
    from dreamwalk.systems.clip_generator import ClipGenerator
    from dreamwalk.systems.open import load, require_generative
    from dreamwalk.systems.voyager import Voyager
    from dreamwalk.systems.walkable import Walkable

    require_generative(name, "play", "doom")
    system = load(name).to(pick_device(device))
    if isinstance(system, Voyager):
        from dreamwalk.commands.path_scene import scene_app

        return scene_app(name, system, None if system.world_spec is None else _levels(system.world_spec)[0])
    if isinstance(system, ClipGenerator):
        return clip_app(name, system)
    assert isinstance(system, Walkable)
    return _dream_app(name, system)


def _dream_app(name: str, system: Walkable) -> AppConfig:
    """A dream, with the game that it dreams of as its shadow where there is one."""
    from dreamwalk.commands.shown_memory import dream_memory
    from dreamwalk.systems.interactive import Interactive

    print("preparing the dream ...", flush=True)
    system.world(seed=0)  # compiles before anyone waits for it
    assert system.world_spec is not None
    world_spec, about = system.world_spec, system.about or {}
    starts = []
    for k, (picture, pose) in enumerate(zip(world_spec.starts, world_spec.poses, strict=True)):
        heading = math.degrees(math.atan2(pose[1, 2], pose[0, 2]))
        place = [float(pose[0, 3]), float(pose[1, 3]), heading]
        starts.append(GalleryStart(f"start {k + 1}", picture, {"start": k, "pose": place}))
    notes = {"what": "A neural network dreams every frame from the frames before and what you press."}
    notes |= about.get("notes", {})
    picture = DISSOLVES.format(world_spec.level) if system.memory.one_level else ""
    app = AppConfig(name, lambda: system.world(), _shadow(world_spec), starts, notes, picture)
    actions, title = world_spec.actions, game_title(world_spec.level)
    app = replace(app, unlearnt=world_spec.unlearnt, actions=actions, game_title=title)
    levels, lacking = _levels(world_spec)
    app = replace(app, levels=levels, lacking=lacking)
    if not isinstance(system, Interactive):  # which has neither a memory to show nor a schedule
        return app
    app = replace(app, memory=dream_memory(system))
    return app if system.memory.one_by_one else replace(app, schedules=_schedules(system))


def clip_app(name: str, system: ClipGenerator) -> AppConfig:
    """Clips from text, and the pictures of the weight file to begin them with."""
    import torch
    from einops import rearrange

    from dreamwalk.systems.clip_request import ClipRequest
    from dreamwalk.systems.conditionings import Conditioning, FirstFrame, TextOnly

    config = system.config

    def shown(latents: Any, frames: int | None = None) -> np.ndarray:
        video = system.codec.decode(latents, frames).clamp(-1, 1)
        return rearrange((video[0] + 1) * 127.5, "t c h w -> t h w c").round().byte().cpu().numpy()

    @torch.inference_mode()
    def make(asked: WebClipRequest) -> Iterator[Progress]:
        conditioning: Conditioning = TextOnly()
        if asked.image is not None:
            picture = torch.from_numpy(asked.image.copy())
            conditioning = FirstFrame(rearrange(picture, "h w c -> 1 1 c h w"))
        request = ClipRequest((asked.prompt,), conditioning, asked.negative)
        request = replace(request, seed=asked.seed, steps=asked.steps)
        for reached in system.generate(request):
            step, steps, frames = reached.step, reached.steps, None
            if step == steps:
                frames = shown(reached.latents, config.frames)
            elif step * (PREVIEWS + 1) // steps > (step - 1) * (PREVIEWS + 1) // steps:
                frames = shown(reached.denoised[:, :PREVIEWED])
            yield Progress(step, steps, frames)

    world_spec, about = system.world_spec, system.about or {}
    pictures = [] if world_spec is None else list(world_spec.starts)
    starts = [GalleryStart(f"picture {k + 1}", picture) for k, picture in enumerate(pictures)]
    notes = {"what": "A neural network dreams a whole clip from words, all of its frames at once."}
    encoder, phrases = system.text_encoder, _phrases(world_spec)
    clips = Clips(make, config.size, config.fps, config.steps, encoder.max_bytes, encoder.check, *phrases)
    return AppConfig(title=name, starts=starts, notes=notes | about.get("notes", {}), clips=clips)


def _phrases(world_spec: WorldSpec | None) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Example prompts, and what the captions of its level say; empty where the captions were not ours."""
    from dreamwalk.data.captions import EXAMPLES, vocabulary

    if world_spec is None or world_spec.world != "doom":
        return (), {}
    with suppress(UserError):
        return EXAMPLES, vocabulary(world_spec.level)
    return EXAMPLES, {}


def _schedules(system: Interactive) -> dict[str, Any]:
    """What the page shows of every schedule: a stroll from a start, row by row."""
    from dreamwalk.schedules.staircase import SCHEDULES
    from dreamwalk.systems.scheduled import schedule_preview

    def unfolded(schedule: Any, start: int, seed: int) -> Iterator[Any]:
        return schedule_preview(system, start, schedule, world=system.world(), seed=seed)

    return {name: partial(unfolded, system.schedule(name, steps=8)) for name in SCHEDULES}


def _levels(world_spec: WorldSpec) -> tuple[Levels | None, str]:
    """Held-out levels for a dream of any level of Doom, and what is lacking where they cannot be made."""
    if (world_spec.world, world_spec.level) != ("doom", "procedural"):
        return None, ""
    try:
        from dreamwalk.worlds.doom import DOOM_ACTIONS, Doom, start_of
    except ImportError:
        return None, LACKING
    if world_spec.actions != DOOM_ACTIONS:
        return None, ""
    size = world_spec.starts.shape[1], world_spec.starts.shape[2]

    def open_level(number: int) -> tuple[World, dict[str, Any]]:
        level, pose = start_of("test", number=number)
        return Doom(level, size=size), {"pose": pose}

    def around(world: World, place: dict[str, Any]) -> list[dict[str, Any]]:
        """The other three quarters of what is seen from there: the place itself is as true as the picture."""
        (x, y, heading), views = place["pose"], []
        for turn in (90, 180, 270):
            frame, info = world.reset(seed=0, options={"pose": (x, y, heading + turn)})
            cameras = {name: np.asarray(info[name]).tolist() for name in ("world_from_camera", "intrinsics")}
            views.append({"image": np.array(frame), "depth": np.asarray(info["depth"], np.float32)} | cameras)
        return views

    return Levels(open_level, around=around), ""


def _shadow(world_spec: WorldSpec) -> Callable[[], World] | None:
    """The real game on the one level of Doom that a dream was trained on; None for dreams of other things.

    Other games are left out: opening one by a name in a weight file could run code.
    """
    if world_spec.world != "doom" or world_spec.level in ("", "procedural"):
        return None
    from dreamwalk.worlds.doom import DOOM_ACTIONS, Doom

    return (lambda: Doom(world_spec.level)) if world_spec.actions == DOOM_ACTIONS else None
