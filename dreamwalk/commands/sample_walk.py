"""Films on any schedule: what `dreamwalk sample` makes besides walking a recorded walk again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from dreamwalk.clip import Clip
from dreamwalk.data.walks import MAX_ACTIONS, Walk, check_steps, read_walk
from dreamwalk.errors import UserError
from dreamwalk.rollout.dream import Decode, Dream, WorldSpec, picture
from dreamwalk.rollout.execute import Solver
from dreamwalk.rollout.streaming import frames as finished
from dreamwalk.schedules import guidance
from dreamwalk.schedules.plans import Plan
from dreamwalk.schedules.staircase import Guide, Schedule, staircase, unguided
from dreamwalk.systems.interactive import Interactive
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.games import RandomKeys


@dataclass(frozen=True)
class Sample:
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
    """Denoising passes a frame; default: the walk's own, or the system's."""
    plan: Path | None = None
    """Also draw the schedule as a heat map (.png) and print it."""

    def check(self) -> None:
        """UserError for what can be refused before anything is opened."""
        if self.frames is not None and not 1 <= self.frames <= MAX_ACTIONS:
            raise UserError(f"a film has at least one frame and at most {MAX_ACTIONS}, got {self.frames}")
        if self.steps is not None:
            check_steps(self.steps)
        guide_of(self)

    @property
    def scheduled(self) -> bool:
        """Whether anything is asked that walking in real time does not do."""
        asked = (self.schedule, self.lag is not None, self.chunk is not None, self.plan)
        return any(asked) or self.solver != "euler" or self.guided

    @property
    def guided(self) -> bool:
        return self.guide_actions != 1 or self.guide_history != 1


def walk_of(asked: Sample, walkable: WorldSpec) -> Walk:
    """The walk to dream: the file's, or a stroll, with the changes that were asked."""
    asked.check()
    schema, drawn = walkable.actions, np.random.default_rng(asked.seed or 0).integers(len(walkable.starts))
    if asked.actions is not None:
        walk = read_walk(asked.actions)
    else:
        start = int(drawn) if asked.start is None else asked.start
        frames = 64 if asked.frames is None else asked.frames
        actions = stroll(walkable, start, frames - 1, seed=asked.seed or 0)
        walk = Walk(seed=0, buttons=schema.buttons, axes=schema.axes, actions=actions, start={"start": start})
    walk.check(schema)
    walk = msgspec.structs.replace(walk, actions=schema.canonical(walk.actions))
    if asked.frames is not None:
        held = np.repeat(walk.actions[-1:], max(0, asked.frames - 1 - len(walk)), axis=0)
        walk = msgspec.structs.replace(walk, actions=np.concatenate([walk.actions, held])[: asked.frames - 1])
    changes: dict[str, Any] = {"seed": asked.seed, "steps": asked.steps}
    changes["start"] = None if asked.start is None else {"start": asked.start}
    return msgspec.structs.replace(
        walk, **{key: value for key, value in changes.items() if value is not None}
    )


def stroll(walkable: WorldSpec, start: int, frames: int, *, seed: int) -> np.ndarray:
    """Vectors `(frames, size)` of who walks from a start as somebody did before, and then about."""
    known = walkable.strolls[start][:frames] if start < len(walkable.strolls) else []
    about = wander(walkable.actions, frames - len(known), seed=seed)
    return np.concatenate([known, about]) if len(known) else about


def wander(schema: ActionSchema, frames: int, *, seed: int) -> np.ndarray:
    """Vectors `(frames, size)` of somebody who walks ahead, in curves, and turns on the spot now and then.

    In a world without `forward` and `yaw` it is random keys.
    """
    random, vectors = np.random.default_rng(seed), np.zeros((frames, schema.size), np.float32)
    if not {"forward", "yaw"} & {*schema.buttons, *schema.axes}:
        keys = RandomKeys(schema)
        return np.stack([keys.hold(random) for _ in range(frames)]) if frames else vectors
    at = 0
    while at < frames:
        length, side = int(random.integers(5, 14)), float(random.choice([-1, 1]))
        ahead, turn = [(1, 0.0), (1, 0.2), (0, 0.5)][random.choice(3, p=[0.4, 0.25, 0.35])]
        if "forward" in schema.buttons:
            vectors[at : at + length, schema.buttons.index("forward")] = ahead
        if "yaw" in schema.axes:
            vectors[at : at + length, len(schema.buttons) + schema.axes.index("yaw")] = side * turn
        at += length
    return schema.canonical(vectors)


