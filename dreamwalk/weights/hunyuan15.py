"""The published parts of HunyuanVideo-1.5, in the layout of diffusers: the folders `transformer` and `vae` of
huggingface.co/hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamwalk.backbones.mmdit_kinds import KindsMMDiTConfig
from dreamwalk.codecs.shuffle import ShuffleVAE, ShuffleVAEConfig
from dreamwalk.errors import UserError
from dreamwalk.weights import files
from dreamwalk.weights.hunyuan_vae import FILE, described, renamed, translated

TRANSFORMER = "HunyuanVideo15Transformer3DModel"
SIZES = {
    "latent_channels": "channels",
    "block_out_channels": "widths",
    "layers_per_block": "blocks",
    "scaling_factor": "scale",
}
"""Sizes of the VAE, theirs and ours."""
FIXED = {
    "_class_name": "AutoencoderKLHunyuanVideo15",
    "in_channels": 3,
    "out_channels": 3,
    "spatial_compression_ratio": 16,
    "temporal_compression_ratio": 4,
    "downsample_match_channel": True,
    "upsample_match_channel": True,
}
"""What we know only in one way."""
WORDS = {
    "coder.first.": "coder.conv_in.",
    "coder.last.": "coder.conv_out.",
    "coder.norm.": "coder.norm_out.",
    "encoder.levels.": "encoder.down_blocks.",
    "decoder.levels.": "decoder.up_blocks.",
    ".blocks.": ".resnets.",
    ".middle.before.": ".mid_block.resnets.0.",
    ".middle.after.": ".mid_block.resnets.1.",
    ".middle.attention.norm.": ".mid_block.attentions.0.norm.",
    ".middle.attention.out.": ".mid_block.attentions.0.proj_out.",
    ".middle.attention.": ".mid_block.attentions.0.to_",
    ".norm1.weight": ".norm1.gamma",
    ".norm2.weight": ".norm2.gamma",
    ".norm.weight": ".norm.gamma",
    ".norm_out.weight": ".norm_out.gamma",
    ".resample.": ".{way}.0.",
}
"""Our words of the VAE and theirs, as `hunyuan_vae.WORDS`."""


def transformer_config(given: Mapping[str, Any], *, source: str) -> tuple[KindsMMDiTConfig, str | None]:
    """Our config from theirs, and how it is shown a picture: `latent_concat`, or None for words alone.

    KeyError for a size that is missing; UserError for one that is distilled by MeanFlow, which is also told
    the level of the next step.
    """
    if given.get("use_meanflow"):
        raise UserError(
            f"{source} is of a network distilled by MeanFlow (`use_meanflow`), which cannot be read: take "
            "one without `step_distilled` in its name"
        )
    config = KindsMMDiTConfig(
        channels=given["out_channels"],
        extra=given["in_channels"] - given["out_channels"],
        width=given["num_attention_heads"] * given["attention_head_dim"],
        heads=given["num_attention_heads"],
        dual=given["num_layers"],
        single=0,
        refine=given["num_refiner_layers"],
        patch=(given["patch_size_t"], given["patch_size"], given["patch_size"]),
        text=given["text_embed_dim"],
        pooled=0,
        axes=tuple(given["rope_axes_dim"]),
        theta=given["rope_theta"],
        ratio=int(given["mlp_ratio"]),
        letters=given["text_embed_2_dim"],
        picture=given["image_embed_dim"],
    )
    return config, "latent_concat" if given["task_type"] == "i2v" else None


def public_name(name: str) -> str:
    """`decoder.levels.0.blocks.1.norm1.weight` is `decoder.up_blocks.0.resnets.1.norm1.gamma` to them."""
    return renamed(name, WORDS)


def read_vae(path: Path | str) -> tuple[dict[str, Tensor], ShuffleVAEConfig]:
    """Tensors of a `ShuffleVAE` and its config, from the folder; UserErrors as of `hunyuan_vae.read_vae`."""
    path = Path(path)
    for file in (path / "config.json", path / FILE):
        if not file.is_file():
            raise UserError(f"there is no '{file}': download the whole folder vae of HunyuanVideo-1.5")
    config = ShuffleVAEConfig(**described(path / "config.json", SIZES, fixed=FIXED))
    with torch.device("meta"):
        wanted = ShuffleVAE(config).state_dict()
    source = f"'{path / FILE}'"
    return translated(files.foreign(path / FILE), wanted, name=public_name, source=source), config
