"""Weights in eight bits: every row of a matrix as whole numbers from -127 to 127 and one scale.

For files that ship: half the size of half precision, and a relative error of a row of at most 0.4 % of its
largest weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.layers.quantize import row_scale

SCALE = ":scale"
SMALLEST = 4096
"""Numbers from which a tensor is worth it."""


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Large floating-point matrices in eight bits, with their scales beside them; the rest as it is."""
    packed = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or tensor.numel() < SMALLEST or not tensor.is_floating_point():
            packed[name] = tensor
            continue
        scale = row_scale(tensor, 127)
        packed[name] = (
            (tensor.float().flatten(1) / scale[:, None]).round().to(torch.int8).reshape(tensor.shape)
        )
        packed[name + SCALE] = scale
    return packed


def unpack(tensors: Mapping[str, Tensor], *, source: str = "the file") -> dict[str, Tensor]:
    """The inverse of `pack`, in float32; tensors that were not packed stay as they are.

    UserError for a matrix whose scales are not one for each row.
    """
    whole = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE):
            continue
        scale = tensors.get(name + SCALE)
        if scale is not None:
            if tensor.ndim < 2 or scale.shape != tensor.shape[:1]:
                raise UserError(f"{source} has no scale for each row of '{name}': fetch it again")
            tensor = (tensor.float().flatten(1) * scale[:, None]).reshape(tensor.shape)
        whole[name] = tensor
    return whole
