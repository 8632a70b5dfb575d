"""The public weights of WorldMem (arXiv 2504.12369) as one weight file of ours: `dreamwalk import worldmem`.

zeqixiao/worldmem_checkpoints has three files. They are pickles, so they are opened only with
`--unsafe-pickle`; the same tensors as .safetensors under the same names are taken without. Their licence,
S-Lab License 1.0, is for use that is not commercial. How their authors play them:

    frames       360x640, 10 a second
    actions      25 numbers, `oasis.ACTIONS`, of which few are used, `WORLDMEM_PLAYED`: a turn by a bin of 15
                 degrees is 1 or -1 (cameraX is the pitch, positive down); "drop" stands for use and place
    base         as Oasis, but actions go into the part through time alone, and clean frames have the scale of
                 their label 14
    steps        20 of DDIM with eta 0, without guidance
    window       8 frames with the new one: a cache of 7
    memory       8 frames, shown with an action of zeros
    poses        cameras are x left, y up, z ahead at theirs: rays have other signs, and so have weights here
    next pose    told by a third network from the last latents, see `memory.latent_pose`
    recall       as `released` of `memory.retrieval`, with the window read anew, see `memory.posed_bank`

Names and shapes are those of the files; names in the third are not known here, so its layers are taken in
their order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamwalk.backbones.memory_stdit import MemorySTDiT, MemorySTDiTConfig, worldmem_945m
from dreamwalk.codecs.vit import ViTCodec, ViTCodecConfig, vit_l20
from dreamwalk.data.minedojo import SCHEMA
from dreamwalk.errors import UserError
from dreamwalk.layers import vp
from dreamwalk.memory.latent_pose import LatentPose, LatentPoseConfig
from dreamwalk.memory.posed_bank import PosedBankConfig
from dreamwalk.memory.retrieval import RetrievalMode
from dreamwalk.published.names import Renamed, TensorPart, renamed
from dreamwalk.published.oasis import (
    ACTIONS,
    OASIS_NAMES,
    ImportOasis,
    in_precision,
    minecraft_spec,
    start_pictures,
    without_rotary,
)
from dreamwalk.published.pickles import read_state, safe_or_pickled
from dreamwalk.systems.forcing import ForcingConfig
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

WORLDMEM = "zeqixiao/worldmem_checkpoints"
WORLDMEM_WINDOW, WORLDMEM_STEPS, WORLDMEM_FPS = 8, 20, 10.0
PARTS = {"diffusion_only": ("backbone.", "actions."), "vae_only": ("codec.",)}
"""The two files that there must be, and which of our names each holds."""
POSE_PART = "pose_prediction_model_only"
WORLDMEM_NAMES = {
    ".memory.state": ".pose_cond_mlp", ".memory.": ".r_",
    "backbone.state.pose": "pose_embedder.model", "backbone.state.time": "timestamp_embedding",
    **OASIS_NAMES,
}  # fmt: skip
"""Parts of our names and of theirs, replaced from first to last."""
UNUSED = re.compile(
    r"(?!model\.)[\w.]*|model\.blocks\.\d+\.(temporal_pose_cond_mlp\..*|r_attn\.rotary_emb\.freqs)"
)
"""The noise schedule, which we compute, and layers that nothing is led through."""
WORLDMEM_PLAYED = {name: name for name in ("forward", "back", "left", "right")}
WORLDMEM_PLAYED |= {"place": "drop", "hotbar.1": "hotbar.1", "yaw": "cameraY", "pitch": "cameraX"}
"""Our names and theirs, in the order of `data.minedojo.SCHEMA`."""
HALF_TURN = (-1.0, -1.0, 1.0, -1.0, -1.0, 1.0)
"""Signs of their ray coordinates against ours."""


@dataclass(frozen=True)
class WorldMemSizes:
    """Sizes of the networks; by default the published ones."""

    backbone: MemorySTDiTConfig = field(default_factory=worldmem_945m)
    codec: ViTCodecConfig = field(default_factory=vit_l20)


@dataclass(frozen=True)
class ImportWorldMem(ImportOasis):
    """Make one weight file of dreamwalk from the checkpoints of WorldMem; they are not for commercial use."""

    unsafe_pickle: bool = False
    """Open files that are pickles; take them from nobody but their authors."""
    retrieval: RetrievalMode = "released"
    """How frames are chosen that are recalled: as the public code does, with its faults, or another way."""
    reread: bool = True
    """Read the window anew for each frame, as published; without, a frame takes less."""
    budget: int | None = None
    """Frames that a walk keeps; default: all, 36 KB each."""


def import_worldmem(order: ImportWorldMem) -> None:
    """Read the files of WorldMem and write one of ours; UserError with a sentence for what is wrong."""
    files.check_name(order.out)
    tensors, metadata = worldmem_system(order)
    files.save(order.out, tensors, metadata=metadata)
    print(f"{order.out}: {order.out.stat().st_size / 1e6:.0f} MB; `dreamwalk play {order.out}`")
    print("its licence, S-Lab License 1.0, is for use that is not commercial")


def worldmem_system(
    order: ImportWorldMem, sizes: WorldMemSizes | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a weight file of the system `forcing`, played as its authors play WorldMem.

    Sizes are the published ones, or those given. UserErrors as of `read_worldmem`.
    """
    sizes = sizes or WorldMemSizes()
    starts = start_pictures(order, sizes.codec.size)
    tensors, precision = in_precision(read_worldmem(order, sizes), order.dtype)
    columns, signs = played_columns()
    first = tensors["actions.mlp.0.weight"]
    tensors["actions.mlp.0.weight"] = first[:, columns] * signs.to(first)
    pose, network = read_pose(order, sizes.backbone.channels)
    memory = PosedBankConfig(reread=order.reread, pose=network)
    budget = replace(memory.budget, frames=order.budget, newest=WORLDMEM_WINDOW - 1)
    retrieval = replace(memory.retrieval, mode=order.retrieval)
    memory = replace(memory, budget=budget, retrieval=retrieval)
    config = ForcingConfig(sizes.codec, sizes.backbone, SCHEMA.size, action_layers=1, precision=precision)
    config = replace(config, steps=WORLDMEM_STEPS, spacing="ddim", history_sigma=0.0, memory=memory)
    config = replace(config, window=WORLDMEM_WINDOW - 1)
    world_spec, described = minecraft_spec(SCHEMA, starts, fps=WORLDMEM_FPS, eye=0.0).pack()
    notes = {"trained": f"by its authors: {WORLDMEM}", "data": "Minecraft", "licence": "S-Lab License 1.0"}
    metadata = {"system": "forcing", "config": to_json(config), "world_spec": described, "notes": notes}
    return tensors | pose | world_spec, metadata


