"""What a run tells: lines on the screen, rows in `log.jsonl`, and TensorBoard (and wandb)."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from dreamwalk import __version__
from dreamwalk.data.film import write_film
from dreamwalk.data.latents import Latents
from dreamwalk.data.shards import Shards
from dreamwalk.distributed import Process
from dreamwalk.errors import UserError
from dreamwalk.progress import clock
from dreamwalk.training.flops import peak_flops
from dreamwalk.training.run import Run
from dreamwalk.weights.config import to_json

EVERY = 5.0
"""Seconds between lines on the screen."""
MOMENTS = 8
"""Frames of a clip in a picture of it."""


class Logger:
    """Writes into a run folder; only the first process makes one. `first`: the step that a resume goes on
    from. `deadline`: the `time.monotonic()` at which the run stops."""

    def __init__(self, folder: Path, run: Run, *, wandb: bool, first: int, deadline: float) -> None:
        self.folder, self.run, self.first, self.deadline = folder, run, first, deadline
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(to_json(run), indent=2) + "\n")
        (folder / "argv.txt").write_text(shlex.join(sys.argv) + "\n")
        (folder / "commit.txt").write_text(f"{_commit() or 'unknown'} (dreamwalk {__version__})\n")
        self.board = SummaryWriter(folder / "tensorboard", purge_step=first + 1 if first else None)
        self.wandb = _wandb(run, folder) if wandb else None
        self.peak: float | None = None
        self.flops = 0.0
        """Of a step, over all processes; only asked for where the peak is known."""
        self._since, self._began, self._spoke = first, time.monotonic(), -EVERY

    def introduce(self, system: nn.Module, data: Shards | Latents, process: Process, precision: str) -> None:
        """Say what is about to be trained, on what and for how long."""
        self.peak = peak_flops(process.device)
        parameters = list(system.parameters())
        learnt = sum(p.numel() for p in parameters if p.requires_grad) / 1e6
        total, run = sum(p.numel() for p in parameters) / 1e6, self.run
        card = process.device.type == "cuda"
        threads = f"CPU, {torch.get_num_threads()} threads"
        where = torch.cuda.get_device_name(process.device) if card else threads
        many = f", {process.world_size} processes" if process.world_size > 1 else ""
        frames = f"{data.frames:,} frames in " if isinstance(data, Shards) else "latents of "
        left = self.deadline - time.monotonic()
        most = f", for {clock(left)} at most" if left < float("inf") else ""
        parts = f"{learnt:.2f} million parameters to train of {total:.2f}"
        print(f"{run.name}: {parts}, on {where}{many}, in {precision}")
        print(f"{run.data}: {frames}{len(data):,} clips")
        steps = f"steps {self.first + 1:,} to {run.steps:,} of {run.batch} clips of {run.frames} frames"
        print(f"{self.folder}: {steps}{most}", flush=True)

    def log(self, step: int, values: dict[str, float], *, last: bool) -> None:
        """After every step: a row every `log_every` steps, a line every few seconds.

        They have losses, frames per second and MFU where the card's peak is known, and a line the time left.
        """
        now, written = time.monotonic(), step % self.run.log_every == 0 or last
        spoken = now - self._spoke >= EVERY or last
        if not written and not spoken:
            return
        seconds = (now - self._began) / (step - self._since)
        row = {**values, "frames_per_second": self.run.batch * self.run.frames / seconds}
        if self.peak:
            row["mfu"] = self.flops / seconds / self.peak
        if spoken:
            left = 0.0 if last else min((self.run.steps - step) * seconds, self.deadline - now)
            words = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
            print(f"step {step}/{self.run.steps}  {words}  {clock(left)} left", flush=True)
            self._spoke = now
        if written:
            self._write(step, row)
            self._since, self._began = step, time.monotonic()

    def _write(self, step: int, row: dict[str, float]) -> None:
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "time": time.time(), **row}) + "\n")
        for name, value in row.items():
            self.board.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log({"step": step, **row})

    def show(self, step: int, truth: Tensor, dream: Tensor) -> None:
        """A sample video: the truth on the left, the dream on the right, one row per clip, in [-1, 1]; and
        moments of it as a picture for TensorBoard, the truth above the dream."""
        both = [((video.clamp(-1, 1).float().cpu() + 1) * 127.5).byte() for video in (truth, dream)]
        frames = torch.cat(list(torch.cat(both, dim=-1)), dim=-2).permute(0, 2, 3, 1).numpy()
        path = self.folder / "samples" / f"{step:08d}.mp4"
        write_film(path, frames, fps=10)
        self.board.add_image("sample", _strips(*both), step)
        self.board.flush()
        if self.wandb is not None:
            import wandb

            self.wandb.log({"step": step, "sample": wandb.Video(str(path), format="mp4")})

    def close(self) -> None:
        self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def _strips(truth: Tensor, dream: Tensor) -> Tensor:
    """uint8 `(b, t, 3, h, w)` twice as one picture `(3, ., .)`: clip by clip moments of both, in two rows."""
    length = min(truth.shape[1], dream.shape[1])
    moments = np.linspace(0, length - 1, min(MOMENTS, length)).astype(int)
    clips = [clip for pair in zip(truth, dream, strict=True) for clip in pair]
    return torch.cat([torch.cat(list(clip[moments]), dim=-1) for clip in clips], dim=-2)


def _commit() -> str:
    """The commit of the source tree that this runs from, "" for an installed package or without git."""
    root = Path(__file__).parent.parent.parent
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # there is no git on this machine
        return ""


def _wandb(run: Run, folder: Path) -> Any:
    """The run of Weights & Biases that belongs to this folder: its id is kept there, and a resume goes on."""
    try:
        import wandb
    except ImportError:
        raise UserError("`--wandb` needs the package wandb: `pip install 'dreamwalk[wandb]'`") from None
    kept = folder / "wandb.txt"
    if not kept.exists():
        kept.write_text(uuid.uuid4().hex + "\n")
    name, config = kept.read_text().strip(), to_json(run)
    board = wandb.init(project="dreamwalk", name=run.name, id=name, dir=folder, config=config, resume="allow")
    board.define_metric("*", step_metric="step")  # a resume may go back to an earlier checkpoint
    return board
