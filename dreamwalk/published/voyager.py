"""The published HunyuanWorld-Voyager as a weight file of the system `voyager`: `dreamwalk import voyager`.

    Voyager/transformers/mp_rank_00_model_states.pt            the transformer, or with `--context`
    Voyager/transformers/mp_rank_00_model_states_context.pt    all of it and the context blocks
    hunyuan-video-i2v-720p/vae                                 the VAE of HunyuanVideo
    text_encoder_i2v, text_encoder_2                           LLaVA and CLIP; they stay where they are

as in tencent/HunyuanWorld-Voyager, `ckpts` above them or not. What is a pickle is opened only with
`--unsafe-pickle`; the same tensors as .safetensors under the same names are taken without. It is
HunyuanVideo-I2V with latent concatenation, without an embedding of guidance (their `HYVideo-T/2`), and of 50
input channels in place of 33.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from dreamwalk.backbones.context_blocks import begun_from, led_by_context
from dreamwalk.backbones.mmdit import MMDiTConfig
from dreamwalk.conditions.hunyuan import HunyuanTextConfig, TencentTextConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.patches import Extent
from dreamwalk.published.hunyuan import HUBS, IMAGE_STRIDE, tencent_config
from dreamwalk.published.names import TENCENT, Renamed, TensorPart, public_parts, shapes_of
from dreamwalk.published.pickles import places_of, safe_or_pickled
from dreamwalk.published.vae import TENCENT_FILE, read_vae
from dreamwalk.systems import voyager
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

VOYAGER = "tencent/HunyuanWorld-Voyager"
STATES = "Voyager/transformers/mp_rank_00_model_states{}.pt"
VAE = "hunyuan-video-i2v-720p/vae"
CONTEXT_NAMES = {"img_in.": "condition_in.", "double_blocks.0.": "context_block1."}
CONTEXT_NAMES |= {"single_blocks.0.": "context_block2."}
"""Of what the context begins as a copy of, and its own, at theirs."""
GATE_NAMES = {"context.behind_streams.": "zero_linear1.", "context.behind_joint.": "zero_linear2."}


@dataclass(frozen=True)
class ImportVoyager:
    """Make one weight file of dreamwalk from the files of HunyuanWorld-Voyager, in the layout of its
    authors."""

    folder: tyro.conf.Positional[Path]
    """Where the downloaded files lie."""
    out: Path
    """Weight file to write, a .safetensors file."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the transformer, in the file and when it dreams; the VAE stays as it is."""
    context: bool = False
    """Take the transformer with context blocks, which is a file of its own."""
    text_encoders: str = ""
    """Folder of the text encoders as diffusers lays them out, or `hf://owner/name`; default: beside the
    transformer, or diffusers' repository."""
    unsafe_pickle: bool = False
    """Open files that are pickles; take them from nobody but their authors."""


def import_voyager(order: ImportVoyager) -> None:
    """Read the published files and write one of ours; UserError with a sentence for what is wrong."""
    files.check_name(order.out)
    tensors, metadata = voyager_system(order)
    files.save(order.out, tensors, metadata=metadata)
    print(f"{order.out}: {order.out.stat().st_size / 1e9:.2f} GB; docs/systems/voyager.md says how to sample")


def voyager_system(
    order: ImportVoyager, *, axes: Extent = (16, 56, 56)
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a weight file of the system `voyager`.

    `axes` cannot be read from the files. UserErrors as of `read_voyager` and `read_vae`.
    """
    root = order.folder / "ckpts" if (order.folder / "ckpts").is_dir() else order.folder
    name = STATES.format("_context" if order.context else "")
    path = safe_or_pickled(root / name)
    if path is None:
        raise UserError(f"'{root}' lacks {name}: download it there from huggingface.co/{VOYAGER}")
    tensors, backbone = read_voyager(path, trusted=order.unsafe_pickle, axes=axes)
    vae = safe_or_pickled(root / VAE / TENCENT_FILE) or root / VAE
    codec_tensors, codec = read_vae(vae, trusted=order.unsafe_pickle)
    config = replace(voyager.released(), backbone=backbone, codec=codec, precision=order.dtype)
    config = replace(config, text_encoder=_text_encoders(root, order.text_encoders))
    named = {f"backbone.{name}": tensor.to(getattr(torch, order.dtype)) for name, tensor in tensors.items()}
    named |= {f"codec.{name}": tensor for name, tensor in codec_tensors.items()}
    notes = {"trained": f"by its authors: {VOYAGER}", "licence": "Tencent HunyuanWorld-Voyager Community"}
    return named, {"system": "voyager", "config": to_json(config), "notes": notes}


def _text_encoders(root: Path, asked: str) -> HunyuanTextConfig:
    here = all((root / part).is_dir() for part in TencentTextConfig.parts)
    kind, image = TencentTextConfig if here and not asked else HunyuanTextConfig, "latent_concat"
    return kind(
        str(root.resolve()) if kind is TencentTextConfig else asked or HUBS[image], IMAGE_STRIDE[image]
    )


def read_voyager(
    path: Path, *, trusted: bool, axes: Extent = (16, 56, 56)
) -> tuple[Mapping[str, Tensor], MMDiTConfig]:
    """A published transformer, with context blocks or without, and its sizes, read from its shapes; each
    tensor is read when it is asked for.

    UserError with one sentence for a pickle that is not `trusted`, and for the first tensor that is missing,
    too much, or of another shape.
    """
    places, source = places_of(path, trusted=trusted), f"'{path}'"
    config = tencent_config(shapes_of(places), axes, source=source)
    if "condition_in.proj.weight" in places:
        config = led_by_context(config, gap=1, placed="end")
    wanted = files.on_meta(config.build, shapes_of(places), source=source).state_dict()
    parts = lambda name: voyager_parts(name, config)
    return Renamed(wanted, places, parts, source=source, layout="HunyuanWorld-Voyager"), config


def voyager_parts(name: str, config: MMDiTConfig) -> list[TensorPart]:
    """Where a tensor of ours is at theirs."""
    for ours, theirs in GATE_NAMES.items():
        if name.startswith(ours):
            return [TensorPart(name.replace(ours, theirs))]
    if not name.startswith("context."):
        return public_parts(name, config, TENCENT)
    source = begun_from(name, config)
    assert source is not None, name
    parts = public_parts(source, config, TENCENT)
    for base, theirs in CONTEXT_NAMES.items():
        parts = [part._replace(name=part.name.replace(base, theirs, 1)) for part in parts]
    return parts
