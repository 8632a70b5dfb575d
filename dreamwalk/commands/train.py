"""The flags of `dreamwalk train`: every field of the chosen run, and how it is launched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

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


def defaults(name: str) -> Train:
    """The flags of a named run, as they stand when none is given."""
    return Train(RUNS[name]())
