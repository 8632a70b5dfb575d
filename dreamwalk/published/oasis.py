"""The public weights of Oasis as one weight file of the system `forcing`: `dreamwalk import oasis`.

Etched/oasis-500m has two files, `oasis500m.safetensors` and `vit-l-20.safetensors`. How their authors play
them (github.com/etched-ai/open-oasis, generate.py):

    frames       360x640, in [-1, 1] for the codec, 20 a second; one prompt frame, resized, is enough
    actions      25 numbers, `ACTIONS`, those of MineRL: buttons 0 or 1; a camera turn of up to 20 degrees
                 either way is divided by 20, cut to steps of 1/40. cameraX is the first of MineRL's pair, the
                 pitch (positive looks down), cameraY the second, the yaw (positive looks right)
    which frame  action i leads into frame i; the first frame of all has the action of zeros
    embedding    a linear layer, `actions`; added to the embedding of sigma
    steps        10 of DDIM with eta 0: timesteps 999, 899, ..., 99, then clean (`schedules.ddim.ddim_sigmas`)
    noise        normal, cut to +-20, which never happens; it is the VP sample of timestep 999, so multiply it
                 by hypot(1 - sigma, sigma) of the first sigma (0.99945) for the flow sample
    history      clean latents, neither noised nor scaled, labelled with timestep 14 (their "stabilization
                 level" 15, less one): sigma 0 here, so `history_sigma` is 0
    window       32 frames with the new one: a cache of 31

Their loop passes all 32 frames through the network at every step. Past frames are causal and always have
the same label, so on a cache they pass once, and up to the 32nd frame the result is the same. From there on
their loop forgets what frames of the window saw of frames before it, and the cache does not; positions are
relative.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from dreamwalk.backbones.stdit import STDiT, STDiTConfig, oasis_500m
from dreamwalk.cameras import intrinsics_matrix
from dreamwalk.codecs.vit import ViTCodec, ViTCodecConfig, vit_l20
from dreamwalk.data.minedojo import FIELD_OF_VIEW
from dreamwalk.data.vpt import SCHEMA
from dreamwalk.errors import UserError
from dreamwalk.images import Fit, fit_image, read_picture
from dreamwalk.published.names import Renamed, translation
from dreamwalk.rollout.dream import WorldSpec
from dreamwalk.systems.forcing import ForcingConfig
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json
from dreamwalk.world import ActionSchema

SOURCE = "Etched/oasis-500m"
WINDOW = 32
"""Frames that the published network sees, the new one among them."""
STEPS = 10
Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: dict[torch.dtype, Precision] = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
ACTIONS = (
    *("inventory", "ESC", *(f"hotbar.{slot}" for slot in range(1, 10))),
    *("forward", "back", "left", "right", "cameraX", "cameraY", "jump", "sneak", "sprint"),
    *("swapHands", "attack", "use", "pickItem", "drop"),
)
"""Of MineRL, in the order of the network's input."""
MINERL = {"place": "use", "swap": "swapHands", "pick": "pickItem", "escape": "ESC"}
MINERL |= {"yaw": "cameraY", "pitch": "cameraX"}
PLAYED = {name: MINERL.get(name, name) for name in SCHEMA.buttons + SCHEMA.axes}
"""Our names and theirs, in the order of `SCHEMA`."""
FPS = 20.0
WALK_SPEED = 4.317
"""Blocks per second, the game's; for the estimate of poses only."""
FILES = {"oasis500m.safetensors": ("backbone.", "actions."), "vit-l-20.safetensors": ("codec.",)}
"""The two files, and which of our names each holds."""
OASIS_NAMES = {
    "actions.": "external_cond.",
    "backbone.embed": "x_embedder.proj", "backbone.sigma": "t_embedder",
    "backbone.modulation.project": "final_layer.adaLN_modulation.1", "backbone.head": "final_layer.linear",
    "backbone.": "", ".space.": ".s_", ".time.": ".t_",
    "_attention.qkv": "_attn.to_qkv", "_attention.out": "_attn.to_out",
    "_feedforward.0": "_mlp.fc1", "_feedforward.2": "_mlp.fc2",
    "_modulation.project": "_adaLN_modulation.1",
    "codec.embed": "patch_embed.proj", "codec.norm_encoder": "enc_norm", "codec.moments": "quant_conv",
    "codec.expand": "post_quant_conv", "codec.norm_decoder": "dec_norm", "codec.head": "predictor",
    "codec.": "", ".norm_attention": ".norm1", ".norm_feedforward": ".norm2",
    ".attention.qkv": ".attn.qkv", ".attention.out": ".attn.proj",
    ".feedforward.0": ".mlp.fc1", ".feedforward.2": ".mlp.fc2",
}  # fmt: skip
"""Parts of our names and of theirs, replaced from first to last."""
ROTARY = re.compile(r"(?:model\.)?(spatial_|temporal_|blocks\.\d+\.[st]_attn\.)rotary_emb\.freqs")
"""Constants that their file repeats under any of these names; we compute them."""


