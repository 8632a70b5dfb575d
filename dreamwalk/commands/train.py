"""`dreamwalk train NAME`: every field of the chosen run is a flag, and how it is launched."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.commands.flags import parse_flags, split_name, suggest
from dreamwalk.errors import UserError
from dreamwalk.memory import MEMORIES
from dreamwalk.systems.interactive_config import InteractiveConfig
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
    run, rest = with_parts(RUNS[name or next(iter(RUNS))](), rest)
    default = Train(run)
    asked = parse_flags(Train, rest, prog=f"train {name or 'NAME'}", default=default)
    from dreamwalk.training.fit import fit

    out, device = Path(asked.out or f"runs/{asked.run.name}"), asked.device
    path = fit(asked.run, out, resume=asked.resume, minutes=asked.minutes, device=device, wandb=asked.wandb)
    print(f"weights: {path}")


def with_parts(run: Run, argv: list[str]) -> tuple[Run, list[str]]:
    """A run with the memory that `--system.memory window|map|points` names, and with RGB-D frames where
    `--system.depth` or that memory asks for them; and the flags that are left. UserError for another name.
    """
    memory, depth, left, words = "", False, [], iter(argv)
    for word in words:
        flag, _, value = word.partition("=")
        if flag == "--system.memory":
            memory = value or next(words, "")
            if memory not in MEMORIES:
                raise UserError(f"`--system.memory` is one of {', '.join(MEMORIES)}, got '{memory}'")
        elif flag == "--system.depth":
            depth = True
        else:
            left.append(word)
    system, points = run.system, memory == "points"
    if not memory and not depth:
        return run, left
    if not isinstance(system, InteractiveConfig):
        raise UserError(f"`{run.name}` does not go on frame after frame: it has neither memory nor depth")
    if not isinstance(system.codec, PatchCodecConfig):
        raise UserError(f"depth is a channel of the patch codec, and `{run.name}` has another one")
    codec = replace(system.codec, image_channels=4 if points or depth else system.codec.image_channels)
    system = replace(system, codec=codec, memory=MEMORIES[memory]() if memory else system.memory)
    return replace(run, system=system, past=max(run.past, 8) if points else run.past), left
