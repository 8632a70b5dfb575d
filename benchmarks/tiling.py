"""Decoding in tiles: seams and memory, ours and diffusers', with the same weights, tiles and overlap.

    python benchmarks/tiling.py [--weights DIR] [--frames 33] [--height 192] [--width 192] [--json out.json]

DIR holds the published VAE of HunyuanVideo (`published.vae`). Without one, a small network of random
weights whose branches are quiet, so that pictures pass through as in a trained one. PSNR is that of tiled
against whole decoding, over the range of the whole. Every way decodes in a process of its own, whose largest
resident size, less that before decoding, is told beside the bytes that `device.peak` counts.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamwalk.codecs.causal import CausalVAE, CausalVAEConfig
from dreamwalk.codecs.tiles import Tiling, tiled_decode
from dreamwalk.device.peak import decode_bytes
from dreamwalk.published.names import renamed
from dreamwalk.published.vae import VAE_NAMES, read_vae
from dreamwalk.weights import files

SMALL = CausalVAEConfig(channels=4, widths=(16, 32, 32, 32), blocks=1, groups=8, scale=1.0)

Way = Literal["whole", "tiles", "diffusers, whole", "diffusers, tiles"]


@dataclass(frozen=True)
class Options:
    weights: Path | None = None
    """Folder of the published weights."""
    frames: int = 33
    height: int = 192
    width: int = 192
    tile: tuple[int, int, int] = (16, 96, 96)
    """Frames, rows and columns of a tile; for the published network 16 256 256 is usual."""
    overlap: tuple[int, int, int] = (4, 24, 24)
    json: Path | None = None
    """Also write the rows there."""
    way: Way | None = None
    """Only this one, and what it decodes to into `out`: what the processes are told."""
    out: Path | None = None


def main(options: Options) -> None:
    """All ways, or the one that `options` ask for."""
    if options.way:
        one(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        results = {way: asked(way, Path(folder) / "out.safetensors") for way in get_args(Way)}
    whole, rows = results["whole"][0], []
    tiling = Tiling(options.tile, options.overlap)
    for way, (video, row) in results.items():
        row["PSNR"] = psnr(video, whole)
        rows.append({"way": way, **row})
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in rows[-1].items()))
    codec, latents = network(options)
    counted = [decode_bytes(codec, tuple(latents.shape), how) / 2**20 for how in (None, tiling)]
    print(f"counted MiB: whole {counted[0]:.4g}, tiles {counted[1]:.4g}")
    if options.json:
        about = {"config": str(codec.config), "latents": list(latents.shape), "tiling": str(tiling)}
        options.json.write_text(json.dumps({**about, "rows": rows, "counted MiB": counted}, indent=2) + "\n")


def asked(way: str, out: Path) -> tuple[Tensor, dict[str, Any]]:
    """What another process decodes, and what it says of itself."""
    command = [sys.executable, *sys.argv, "--way", way, "--out", str(out)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return load_file(out)["video"], json.loads(said.splitlines()[-1])


@torch.inference_mode()
def one(options: Options) -> None:
    """Decode in one way, after a small decode that warms up, and tell seconds and growth in MiB."""
    codec, latents = network(options)
    theirs = diffusers(codec, options) if "diffusers" in str(options.way) else None
    tiling = Tiling(options.tile, options.overlap)

    def decode(z: Tensor) -> Tensor:
        if theirs is not None:
            return theirs.decode(z.transpose(1, 2) / codec.config.scale).sample.transpose(1, 2)
        return tiled_decode(codec, z, tiling) if options.way == "tiles" else codec.decode(z)

    decode(latents[:, :1, :, :2, :2])
    before, began = resident(), time.perf_counter()
    video = decode(latents)
    row = {"seconds": time.perf_counter() - began, "MiB": resident() - before}
    assert options.out is not None
    save_file({"video": video.contiguous()}, options.out)
    print(json.dumps(row))


def network(options: Options) -> tuple[CausalVAE, Tensor]:
    """Our network, and smooth latents for it."""
    torch.manual_seed(0)
    tensors, config = read_vae(options.weights) if options.weights else ({}, SMALL)
    codec = CausalVAE(config).eval()
    if tensors:
        files.fill(codec, tensors, source=f"'{options.weights}'")
    else:
        for name, parameter in codec.named_parameters():
            if ".conv2." in name or ".attention.out." in name:
                parameter.data *= 0.1
    size = codec.latent_frames(options.frames), options.height // 8, options.width // 8
    rough = torch.randn(1, config.channels, *(-(-side // 3) for side in size))
    return codec, torch.nn.functional.interpolate(rough, size=size, mode="trilinear").transpose(1, 2)


def diffusers(codec: CausalVAE, options: Options) -> Any:
    """Their network with the same weights, whole or in the same tiles."""
    from diffusers import AutoencoderKLHunyuanVideo

    config = codec.config
    theirs = AutoencoderKLHunyuanVideo(
        latent_channels=config.channels,
        block_out_channels=config.widths,
        layers_per_block=config.blocks,
        norm_num_groups=config.groups,
    ).eval()
    theirs.load_state_dict({renamed(name, VAE_NAMES): tensor for name, tensor in codec.state_dict().items()})
    theirs.use_framewise_decoding = "tiles" in str(options.way)
    if theirs.use_framewise_decoding:
        steps = [tile - overlap for tile, overlap in zip(options.tile, options.overlap, strict=True)]
        theirs.enable_tiling(*options.tile[1:], options.tile[0], *steps[1:], steps[0])
    return theirs


def psnr(tiled: Tensor, whole: Tensor) -> float:
    """In dB, over the range of `whole`."""
    return float(10 * torch.log10((whole.max() - whole.min()) ** 2 / (tiled - whole).square().mean()))


def resident() -> float:
    """The largest resident size of this process so far, in MiB (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(tyro.cli(Options))
