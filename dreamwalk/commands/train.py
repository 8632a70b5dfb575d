"""`dreamwalk train NAME`: every field of the chosen run is a flag, and how it is launched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dreamwalk.commands.flags import parse_flags, split_name, suggest
from dreamwalk.errors import UserError
from dreamwalk.training.run import RUNS, Run


@dataclass(frozen=True)
class Train:
    """Train a run, alone or under torchrun; every field of the run is a flag."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    out: str = ""
    """Run folder; `runs/NAME` if left out."""
    resume: bool = False
    """Go on from the last checkpoint in `out`."""
    minutes: float = math.inf
    """Stop cleanly after this long."""
    device: Literal["cuda", "cpu"] | None = None
    """Default: an NVIDIA card if there is one."""
    wandb: bool = False
    """Also log to Weights & Biases."""


def train(argv: list[str]) -> None:
    """Run the verb."""
    name, rest = split_name(argv, "train", list(RUNS))
    if name and name not in RUNS:
        raise UserError(f"there is no run called '{name}'" + suggest(name, list(RUNS)))
    default = Train(RUNS[name or next(iter(RUNS))]())
    asked = parse_flags(Train, rest, prog=f"train {name or 'NAME'}", default=default)
    from dreamwalk.training.fit import fit

    out, device = Path(asked.out or f"runs/{asked.run.name}"), asked.device
    path = fit(asked.run, out, resume=asked.resume, minutes=asked.minutes, device=device, wandb=asked.wandb)
    print(f"weights: {path}")
