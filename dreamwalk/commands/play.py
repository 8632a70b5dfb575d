"""What `dreamwalk play` shows: the game, a dream beside its game, or clips from words.

torch is imported only where a system is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any

import numpy as np

from dreamwalk.errors import UserError
from dreamwalk.serve import AppConfig, Clips, GalleryStart, Progress, WebClipRequest
from dreamwalk.world import World

PREVIEWS = 6
"""How often a clip under way is shown."""
PREVIEWED = 3
"""Latent frames that are shown of it."""
DISSOLVES = (
    "This dream knows one level by heart, '{}': it keeps your picture for about a second, "
    "then the picture melts into walls like those."
)
EXAMPLES = (
    "walk through a brick hall, then turn left to a torch",
    "turn right in a red metal room",
    "walk ahead into a stone room",
    "walk backwards in a green marble hall",
)


def game_app(level: str) -> AppConfig:
    """The game alone, with its gallery of poses."""
    from dreamwalk.worlds.doom import Doom

    with closing(Doom(level)) as world:
        count = max(1, len(world.level.starts))
        options: list[dict[str, Any]] = [{"start": k} for k in range(count)] if world.level.starts else [{}]
        starts = [
            GalleryStart(f"{level} {k + 1}", world.reset(seed=k, options=o)[0], o)
            for k, o in enumerate(options)
        ]
        actions = world.actions
    about = {"what": "The real game: ViZDoom with Freedoom's assets, without monsters."}
    return AppConfig(
        title=game_title(level), game=lambda: Doom(level), starts=starts, notes=about, actions=actions
    )


def game_title(level: str) -> str:
    """Name of the real game on a level."""
    return f"doom: {level}"


def open_app(name: str, device: str | None = None) -> AppConfig:
    """What the weights called `name` can show; UserError when they are of a system that shows nothing."""
    from dreamwalk.distributed import pick_device
    from dreamwalk.systems.moviegen import Moviegen
    from dreamwalk.systems.open import load

    system = load(name).to(pick_device(device))
    if isinstance(system, Moviegen):
        return _clip_app(name, system)
    if not hasattr(system, "world"):
        raise UserError(f"'{name}' is of the system {system.name}, which cannot be walked in")
    return _dream_app(name, system)


def _dream_app(name: str, system: Any) -> AppConfig:
    """A dream, with the game that it dreams of as its shadow where there is one."""
    print("preparing the dream ...", flush=True)
    system.world(seed=0)  # compiles before anyone waits for it
    walkable, about = system.walkable, system.about or {}
    starts = []
    for k, (picture, pose) in enumerate(zip(walkable.starts, walkable.poses, strict=True)):
        heading = math.degrees(math.atan2(pose[1, 2], pose[0, 2]))
        place = [float(pose[0, 3]), float(pose[1, 3]), heading]
        starts.append(GalleryStart(f"start {k + 1}", picture, {"start": k, "pose": place}))
    notes = {"what": "A neural network dreams every frame from the frames before and what you press."}
    notes |= about.get("notes", {})
    picture = DISSOLVES.format(walkable.level) if system.config.map else ""
    return AppConfig(
        title=name,
        dream=lambda: system.world(),
        game=_shadow(walkable),
        starts=starts,
        notes=notes,
        picture=picture,
        unlearnt=walkable.unlearnt,
        schedules=_schedules(system),
        actions=walkable.actions,
        game_title=game_title(walkable.level),
    )


def _clip_app(name: str, system: Any) -> AppConfig:
    """Clips from words, and the pictures of the weight file to begin them with."""
    import torch
    from einops import rearrange

    from dreamwalk.conditions.byte_encoder import ByteEncoderConfig
    from dreamwalk.systems.clip_generator import ClipRequest, unfold

    config, device = system.config, next(system.parameters()).device

    def shown(latents: Any, frames: int | None = None) -> np.ndarray:
        video = system.codec.decode(latents, frames).clamp(-1, 1)
        return rearrange((video[0] + 1) * 127.5, "t c h w -> t h w c").round().byte().cpu().numpy()

    @torch.inference_mode()
    def make(asked: WebClipRequest) -> Iterator[Progress]:
        first = None
        if asked.image is not None:
            first = rearrange(torch.from_numpy(asked.image.copy()), "h w c -> 1 1 c h w").to(device)
        order = ClipRequest((asked.prompt,), negative=asked.negative, seed=asked.seed, steps=asked.steps)
        for moment in unfold(system, order, first):
            step, steps, frames = moment.step, moment.steps, None
            if step == steps:
                frames = shown(moment.latents, config.frames)
            elif step * (PREVIEWS + 1) // steps > (step - 1) * (PREVIEWS + 1) // steps:
                frames = shown(moment.clean[:, :PREVIEWED])
            yield Progress(step, steps, frames)

    walkable, about = system.walkable, system.about or {}
    pictures = [] if walkable is None else list(walkable.starts)
    starts = [GalleryStart(f"picture {k + 1}", picture) for k, picture in enumerate(pictures)]
    notes = {"what": "A neural network dreams a whole clip from words, all of its frames at once."}
    bytes_read = config.letters.longest if isinstance(config.letters, ByteEncoderConfig) else None
    clips = Clips(
        make,
        size=config.size,
        fps=config.fps,
        steps=config.steps,
        longest=bytes_read,
        check=system.letters.check,
        examples=EXAMPLES,
        vocabulary=_vocabulary(walkable),
    )
    return AppConfig(title=name, starts=starts, notes=notes | about.get("notes", {}), clips=clips)


def _vocabulary(walkable: Any) -> dict[str, tuple[str, ...]]:
    """What the captions of its level say; empty where the captions were not ours."""
    from dreamwalk.data.captions import vocabulary

    if walkable is None or walkable.world != "doom":
        return {}
    with suppress(UserError):
        return vocabulary(walkable.level)
    return {}


def _schedules(system: Any) -> dict[str, Any]:
    """What the page shows of every schedule: a stroll from a start, row by row."""
    from dreamwalk.commands.sample_walk import unfold
    from dreamwalk.schedules.staircase import NAMED

    def unfolded(schedule: Any, start: int, seed: int) -> Iterator[Any]:
        return unfold(system, start, schedule, world=system.world(), seed=seed)

    return {name: partial(unfolded, system.schedule(name, steps=8)) for name in NAMED}


def _shadow(walkable: Any) -> Callable[[], World] | None:
    """The real game on the one level of Doom that a dream was trained on; None for dreams of other things.

    Other games are left out: opening one by a name in a weight file could run code.
    """
    if walkable.world != "doom" or walkable.level in ("", "procedural"):
        return None
    from dreamwalk.worlds.doom import DOOM_ACTIONS, Doom

    return (lambda: Doom(walkable.level)) if walkable.actions == DOOM_ACTIONS else None
