"""Published tensors under our names, and the names of HunyuanVideo's transformers, which have two layouts:
diffusers' and their authors'.

What differs by more than a name:

    qkv                  three matrices at diffusers'; in blocks for all tokens, rows of `linear1` at theirs
    out, mlp.2           beside one another in one matrix, in blocks for all tokens
    modulation.project   of the last layer: scale before shift at diffusers'
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dreamwalk.backbones.mmdit import MMDiTConfig
from dreamwalk.backbones.mmdit_multi import MultiEncoderMMDiTConfig
from dreamwalk.errors import UserError
from dreamwalk.weights import files

QKV = "attn.to_q attn.to_k attn.to_v"
TEXT = "context_embedder.time_text_embed"
CLIP = "time_text_embed"
Layers = dict[str, tuple[str, ...]]
"""Of each of our layers, diffusers' and theirs. Several are laid one below the other; `[rows,columns]` of one
are in widths, and of a bias only rows are taken."""


def _mlp(ours: str, diffusers: str, theirs: str) -> Layers:
    """The two linear layers of a small network; `theirs`: its name at theirs, and the names of both."""
    parent, *names = theirs.split()
    first, second = (f"{parent}.{name}" for name in names)
    return {f"{ours}.0": (f"{diffusers}.linear_1", first), f"{ours}.2": (f"{diffusers}.linear_2", second)}


ROOT: Layers = {
    "embed.project": ("x_embedder.proj", "img_in.proj"),
    "refiner.embed": ("context_embedder.proj_in", "txt_in.input_embedder"),
    "modulation.project": ("norm_out.linear[d:] norm_out.linear[:d]", "final_layer.adaLN_modulation.1"),
    "head.project": ("proj_out", "final_layer.linear"),
}
ROOT |= _mlp("refiner.sigma.mlp", f"{TEXT}.timestep_embedder", "txt_in.t_embedder.mlp 0 2")
ROOT |= _mlp("refiner.mean", f"{TEXT}.text_embedder", "txt_in.c_embedder linear_1 linear_2")
ROOT |= _mlp("sigma.mlp", f"{CLIP}.timestep_embedder", "time_in.mlp 0 2")
ROOT |= _mlp("guidance.mlp", f"{CLIP}.guidance_embedder", "guidance_in.mlp 0 2")
ROOT |= _mlp("pooled", f"{CLIP}.text_embedder", "vector_in in_layer out_layer")
MULTI_ENCODER: Layers = ROOT | {
    "sigma.mlp.0": ("time_embed.timestep_embedder.linear_1",),
    "sigma.mlp.2": ("time_embed.timestep_embedder.linear_2",),
    "glyph.0": ("context_embedder_2.norm",), "glyph.1": ("context_embedder_2.linear_1",),
    "glyph.3": ("context_embedder_2.linear_2",), "glyph.5": ("context_embedder_2.linear_3",),
    "image.0": ("image_embedder.norm_in",), "image.1": ("image_embedder.linear_1",),
    "image.3": ("image_embedder.linear_2",), "image.4": ("image_embedder.norm_out",),
    "type_embedding": ("cond_type_embed",),
}  # fmt: skip
"""HunyuanVideo-1.5, which has others besides, or under another name; at diffusers' only."""
REFINER: Layers = {"norm_attention": ("norm1", "norm1"), "norm_feedforward": ("norm2", "norm2")}
REFINER |= {"qkv": (QKV, "self_attn_qkv"), "out": ("attn.to_out.0", "self_attn_proj")}
REFINER |= {"feedforward.0": ("ff.net.0.proj", "mlp.fc1"), "feedforward.2": ("ff.net.2", "mlp.fc2")}
REFINER |= {"modulation.project": ("norm_out.linear", "adaLN_modulation.1")}
DOUBLE: Layers = {
    "video.modulation.project": ("norm1.linear", "img_mod.linear"),
    "video.qkv": (QKV, "img_attn_qkv"), "video.out": ("attn.to_out.0", "img_attn_proj"),
    "video.norm": ("attn.norm_q attn.norm_k", "img_attn_q_norm img_attn_k_norm"),
    "video.mlp.0": ("ff.net.0.proj", "img_mlp.fc1"), "video.mlp.2": ("ff.net.2", "img_mlp.fc2"),
    "text.modulation.project": ("norm1_context.linear", "txt_mod.linear"),
    "text.qkv": ("attn.add_q_proj attn.add_k_proj attn.add_v_proj", "txt_attn_qkv"),
    "text.out": ("attn.to_add_out", "txt_attn_proj"),
    "text.norm": ("attn.norm_added_q attn.norm_added_k", "txt_attn_q_norm txt_attn_k_norm"),
    "text.mlp.0": ("ff_context.net.0.proj", "txt_mlp.fc1"), "text.mlp.2": ("ff_context.net.2", "txt_mlp.fc2"),
}  # fmt: skip
SINGLE: Layers = {"stream.modulation.project": ("norm.linear", "modulation.linear")}
SINGLE |= {"stream.qkv": (QKV, "linear1[:3d]"), "stream.norm": ("attn.norm_q attn.norm_k", "q_norm k_norm")}
SINGLE |= {"stream.mlp.0": ("proj_mlp", "linear1[3d:]"), "stream.mlp.2": ("proj_out[:,d:]", "linear2[:,d:]")}
SINGLE |= {"stream.out": ("proj_out[:,:d]", "linear2[:,:d]")}
BLOCKS = {
    "refiner": ("context_embedder.token_refiner.refiner_blocks", "txt_in.individual_token_refiner.blocks"),
    "double": ("transformer_blocks", "double_blocks"),
    "single": ("single_transformer_blocks", "single_blocks"),
}
DIFFUSERS, TENCENT = 0, 1
PART = re.compile(r"([\w.]+)(?:\[(\d?)(d?):(\d?)(d?)(?:,(d?):(d?))?\])?")