def schedule_of(asked: Sample, system: Interactive, steps: int | None) -> Schedule:
    """The schedule that is asked of a system; UserError for an impossible one."""
    schedule = system.schedule(asked.schedule or "next-frame", steps=steps)
    changes: dict[str, Any] = {"lag": asked.lag, "chunk": asked.chunk}
    return replace(schedule, **{key: value for key, value in changes.items() if value is not None})


def guide_of(asked: Sample) -> Guide:
    """The views of every read."""
    if asked.guide_actions != 1 and asked.guide_history != 1:
        raise UserError("guide the actions or the history, not both at once")
    if asked.guide_actions != 1:
        return guidance.conditions(asked.guide_actions)
    return guidance.history(asked.guide_history) if asked.guide_history != 1 else unguided


def film(
    system: Interactive, start: Clip, walk: Walk, asked: Sample, *, decode: Decode
) -> Iterator[np.ndarray]:
    """Frames uint8 `(h, w, 3)` of a walk on a schedule, the first of which is the start itself."""
    assert system.walkable is not None
    yield from start.video[0].permute(0, 2, 3, 1).cpu().numpy()
    actions = torch.from_numpy(system.walkable.learnt(walk.actions))[None].to(start.video.device)
    moments = system.moments(
        start,
        actions,
        schedule=schedule_of(asked, system, walk.steps or None),
        seed=walk.seed,
        solver=asked.solver,
        guide=guide_of(asked),
    )
    for latents in finished(moments, len(walk)):
        for frame in latents[0].unbind(0):  # frame by frame: one picture in memory
            yield picture(frame[None, None], decode)


def unfold(
    system: Interactive,
    start: int,
    schedule: Schedule,
    *,
    world: Dream,
    seed: int = 0,
    shown: int = 8,
    bar: int = 6,
) -> Iterator[np.ndarray]:
    """A stroll from a start on a schedule, row after row, without an end: the latest `shown` frames.

    uint8 `(h + bar, shown * w, 3)`; the bar under a frame is as long as its noise level.
    """
    clip, walkable = world.opening({"start": start}, seed=seed), world.walkable
    vectors = walkable.learnt(stroll(walkable, start, 10_000, seed=seed))
    actions = torch.from_numpy(vectors)[None].to(clip.video.device)
    tiles = {0: _tile(walkable.starts[start], 0.0, bar)}
    for moment in system.moments(clip, actions, schedule=schedule, seed=seed):
        for frame, level, x in zip(moment.frames, moment.levels, moment.x[0], strict=True):
            tiles[frame] = _tile(picture(x[None, None], world.decode_latents), level / schedule.steps, bar)
        last = max(tiles)
        tiles = {frame: tile for frame, tile in tiles.items() if frame > last - shown}
        row = [tiles.get(frame, np.zeros_like(tiles[last])) for frame in range(last - shown + 1, last + 1)]
        yield np.concatenate(row, axis=1)


def _tile(picture: np.ndarray, noise: float, bar: int) -> np.ndarray:
    below = np.full((bar, *picture.shape[1:]), 24, np.uint8)
    below[1:, : round(noise * picture.shape[1])] = (255, 176, 64)
    return np.concatenate([picture, below], axis=0)


def plan_of(asked: Sample, system: Interactive, steps: int | None, *, shown: int = 16) -> Plan:
    """The first frames of the schedule as one plan, to be drawn."""
    schedule = schedule_of(asked, system, steps)
    return staircase(
        list(reversed(system.grid(schedule.steps))),
        shown,
        lag=schedule.lag or schedule.steps,
        chunk=schedule.chunk,
        history=1,
        window=schedule.window,
        history_sigma=system.shown_history,
        mask=schedule.mask,
        guide=guide_of(asked),
    )
