"""The public weights of HunyuanVideo's VAEs, in the layout of diffusers.

That is `config.json` and `diffusion_pytorch_model.safetensors`, as in the folder `vae` of
huggingface.co/hunyuanvideo-community/HunyuanVideo and of
huggingface.co/hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v and its kin. Tencent's own file,
`pytorch_model.pt`, is a pickle whose tensors have the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from dreamwalk.codecs.causal import CausalVAEConfig, hunyuan_vae
from dreamwalk.codecs.shuffle import ShuffleVAEConfig
from dreamwalk.errors import UserError
from dreamwalk.published.names import Renamed, TensorPart, renamed, shapes_of
from dreamwalk.published.pickles import places_of
from dreamwalk.validation import assembled, field_types, mending, read_json, required, shorten
from dreamwalk.weights import files

_Config = TypeVar("_Config", CausalVAEConfig, ShuffleVAEConfig)

SOURCE = "huggingface.co/hunyuanvideo-community/HunyuanVideo"
MEND = "download it again"
FILE, TENCENT_FILE = "diffusion_pytorch_model.safetensors", "pytorch_model.pt"
PREFIX = "vae."
"""Before the names of theirs, where other tensors may be beside them."""
VAE_SIZES = {"latent_channels": "channels", "block_out_channels": "widths", "layers_per_block": "blocks"}
VAE_SIZES |= {"scaling_factor": "scale", "norm_num_groups": "groups"}
"""Their sizes and ours."""
VAE_FIXED: dict[str, Any] = {"_class_name": "AutoencoderKLHunyuanVideo", "mid_block_add_attention": True}
VAE_FIXED |= {"in_channels": 3, "out_channels": 3, "act_fn": "silu"}
VAE_FIXED |= {"spatial_compression_ratio": 8, "temporal_compression_ratio": 4}
"""Values of their config that cannot differ."""
TENCENT_FIXED = VAE_FIXED | {"_class_name": "AutoencoderKLCausal3D", "time_compression_ratio": 4}
VAE15_FIXED = VAE_FIXED | {"_class_name": "AutoencoderKLHunyuanVideo15", "spatial_compression_ratio": 16}
VAE15_FIXED |= {"downsample_match_channel": True, "upsample_match_channel": True}
VAE_NAMES = {
    "moments.": "quant_conv.", "expand.": "post_quant_conv.", "coder.first.": "coder.conv_in.",
    "coder.last.": "coder.conv_out.", "coder.norm.": "coder.conv_norm_out.",
    "encoder.levels.": "encoder.down_blocks.", "decoder.levels.": "decoder.up_blocks.",
    ".blocks.": ".resnets.",
    ".middle.before.": ".mid_block.resnets.0.", ".middle.after.": ".mid_block.resnets.1.",
    ".middle.attention.norm.": ".mid_block.attentions.0.group_norm.",
    ".middle.attention.out.": ".mid_block.attentions.0.to_out.0.",
    ".middle.attention.": ".mid_block.attentions.0.to_",
    ".skip.": ".conv_shortcut.conv.", ".resample.": ".{way}.0.conv.",
}  # fmt: skip
"""Parts of our names and of theirs, replaced from first to last."""
VAE15_NAMES = VAE_NAMES | {"coder.norm.": "coder.norm_out.", ".resample.": ".{way}.0."}
VAE15_NAMES |= {".middle.attention.norm.": ".mid_block.attentions.0.norm."}
VAE15_NAMES |= {".middle.attention.out.": ".mid_block.attentions.0.proj_out."}
VAE15_NAMES |= {f".{norm}.weight": f".{norm}.gamma" for norm in ("norm1", "norm2", "norm", "norm_out")}


def read_vae(path: Path, *, trusted: bool = False) -> tuple[Mapping[str, Tensor], CausalVAEConfig]:
    """Tensors of a `CausalVAE` and its config, from a folder or from a file with `config.json` beside it.

    A file without one is of the published sizes; a pickle is opened if it is `trusted`. UserError with one
    sentence for a file that is missing or damaged, for a config of another network, and for the first tensor
    that is missing, too much, or of another shape.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"there is no '{file}': download it from the folder vae of {SOURCE}")
    beside, config = file.with_name("config.json"), hunyuan_vae()
    if beside.is_file():
        widths = read_json(beside, dict[str, Any], mend=MEND).get("block_out_channels", (0,) * 4)
        if isinstance(widths, list) and len(widths) != 4:
            raise UserError(f"'{beside}' has {len(widths)} levels; only 4 can be read")
        fixed = TENCENT_FIXED if file.stem == Path(TENCENT_FILE).stem else VAE_FIXED
        config = _read_config(CausalVAEConfig, beside, fixed)
    return _tensors(config, file, VAE_NAMES, trusted=trusted), config


def read_vae15(path: Path) -> tuple[Mapping[str, Tensor], ShuffleVAEConfig]:
    """Tensors of a `ShuffleVAE` and its config, from the folder of HunyuanVideo-1.5; UserErrors as of
    `read_vae`."""
    for file in (path / "config.json", path / FILE):
        if not file.is_file():
            raise UserError(f"there is no '{file}': download the whole folder vae of HunyuanVideo-1.5")
    config = _read_config(ShuffleVAEConfig, path / "config.json", VAE15_FIXED)
    return _tensors(config, path / FILE, VAE15_NAMES), config


def _read_config(kind: type[_Config], path: Path, fixed: Mapping[str, Any]) -> _Config:
    """Our config from theirs; UserError if it is damaged, or differs in what is `fixed`."""
    given = read_json(path, dict[str, Any], mend=MEND)
    for name, value in fixed.items():
        if given.get(name, value) != value:
            raise UserError(f"'{path}' has {name} {shorten(given[name])}; only {value!r} can be read")
    source, hints = f"'{path}'", field_types(kind)  # type: ignore[arg-type]
    known = {theirs: hints[ours] for theirs, ours in VAE_SIZES.items() if theirs in given and ours in hints}
    with mending(MEND):
        said = required(known, given, source)
        return assembled(kind, {}, source, others={VAE_SIZES[name]: value for name, value in said.items()})


def _tensors(
    config: CausalVAEConfig | ShuffleVAEConfig, file: Path, names: Mapping[str, str], *, trusted: bool = False
) -> Mapping[str, Tensor]:
    source, places = f"'{file}'", places_of(file, trusted=trusted)
    prefix = PREFIX if any(name.startswith(PREFIX) for name in places) else ""
    places = {name: place for name, place in places.items() if name.startswith(prefix)}
    parts = lambda name: [TensorPart(prefix + renamed(name, names))]
    wanted = files.on_meta(config.build, shapes_of(places), source=source).state_dict()
    return Renamed(wanted, places, parts, source=source, layout="HunyuanVideo's VAE")
