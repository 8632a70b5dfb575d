"""The public weights of HunyuanVideo's VAE, in the layout of diffusers.

That is `config.json` and `diffusion_pytorch_model.safetensors`, as in the folder `vae` of
huggingface.co/hunyuanvideo-community/HunyuanVideo. Tensors have the same names in Tencent's own file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from dreamwalk.codecs.causal import CausalVAE, CausalVAEConfig, hunyuan
from dreamwalk.errors import UserError
from dreamwalk.validation import assembled, field_types, mending, read_json, required, shorten
from dreamwalk.weights import files

Config = TypeVar("Config")

SOURCE = "huggingface.co/hunyuanvideo-community/HunyuanVideo"
AGAIN = "download it again"
FILE = "diffusion_pytorch_model.safetensors"
SIZES = {
    "latent_channels": "channels",
    "block_out_channels": "widths",
    "layers_per_block": "blocks",
    "norm_num_groups": "groups",
    "scaling_factor": "scale",
}
"""Their sizes and ours."""
FIXED = {
    "_class_name": "AutoencoderKLHunyuanVideo",
    "in_channels": 3,
    "out_channels": 3,
    "act_fn": "silu",
    "spatial_compression_ratio": 8,
    "temporal_compression_ratio": 4,
    "mid_block_add_attention": True,
}
"""What we know only in one way."""
WORDS = {
    "moments.": "quant_conv.",
    "expand.": "post_quant_conv.",
    "coder.first.": "coder.conv_in.",
    "coder.last.": "coder.conv_out.",
    "coder.norm.": "coder.conv_norm_out.",
    "encoder.levels.": "encoder.down_blocks.",
    "decoder.levels.": "decoder.up_blocks.",
    ".blocks.": ".resnets.",
    ".middle.before.": ".mid_block.resnets.0.",
    ".middle.after.": ".mid_block.resnets.1.",
    ".middle.attention.norm.": ".mid_block.attentions.0.group_norm.",
    ".middle.attention.out.": ".mid_block.attentions.0.to_out.0.",
    ".middle.attention.": ".mid_block.attentions.0.to_",
    ".skip.": ".conv_shortcut.conv.",
    ".resample.": ".{way}.0.conv.",
}
"""Our words and theirs, replaced from first to last, `{way}` by where a level leads to."""


def public_name(name: str) -> str:
    """`decoder.levels.0.blocks.1.norm1.weight` is `decoder.up_blocks.0.resnets.1.norm1.weight` to them."""
    return renamed(name, WORDS)


def renamed(name: str, words: Mapping[str, str]) -> str:
    """A name of ours in their words."""
    way = "downsamplers" if name.startswith("encoder.") else "upsamplers"
    for ours, theirs in words.items():
        name = name.replace(ours, theirs.format(way=way))
    return name


def read_vae(path: Path | str) -> tuple[dict[str, Tensor], CausalVAEConfig]:
    """Tensors of a `CausalVAE` and its config, from a folder or from a file with `config.json` beside it.

    A file without one is of the published sizes. UserError with one sentence for a file that is missing or
    damaged, for a config of another network, and for the first tensor that is missing, too much, or of
    another shape.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"there is no '{file}': download it from the folder vae of {SOURCE}")
    beside = file.with_name("config.json")
    config = read_config(beside) if beside.is_file() else hunyuan()
    source, shapes = f"'{file}'", files.read_shapes(file)
    wanted = files.on_meta(lambda: CausalVAE(config), shapes, source=source).state_dict()
    return translated(files.read_tensors(file), wanted, name=public_name, source=source), config


def read_config(path: Path | str) -> CausalVAEConfig:
    """Our config from their `config.json`; UserError if it is damaged or of another network."""
    widths = read_json(Path(path), dict[str, Any], mend=AGAIN).get("block_out_channels", (0,) * 4)
    if isinstance(widths, list) and len(widths) != 4:
        raise UserError(f"'{path}' has {len(widths)} levels; only 4 can be read")
    return described(CausalVAEConfig, path, SIZES, fixed=FIXED)


def described(
    kind: type[Config], path: Path | str, sizes: Mapping[str, str], *, fixed: Mapping[str, Any]
) -> Config:
    """Our config, of a `kind`, from what a `config.json` says of `sizes`.

    UserError if it is damaged, or differs in what is known in one way only.
    """
    given = read_json(Path(path), dict[str, Any], mend=AGAIN)
    for name, value in fixed.items():
        if given.get(name, value) != value:
            raise UserError(f"'{path}' has {name} {shorten(given[name])}; only {value!r} can be read")
    source, hints = f"'{path}'", field_types(kind)  # type: ignore[arg-type]
    known = {theirs: hints[ours] for theirs, ours in sizes.items() if theirs in given}
    with mending(AGAIN):
        said = required(known, given, source)
        return assembled(kind, {}, source, others={sizes[name]: value for name, value in said.items()})


def translated(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, name: Callable[[str], str], source: str
) -> dict[str, Tensor]:
    """Tensors under our names and in our shapes, which may lack last axes of one; `name` gives theirs.

    UserError for the first that is missing, too much, or of another shape.
    """
    tensors = {}
    for ours, meta in wanted.items():
        theirs, shape = name(ours), tuple(meta.shape)
        if theirs not in given:
            raise UserError(f"{source} lacks '{theirs}': it is not of the layout of HunyuanVideo's VAE")
        found = tuple(given[theirs].shape)
        if found != shape + (1,) * (len(found) - len(shape)):
            raise UserError(f"{source} has '{theirs}' of shape {found}, not {shape}: it is of other sizes")
        tensors[ours] = given[theirs].reshape(shape)
    unknown = sorted(set(given) - {name(ours) for ours in wanted})
    if unknown:
        raise UserError(f"{source} also has '{unknown[0]}', which the layout of HunyuanVideo's VAE has not")
    return tensors
