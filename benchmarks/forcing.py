"""Training and sampling schedules compared: PSNR and sharpness against the horizon, and what each costs.

    python benchmarks/forcing.py horizon --data DIR runs/forcing.independent runs/forcing.teacher:next-frame
    python benchmarks/forcing.py lags --data DIR runs/forcing.independent
    python benchmarks/forcing.py guidance --data DIR --frames 32 forcing.doom
    python benchmarks/forcing.py horizon --data DIR --frames 1000 --walks 8 runs/forcing.independent

A model is a name, a file or a run folder, and may name its schedule behind a colon. All dream from the same
real frames under the same actions with the same noise. `docs/systems/forcing.md` has what this printed.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from dreamwalk.clip import Clip, batch
from dreamwalk.data.shards import Shards
from dreamwalk.evaluation.fidelity import psnr, sharpness, to_bytes
from dreamwalk.rollout.streaming import finished_frames
from dreamwalk.schedules import guidance
from dreamwalk.schedules.guidance import Guide, unguided
from dreamwalk.schedules.staircase import Schedule
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.open import load

GUIDES: dict[str, Guide] = {
    "": unguided,
    ", actions 1.5": guidance.conditions(1.5),
    ", actions 3": guidance.conditions(3.0),
    ", history 1.5": guidance.history(1.5),
    ", history 3": guidance.history(3.0),
    ", fractional 1.5 at 0.5": guidance.fractional(1.5, sigma=0.5),
    ", temporal 2 x 0.5, 4 x 0.5": guidance.temporal([(2, 0.5), (4, 0.5)]),
}
HORIZONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)


@dataclass(frozen=True)
class Options:
    """Models, data and settings to compare."""

    table: tyro.conf.Positional[Literal["horizon", "lags", "guidance"]]
    models: tyro.conf.Positional[tuple[str, ...]]
    data: str = "data/rooms-test"
    """Walks that were not trained on, of at least `history + frames` frames."""
    walks: int = 16
    history: int = 4
    frames: int = 256
    steps: int = 4
    seed: int = 0
    json: Path | None = None
    pictures: Path | None = None
    """Also a contact sheet: a row per model, below the real frames."""


@dataclass(frozen=True)
class Dreamt:
    """One model on one schedule."""

    name: str
    video: Tensor
    """uint8 `(b, t, 3, h, w)`."""
    ms: float
    """Milliseconds a frame of one walk."""


def main(options: Options) -> None:
    shards = Shards(options.data)
    walks = [shards.window(i, 0, options.history + options.frames) for i in range(options.walks)]
    clip = batch([replace(walk, depth=None) for walk in walks])
    truth = clip.video[:, options.history :]
    systems = {name: load(name.split(":")[0]) for name in options.models}
    runs = [run for name, system in systems.items() for run in schedules(options, name, system)]
    first = next(iter(systems.values()))
    assert isinstance(first, Interactive)
    ceiling = to_bytes(first.codec.decode(first.encode(truth)))
    last = clip.video[:, options.history - 1 : options.history].expand_as(truth)
    dreamt = [Dreamt("ceiling (codec)", ceiling, 0.0), Dreamt("floor (copy last)", last, 0.0)]
    print(
        f"{options.walks} walks of {options.data}, {options.history} frames of history, seed {options.seed}"
    )
    rows = [row(one, truth) for one in dreamt]
    for name, system, schedule in runs:
        for label, guide in GUIDES.items() if options.table == "guidance" else [("", unguided)]:
            dreamt.append(dream(name + label, system, schedule, clip, options, guide))
            rows.append(row(dreamt[-1], truth))
    print(f"{'sharpness of real frames':28}" + line(sharpness(truth).mean(0)))
    if options.json:
        about = {key: str(value) for key, value in asdict(options).items()}
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    if options.pictures:
        sheet(options.pictures, [truth] + [one.video for one in dreamt[2:]])


def schedules(options: Options, name: str, system: Interactive) -> list[tuple[str, Interactive, Schedule]]:
    """The schedules of a model: its own, or every lag."""
    named = name.split(":")[1] if ":" in name else "full" if system.mask == "bidirectional" else "next-frame"
    schedule = system.schedule(named, steps=options.steps)
    if options.table != "lags":
        return [(f"{Path(name).name}, {named}" if ":" not in name else name, system, schedule)]
    found = []
    for lag in range(1, options.steps + 1):
        if -(-options.steps // lag) < schedule.window:
            found.append((f"{Path(name).name}, lag {lag}", system, replace(schedule, lag=lag, chunk=1)))
    return [*found, (f"{Path(name).name}, full", system, system.schedule("full", steps=options.steps))]


@torch.inference_mode()
def dream(
    name: str, system: Interactive, schedule: Schedule, clip: Clip, options: Options, guide: Guide
) -> Dreamt:
    began = time.monotonic()
    start, actions = clip.first(options.history), clip.actions[:, options.history :]
    steps = system.stream(start, actions, schedule=schedule, seed=options.seed, guide=guide)
    latents = torch.cat(list(finished_frames(steps, actions.shape[1])), 1)
    ms = 1000 * (time.monotonic() - began) / latents.shape[1] / len(latents)
    parts = [to_bytes(system.codec.decode(latents[:, i : i + 16])) for i in range(0, latents.shape[1], 16)]
    return Dreamt(name, torch.cat(parts, 1), ms)


def row(one: Dreamt, truth: Tensor) -> dict[str, object]:
    fidelity, detail = psnr(one.video, truth).mean(0), sharpness(one.video).mean(0)
    print(f"{one.name:28}" + line(fidelity) + f"   {one.ms:6.1f} ms a frame")
    print(f"{'  sharpness':28}" + line(detail), flush=True)
    at = [h for h in HORIZONS if h <= len(fidelity)]
    shown = {
        "psnr": {h: float(fidelity[h - 1]) for h in at},
        "sharpness": {h: float(detail[h - 1]) for h in at},
    }
    return {"model": one.name, "ms": one.ms, **shown}


def line(values: np.ndarray) -> str:
    """Values at the horizons."""
    return "".join(f"{h:>5}: {values[h - 1]:5.2f}" for h in HORIZONS if h <= len(values))


def sheet(path: Path, videos: list[Tensor]) -> None:
    """A row per video of the first walk, at the horizons."""
    from PIL import Image

    at = [h - 1 for h in HORIZONS if h <= videos[0].shape[1]]
    rows = [np.concatenate([video[0, i].permute(1, 2, 0).numpy() for i in at], 1) for video in videos]
    Image.fromarray(np.concatenate(rows, 0)).save(path)


if __name__ == "__main__":
    main(tyro.cli(Options))
