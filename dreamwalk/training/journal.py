"""What a run tells: a line on the screen, a row in `log.jsonl`, a point in TensorBoard (and wandb)."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dreamwalk.errors import UserError
from dreamwalk.rollout.record import write_film
from dreamwalk.training.run import Run
from dreamwalk.weights.config import to_json

PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12, "5090": 210e12}
"""Dense bf16 FLOP/s of cards by name, for model FLOPs utilisation (MFU)."""


class Journal:
    """Writes into a run folder; only the first process makes one."""

    def __init__(self, folder: Path, run: Run, *, wandb: bool, device: torch.device) -> None:
        self.folder, self.run, self.started = folder, run, time.time()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "samples").mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(to_json(run), indent=2) + "\n")
        (folder / "argv.txt").write_text(shlex.join(sys.argv) + "\n")
        (folder / "commit.txt").write_text(_commit() + "\n")
        self.board = SummaryWriter(folder / "tensorboard")
        self.wandb = _wandb(run, folder) if wandb else None
        self.peak = peak_flops(device)

    def tell(self, step: int, values: dict[str, float], *, seconds: float, frames: int, flops: float) -> None:
        """One row: losses, frames per second, hours left, and MFU where the card's peak is known."""
        row = {**values, "frames_per_second": frames / seconds}
        if self.peak:
            row["mfu"] = flops / seconds / self.peak
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "time": time.time(), **row}) + "\n")
        for name, value in row.items():
            self.board.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(row, step=step)
        left = (self.run.steps - step) * seconds
        words = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
        print(f"step {step}/{self.run.steps}  {words}  {_clock(left)} left", flush=True)

    def show(self, step: int, truth: Tensor, dream: Tensor) -> None:
        """A sample video: the truth on the left, the dream on the right, one row per clip, in [-1, 1]."""
        both = torch.cat([truth, dream], dim=-1).clamp(-1, 1).float().cpu()
        rows = torch.cat(list(both), dim=-2)
        frames = ((rows + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
        write_film(self.folder / "samples" / f"{step:08d}.mp4", frames, fps=10)

    def close(self) -> None:
        self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOP/s of a card, where it is known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((flops for card, flops in PEAK.items() if card in name), None)


def _commit() -> str:
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def _clock(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60}h{minutes % 60:02d}m"


def _wandb(run: Run, folder: Path) -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError("`--wandb` needs the package wandb: `pip install dreamwalk[wandb]`") from None
    return wandb.init(project="dreamwalk", name=run.name, dir=folder, config=to_json(run), resume="allow")