def played_columns() -> tuple[list[int], Tensor]:
    """Which of their 25 action numbers each of ours is, and its sign: pitch is positive upwards here."""
    signs = torch.tensor([-1.0 if name == "pitch" else 1.0 for name in WORLDMEM_PLAYED])
    return [ACTIONS.index(name) for name in WORLDMEM_PLAYED.values()], signs


def public_actions(vectors: Tensor) -> Tensor:
    """Their 25 numbers `(..., 25)` of our action vectors `(..., 8)`, as `data.minedojo` reads them."""
    columns, signs = played_columns()
    given = torch.zeros(*vectors.shape[:-1], len(ACTIONS), dtype=vectors.dtype)
    given[..., columns] = vectors * signs.to(vectors)
    return given


def worldmem_modules(sizes: WorldMemSizes) -> nn.ModuleDict:
    """What two of the files fill, named as in a system: `backbone`, `actions` and `codec`."""
    backbone, actions = MemorySTDiT(sizes.backbone), nn.Linear(len(ACTIONS), sizes.backbone.width)
    return nn.ModuleDict({"backbone": backbone, "actions": actions, "codec": ViTCodec(sizes.codec)})


def public_parts_of(name: str) -> list[TensorPart]:
    """Their tensor of one of ours."""
    prefix = "" if name.startswith("codec.") else "model."
    return [TensorPart(prefix + renamed(name, WORLDMEM_NAMES))]


