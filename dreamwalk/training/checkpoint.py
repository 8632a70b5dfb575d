"""Checkpoints of a run: torch.distributed.checkpoint, which reshards between any numbers of processes.

A checkpoint is a folder `checkpoints/00000500` that appears under that name only when it is whole, so a run
killed at any moment resumes from the last one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from dreamwalk.distributed import Process
from dreamwalk.errors import writing

UNWRITTEN = "inline_container"
"""What torch says, as a RuntimeError, of a file that it cannot write."""


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` is."""
    return folder / "checkpoints" / f"{step:08d}"


def latest(folder: Path) -> int | None:
    """Step of the newest whole checkpoint in `folder/checkpoints`, or None."""
    names = [path.name for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]
    return max(map(int, names), default=None)


def write_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int, process: Process) -> None:
    """Write `state` as the checkpoint of `step`, then drop all but the newest `keep`."""
    final = path_of(folder, step)
    partial = final.with_suffix(".partial")
    if process.is_main:
        shutil.rmtree(partial, ignore_errors=True)
    dist.barrier()
    _write(state, partial)
    dist.barrier()
    if process.is_main:
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        for name in sorted(path.name for path in final.parent.iterdir() if path.name.isdigit())[:-keep]:
            shutil.rmtree(final.parent / name)
    dist.barrier()


def _write(state: dict[str, Any], partial: Path) -> None:
    """UserError where the folder cannot be written, or the disk is full."""
    try:
        with writing(partial):
            dcp.save(state, checkpoint_id=partial)
    except CheckpointException as error:  # no Exception; it wraps what each process met
        causes = [cause for cause, _ in error.failures.values()]
        if not all(isinstance(cause, OSError) or UNWRITTEN in str(cause) for cause in causes):
            raise
        with writing(partial):
            raise OSError(str(causes[0])) from error


def read_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Fill `state` in place from the checkpoint of `step`."""
    dcp.load(state, checkpoint_id=path_of(folder, step))
