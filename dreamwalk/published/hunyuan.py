"""The published HunyuanVideo as one weight file of the system `moviegen`: `dreamwalk import hunyuanvideo`.

    for text                     hunyuanvideo-community/HunyuanVideo, tencent/HunyuanVideo
    images, latent_concat        hunyuanvideo-community/HunyuanVideo-I2V-33ch
    images, token_replace        hunyuanvideo-community/HunyuanVideo-I2V, tencent/HunyuanVideo-I2V
    1.5, text or images          hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v and its kin

Diffusers' layout is a folder with `config.json` and safetensors, perhaps in shards with an index. The
authors' is one pickled file, which is not opened: as safetensors, under the same names, it is. Its sizes are
read from its shapes, which do not tell token replacement from text alone.

The text encoders stay where they are, and the file names them. That of HunyuanVideo-I2V also sees the first
frame, of whose tokens every second is kept for latent concatenation and every fourth for token replacement
(`image_embed_interleave` of diffusers' `HunyuanVideoImageToVideoPipeline`).
"""

from __future__ import annotations

import math
import re
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
from dreamwalk.published.names import BLOCKS, DIFFUSERS, TENCENT, Renamed, public_parts, shapes_of
from dreamwalk.published.vae import MEND, read_vae, read_vae15
from dreamwalk.systems.moviegen import MoviegenConfig
from dreamwalk.validation import mending, read_json, relative_path, required
from dreamwalk.weights import files
from dreamwalk.weights.config import from_json, to_json

Image = Literal["latent_concat", "token_replace"]
_HUB = "hf://hunyuanvideo-community/HunyuanVideo"
HUBS = {None: _HUB, "latent_concat": f"{_HUB}-I2V-33ch", "token_replace": f"{_HUB}-I2V"}
"""Repositories of text encoders for a transformer that comes without, by its image conditioning."""
IMAGE_STRIDE = {None: 0, "latent_concat": 2, "token_replace": 4}
"""The text encoder keeps every so many-th token of the image."""
_PARTS = {"img_in.proj.weight": "transformer", "quant_conv.weight": "VAE"}
"""A tensor of each of the two files of its authors."""

OWN_SIZES = {"num_single_layers": "single_blocks", "pooled_projection_dim": "pooled_dim"}
OWN_SIZES |= {"guidance_embeds": "guidance"}
"""Fields of the config of the first HunyuanVideo's transformer, and ours."""


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
    text_encoders: str = ""
    """Folder of the text encoders as diffusers lays them out, or `hf://owner/name`; default: beside the
    transformer, or diffusers' repository."""
    image: Image | None = None
    """Image conditioning of its authors' file, which does not say `token_replace`."""


def import_hunyuan(order: ImportHunyuan) -> None:
    """Read the published files and write one of ours; UserError with a sentence for what is wrong."""
    files.check_name(order.out)
    tensors, metadata = hunyuan_system(order)
    files.save(order.out, tensors, metadata=metadata)
    size = order.out.stat().st_size / 1e9
    print(f"{order.out}: {size:.2f} GB; `dreamwalk sample {order.out} --prompt ...`")