def read_worldmem(order: ImportWorldMem, sizes: WorldMemSizes) -> dict[str, Tensor]:
    """Two of the public files as tensors of `worldmem_modules`.

    UserError with one sentence for a file that is missing, damaged or a pickle that may not be opened, for
    another noise schedule, and for the first tensor that is missing, too much, or of another shape.
    """
    with torch.device("meta"):
        wanted = worldmem_modules(sizes).state_dict()
    tensors: dict[str, Tensor] = {}
    for part, prefixes in PARTS.items():
        path, given = _read_part(order, part)
        if path is None:
            mend = f"download it there from huggingface.co/{WORLDMEM}"
            raise UserError(f"'{order.folder}' lacks {part}.ckpt: {mend}")
        names = without_rotary(given, sizes.backbone, source=f"'{path}'")
        if part == "diffusion_only":
            _check_schedule(given, source=f"'{path}'")
            names = [name for name in names if not UNUSED.fullmatch(name)]
        places = {name: given[name] for name in names}
        mine = {name: tensor for name, tensor in wanted.items() if name.startswith(prefixes)}
        tensors |= Renamed(mine, places, public_parts_of, source=f"'{path}'", layout="WorldMem")
    rays = tensors["backbone.state.pose.0.weight"]
    return tensors | {"backbone.state.pose.0.weight": rays * torch.tensor(HALF_TURN).to(rays)}


def _read_part(order: ImportWorldMem, part: str) -> tuple[Path | None, Mapping[str, Tensor]]:
    """A file of theirs and its tensors, in their order; no path where there is none."""
    path = safe_or_pickled(order.folder / f"{part}.ckpt")
    if path is None:
        return None, {}
    safe = path.suffix == ".safetensors"
    return path, files.read_tensors(path) if safe else read_state(path, trusted=order.unsafe_pickle)


def _check_schedule(given: Mapping[str, Tensor], *, source: str) -> None:
    """UserError for weights that were trained on other noise levels."""
    found, ours = given.get("alphas_cumprod"), vp.abar()
    if found is not None and (
        found.shape != ours.shape or not torch.allclose(found.double(), ours, rtol=0.01, atol=1e-6)
    ):
        raise UserError(f"{source} has another noise schedule than WorldMem was published with")


def read_pose(order: ImportWorldMem, channels: int) -> tuple[dict[str, Tensor], LatentPoseConfig | None]:
    """Tensors of the pose network under the names of a system, and its sizes; None where there is no such
    file. UserError for one of another make."""
    path, given = _read_part(order, POSE_PART)
    if path is None:
        return {}, None
    weights = [name for name, tensor in given.items() if tensor.ndim > 1]
    convolutions = [given[name] for name in weights if given[name].ndim == 4]
    layers = [given[name] for name in weights if given[name].ndim == 2]
    unknown = f"'{path}' is no pose network as it was described: take it away to import without it"
    if len(convolutions) != 3 or len(layers) != 5:
        raise UserError(unknown)
    a, b, c = (len(weight) for weight in convolutions)
    config = LatentPoseConfig((a, b, c), features=len(layers[0]), hidden=len(layers[1]))
    with torch.device("meta"):
        wanted = LatentPose(config, channels=channels, actions=len(ACTIONS)).state_dict()
    ours = [name.removesuffix(".weight") for name in wanted if name.endswith(".weight")]
    theirs = [name.removesuffix(".weight") for name in weights]
    tensors = {}
    for mine, name in zip(ours, theirs, strict=True):
        for kind in (".weight", ".bias"):
            found = given.get(name + kind)
            if found is None or found.shape != wanted[mine + kind].shape:
                raise UserError(unknown)
            tensors[f"memory.pose.{mine}{kind}"] = found.float()
    columns, signs = played_columns()
    first = tensors["memory.pose.motion.0.weight"]
    actions = first[:, [5 + column for column in columns]] * signs
    return tensors | {"memory.pose.motion.0.weight": torch.cat([first[:, :5], actions], 1)}, config