class TensorPart(NamedTuple):
    """A tensor of theirs, or rows and columns of it."""

    name: str
    rows: slice = slice(None)
    columns: slice = slice(None)

    def shape(self, whole: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns, if the tensor has this shape; a bias has one column."""
        count, *others = whole or (1,)
        columns = len(range(math.prod(others))[self.columns]) if others else 1
        return len(range(count)[self.rows]), columns


Parts = Callable[[str], list[TensorPart]]
"""Their tensors of one of ours, by its name."""


Place = Path | Tensor
"""The file in which a tensor lies, or the tensor itself."""


class Renamed(Mapping[str, Tensor]):
    """Tensors under our names and in our shapes, each read from its file when asked for and not kept."""

    def __init__(
        self,
        wanted: dict[str, Tensor],
        places: Mapping[str, Place],
        parts: Parts,
        *,
        source: str,
        layout: str,
    ) -> None:
        """`places`: where each of their tensors is; `parts`: theirs of each of ours.

        UserError for the first tensor of `source` that is missing, too much, or of another shape.
        """
        self.shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
        self.parts, self.places = {name: parts(name) for name in wanted}, places
        known = shapes_of(places)
        for name, given in self.parts.items():
            shape = self.shapes[name]
            for part in given:
                if part.name not in known:
                    raise UserError(f"{source} lacks '{part.name}': it is not {layout}, or not all of it")
            rows, columns = zip(*(part.shape(known[part.name]) for part in given), strict=True)
            if sum(rows) != shape[0] or set(columns) != {math.prod(shape[1:])}:
                raise UserError(
                    f"{source} has '{given[0].name}' of shape {known[given[0].name]}, which does not make "
                    f"'{name}' of {shape}: it is of other sizes than it says"
                )
        used = {part.name for given in self.parts.values() for part in given}
        if unknown := sorted(set(known) - used):
            raise UserError(f"{source} also has '{unknown[0]}', which {layout} has not")

    def __getitem__(self, name: str) -> Tensor:
        found = []
        for part in self.parts[name]:
            place = self.places[part.name]
            if isinstance(place, Tensor):
                found.append(place[(part.rows, part.columns)[: place.ndim]])
                continue
            with files.opened(place) as file:
                given = file.get_slice(part.name)
                cut = (part.rows, part.columns)[: len(given.get_shape())]
                found.append(given[cut] if cut else file.get_tensor(part.name))
        return (found[0] if len(found) == 1 else torch.cat(found)).reshape(self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def shapes_of(places: Mapping[str, Place]) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors by name, read from their files; a tensor that its file lacks is left out."""
    given = {path: files.read_shapes(path) for path in {*places.values()} if isinstance(path, Path)}
    known = {name: tuple(place.shape) for name, place in places.items() if isinstance(place, Tensor)}
    paths = {name: path for name, path in places.items() if isinstance(path, Path)}
    return known | {name: given[path][name] for name, path in paths.items() if name in given[path]}


def renamed(name: str, table: Mapping[str, str]) -> str:
    """A name of ours in their words: `table` is applied from first to last, `{way}` by direction."""
    way = "downsamplers" if name.startswith("encoder.") else "upsamplers"
    for ours, theirs in table.items():
        name = name.replace(ours, theirs.format(way=way))
    return name


def translation(table: Mapping[str, str]) -> Parts:
    """The `parts` of `Renamed` where every tensor of ours is one of theirs, `renamed` by a table."""
    return lambda name: [TensorPart(renamed(name, table))]


def public_parts(name: str, config: MMDiTConfig, layout: int) -> list[TensorPart]:
    """Where a tensor of ours is at diffusers' (layout 0) or theirs (1)."""
    layer, kind = name.rsplit(".", 1)
    prefix, table = "", MULTI_ENCODER if isinstance(config, MultiEncoderMMDiTConfig) else ROOT
    if match := re.fullmatch(r"(refiner\.)?blocks\.(\d+)\.(.+)", layer):
        index, layer = int(match[2]), match[3]
        if match[1]:
            table, group = REFINER, "refiner"
        elif index < config.double_blocks:
            table, group = DOUBLE, "double"
        else:
            table, group, index = SINGLE, "single", index - config.double_blocks
        prefix = f"{BLOCKS[group][layout]}.{index}."
    return [_part(spec, prefix, kind, config.width) for spec in table[layer][layout].split()]


def _part(spec: str, prefix: str, kind: str, width: int) -> TensorPart:
    """`linear1[:3d]` and what stands before and behind it."""
    match = PART.fullmatch(spec)
    assert match is not None, spec
    bounds = [int(match[count] or 1) * width if match[unit] else None for count, unit in ((2, 3), (4, 5))]
    columns = slice(*(width if match[unit] else None for unit in (6, 7)))
    return TensorPart(f"{prefix}{match[1]}.{kind}", slice(*bounds), columns)
