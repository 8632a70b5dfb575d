"""Videos of an interactive system on any schedule, and pictures of a schedule at work."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from dreamwalk.clip import Clip
from dreamwalk.data.walks import Walk
from dreamwalk.rollout.dream import Decode, Dream, decode_frame, to_image
from dreamwalk.rollout.execute import Update
from dreamwalk.rollout.streaming import finished_frames
from dreamwalk.schedules.guidance import Guide, guided
from dreamwalk.schedules.plans import Plan
from dreamwalk.schedules.staircase import Schedule, staircase
from dreamwalk.systems.interactive import Interactive

BAR = 6
"""Height in pixels of the bar under a frame."""


def scheduled_frames(
    system: Interactive, world: Dream, walk: Walk, schedule: Schedule, *, update: Update, guide: Guide
) -> Iterator[np.ndarray]:
    """Frames uint8 `(h, w, 3)` of a walk on a schedule, the first of which is the start itself."""
    start = world.opening(walk.start, seed=walk.seed)
    yield from start.video[0].permute(0, 2, 3, 1).cpu().numpy()
    actions = _actions(world, walk.actions, start)
    decode: Decode = world.decode_latents or system.codec.decode
    steps = system.stream(start, actions, schedule=schedule, seed=walk.seed, update=update, guide=guide)
    if system.actions.stride > 1:  # one latent frame is several frames: decoded together
        count = system.codec.latent_frames(len(walk) + 1) - system.codec.latent_frames(1)
        latents = torch.cat([system.encode(start), *finished_frames(steps, count)], dim=1)
        for frame in system.codec.decode(latents, len(walk) + 1)[0, 1:]:
            yield to_image(frame)
        return
    for latents in finished_frames(steps, len(walk)):
        for frame in latents[0].unbind(0):  # frame by frame: one picture in memory
            yield decode_frame(frame[None, None], decode)


def schedule_preview(
    system: Interactive, start: int, schedule: Schedule, *, world: Dream, seed: int = 0, shown: int = 8
) -> Iterator[np.ndarray]:
    """A stroll from a start on a schedule, row after row, without an end: the latest `shown` frames.

    uint8 `(h + BAR, shown * w, 3)`; the bar under a frame is as long as its noise level.
    """
    clip = world.opening({"start": start}, seed=seed)
    actions = _actions(world, world.world_spec.stroll(start, 10_000, seed=seed), clip)
    tiles = {0: _tile(world.world_spec.starts[start], 0.0)}
    decode: Decode = world.decode_latents or system.codec.decode
    for step in system.stream(clip, actions, schedule=schedule, seed=seed):
        for frame, level, x in zip(step.frames, step.levels, step.x[0], strict=True):
            image = decode_frame(x[None, None], decode)
            tiles[frame] = _tile(image, level / schedule.steps)
        last = max(tiles)
        tiles = {frame: tile for frame, tile in tiles.items() if frame > last - shown}
        row = [tiles.get(frame, np.zeros_like(tiles[last])) for frame in range(last - shown + 1, last + 1)]
        yield np.concatenate(row, axis=1)


def schedule_plan(system: Interactive, schedule: Schedule, guide: Guide, *, shown: int = 16) -> Plan:
    """The first frames of a schedule as one plan, to be drawn."""
    sigmas, lag = list(reversed(system.sigmas(schedule.steps))), schedule.lag or schedule.steps
    frames_of = partial(staircase, history=1, history_sigma=system.shown_history, mask=schedule.mask)
    return guided(frames_of(sigmas, shown, lag=lag, chunk=schedule.chunk, window=schedule.window), guide)


def _actions(world: Dream, vectors: np.ndarray, start: Clip) -> torch.Tensor:
    """`(1, t, a)`, without what is not learnt."""
    return torch.from_numpy(world.world_spec.learnt(vectors))[None].to(start.video.device)


def _tile(picture: np.ndarray, noise: float) -> np.ndarray:
    below = np.full((BAR, *picture.shape[1:]), 24, np.uint8)
    below[1:, : round(noise * picture.shape[1])] = (255, 176, 64)
    return np.concatenate([picture, below], axis=0)
