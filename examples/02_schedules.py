"""Print a plan: which frame has which noise level at which step, what is committed, and what is approximate.

    python examples/02_schedules.py --steps 4 --frames 5 --lag 4 --history 1

A lag of 0 denoises all frames together, a lag of all steps one frame after another; in between is a pyramid.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from dreamwalk.evaluation.plots import plan_picture
from dreamwalk.schedules.sigmas import shifted_sigmas
from dreamwalk.schedules.staircase import staircase


@dataclass(frozen=True)
class Options:
    """The plan to print."""

    steps: int = 4
    """Denoising passes a frame."""
    frames: int = 5
    lag: int = 2
    """Rows between the start of a chunk and that of the next."""
    chunk: int = 1
    """Frames that are denoised together."""
    history: int = 0
    """Frames that are known before."""
    mask: Literal["causal", "block", "bidirectional"] = "causal"
    shift: float = 3.0
    """How far levels are moved towards noise."""
    png: Path | None = None
    """Also draw the plan as a heat map."""


def main(options: Options) -> None:
    grid = shifted_sigmas(options.steps, shift_by=options.shift).tolist()
    plan = staircase(
        grid, options.frames, lag=options.lag, chunk=options.chunk, history=options.history, mask=options.mask
    )
    print(plan.show())
    print("levels:", ", ".join(f"{level} = {sigma:.3f}" for level, sigma in enumerate(plan.sigmas)))
    if options.png:
        plan_picture(plan, options.png)
    print("approximate:", "; ".join(plan.approximate) or "nothing")


if __name__ == "__main__":
    main(tyro.cli(Options))
