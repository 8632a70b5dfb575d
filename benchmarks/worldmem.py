"""A generated frame of WorldMem's network in three ways: random weights, the published size on a card.

    python benchmarks/worldmem.py [--device cuda] [--dtype bfloat16] [--small] [--json out.json]

`anew`: as published, every one of 20 steps reads the window, the recalled frames and the new one. `window`:
window and recalled frames are read once a frame, with the same result. `ring`: recalled frames alone are
read, behind a ring cache. Times are medians of a frame, without codec and retrieval. The exit status is 1
when the first two differ by more than rounding explains.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor

from dreamwalk.backbones.memory_stdit import MemorySTDiT, MemoryView, worldmem_945m
from dreamwalk.distributed import pick_device
from dreamwalk.schedules.ddim import ddim_sigmas


@dataclass(frozen=True)
class Options:
    device: Literal["cpu", "cuda"] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    small: bool = False
    """Width 256 and 4 blocks, for a processor."""
    window: int = 7
    recalled: int = 8
    steps: int = 20
    rounds: int = 3
    json: Path | None = None


@dataclass(frozen=True)
class Scene:
    """A window, recalled frames and the noise of a new one."""

    backbone: MemorySTDiT
    frames: Tensor
    conditions: Tensor
    view: MemoryView
    sigmas: list[float]

    def anew(self) -> Tensor:
        sigma = torch.zeros(self.frames.shape[:2], device=self.frames.device)

        def velocity(x: Tensor, level: float) -> Tensor:
            seen = torch.cat([self.frames[:, :-1], x], 1)
            sigma[:, -1] = level
            return self.backbone(seen, sigma, self.conditions, view=self.view)[:, -1:]

        return self.walked(velocity)

    def window(self) -> Tensor:
        times = torch.arange(self.frames.shape[1] - 1, device=self.frames.device)
        cache = self.backbone.window_cache(
            self.frames[:, :-1], self.conditions[:, :-1], self.view, times=times
        )
        return self.walked(lambda x, level: self.backbone(x, *self.shown(level), cache))

    def ring(self) -> Tensor:
        behind = self.backbone.cache(self.frames.shape[1] - 1)
        behind.frames = behind.window
        last = replace(self.view, poses=self.view.poses[:, -1:], elapsed=self.view.elapsed[:, -1:])
        cache = self.backbone.recall_cache(behind, last)
        self.walked(lambda x, level: self.backbone(x, *self.shown(level), cache))
        return self.backbone(self.frames[:, -1:], *self.shown(0.0), cache)

    def shown(self, level: float) -> tuple[Tensor, Tensor]:
        return torch.full((1, 1), level, device=self.frames.device), self.conditions[:, -1:]

    def walked(self, velocity: Callable[[Tensor, float], Tensor]) -> Tensor:
        x = self.frames[:, -1:]
        for now, following in zip(self.sigmas[:-1], self.sigmas[1:], strict=True):
            x = x + (following - now) * velocity(x, now)
        return x


def scene(options: Options, device: torch.device) -> Scene:
    """Random all through, gates too."""
    torch.manual_seed(0)
    config = worldmem_945m()
    if options.small:
        config = replace(config, width=256, depth=4, heads=4)
    with device:
        backbone = MemorySTDiT(config).to(getattr(torch, options.dtype)).eval()
        for parameter in backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        t, m = options.window + 1, options.recalled
        shape, like = (config.channels, *config.grid), torch.eye(4).repeat(1, t + m, 1, 1)
        like[..., :3, 3] = torch.randn(1, t + m, 3)
        frames, latents = torch.randn(1, t, *shape), torch.randn(1, m, *shape)
        conditions, still = torch.randn(1, t, config.width), torch.zeros(1, m, config.width)
        times, now = -torch.arange(1, m + 1)[None], torch.arange(t)[None]
    places = {"cameras": like[:, t:], "times": times, "poses": like[:, :t], "now": now}
    view = MemoryView.of(latents, still, **places)
    return Scene(backbone, frames, conditions, view, ddim_sigmas(options.steps).tolist())


@torch.inference_mode()
def main(options: Options) -> int:
    device = torch.device(pick_device(options.device))
    given = scene(options, device)
    ways = {"anew": given.anew, "window": given.window, "ring": given.ring}
    out, seconds = {}, {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            out[name] = way().float().cpu()
            seconds[name].append(time.perf_counter() - began)
    difference = ((out["anew"] - out["window"]).abs().max() / out["anew"].std()).item()
    rows = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    where = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    for name, value in rows.items():
        print(f"{name:8} {value:8.3f} s a frame   {rows['anew'] / value:5.2f}x")
    print(f"largest difference {difference:.2g} of a standard deviation; {options.dtype}, {where}")
    if options.json:
        about = {"seconds": rows, "difference": difference, "dtype": options.dtype, "device": where}
        options.json.write_text(json.dumps(about))
    return int(difference > (0.2 if options.dtype == "bfloat16" else 1e-3))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
