"""HunyuanVideo-1.5 (arXiv 2511.18870) as its authors sample it, from its folder in the layout of diffusers:
huggingface.co/hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from dreamwalk.backbones.mmdit_multi import MultiEncoderMMDiTConfig
from dreamwalk.codecs.shuffle import ShuffleVAEConfig
from dreamwalk.conditions.hunyuan15 import Hunyuan15TextConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.patches import Extent
from dreamwalk.published.vae import MEND
from dreamwalk.systems.moviegen import MoviegenConfig
from dreamwalk.validation import Count, Positive, assembled, conform, mending, read_json, required

TRANSFORMER15 = "HunyuanVideo15Transformer3DModel"
FIELDS: dict[str, Any] = {
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
FIELDS15: dict[str, Any] = {
    "text_embed_2_dim": int,
    "image_embed_dim": int,
    "task_type": Literal["t2v", "i2v"],
}
"""And that of 1.5."""
CLIP_SIZES = {640: (480, 848), 960: (720, 1280)}
"""Height and width of clips, by the side of the square that has as many pixels."""


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
    with mending(MEND):
        said = required(FIELDS | FIELDS15, given, source)
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
    """What `FIELDS` names, as fields of an `MMDiTConfig`."""
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


def hunyuan15_config(
    folder: Path, backbone: MultiEncoderMMDiTConfig, codec: ShuffleVAEConfig, *, words: str, image: str | None
) -> MoviegenConfig:
    """For words, or for pictures where an `image` is shown (arXiv 2511.18870). Size, shift and guidance
    differ from one to another, and are what its configs of the transformer, the scheduler and the guider say.
    """
    side = _said(folder / "transformer" / "config.json", "target_size", int, 640)
    return MoviegenConfig(
        codec=codec,
        backbone=backbone,
        letters=Hunyuan15TextConfig(words, 1 if image else 0),
        pictured=1.0 if image else 0.0,
        shift=_said(folder / "scheduler" / "scheduler_config.json", "shift", Positive, 5.0),
        guidance=_said(folder / "guider" / "guider_config.json", "guidance_scale", float, 6.0),
        frames=121,
        size=CLIP_SIZES.get(side, CLIP_SIZES[640]),
        fps=24.0,
        steps=50,
    )


def _said(path: Path, name: str, kind: Any, otherwise: Any) -> Any:
    """A value of a config, or what is usual if there is none."""
    given = read_json(path, dict[str, Any], mend=MEND) if path.is_file() else {}
    return conform(kind, given.get(name, otherwise), f"'{path}': {name}")
