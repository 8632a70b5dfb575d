"""An endless rollout at constant memory: frames a second and resident memory along the way.

    python benchmarks/endless.py forcing.doom --frames 10000 --schedule next-frame

Frames are dreamt, decoded and encoded into an mp4 that is thrown away.
"""

import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from dreamwalk.commands.sample import SampleWalk
from dreamwalk.data.film import write_film
from dreamwalk.rollout.execute import euler
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.open import load
from dreamwalk.systems.scheduled import scheduled_frames


@dataclass(frozen=True)
class Options:
    """Model, schedule and length."""

    model: tyro.conf.Positional[str] = "forcing.doom"
    frames: int = 10_000
    schedule: str = "next-frame"
    steps: int = 1
    every: int = 1000
    """Frames between rows of the table."""
    json: Path | None = None


def main(options: Options) -> None:
    system = load(options.model)
    assert isinstance(system, Interactive)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "walk.mp4"
        asked = SampleWalk(out, frames=options.frames, schedule=options.schedule, steps=options.steps, seed=0)
        world = system.world()
        walk = asked.walk(world.world_spec)
        rows: list[dict[str, float]] = []
        frames = scheduled_frames(
            system, world, walk, asked.schedule_for(system, walk), update=euler, guide=asked.guide
        )
        write_film(out, measured(frames, options.every, rows), fps=world.fps)
    grown = rows[-1]["MB"] - rows[1]["MB"] if len(rows) > 1 else 0.0
    print(f"grown between frame {rows[min(1, len(rows) - 1)]['frame']} and the last: {grown:.0f} MB")
    if options.json:
        options.json.write_text(json.dumps({"model": options.model, "rows": rows}, indent=2) + "\n")


def measured(frames: Iterator[np.ndarray], every: int, rows: list[dict[str, float]]) -> Iterator[np.ndarray]:
    """The same frames; a row of the table every so many."""
    began = time.monotonic()
    for count, frame in enumerate(frames, 1):
        yield frame
        if count % every == 0:
            seconds = (time.monotonic() - began) / every
            rows.append({"frame": count, "fps": 1 / seconds, "MB": resident(), "detail": detail(frame)})
            print("  ".join(f"{name} {value:.5g}" for name, value in rows[-1].items()), flush=True)
            began = time.monotonic()


def resident() -> float:
    """Megabytes that this process holds now; its peak where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def detail(frame: np.ndarray) -> float:
    """Mean step between neighbouring pixels, in grey levels: 0 is fog."""
    return float(np.abs(np.diff(frame.astype(np.float32), axis=1)).mean())


if __name__ == "__main__":
    main(tyro.cli(Options))
