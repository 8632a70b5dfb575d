"""The public weights of Oasis (Etched/oasis-500m: `oasis500m.safetensors`, `vit-l-20.safetensors`).

What a system must do to play them as their authors do (github.com/etched-ai/open-oasis, generate.py):

    frames       360x640, in [-1, 1] for the codec, 20 a second; one prompt frame, resized, is enough
    actions      25 numbers, `ACTIONS`, those of MineRL: buttons 0 or 1; a camera turn of up to 20 degrees
                 either way is divided by 20, cut to steps of 1/40. cameraX is the first of MineRL's pair, the
                 pitch (positive looks down), cameraY the second, the yaw (positive looks right)
    which frame  action i leads into frame i; the first frame of all has the action of zeros
    embedding    a linear layer, `actions`; added to the embedding of the noise level
    steps        10 of DDIM with eta 0: timesteps 999, 899, ..., 99, then clean (`schedules.ddim.ddim_sigmas`)
    noise        normal, cut to +-20, which never happens; it is the VP sample of timestep 999, so multiply it
                 by hypot(1 - sigma, sigma) of the first level (0.99945) for the flow sample
    history      clean latents, neither noised nor scaled, labelled with timestep 14 (their "stabilization
                 level" 15, less one): show them at sigma 0, so `history_sigma` is 0
    window       32 frames with the new one: a cache of 31

Their loop passes all 32 frames through the network at every step. Past frames are causal and always shown
alike, so on a cache they pass once, and up to the 32nd frame the result is the same. From there on their loop
forgets what frames of the window saw of frames before it, and the cache does not; positions are relative.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamwalk.backbones.stdit import STDiT, STDiTConfig, oasis_500m
from dreamwalk.codecs.vit import ViTCodec, ViTCodecConfig, vit_l20
from dreamwalk.errors import UserError
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json
from dreamwalk.world import ActionSchema

HOTBAR = tuple(f"hotbar.{slot}" for slot in range(1, 10))
ACTIONS = (
    "inventory",
    "ESC",
    *HOTBAR,
    "forward",
    "back",
    "left",
    "right",
    "cameraX",
    "cameraY",
    "jump",
    "sneak",
    "sprint",
    "swapHands",
    "attack",
    "use",
    "pickItem",
    "drop",
)
PLAYED = {
    "forward": "forward",
    "back": "back",
    "left": "left",
    "right": "right",
    "place": "use",
    "jump": "jump",
    "sneak": "sneak",
    "sprint": "sprint",
    "attack": "attack",
    "drop": "drop",
    "inventory": "inventory",
    "swap": "swapHands",
    "pick": "pickItem",
    "escape": "ESC",
    **{slot: slot for slot in HOTBAR},
    "yaw": "cameraY",
    "pitch": "cameraX",
}
"""Our names and theirs, in the order of `SCHEMA`."""
SCHEMA = ActionSchema(buttons=tuple(PLAYED)[:-2], axes=("yaw", "pitch"), limits=(20.0, 20.0))
FPS = 20.0
PACE = 4.317 / FPS
"""Blocks that a step of a walk covers (the game's walking speed); for the reckoning of poses only."""
FIELD_OF_VIEW = 70.0
"""Degrees from the top of a frame to its bottom, the game's default."""
FILES = {"oasis500m.safetensors": ("backbone.", "actions."), "vit-l-20.safetensors": ("codec.",)}
"""The two files, and which of our names each holds."""
WORDS = {
    "actions.": "external_cond.",
    "backbone.embed": "x_embedder.proj",
    "backbone.sigma": "t_embedder",
    "backbone.modulation.project": "final_layer.adaLN_modulation.1",
    "backbone.head": "final_layer.linear",
    "backbone.": "",
    ".space.": ".s_",
    ".time.": ".t_",
    "_attention.qkv": "_attn.to_qkv",
    "_attention.out": "_attn.to_out",
    "_feedforward.0": "_mlp.fc1",
    "_feedforward.2": "_mlp.fc2",
    "_modulation.project": "_adaLN_modulation.1",
    "codec.embed": "patch_embed.proj",
    "codec.norm_encoder": "enc_norm",
    "codec.moments": "quant_conv",
    "codec.expand": "post_quant_conv",
    "codec.norm_decoder": "dec_norm",
    "codec.head": "predictor",
    "codec.": "",
    ".norm_attention": ".norm1",
    ".norm_feedforward": ".norm2",
    ".attention.qkv": ".attn.qkv",
    ".attention.out": ".attn.proj",
    ".feedforward.0": ".mlp.fc1",
    ".feedforward.2": ".mlp.fc2",
}
"""Our words and theirs, replaced from first to last."""
ROTARY = re.compile(r"(spatial_|temporal_|blocks\.\d+\.[st]_attn\.)rotary_emb\.freqs")
"""Constants that their file repeats under any of these names; we compute them."""


def parts(backbone: STDiTConfig, codec: ViTCodecConfig) -> nn.ModuleDict:
    """What the two files fill, named as in a system: `backbone`, `actions` and `codec`."""
    actions = nn.Linear(len(ACTIONS), backbone.width)
    return nn.ModuleDict({"backbone": STDiT(backbone), "actions": actions, "codec": ViTCodec(codec)})


def public_name(name: str) -> str:
    """`backbone.blocks.0.time.attention.qkv.weight` is `blocks.0.t_attn.to_qkv.weight` to them."""
    for ours, theirs in WORDS.items():
        name = name.replace(ours, theirs)
    return name


def public_shape(name: str, shape: tuple[int, ...], *, patch: int) -> tuple[int, ...]:
    """Their shape of our tensor: patches go in through a convolution there, through the same matrix here."""
    return (shape[0], shape[1] // patch**2, patch, patch) if name.endswith("embed.weight") else shape


def played(weight: Tensor) -> Tensor:
    """The linear layer `(d, 25)` of `ACTIONS` as one of `SCHEMA`: columns in its order, and as pitch is
    positive upwards here, with that column's sign turned. Both divide degrees by 20."""
    columns = weight[:, [ACTIONS.index(name) for name in PLAYED.values()]]
    return torch.cat([columns[:, :-1], -columns[:, -1:]], dim=1)


def read_oasis(
    folder: Path | str, *, backbone: STDiTConfig | None = None, codec: ViTCodecConfig | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The two public files in `folder` as tensors of `parts` and JSON-able metadata with both configs.

    Sizes are the published ones, or those given. UserError with one sentence for a file that is missing or
    damaged, and for the first tensor that is missing, too much, or of another shape.
    """
    backbone, codec = backbone or oasis_500m(), codec or vit_l20()
    with torch.device("meta"):
        wanted = parts(backbone, codec).state_dict()
    tensors = {}
    for file, prefixes in FILES.items():
        path = Path(folder) / file
        if not path.is_file():
            raise UserError(
                f"'{folder}' lacks {file}: download it there from huggingface.co/Etched/oasis-500m"
            )
        given = _without_rotary(files.read_tensors(path), backbone, source=f"'{path}'")
        patch = backbone.patch if "backbone." in prefixes else codec.patch
        mine = {name: tuple(tensor.shape) for name, tensor in wanted.items() if name.startswith(prefixes)}
        tensors.update(_translated(given, mine, patch=patch, source=f"'{path}'"))
    configs = {"backbone": to_json(backbone), "codec": to_json(codec)}
    return tensors, {"source": "Etched/oasis-500m", "actions": ACTIONS, **configs}


def _translated(
    given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], *, patch: int, source: str
) -> dict[str, Tensor]:
    tensors = {}
    for name, shape in wanted.items():
        theirs, expected = public_name(name), public_shape(name, shape, patch=patch)
        if theirs not in given:
            raise UserError(f"{source} lacks '{theirs}': it is not of the layout of Oasis")
        if given[theirs].shape != expected:
            found = tuple(given[theirs].shape)
            raise UserError(f"{source} has '{theirs}' of shape {found}, not {expected}: it is of other sizes")
        tensors[name] = given[theirs].reshape(shape)
    unknown = sorted(set(given) - {public_name(name) for name in wanted})
    if unknown:
        raise UserError(f"{source} also has '{unknown[0]}', which the layout of Oasis has not")
    return tensors


def _without_rotary(given: Mapping[str, Tensor], backbone: STDiTConfig, *, source: str) -> dict[str, Tensor]:
    """All tensors but the frequencies of rotary positions, which must be the published ones."""
    head = backbone.width // backbone.heads
    space = torch.linspace(1, backbone.max_frequency / 2, head // 4) * torch.pi
    time = 10_000.0 ** (-torch.arange(0, head, 2) / head)
    for name in filter(ROTARY.fullmatch, given):
        expected = space if "spatial" in name or ".s_" in name else time
        found = given[name].float()
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=0.01):
            raise UserError(f"{source} has other frequencies in '{name}' than Oasis was published with")
    return {name: tensor for name, tensor in given.items() if not ROTARY.fullmatch(name)}
