"""Weights in eight bits, or in four: whole numbers and scales.

For files that ship. In eight bits every row of a matrix has one scale: half the size of half precision, and a
relative error of at most 0.4 % of the row's largest weight. In four bits every `GROUP` weights of a row have
one, chosen for the least square error of its group; two weights share a byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.layers.quantize import row_scale

SCALE = ":scale"
"""Of the scales' names: `(rows,)` of eight bits, `(rows, groups)` of four."""
SMALLEST = 4096
"""Numbers from which a tensor is worth it."""
GROUP = 32
MOST = 7
"""Of a weight in four bits, up and down."""
SHARES = tuple(0.7 + 0.05 * i for i in range(7))
"""Largest weights of a group that are tried, as shares of the largest that there is: the rest is clipped."""


def pack(tensors: Mapping[str, Tensor], *, bits: Literal[4, 8] = 8) -> dict[str, Tensor]:
    """Large floating-point tensors in so many bits, with their scales beside them; the rest as it is. In four
    bits only matrices whose rows are made of whole groups; others get eight."""
    packed = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or tensor.numel() < SMALLEST or not tensor.is_floating_point():
            packed[name] = tensor
        elif bits == 4 and tensor.ndim == 2 and tensor.shape[1] % GROUP == 0:
            packed[name], packed[name + SCALE] = _in_four(tensor.float())
        else:
            scale = row_scale(tensor, 127)
            rows = (tensor.float().flatten(1) / scale[:, None]).round()
            packed[name], packed[name + SCALE] = rows.to(torch.int8).reshape(tensor.shape), scale
    return packed


def _in_four(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Two weights a byte `(r, c / 2)` and half-precision scales `(r, c / GROUP)`."""
    groups = matrix.unflatten(1, (-1, GROUP))
    largest = groups.abs().amax(2, keepdim=True).clamp(min=1e-6) / MOST
    scales = torch.stack([(largest * share).half().float().clamp(min=1e-7) for share in SHARES])
    wholes = (groups / scales).round().clamp(-MOST, MOST)
    best = (wholes * scales - groups).square().sum(-1, keepdim=True).argmin(0, keepdim=True)
    scale = scales.gather(0, best)[0]
    numbers = ((groups / scale).round().clamp(-MOST, MOST) + 8).to(torch.uint8).flatten(1)
    return numbers[:, ::2] | numbers[:, 1::2] << 4, scale[..., 0].half()


def unpacked_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes that `unpack` makes of those of a file."""
    whole = {name: shape for name, shape in shapes.items() if not name.endswith(SCALE)}
    four = {name for name in whole if len(shapes.get(name + SCALE, ())) == 2 and len(whole[name]) == 2}
    return whole | {name: (whole[name][0], 2 * whole[name][1]) for name in four}


def unpack(tensors: Mapping[str, Tensor], *, source: str = "the file") -> dict[str, Tensor]:
    """The inverse of `pack`, in float32; tensors that were not packed stay as they are.

    UserError for a matrix whose scales are not those of its rows.
    """
    whole = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE):
            continue
        scale = tensors.get(name + SCALE)
        if scale is not None:
            rows = len(tensor) if tensor.ndim else 0
            four = tensor.ndim == 2 and scale.shape == (rows, 2 * tensor.shape[1] // GROUP)
            if tensor.ndim < 2 or not (four or scale.shape == (rows,)):
                raise UserError(f"{source} has no scale for each row of '{name}': fetch it again")
            if four:
                numbers = torch.stack([tensor & 15, tensor >> 4], 2).flatten(1).float() - 8
                tensor = (numbers.unflatten(1, (-1, GROUP)) * scale.float()[..., None]).flatten(1)
            else:
                tensor = (tensor.float().flatten(1) * scale[:, None]).reshape(tensor.shape)
        whole[name] = tensor
    return whole
