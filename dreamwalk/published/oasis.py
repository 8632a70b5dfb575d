"""Weights that others trained and published, as weight files of ours: `dreamwalk import NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from dreamwalk.backbones.stdit import STDiTConfig, oasis_500m
from dreamwalk.cameras import intrinsics_matrix
from dreamwalk.codecs.vit import ViTCodecConfig, vit_l20
from dreamwalk.images import Fit, fit_image, read_picture
from dreamwalk.published import oasis_weights as oasis
from dreamwalk.rollout.dream import WorldSpec
from dreamwalk.systems.forcing import ForcingConfig
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

WINDOW = 32
"""Frames that the published network sees, the new one among them."""
STEPS = 10
Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: dict[torch.dtype, Precision] = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


@dataclass(frozen=True)
class Import:
    """Make one weight file of dreamwalk from files that others published, to play, sample or train on."""

    folder: tyro.conf.Positional[Path]
    """Where the downloaded files lie."""
    out: Path
    """Weight file to write, a .safetensors file."""
    start: tuple[Path, ...] = ()
    """Pictures to begin from."""
    fit: Fit = "letterbox"
    """What becomes of pictures of another shape: whole between bars, stretched, or cut about the middle."""
    dtype: Precision | None = None
    """Of the network, in the file and when it dreams; default: as published. The codec is in float32."""


def import_weights(order: Import) -> None:
    """Read the two files of Oasis and write one of ours; UserError with a sentence for what is wrong."""
    files.check_name(order.out)
    tensors, metadata = oasis_system(order.folder, starts=order.start, fit=order.fit, dtype=order.dtype)
    files.save(order.out, tensors, metadata=metadata)
    print(
        f"{order.out}: {order.out.stat().st_size / 1e6:.0f} MB; walk in it with `dreamwalk play {order.out}`"
    )
    if not order.start:
        hint = "give it pictures with `--start`, or drop one onto the page"
        print(f"it begins from a drawn horizon, which it was never shown: {hint}")


def oasis_system(
    folder: Path | str,
    *,
    starts: Sequence[Path] = (),
    backbone: STDiTConfig | None = None,
    codec: ViTCodecConfig | None = None,
    window: int = WINDOW,
    steps: int = STEPS,
    dtype: Precision | None = None,
    fit: Fit = "letterbox",
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a weight file of the system `forcing`, played as its authors play Oasis.

    Sizes are the published ones, or those given, and so is the precision of the network. UserErrors as of
    `published.oasis_weights.read_oasis`.
    """
    backbone, codec = backbone or oasis_500m(), codec or vit_l20()
    pictures = [picture(path, codec.size, fit) for path in starts] or [horizon(codec.size)]
    tensors, about = oasis.read_oasis(folder, backbone=backbone, codec=codec)
    precision = dtype or PRECISIONS.get(tensors["backbone.embed.weight"].dtype, "float32")
    own = getattr(torch, precision)
    tensors = {name: t if name.startswith("codec.") else t.to(own) for name, t in tensors.items()}
    linear = {
        "mlp.0.weight": oasis.played(tensors.pop("actions.weight")),
        "mlp.0.bias": tensors.pop("actions.bias"),
    }
    config = ForcingConfig(
        codec=codec,
        backbone=backbone,
        actions=oasis.SCHEMA.size,
        action_layers=1,
        steps=steps,
        spacing="ddim",
        history_sigma=0.0,
        window=window - 1,
        precision=precision,
    )
    walkable, described = _walkable(np.stack(pictures)).pack()
    notes = {"trained": f"by its authors: {about['source']}", "data": "Minecraft"}
    metadata = {"system": "forcing", "config": to_json(config), "walkable": described, "notes": notes}
    return tensors | {f"actions.{name}": part for name, part in linear.items()} | walkable, metadata


def _walkable(starts: np.ndarray) -> WorldSpec:
    """Every start stands at the origin, its eye 1.62 above the ground, and looks along x."""
    height, width = starts.shape[1:3]
    pose = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.62], [0, 0, 0, 1]], np.float32)
    focal = height / 2 / np.tan(np.deg2rad(oasis.FIELD_OF_VIEW / 2))
    return WorldSpec(
        actions=oasis.SCHEMA,
        fps=oasis.FPS,
        starts=starts,
        poses=np.stack([pose] * len(starts)),
        intrinsics=intrinsics_matrix(focal, focal, cx=width / 2, cy=height / 2),
        pace=oasis.PACE,
    )


def picture(path: Path, size: tuple[int, int], how: Fit = "letterbox") -> np.ndarray:
    """A picture file as uint8 `(h, w, 3)`; UserError when it is none."""
    return fit_image(read_picture(path), size, how)


def horizon(size: tuple[int, int]) -> np.ndarray:
    """A plain picture to begin from, sky over ground, uint8 `(h, w, 3)`."""
    height = np.linspace(1, -1, size[0])[:, None, None]
    sky = np.array([198, 218, 255]) + height * np.array([-70, -45, 0])
    ground = np.array([124, 168, 92]) + height * np.array([40, 50, 30])
    return np.broadcast_to(np.where(height > 0, sky, ground), (*size, 3)).astype(np.uint8)