@dataclass(frozen=True)
class OasisSizes:
    """Sizes of the two networks; by default the published ones."""

    backbone: STDiTConfig = field(default_factory=oasis_500m)
    codec: ViTCodecConfig = field(default_factory=vit_l20)


@dataclass(frozen=True)
class ImportOasis:
    """Make one weight file of dreamwalk from files that others published, to play, sample or train on."""

    folder: tyro.conf.Positional[Path]
    """Where the downloaded files lie."""
    out: Path
    """Weight file to write, a .safetensors file."""
    start: tuple[Path, ...] = ()
    """Pictures to begin from."""
    fit: Fit = "letterbox"
    """How images of another shape are fitted: whole between bars, stretched, or cut about the middle."""
    dtype: Precision | None = None
    """Of the network, in the file and when it dreams; default: as published. The codec is in float32."""


def import_oasis(order: ImportOasis) -> None:
    """Read the two files of Oasis and write one of ours; UserError with a sentence for what is wrong."""
    files.check_name(order.out)
    tensors, metadata = oasis_system(order)
    files.save(order.out, tensors, metadata=metadata)
    size = order.out.stat().st_size / 1e6
    print(f"{order.out}: {size:.0f} MB; walk in it with `dreamwalk play {order.out}`")
    if not order.start:
        hint = "give it pictures with `--start`, or drop one onto the page"
        print(f"it begins from a drawn horizon, which it was never shown: {hint}")


