"""Throughput of training and sampling, stage by stage, with memory; MFU where the card's peak is known.

    python benchmarks/throughput.py [--sizes doom 130M] [--json out.json]

Random weights: speed does not depend on them. One row per size; the sampling rows compare eager PyTorch with
the engine that `world()` uses, in one run, on the same frames.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from dreamwalk.clip import Clip
from dreamwalk.distributed import pick_device
from dreamwalk.rollout.onnx import OnnxDecoder, OnnxPass
from dreamwalk.rollout.realtime import EagerPass, FramePass
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems import nextframe
from dreamwalk.systems.nextframe import NextFrame, NextFrameConfig
from dreamwalk.training.flops import count_flops, peak_flops

CONFIGS: dict[str, Callable[[], NextFrameConfig]] = {
    "doom": nextframe.doom,
    "130M": lambda: nextframe.released("130M"),
    "310M": lambda: nextframe.released("310M"),
    "774M": lambda: nextframe.released("774M"),
}


@dataclass(frozen=True)
class Options:
    sizes: tuple[str, ...] = ("doom",)
    """Any of doom, 130M, 310M, 774M."""
    batch: int = 8
    frames: int = 8
    repeats: int = 5
    json: Path | None = None
    """Also write the rows there."""


def main(options: Options) -> None:
    device = pick_device()
    name = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    print(f"{name}, torch {torch.__version__}")
    rows = []
    for size in options.sizes:
        torch.manual_seed(0)
        system = NextFrame(CONFIGS[size]()).to(device)
        rows += [
            {"size": size, **row}
            for row in (training(system, options, device), *sampling(system, options, device))
        ]
        for row in rows[-3:]:
            print(
                "  ".join(
                    f"{key} {value:.4g}" if isinstance(value, float) else f"{value}"
                    for key, value in row.items()
                )
            )
    if options.json:
        options.json.write_text(json.dumps({"hardware": name, "rows": rows}, indent=2) + "\n")


def pictures(system: NextFrame, batch: int, frames: int, device: torch.device) -> Clip:
    _, h, w = system.codec.stride
    rows, columns = system.config.backbone.grid
    video = torch.randint(0, 256, (batch, frames, 3, h * rows, w * columns), dtype=torch.uint8)
    actions = torch.zeros(batch, frames, system.config.actions)
    poses = torch.eye(4).expand(batch, frames, 4, 4)
    return Clip(video, actions, poses, poses[..., :3, :3]).to(device)


def training(system: NextFrame, options: Options, device: torch.device) -> dict[str, str | float]:
    """Forward, backward and AdamW on clips of random pixels; codec included, as in training."""
    optimizer = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], lr=1e-4)
    clip = pictures(system, options.batch, options.frames, device)
    generator = KeyedGenerator([(0, row) for row in range(options.batch)], device=device)

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return system.loss(clip, generator)["loss"]

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    flops = count_flops(system, loss)
    seconds = timed(step, options.repeats, device)
    frames = options.batch * options.frames
    row: dict[str, str | float] = {"stage": "train step", "ms": 1000 * seconds, "frames/s": frames / seconds}
    rate = flops / seconds
    peak = peak_flops(device)
    mfu = {"mfu": rate / peak} if peak else {}
    return row | {"TFLOP/s": rate / 1e12} | mfu | {"GB": memory(device)}


def sampling(system: NextFrame, options: Options, device: torch.device) -> list[dict[str, str | float]]:
    """One dreamt frame on a full cache, and its decoding: eager, then as `world()` runs it."""
    system.eval()
    config = system.config
    eager: tuple[FramePass, Callable] = (system.frame_pass(), system.codec.decode)
    if device.type == "cuda":
        fast: tuple[FramePass, Callable] = (
            EagerPass(system.actions, system.backbone).compile(),
            torch.compile(system.codec.decode),
        )
    else:
        shape = (config.backbone.channels, *config.backbone.grid)
        step = OnnxPass(system.actions, system.backbone, actions=config.actions, window=config.window)
        fast = (step, OnnxDecoder(system.codec, shape))
    return [
        {"stage": label, **one_frame(system, *engine, options, device)}
        for label, engine in (("eager", eager), ("engine", fast))
    ]


def one_frame(
    system: NextFrame, step: FramePass, decode: Callable, options: Options, device: torch.device
) -> dict[str, float]:
    session = system.begin(pictures(system, 1, 1, device), frame_pass=step)
    action = torch.zeros(1, system.config.actions, device=device)
    latents = [system.advance(session, action, frame_pass=step) for _ in range(system.config.window)][-1]
    dream = timed(lambda: system.advance(session, action, frame_pass=step), 4 * options.repeats, device)
    with torch.inference_mode():
        decoding = timed(lambda: decode(latents), 4 * options.repeats, device)
    passes = system.config.steps + 1
    return {
        "pass ms": 1000 * dream / passes,
        "decode ms": 1000 * decoding,
        "fps": 1 / (dream + decoding),
        "GB": memory(device),
    }


def timed(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median seconds of a call, after two to warm up."""
    seconds = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[2:]))


def memory(device: torch.device) -> float:
    """Peak memory so far, in GB: of the card, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main(tyro.cli(Options))
