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
    shapes, source = files.read_shapes(path), f"'{path}'"
    missing = [n for n in (f"features.{index}.weight" for index in FIRST) if len(shapes.get(n, ())) != 4]
    if missing:
        raise UserError(f"{source} lacks '{missing[0]}': it is not of the layout of torchvision's vgg16")
    widths = tuple(shapes[f"features.{index}.weight"][0] for index in FIRST)
    light = files.on_meta(lambda: Perceptual(widths), shapes, source=source)
    heads = {name: tuple(p.shape) for name, p in light.named_parameters() if "lin" in name}
    without = not any(name.startswith("lin") for name in shapes)
    files.check_shapes(light, shapes | heads if without else shapes, source=source)
    given, perceptual = files.read_tensors(path), Perceptual(widths)
    if without:
        given |= {name: torch.ones(shape) for name, shape in heads.items()}
    files.fill(perceptual, given, source=source)
    return perceptual
