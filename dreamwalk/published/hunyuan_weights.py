"""The published transformers of HunyuanVideo, in the layout of diffusers and in that of their authors.

    for words                    hunyuanvideo-community/HunyuanVideo, tencent/HunyuanVideo
    images, latent_concat        hunyuanvideo-community/HunyuanVideo-I2V-33ch
    images, token_replace        hunyuanvideo-community/HunyuanVideo-I2V, tencent/HunyuanVideo-I2V
    1.5, words or images         hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v and its kin

Diffusers' is a folder with `config.json` and safetensors, perhaps in shards with an index. The authors' is
one pickled file, which is not opened: as safetensors, under the same names, it is. Its sizes are read from
its shapes; that it is for token replacement it does not say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dreamwalk.backbones import build_video_backbone
from dreamwalk.backbones.mmdit import MMDiTConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.patches import Extent
from dreamwalk.published import hunyuan15_weights as hunyuan15
from dreamwalk.published.names import BLOCKS, DIFFUSERS, TENCENT, public_parts
from dreamwalk.published.vae import AGAIN
from dreamwalk.validation import Count, assembled, mending, read_json, relative_path, required
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

SIZES = {"num_single_layers": "single", "pooled_projection_dim": "pooled", "guidance_embeds": "guidance"}
"""Of the first HunyuanVideo besides `hunyuan15.SAID`, theirs and ours."""
SAID: dict[str, Any] = {
    "num_single_layers": Count,
    "pooled_projection_dim": Count,
    "guidance_embeds": bool,
    "image_condition_type": Literal["latent_concat", "token_replace"] | None,
}


class Renamed(Mapping[str, Tensor]):
    """Tensors under our names, each read from its file when it is asked for and not kept."""

    def __init__(self, config: MMDiTConfig, places: Mapping[str, Path], *, layout: int, source: str) -> None:
        known = _shapes(places)
        wanted = files.on_meta(lambda: build_video_backbone(config), known, source=source).state_dict()
        self.shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
        self.parts = {name: public_parts(name, config, layout) for name in wanted}
        self.places = places
        self._check(known, source)

    def __getitem__(self, name: str) -> Tensor:
        found = []
        for part in self.parts[name]:
            with files.opened(self.places[part.name]) as file:
                given = file.get_slice(part.name)
                matrix = len(given.get_shape()) == 2
                found.append(given[part.rows, part.columns] if matrix else given[part.rows])
        return (found[0] if len(found) == 1 else torch.cat(found)).reshape(self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def _check(self, known: files.Shapes, source: str) -> None:
        for name, parts in self.parts.items():
            shape = self.shapes[name]
            for part in parts:
                if part.name not in known:
                    raise UserError(f"{source} lacks '{part.name}': it is not HunyuanVideo, or not all of it")
            rows, columns = zip(*(part.shape(known[part.name]) for part in parts), strict=True)
            if sum(rows) != shape[0] or set(columns) != {math.prod(shape[1:])}:
                raise UserError(
                    f"{source} has '{parts[0].name}' of shape {known[parts[0].name]}, which does not make "
                    f"'{name}' of {shape}: it is of other sizes than it says"
                )
        unknown = sorted(set(known) - {part.name for parts in self.parts.values() for part in parts})
        if unknown:
            raise UserError(f"{source} also has '{unknown[0]}', which HunyuanVideo has not")


def read_hunyuan(
    path: Path | str, *, axes: Extent = (16, 56, 56)
) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """A published transformer as tensors of `MMDiT`, read one by one when asked for, and JSON-able metadata:
    its config as `backbone`, and as `image` how it is shown one (None, `latent_concat`, `token_replace`).

    `path` is diffusers' folder, or that of the whole pipeline, or their file as safetensors, of which `axes`
    cannot be read. UserError with one sentence for what is missing, too much, pickled or of other sizes.
    """
    path = Path(path)
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
        with files.opened(path) as file:
            places, layout = dict.fromkeys(file.keys(), path), TENCENT
        config = _tencent_config(_shapes(places), axes, source=f"'{path}'")
        image = "latent_concat" if config.extra else None
    tensors = Renamed(config, places, layout=layout, source=f"'{path}'")
    return tensors, {"source": "HunyuanVideo", "image": image, "backbone": to_json(config)}


def _shapes(places: Mapping[str, Path]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for path in set(places.values()):
        with files.opened(path) as file:
            here = [name for name in places if places[name] == path and name in file.keys()]  # noqa: SIM118
            shapes.update({name: tuple(file.get_slice(name).get_shape()) for name in here})
    return shapes


def _diffusers_places(folder: Path) -> dict[str, Path]:
    """The file of every tensor: as the index says, or all in the only file."""
    index = sorted(folder.glob("diffusion_pytorch_model*.safetensors.index.json"))
    if index:
        source, given = f"'{index[0]}'", read_json(index[0], mend=AGAIN)
        with mending(AGAIN):
            said = required({"weight_map": dict[str, str]}, given, source)
            named = said["weight_map"].items()
            return {name: folder / relative_path(file, f"{source}: {name}") for name, file in named}
    single = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    if not single:
        raise UserError(f"'{folder}' lacks diffusion_pytorch_model.safetensors: download the whole folder")
    with files.opened(single[0]) as file:
        return dict.fromkeys(file.keys(), single[0])


def _diffusers_config(folder: Path) -> tuple[MMDiTConfig, str | None]:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"'{folder}' lacks config.json: it is not a folder of diffusers")
    given = read_json(path, dict[str, Any], mend=AGAIN)
    known = "HunyuanVideoTransformer3DModel", hunyuan15.TRANSFORMER
    if given.get("_class_name") not in known:
        raise UserError(f"'{path}' is of {given.get('_class_name')}, not of HunyuanVideo's transformer")
    if given["_class_name"] == hunyuan15.TRANSFORMER:
        return hunyuan15.transformer_config(given, source=f"'{path}'")
    with mending(AGAIN):
        said = required(hunyuan15.SAID | SAID, {"image_condition_type": None} | given, f"'{path}'")
        sizes = hunyuan15.common_sizes(said) | {ours: said[theirs] for theirs, ours in SIZES.items()}
        return assembled(MMDiTConfig, sizes, f"'{path}'"), said["image_condition_type"]


def _tencent_config(shapes: Mapping[str, tuple[int, ...]], axes: Extent, *, source: str) -> MMDiTConfig:
    try:
        width, inputs, *patch = shapes["img_in.proj.weight"]
        channels = shapes["final_layer.linear.weight"][0] // math.prod(patch)
        counts = (
            len({match[0] for name in shapes if (match := re.match(rf"{blocks}\.\d+\.", name))})
            for blocks in (re.escape(names[TENCENT]) for names in BLOCKS.values())
        )
        refine, dual, single = counts
        return MMDiTConfig(
            channels=channels,
            extra=inputs - channels,
            width=width,
            heads=width // shapes["single_blocks.0.q_norm.weight"][0],
            dual=dual,
            single=single,
            refine=refine,
            patch=(patch[0], patch[1], patch[2]),
            text=shapes["txt_in.input_embedder.weight"][1],
            pooled=shapes["vector_in.in_layer.weight"][1],
            guidance="guidance_in.mlp.0.weight" in shapes,
            axes=axes,
            ratio=shapes["double_blocks.0.img_mlp.fc1.weight"][0] // width,
        )
    except (LookupError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{source} is not of the layout of HunyuanVideo ({error})") from None