def oasis_system(
    order: ImportOasis, sizes: OasisSizes | None = None, *, window: int = WINDOW, steps: int = STEPS
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a weight file of the system `forcing`, played as its authors play Oasis.

    Sizes are the published ones, or those given. UserErrors as of `read_oasis`.
    """
    sizes = sizes or OasisSizes()
    starts = start_pictures(order, sizes.codec.size)
    tensors, about = read_oasis(order.folder, sizes)
    tensors, precision = in_precision(tensors, order.dtype)
    tensors["actions.mlp.0.weight"] = played(tensors["actions.mlp.0.weight"])
    config = ForcingConfig(sizes.codec, sizes.backbone, SCHEMA.size, action_layers=1, precision=precision)
    config = replace(config, steps=steps, spacing="ddim", history_sigma=0.0, window=window - 1)
    world_spec, described = minecraft_spec(SCHEMA, starts, fps=FPS, eye=1.62).pack()
    notes = {"trained": f"by its authors: {about['source']}", "data": "Minecraft"}
    metadata = {"system": "forcing", "config": to_json(config), "world_spec": described, "notes": notes}
    return tensors | world_spec, metadata


def start_pictures(order: ImportOasis, size: tuple[int, int]) -> np.ndarray:
    """The pictures to begin from, uint8 `(k, h, w, 3)`; a drawn one where none is given."""
    given = [fit_image(read_picture(path), size, order.fit) for path in order.start]
    return np.stack(given or [horizon(size)])


def in_precision(
    tensors: Mapping[str, Tensor], asked: Precision | None
) -> tuple[dict[str, Tensor], Precision]:
    """Tensors under the names of a system, all but the codec's in the precision asked for or their own; which
    that is."""
    precision = asked or PRECISIONS.get(tensors["backbone.embed.weight"].dtype, "float32")
    own = getattr(torch, precision)
    names = {name: name.replace("actions.", "actions.mlp.0.") for name in tensors}
    return {
        names[name]: t if name.startswith("codec.") else t.to(own) for name, t in tensors.items()
    }, precision


def minecraft_spec(schema: ActionSchema, starts: np.ndarray, *, fps: float, eye: float) -> WorldSpec:
    """Every start stands at the origin, its eye so many blocks above, and looks along x."""
    height, width = starts.shape[1:3]
    pose = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, eye], [0, 0, 0, 1]], np.float32)
    focal = height / 2 / np.tan(np.deg2rad(FIELD_OF_VIEW / 2))
    intrinsics = intrinsics_matrix(focal, focal, cx=width / 2, cy=height / 2)
    poses = np.stack([pose] * len(starts))
    return WorldSpec(schema, fps, starts, poses, intrinsics, walk_speed=WALK_SPEED / fps)


def horizon(size: tuple[int, int]) -> np.ndarray:
    """A plain first frame, sky over ground, uint8 `(h, w, 3)`."""
    height = np.linspace(1, -1, size[0])[:, None, None]
    sky = np.array([198, 218, 255]) + height * np.array([-70, -45, 0])
    ground = np.array([124, 168, 92]) + height * np.array([40, 50, 30])
    return np.broadcast_to(np.where(height > 0, sky, ground), (*size, 3)).astype(np.uint8)


def oasis_modules(sizes: OasisSizes) -> nn.ModuleDict:
    """What the two files fill, named as in a system: `backbone`, `actions` and `codec`."""
    backbone, actions = STDiT(sizes.backbone), nn.Linear(len(ACTIONS), sizes.backbone.width)
    return nn.ModuleDict({"backbone": backbone, "actions": actions, "codec": ViTCodec(sizes.codec)})


def public_shape(name: str, shape: tuple[int, ...], *, patch: int) -> tuple[int, ...]:
    """Their shape of our tensor: patches go in through a convolution there, through the same matrix here."""
    return (shape[0], shape[1] // patch**2, patch, patch) if name.endswith("embed.weight") else shape


def played(weight: Tensor) -> Tensor:
    """The linear layer `(d, 25)` of `ACTIONS` as one of `SCHEMA`: columns in its order, and as pitch is
    positive upwards here, with that column's sign turned. Both divide degrees by 20."""
    columns = weight[:, [ACTIONS.index(name) for name in PLAYED.values()]]
    return torch.cat([columns[:, :-1], -columns[:, -1:]], dim=1)


def read_oasis(folder: Path, sizes: OasisSizes | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The two public files in `folder` as tensors of `oasis_modules`, and metadata with both configs.

    Sizes are the published ones, or those given. UserError with one sentence for a file that is missing or
    damaged, and for the first tensor that is missing, too much, or of another shape.
    """
    sizes = sizes or OasisSizes()
    with torch.device("meta"):
        wanted = oasis_modules(sizes).state_dict()
    tensors: dict[str, Tensor] = {}
    for file, prefixes in FILES.items():
        path = folder / file
        if not path.is_file():
            raise UserError(f"'{folder}' lacks {file}: download it there from huggingface.co/{SOURCE}")
        given = files.read_tensors(path)
        places = dict.fromkeys(without_rotary(given, sizes.backbone, source=f"'{path}'"), path)
        mine = {name: tensor for name, tensor in wanted.items() if name.startswith(prefixes)}
        tensors |= Renamed(mine, places, translation(OASIS_NAMES), source=f"'{path}'", layout="Oasis")
    configs = {"backbone": to_json(sizes.backbone), "codec": to_json(sizes.codec)}
    return tensors, {"source": SOURCE, "actions": ACTIONS, **configs}


def without_rotary(given: Mapping[str, Tensor], backbone: STDiTConfig, *, source: str) -> list[str]:
    """All names but those of rotary frequencies, which must be the published ones."""
    head = backbone.width // backbone.heads
    space = torch.linspace(1, backbone.max_frequency / 2, head // 4) * torch.pi
    time = 10_000.0 ** (-torch.arange(0, head, 2) / head)
    for name in filter(ROTARY.fullmatch, given):
        expected = space if "spatial" in name or ".s_" in name else time
        found = given[name].float()
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=0.01):
            raise UserError(f"{source} has other frequencies in '{name}' than Oasis was published with")
    return [name for name in given if not ROTARY.fullmatch(name)]
