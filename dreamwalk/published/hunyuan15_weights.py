"""The published parts of HunyuanVideo-1.5, in the layout of diffusers: the folders `transformer` and `vae` of
huggingface.co/hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from dreamwalk.backbones.mmdit_multi import MultiEncoderMMDiTConfig
from dreamwalk.codecs.shuffle import ShuffleVAE, ShuffleVAEConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.patches import Extent
from dreamwalk.published.vae import AGAIN, FILE, described, renamed, translated
from dreamwalk.validation import Count, Positive, assembled, mending, required
from dreamwalk.weights import files

TRANSFORMER = "HunyuanVideo15Transformer3DModel"
SAID: dict[str, Any] = {
    "out_channels": int,
    "in_channels": int,
    "num_attention_heads": int,
    "attention_head_dim": int,
    "num_layers": Count,
    "num_refiner_layers": Count,
    "patch_size": int,
    "patch_size_t": int,
    "text_embed_dim": int,
    "rope_axes_dim": Extent,
    "rope_theta": Positive,
    "mlp_ratio": Positive,
}
"""What the config of any of their transformers says."""
SAID_15: dict[str, Any] = {
    "text_embed_2_dim": int,
    "image_embed_dim": int,
    "task_type": Literal["t2v", "i2v"],
}
"""And that of 1.5."""
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


def transformer_config(
    given: Mapping[str, Any], *, source: str
) -> tuple[MultiEncoderMMDiTConfig, str | None]:
    """Our config from theirs, and how it is shown a picture: `latent_concat`, or None for words alone.

    UserError for a size that is missing or is none, and for one that is distilled by MeanFlow, which is also
    told the level of the next step.
    """
    if given.get("use_meanflow"):
        raise UserError(
            f"{source} is of a network distilled by MeanFlow (`use_meanflow`), which cannot be read: take "
            "one without `step_distilled` in its name"
        )
    with mending(AGAIN):
        said = required(SAID | SAID_15, given, source)
        letters, picture = said["text_embed_2_dim"], said["image_embed_dim"]
        sizes = common_sizes(said) | {
            "single_blocks": 0,
            "pooled_dim": 0,
            "glyph_dim": letters,
            "image_dim": picture,
        }
        config = assembled(MultiEncoderMMDiTConfig, sizes, source)
    return config, "latent_concat" if said["task_type"] == "i2v" else None


def common_sizes(said: Mapping[str, Any]) -> dict[str, Any]:
    """What `SAID` names, as fields of an `MMDiTConfig`."""
    heads, channels = said["num_attention_heads"], said["out_channels"]
    return {
        "channels": channels,
        "cond_channels": said["in_channels"] - channels,
        "width": heads * said["attention_head_dim"],
        "heads": heads,
        "double_blocks": said["num_layers"],
        "refiner_blocks": said["num_refiner_layers"],
        "patch": (said["patch_size_t"], said["patch_size"], said["patch_size"]),
        "text_dim": said["text_embed_dim"],
        "axes": said["rope_axes_dim"],
        "theta": said["rope_theta"],
        "ratio": int(said["mlp_ratio"]),
    }


def public_name(name: str) -> str:
    """`decoder.levels.0.blocks.1.norm1.weight` is `decoder.up_blocks.0.resnets.1.norm1.gamma` to them."""
    return renamed(name, WORDS)


def read_vae(path: Path | str) -> tuple[dict[str, Tensor], ShuffleVAEConfig]:
    """Tensors of a `ShuffleVAE` and its config, from the folder; UserErrors as of `hunyuan_vae.read_vae`."""
    path = Path(path)
    for file in (path / "config.json", path / FILE):
        if not file.is_file():
            raise UserError(f"there is no '{file}': download the whole folder vae of HunyuanVideo-1.5")
    config = described(ShuffleVAEConfig, path / "config.json", SIZES, fixed=FIXED)
    source, shapes = f"'{path / FILE}'", files.read_shapes(path / FILE)
    wanted = files.on_meta(lambda: ShuffleVAE(config), shapes, source=source).state_dict()
    return translated(files.read_tensors(path / FILE), wanted, name=public_name, source=source), config
