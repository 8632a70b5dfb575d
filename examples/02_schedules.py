"""Print a schedule: which frame has which noise level at which step, from 1 (noise) to 0 (clean).

    python examples/02_schedules.py --steps 4 --frames 5 --lag 4

A lag of 0 denoises all frames together, a lag of all steps one frame after another; in between is a pyramid.
"""

from dataclasses import dataclass

import tyro

from dreamwalk.schedules.sigmas import check_schedule, staircase


@dataclass(frozen=True)
class Options:
    """The staircase to print."""

    steps: int = 4
    """Denoising passes a frame."""
    frames: int = 5
    lag: int = 2
    """Rows between the start of a frame and that of the next."""
    shift: float = 3.0
    """How far levels are moved towards noise."""


def main(options: Options) -> None:
    sigmas = staircase(options.steps, options.frames, lag=options.lag, shift_by=options.shift)
    check_schedule(sigmas)
    print("       " + "".join(f"frame {frame:<3}" for frame in range(options.frames)))
    for row, levels in enumerate(sigmas.tolist()):
        print(f"row {row:<3}" + "".join(f"{level:<9.3f}" for level in levels))


if __name__ == "__main__":
    main(tyro.cli(Options))
