"""HunyuanVideo-1.5 (arXiv 2511.18870) as its authors sample it, from its folder in the layout of diffusers:
huggingface.co/hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from dreamwalk.backbones.mmdit import MMDiTConfig
from dreamwalk.backbones.mmdit_multi import MultiEncoderMMDiTConfig
from dreamwalk.codecs.shuffle import ShuffleVAEConfig
from dreamwalk.conditions.hunyuan15 import Hunyuan15TextConfig
from dreamwalk.errors import UserError
from dreamwalk.published.vae import MEND
from dreamwalk.systems.moviegen import MoviegenConfig
from dreamwalk.validation import Positive, assembled, conform, field_types, mending, read_json, required

_Config = TypeVar("_Config", bound=MMDiTConfig)
TRANSFORMER15 = "HunyuanVideo15Transformer3DModel"
TRANSFORMER_SIZES = {"num_layers": "double_blocks", "num_refiner_layers": "refiner_blocks"}
TRANSFORMER_SIZES |= {"num_attention_heads": "heads", "text_embed_dim": "text_dim"}
TRANSFORMER_SIZES |= {"rope_axes_dim": "axes", "rope_theta": "theta"}
"""Fields of the config of their transformers, and ours; others follow from these:"""
COMPUTED: dict[str, Any] = {"out_channels": int, "in_channels": int, "attention_head_dim": int}
COMPUTED |= {"patch_size": int, "patch_size_t": int, "mlp_ratio": Positive}
CLIP_SIZES = {640: (480, 848), 960: (720, 1280)}
"""Height and width of clips, by the side of the square that has as many pixels."""


def transformer_config(given: Mapping[str, Any], source: str) -> tuple[MultiEncoderMMDiTConfig, str | None]:
    """Our config from theirs, and its image conditioning: `latent_concat`, or None for text alone.

    UserError for a size that is missing or is none, and for a network distilled by MeanFlow, which has the
    sigma of the next step as an input too.
    """
    if given.get("use_meanflow"):
        raise UserError(
            f"{source} is of a network distilled by MeanFlow (`use_meanflow`), which cannot be read: take "
            "one without `step_distilled` in its name"
        )
    names = {"text_embed_2_dim": "glyph_dim", "image_embed_dim": "image_dim"}
    fixed = {"single_blocks": 0, "pooled_dim": 0}
    with mending(MEND):
        config = transformer_sizes(MultiEncoderMMDiTConfig, given, names, source, fixed)
        task = required({"task_type": Literal["t2v", "i2v"]}, given, source)["task_type"]
    return config, "latent_concat" if task == "i2v" else None


def transformer_sizes(
    kind: type[_Config], given: Mapping[str, Any], names: dict[str, str], source: str, fixed: dict[str, int]
) -> _Config:
    """A config of some `kind` from theirs; `names` are its own fields besides `TRANSFORMER_SIZES`."""
    hints, names = field_types(kind), TRANSFORMER_SIZES | names  # type: ignore[arg-type]
    said = required(COMPUTED | {theirs: hints[ours] for theirs, ours in names.items()}, given, source)
    channels, side = said["out_channels"], said["patch_size"]
    sizes = {"channels": channels, "cond_channels": said["in_channels"] - channels}
    sizes |= {"width": said["num_attention_heads"] * said["attention_head_dim"]}
    sizes |= {"patch": (said["patch_size_t"], side, side), "ratio": int(said["mlp_ratio"])}
    sizes |= {ours: said[theirs] for theirs, ours in names.items()}
    return assembled(kind, sizes | fixed, source)


def hunyuan15_config(
    folder: Path, backbone: MMDiTConfig, codec: ShuffleVAEConfig, encoders: str, *, image: str | None
) -> MoviegenConfig:
    """For text, or for a first frame with `image` (arXiv 2511.18870). Size, shift and guidance
    differ from one to another, and are what its configs of the transformer, the scheduler and the guider say.
    """
    side = _said(folder / "transformer" / "config.json", "target_size", int, 640)
    shift = _said(folder / "scheduler" / "scheduler_config.json", "shift", Positive, 5.0)
    guidance = _said(folder / "guider" / "guider_config.json", "guidance_scale", float, 6.0)
    encoder, size = Hunyuan15TextConfig(encoders, 1 if image else 0), CLIP_SIZES.get(side, CLIP_SIZES[640])
    config = MoviegenConfig(codec, backbone, encoder, shift=shift, guidance=guidance, size=size)
    return replace(config, image_prob=1.0 if image else 0.0, frames=121, fps=24.0, steps=50)


def _said(path: Path, name: str, kind: Any, otherwise: Any) -> Any:
    """A value of a config, or what is usual if there is none."""
    given = read_json(path, dict[str, Any], mend=MEND) if path.is_file() else {}
    return conform(kind, given.get(name, otherwise), f"'{path}': {name}")
