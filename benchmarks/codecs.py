"""Codecs compared: what is lost of held-out videos, how small they get, and how long it takes.

    python benchmarks/codecs.py --data DIR runs/autoencode.hunyuan runs/autoencode.tae autoencode.doom

A model is a shipped name, a file or a run folder of a system with a codec. Each video is coded whole, from
its first frame on. PSNR and SSIM are means over frames; seconds are processor time for one video, the median
over videos. `loudness` is the root mean square of the latents, which a dream is best off with near one, and
`outliers` their outlier penalty (`codecs/penalties.py`).
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
import tyro
from PIL import Image
from torch import Tensor

from dreamwalk.clip import batch
from dreamwalk.codecs.penalties import outlier_penalty
from dreamwalk.data.shards import Shards
from dreamwalk.evaluation.fidelity import psnr, ssim, to_bytes
from dreamwalk.systems.autoencode import to_float
from dreamwalk.systems.open import load


@dataclass(frozen=True)
class Options:
    """What is compared, on what."""

    models: tyro.conf.Positional[tuple[str, ...]]
    data: str = "data/doom-test"
    """Walks that were not trained on."""
    clips: int = 16
    frames: int = 33
    json: Path | None = None
    """Also write the rows there."""
    pictures: Path | None = None
    """Also a contact sheet: the last frame of the first four videos, real ones above, then a row a model."""


def main(options: Options) -> None:
    shards = Shards(options.data)
    walks = range(min(options.clips, len(shards)))
    videos = [batch([shards.window(i, 0, options.frames)]).video for i in walks]
    rows, sheet = [], [pictures(videos)]
    for name in options.models:
        row, restored = measured(name, videos)
        rows.append({"model": name, **row})
        sheet.append(pictures(restored))
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in rows[-1].items()))
    if options.json:
        about = {"data": options.data, "clips": len(videos), "frames": options.frames}
        about |= {"size": list(videos[0].shape[-2:]), "threads": torch.get_num_threads()}
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    if options.pictures:
        Image.fromarray(torch.cat(sheet).numpy()).save(options.pictures)


@torch.inference_mode()
def measured(name: str, videos: list[Tensor]) -> tuple[dict[str, float | str], list[Tensor]]:
    """The row of one model, and what it made of the videos."""
    codec: Any = load(name).codec
    stride, channels = codec.stride, codec.channels
    found: dict[str, list[float]] = {}
    restored = []
    codec.decode(codec.encode(to_float(videos[0])))
    for truth in videos:
        began = time.process_time()
        latents = codec.encode(to_float(truth))
        coded = time.process_time()
        video = to_bytes(codec.decode(latents)[:, : truth.shape[1]])
        decoded = time.process_time()
        values = {
            "PSNR": psnr(video, truth).mean(),
            "SSIM": ssim(video, truth).mean(),
            "encode s": coded - began,
            "decode s": decoded - coded,
            "loudness": latents.square().mean().sqrt().item(),
            "outliers": outlier_penalty(latents).item(),
        }
        for key, value in values.items():
            found.setdefault(key, []).append(float(value))
        restored.append(video)
    row: dict[str, float | str] = {key: mean(values) for key, values in found.items()}
    row |= {key: median(found[key]) for key in ("encode s", "decode s")}
    size = {"stride": "x".join(map(str, stride)), "compression": 3 * math.prod(stride) / channels}
    return row | size | {"million parameters": sum(p.numel() for p in codec.parameters()) / 1e6}, restored


def pictures(videos: list[Tensor]) -> Tensor:
    """The last frames of the first four, side by side, `(h, w, 3)`."""
    return torch.cat([video[0, -1] for video in videos[:4]], dim=2).permute(1, 2, 0)


if __name__ == "__main__":
    main(tyro.cli(Options))
