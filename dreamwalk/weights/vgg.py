"""Weights of the perceptual distance: VGG16 as torchvision has it, and with it the heads of LPIPS if known.

One safetensors file with `features.0.weight` to `features.28.bias`, which torchvision's `vgg16` gives as its
state dict, and `lin0.model.1.weight` to `lin4.model.1.weight`, which are LPIPS v0.1 for that network
(github.com/richzhang/PerceptualSimilarity). Without these heads all channels weigh the same.
"""

from __future__ import annotations

from pathlib import Path

import torch

from dreamwalk.codecs.perceptual import FIRST, Perceptual
from dreamwalk.errors import UserError
from dreamwalk.weights import files


def read_perceptual(path: Path | str) -> Perceptual:
    """The distance whose weights are in a file, with its widths.

    UserError with one sentence for a file that is missing, damaged or of another layout.
    """
    given = files.foreign(path)
    missing = [name for name in (f"features.{index}.weight" for index in FIRST) if name not in given]
    if missing:
        raise UserError(f"'{path}' lacks '{missing[0]}': it is not of the layout of torchvision's vgg16")
    perceptual = Perceptual(tuple(given[f"features.{index}.weight"].shape[0] for index in FIRST))
    if not any(name.startswith("lin") for name in given):
        ones = {name: torch.ones_like(p) for name, p in perceptual.named_parameters() if "lin" in name}
        given |= ones
    files.fill(perceptual, given, source=f"'{path}'")
    return perceptual
