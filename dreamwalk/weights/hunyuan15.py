"""The published configs of HunyuanVideo-1.5, in the layout of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dreamwalk.backbones.mmdit_kinds import KindsMMDiTConfig

TRANSFORMER = "HunyuanVideo15Transformer3DModel"


def transformer_config(given: Mapping[str, Any], *, source: str) -> tuple[KindsMMDiTConfig, str | None]:
    """Our config from theirs, and how it is shown a picture: `latent_concat`, or None for words alone.

    KeyError for a size that is missing; ValueError for one that is distilled by MeanFlow, which is also told
    the level of the next step.
    """
    if given.get("use_meanflow"):
        raise ValueError(
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
