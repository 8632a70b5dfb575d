"""The VAE of HunyuanVideo here against that of diffusers, with the same weights and the same video.

    python benchmarks/hunyuan_vae.py [--full | --widths 16 16 32 32] [--device cpu|cuda] [--json out.json]

Both code the whole video at once: diffusers' tiles, which change the result, are off. Seconds are medians of
runs that take turns, as is their ratio; the space is what a process of its own needs at most beyond what it
needed before (of a card: what torch allocated). Random weights: neither depends on them. When the outputs
differ by more than rounding explains, the exit status is 1.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor

from dreamwalk.codecs.causal import CausalVAE, CausalVAEConfig, hunyuan_vae
from dreamwalk.published.names import renamed
from dreamwalk.published.vae import VAE_NAMES

Coders = dict[str, Callable[[], Tensor]]


@dataclass(frozen=True)
class Options:
    full: bool = False
    """The published sizes. For a card."""
    widths: tuple[int, ...] = (32, 64, 128, 128)
    """Channels of the levels, if not of the published sizes."""
    device: Literal["cpu", "cuda"] = "cpu"
    frames: int = 17
    size: tuple[int, int] = (192, 256)
    """Height and width of a frame."""
    runs: int = 5
    way: Literal["encode", "decode"] | None = None
    alone: Literal["ours", "theirs"] | None = None
    """Only print the bytes that one way of one of them needs."""
    json: Path | None = None
    """Also write the rows there."""

    @property
    def config(self) -> CausalVAEConfig:
        groups = min(32, *self.widths)
        return hunyuan_vae() if self.full else CausalVAEConfig(widths=self.widths, groups=groups)


def main(options: Options) -> None:
    torch.manual_seed(0)
    if options.alone:
        assert options.way
        return print(space(coders(options, options.way)[options.alone], options))
    card = options.device == "cuda"
    name = torch.cuda.get_device_name() if card else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{name}, torch {torch.__version__}; {options.frames} frames of {options.size[0]}x{options.size[1]}"
    )
    rows = [row(way, options) for way in ("encode", "decode")]
    if options.json:
        about = {"hardware": name, "config": str(options.config)}
        sizes = {"frames": options.frames, "size": options.size}
        options.json.write_text(json.dumps({**about, **sizes, "rows": rows}, indent=2) + "\n")
    if max(float(row["difference"]) for row in rows) > (0.05 if card else 1e-3):
        raise SystemExit("the outputs differ by more than rounding")


def row(way: Literal["encode", "decode"], options: Options) -> dict[str, float | str]:
    """Seconds, megabytes and their ratios (theirs over ours) of one way."""
    both = coders(options, way)
    difference = (both["ours"]().float() - both["theirs"]().float()).abs().max().item()
    seconds: dict[str, list[float]] = {who: [] for who in both}
    for _ in range(options.runs):
        for who, code in both.items():
            seconds[who].append(timed(code))
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["theirs"], strict=True)]
    again = [sys.executable, __file__, *(["--full"] if options.full else []), "--device", options.device]
    again += ["--widths", *map(str, options.widths)]
    again += ["--frames", str(options.frames), "--size", *map(str, options.size), "--way", way, "--alone"]
    bytes_ = {who: int(subprocess.check_output([*again, who]).split()[-1]) for who in both}
    found: dict[str, float | str] = {"way": way}
    for who in both:
        found |= {f"{who} s": statistics.median(seconds[who]), f"{who} MB": bytes_[who] / 1e6}
    found |= {"times faster": statistics.median(ratios), "times smaller": bytes_["theirs"] / bytes_["ours"]}
    found["difference"] = difference
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in found.items()))
    return found


def coders(options: Options, way: Literal["encode", "decode"]) -> Coders:
    """What is run: without arguments, to a tensor `b t c h w`."""
    config = options.config
    ours = CausalVAE(config)
    theirs = AutoencoderKLHunyuanVideo(
        latent_channels=config.channels,
        block_out_channels=config.widths,
        layers_per_block=config.blocks,
        norm_num_groups=config.groups,
    )
    theirs.use_framewise_encoding = theirs.use_framewise_decoding = False
    given = theirs.state_dict()
    ours.load_state_dict({name: given[renamed(name, VAE_NAMES)] for name in ours.state_dict()})
    kind = torch.float16 if options.device == "cuda" else torch.float32
    for part in (ours, theirs):
        (part.half() if options.device == "cuda" else part).eval().to(options.device)
    (h, w), t = options.size, ours.latent_frames(options.frames)
    video = torch.rand(1, options.frames, 3, h, w).to(options.device, kind) * 2 - 1
    latents = torch.randn(1, t, config.channels, h // 8, w // 8).to(options.device, kind)
    runs: dict[str, Coders] = {
        "encode": {
            "ours": lambda: ours.posterior(video)[0],
            "theirs": lambda: theirs.encode(video.transpose(1, 2)).latent_dist.mean.transpose(1, 2),
        },
        "decode": {
            "ours": lambda: ours.decode(ours.scale(latents)),
            "theirs": lambda: theirs.decode(latents.transpose(1, 2)).sample.transpose(1, 2),
        },
    }
    return {who: torch.no_grad()(code) for who, code in runs[way].items()}


def timed(code: Callable[[], Tensor]) -> float:
    """Seconds, when the card has done what it was given."""
    began = time.perf_counter()
    code()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def space(code: Callable[[], Tensor], options: Options) -> int:
    """Bytes needed at most beyond those of before."""
    if options.device == "cuda":
        before = torch.cuda.memory_allocated()
        code()
        return torch.cuda.max_memory_allocated() - before
    before = peak()
    code()
    return peak() - before


def peak() -> int:
    """Bytes that this process needed at most. (`ru_maxrss` would count those of the process before it.)"""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


if __name__ == "__main__":
    main(tyro.cli(Options))
