"""The batches of a run, from clips or from latents: functions of its seed and the step alone, read ahead."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamwalk.clip import Clip, batch
from dreamwalk.data.latents import INDEX, Latents, fingerprint
from dreamwalk.data.resident import ResidentClips, Window
from dreamwalk.data.shards import Shards
from dreamwalk.distributed import Process
from dreamwalk.errors import UserError
from dreamwalk.systems.moviegen import Moviegen
from dreamwalk.systems.system import System
from dreamwalk.training.run import Run


def open_data(run: Run) -> Shards | Latents:
    """The folder that a run trains on; UserErrors as of both kinds."""
    data = Latents(run.data) if (Path(run.data) / INDEX).exists() else Shards(run.data)
    if not len(data):
        raise UserError(f"'{run.data}' holds no clips yet: let `dreamwalk collect` go on")
    return data


def check_latents(data: Latents, system: System) -> None:
    """UserError unless `system` trains on latents, and these are of its codec."""
    if not isinstance(system, Moviegen):
        raise UserError(f"'{data.path}' has latents; the system {system.name} trains on clips: collect clips")
    if system.config.upscale > 1:
        raise UserError(f"'{data.path}' holds latents, and an upsampler learns from pixels: collect clips")
    if data.codec != fingerprint(system.codec):
        raise UserError(
            f"'{data.path}' holds latents of another codec than this run's: give `--codec` the one that "
            "`dreamwalk collect latents` was given"
        )


def batches(run: Run, data: Shards | Latents, process: Process, *, first: int) -> Iterator[Clip]:
    """Batches of the steps from `first` on, each read while the one before is trained on."""
    mine = local_rows(run, process)

    depth = run.system.needs_depth
    resident = None
    if run.resident and isinstance(data, Shards):
        resident = ResidentClips(data, depth=depth, device=process.device)

    def read(step: int) -> Clip:
        if isinstance(data, Latents):
            return data.batch(mine, seed=run.seed, step=step)
        windows = [draw(run, data, step, row) for row in mine]
        if resident is not None:
            return resident.batch(windows)
        return batch([read_window(data, window, depth=depth) for window in windows])

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, first)
        for step in range(first, run.steps):
            ready = coming.result()
            if step + 1 < run.steps:
                coming = reader.submit(read, step + 1)
            yield ready


def local_rows(run: Run, process: Process) -> range:
    """The rows of the global batch that this process computes."""
    if run.batch % process.world_size:
        raise UserError(f"a batch of {run.batch} does not divide over {process.world_size} processes")
    share = run.batch // process.world_size
    return range(process.rank * share, (process.rank + 1) * share)


def draw(run: Run, shards: Shards, step: int, row: int) -> Window:
    """What a row of a step is made of: a window drawn from all windows of the data, and some of its past."""
    random = np.random.default_rng([run.seed, step, row])
    press = None
    if run.button and random.random() < run.press_prob:
        found = presses(shards, run.button)
        index, press = found[random.integers(len(found))]
    else:
        index = int(random.integers(len(shards)))
    length = shards.frames_of(index)
    if length < run.frames:
        raise UserError(
            f"clip {index} of '{run.data}' has {length} frames, fewer than the {run.frames} to train on"
        )
    start = int(random.integers(length - run.frames + 1))
    if press is not None:  # in any place of the clip but the first, whose action led into it from nowhere
        start = min(max(press - 1 - int(random.integers(run.frames - 1)), 0), length - run.frames)
    frames = np.arange(start, start + run.frames)
    if not run.past:
        return Window(index, frames)
    # Mostly all that came before; at times only what is long gone, as after a long way.
    newest = max(1, start - int(random.choice([0, 0, 8, 24])))
    return Window(index, frames, np.sort(random.choice(newest, run.past, replace=newest < run.past)))


@cache
def presses(shards: Shards, button: str) -> list[tuple[int, int]]:
    """Clips and frames into which a press of a button led; UserError where there are none."""
    if button not in shards.schema.buttons:
        known = ", ".join(shards.schema.buttons)
        raise UserError(f"'{shards.path}' has no button '{button}': give one of {known}, or none")
    column, found = shards.schema.buttons.index(button), []
    for index in range(len(shards)):
        held = shards.walked(index)[2][:, column] > 0.5
        pressed = held & ~np.concatenate([[False], held[:-1]])
        found += [(index, int(frame)) for frame in np.flatnonzero(pressed)]
    if not found:
        raise UserError(f"nobody presses '{button}' in '{shards.path}': name another `--button`, or none")
    return found


def read_window(shards: Shards, window: Window, *, depth: bool) -> Clip:
    """The clip of a window, as numpy arrays."""
    clip = shards.window(window.index, int(window.frames[0]), len(window.frames), depth=depth)
    clip = replace(clip, times=window.frames)
    if window.past is None:
        return clip
    past = shards.clip(window.index, depth=depth).pick(window.past)
    return replace(clip, past=replace(past, times=window.past))


@dataclass(frozen=True)
class DataToFit:
    """What the parts of a system that are fitted, not trained, ask of the data."""

    run: Run
    shards: Shards

    def large_batch(self) -> Clip:
        """Of 16 steps."""
        rows = range(min(self.run.batch, 16))
        windows = [draw(self.run, self.shards, step, row) for step in range(16) for row in rows]
        return batch([read_window(self.shards, w, depth=self.run.system.needs_depth) for w in windows])

    def paths(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of all clips of the usual length."""
        walks = [self.shards.walked(index) for index in range(len(self.shards))]
        length = max(len(actions) for *_, actions in walks)
        whole = [walk for walk in walks if len(walk[-1]) == length and not any(part is None for part in walk)]
        if not whole:
            raise UserError(
                f"'{self.shards.path}' has no poses, which a memory of places needs: take one without, "
                "for example `nextframe.game`"
            )
        poses, intrinsics, actions = (
            torch.from_numpy(np.stack(arrays)) for arrays in zip(*whole, strict=True)
        )
        return poses, intrinsics, actions


@torch.no_grad()
def preview_batch(run: Run, data: Shards | Latents, system: System) -> tuple[Clip, Tensor]:
    """Four clips to preview a system on, and what they show, in [-1, 1] `(b, t, 3, h, w)`."""
    device = next(system.parameters()).device
    if isinstance(data, Latents):
        assert isinstance(system, Moviegen)
        clip = data.batch(range(4), seed=run.seed, step=0).to(device)
        video = system.codec.decode(clip.latents.float()).clamp(-1, 1)
        return replace(clip, video=((video + 1) * 127.5).byte()), video
    picked, depth = [index % len(data) for index in range(4)], run.system.needs_depth
    clips = [data.window(index, 0, min(data.frames_of(index), 24), depth=depth) for index in picked]
    clip = batch(clips).to(device)
    return clip, clip.video.float() / 127.5 - 1