def hunyuan_system(
    order: ImportHunyuan, *, axes: Extent = (16, 56, 56)
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a weight file of the system `moviegen`.

    `axes` are read by nobody but from diffusers' config. UserErrors as of `read_hunyuan` and `read_vae`.
    """
    folder, encoders = order.folder, order.text_encoders
    if (folder / "transformer").is_dir():
        transformer, vae = folder / "transformer", folder / "vae"
        encoders = encoders or str(folder.resolve())
    else:
        transformer, vae = _parts(folder)
    tensors, about = read_hunyuan(transformer, axes=axes)
    backbone = from_json(ClipBackboneConfig, about["backbone"])
    if isinstance(backbone, MultiEncoderMMDiTConfig):
        codec_tensors, second = read_vae15(vae)
        config = hunyuan15.hunyuan15_config(folder, backbone, second, encoders, image=about["image"])
    else:
        codec_tensors, first = read_vae(vae)
        config = hunyuan_config(backbone, first, encoders, image=about["image"] or order.image)
    config, dtype = replace(config, precision=order.dtype), getattr(torch, order.dtype)
    named = {f"backbone.{name}": tensor.to(dtype) for name, tensor in tensors.items()}
    named |= {f"codec.{name}": tensor for name, tensor in codec_tensors.items()}
    notes = {"trained": "by its authors: HunyuanVideo", "licence": "Tencent Hunyuan Community License"}
    return named, {"system": "moviegen", "config": to_json(config), "notes": notes}


def hunyuan_config(
    backbone: MMDiTConfig, codec: CausalVAEConfig, text_encoders: str, *, image: Image | None
) -> MoviegenConfig:
    """HunyuanVideo as its authors sample it (arXiv 2412.03603, section 4), for text or for a first frame.

    `text_encoders`: their folder, or empty for diffusers' repository. With latent concatenation, the first
    two latents do not fit together: a clip begins after them.
    """
    encoder = HunyuanTextConfig(text_encoders or HUBS[image], IMAGE_STRIDE[image])
    config = MoviegenConfig(codec, backbone, encoder, shift=7.0, steps=50, guidance=1.0, image_prob=0.0)
    config = replace(config, embedded_guidance=6.0 if backbone.guidance else None)
    config = replace(config, frames=129, size=(720, 1280), fps=24.0)
    if image:
        config = replace(config, image_prob=1.0, image_mix=0.001)
    return replace(config, discard_frames=4, frames=125) if backbone.cond_channels else config


def _parts(folder: Path) -> tuple[Path, Path]:
    """Its authors' two files; UserError for one that is missing."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        names = files.read_shapes(path)
        found |= {part: path for name, part in _PARTS.items() if name in names}
    for part in _PARTS.values():
        if part not in found:
            raise UserError(
                f"'{folder}' holds no {part} of HunyuanVideo as .safetensors, and no folder `transformer` as "
                "diffusers has: download all of it, and convert what is a pickle"
            )
    return found["transformer"], found["VAE"]


def read_hunyuan(path: Path, *, axes: Extent = (16, 56, 56)) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """A published transformer as tensors of `MMDiT`, read one by one when asked for, and JSON-able metadata:
    its config as `backbone`, and as `image` its image conditioning (None, `latent_concat`, `token_replace`).

    `path` is diffusers' folder, or that of the whole pipeline, or their file as safetensors, of which `axes`
    cannot be read. UserError with one sentence for what is missing, too much, pickled or of other sizes.
    """
    if path.is_dir():
        folder = path / "transformer" if (path / "transformer").is_dir() else path
        config, image = _diffusers_config(folder)
        places, layout = _diffusers_places(folder), DIFFUSERS
    else:
        if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
            raise UserError(
                f"'{path}' is a pickle, which can run code when loaded: convert it to safetensors, or take "
                "the folder of diffusers"
            )
        places, layout = dict.fromkeys(files.read_shapes(path), path), TENCENT
        config = tencent_config(shapes_of(places), axes, source=f"'{path}'")
        image = "latent_concat" if config.cond_channels else None
    source = f"'{path}'"
    wanted = files.on_meta(config.build, shapes_of(places), source=source).state_dict()
    parts = lambda name: public_parts(name, config, layout)
    tensors = Renamed(wanted, places, parts, source=source, layout="HunyuanVideo")
    return tensors, {"source": "HunyuanVideo", "image": image, "backbone": to_json(config)}


def _diffusers_places(folder: Path) -> dict[str, Path]:
    """The file of every tensor: as the index says, or all in the only file."""
    index = sorted(folder.glob("diffusion_pytorch_model*.safetensors.index.json"))
    if index:
        source, given = f"'{index[0]}'", read_json(index[0], mend=MEND)
        with mending(MEND):
            said = required({"weight_map": dict[str, str]}, given, source)
            named = said["weight_map"].items()
            return {name: folder / relative_path(file, f"{source}: {name}") for name, file in named}
    single = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    if not single:
        raise UserError(f"'{folder}' lacks diffusion_pytorch_model.safetensors: download the whole folder")
    return dict.fromkeys(files.read_shapes(single[0]), single[0])


def _diffusers_config(folder: Path) -> tuple[MMDiTConfig, str | None]:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"'{folder}' lacks config.json: it is not a folder of diffusers")
    given = read_json(path, dict[str, Any], mend=MEND)
    known = "HunyuanVideoTransformer3DModel", hunyuan15.TRANSFORMER15
    if given.get("_class_name") not in known:
        raise UserError(f"'{path}' is of {given.get('_class_name')}, not of HunyuanVideo's transformer")
    if given["_class_name"] == hunyuan15.TRANSFORMER15:
        return hunyuan15.transformer_config(given, source=f"'{path}'")
    with mending(MEND):
        image = {"image_condition_type": None} | given
        said = required({"image_condition_type": Image | None}, image, f"'{path}'")
        config = hunyuan15.transformer_sizes(MMDiTConfig, given, OWN_SIZES, f"'{path}'", {})
        return config, said["image_condition_type"]


def tencent_config(shapes: Mapping[str, tuple[int, ...]], axes: Extent, *, source: str) -> MMDiTConfig:
    """Sizes of a transformer from the shapes under its authors' names, but for its axes; UserError for those
    of something else."""
    try:
        width, inputs, *patch = shapes["img_in.proj.weight"]
        channels = shapes["final_layer.linear.weight"][0] // math.prod(patch)
        (p, q, r), heads = patch, width // shapes["single_blocks.0.q_norm.weight"][0]
        text, pooled = shapes["txt_in.input_embedder.weight"][1], shapes["vector_in.in_layer.weight"][1]
        sizes = channels, inputs - channels, width, heads, (p, q, r), text, pooled
        refiner, double, single = (
            len({match[0] for name in shapes if (match := re.match(rf"{blocks}\.\d+\.", name))})
            for blocks in (re.escape(names[TENCENT]) for names in BLOCKS.values())
        )
        ratio = shapes["double_blocks.0.img_mlp.fc1.weight"][0] // width
        config = MMDiTConfig(*sizes, double, single, refiner, axes=axes, ratio=ratio)
        return replace(config, guidance="guidance_in.mlp.0.weight" in shapes)
    except (LookupError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{source} is not of the layout of HunyuanVideo ({error})") from None
