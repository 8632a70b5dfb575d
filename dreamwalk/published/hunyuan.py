"""The published HunyuanVideo as one weight file of the system `moviegen`: `dreamwalk import hunyuanvideo`.

Its text encoders stay where they are, and the file names them. That of HunyuanVideo-I2V also looks at the
first picture, of whose tokens every second is kept for latent concatenation and every fourth for token
replacement (`image_embed_interleave` of diffusers' `HunyuanVideoImageToVideoPipeline`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from dreamwalk.backbones import ClipBackboneConfig
from dreamwalk.backbones.mmdit import MMDiTConfig
from dreamwalk.backbones.mmdit_multi import MultiEncoderMMDiTConfig
from dreamwalk.codecs.causal import CausalVAEConfig
from dreamwalk.conditions.hunyuan import HunyuanTextConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.patches import Extent
from dreamwalk.published import hunyuan15
from dreamwalk.published import hunyuan15_weights as weights15
from dreamwalk.published.hunyuan_weights import read_hunyuan
from dreamwalk.published.vae import read_vae
from dreamwalk.systems.moviegen import MoviegenConfig
from dreamwalk.weights import files
from dreamwalk.weights.config import from_json, to_json

Image = Literal["latent_concat", "token_replace"]
HUB = "hf://hunyuanvideo-community/HunyuanVideo"
HUBS = {None: HUB, "latent_concat": f"{HUB}-I2V-33ch", "token_replace": f"{HUB}-I2V"}
"""Where text encoders are that come with no transformer, by how it is shown a picture."""
EVERY = {None: 0, "latent_concat": 2, "token_replace": 4}
"""Of the tokens of a picture it is told every so many-th."""
PARTS = {"img_in.proj.weight": "transformer", "quant_conv.weight": "VAE"}
"""By which tensor its authors' files are told apart."""


@dataclass(frozen=True)
class ImportHunyuan:
    """Make one weight file of dreamwalk from HunyuanVideo's files, in the layout of diffusers or as
    safetensors under its authors' names."""

    folder: tyro.conf.Positional[Path]
    """Where the downloaded files lie."""
    out: Path
    """Weight file to write, a .safetensors file."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the transformer, in the file and when it dreams; the VAE stays as it is."""
    words: str = ""
    """Folder of the text encoders as diffusers lays them out, or `hf://owner/name`; default: beside the
    transformer, or diffusers' repository."""
    image: Image | None = None
    """How its authors' file is shown a picture, which it does not say when it is `token_replace`."""


def import_weights(order: ImportHunyuan) -> None:
    """Read the published files and write one of ours; UserError with a sentence for what is wrong."""
    files.check_name(order.out)
    tensors, metadata = hunyuan_system(order.folder, words=order.words, image=order.image, dtype=order.dtype)
    files.save(order.out, tensors, metadata=metadata)
    print(
        f"{order.out}: {order.out.stat().st_size / 1e9:.2f} GB; `dreamwalk sample {order.out} --prompt ...`"
    )


def hunyuan_system(
    folder: Path | str,
    *,
    words: str = "",
    image: Image | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    axes: Extent = (16, 56, 56),
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a weight file of the system `moviegen`.

    `axes` are read by nobody but from diffusers' config. UserErrors as of `read_hunyuan` and `read_vae`.
    """
    folder = Path(folder)
    if (folder / "transformer").is_dir():
        transformer, vae = folder / "transformer", folder / "vae"
        words = words or str(folder.resolve())
    else:
        transformer, vae = _parts(folder)
    tensors, about = read_hunyuan(transformer, axes=axes)
    backbone = from_json(ClipBackboneConfig, about["backbone"])
    if isinstance(backbone, MultiEncoderMMDiTConfig):
        codec_tensors, second = weights15.read_vae(vae)
        config = hunyuan15.published(folder, backbone, second, words=words, image=about["image"])
    else:
        image = about["image"] or image
        codec_tensors, first = read_vae(vae)
        config = published(backbone, first, words=words or HUBS[image], image=image)
    config = replace(config, precision=dtype)
    named = _named("backbone", tensors, getattr(torch, dtype)) | _named("codec", codec_tensors, None)
    notes = {"trained": "by its authors: HunyuanVideo", "licence": "Tencent Hunyuan Community License"}
    return named, {"system": "moviegen", "config": to_json(config), "notes": notes}


def published(
    backbone: MMDiTConfig, codec: CausalVAEConfig, *, words: str, image: Image | None
) -> MoviegenConfig:
    """HunyuanVideo as its authors sample it (arXiv 2412.03603, section 4), for text or for pictures.

    Where a picture is shown beside the latents, the first two latents are not at peace with one another:
    a clip begins after them.
    """
    beside = backbone.cond_channels > 0
    return MoviegenConfig(
        codec=codec,
        backbone=backbone,
        letters=HunyuanTextConfig(words, EVERY[image]),
        shift=7.0,
        pictured=1.0 if image else 0.0,
        hint=0.001 if image else 0.0,
        lead=4 if beside else 0,
        frames=125 if beside else 129,
        size=(720, 1280),
        fps=24.0,
        steps=50,
        guidance=1.0,
        embedded=6.0 if backbone.guidance else None,
    )


def _named(part: str, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}


def _parts(folder: Path) -> tuple[Path, Path]:
    """Its authors' two files; UserError for one that is missing."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        with files.opened(path, header=True) as file:
            names = set(file.keys())
        found |= {part: path for name, part in PARTS.items() if name in names}
    for part in PARTS.values():
        if part not in found:
            raise UserError(
                f"'{folder}' holds no {part} of HunyuanVideo as .safetensors, and no folder `transformer` as "
                "diffusers has: download all of it, and convert what is a pickle"
            )
    return found["transformer"], found["VAE"]
