"""Weights in eight bits, or in six or four: whole numbers and scales.

For files that ship. In eight bits every row of a matrix has one scale: half the size of half precision, and a
relative error of at most 0.4 % of the row's largest weight. In fewer every `GROUP` weights of a row have one,
chosen for the least square error of its group; four weights share three bytes, or two.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.layers.quantize import row_scale

SCALE = ":scale"
"""Of the names of scales: `(rows,)` of eight bits, `(rows, *kernel, groups)` of fewer, where weights of a
convolution are in groups of input channels."""
SMALLEST = 4096
"""Numbers from which a tensor is worth it."""
GROUP = 32
SHARES = tuple(0.7 + 0.05 * i for i in range(7))
"""Largest weights of a group that are tried, as shares of the largest that there is: the rest is clipped."""
TOGETHER = 4
"""Weights that share whole bytes."""


def pack(tensors: Mapping[str, Tensor], *, bits: Literal[4, 6, 8] = 8) -> dict[str, Tensor]:
    """Large floating-point tensors in so many bits, with their scales beside them; the rest as it is. Only of
    those whose input channels are whole groups there are fewer than eight."""
    packed = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or tensor.numel() < SMALLEST or not tensor.is_floating_point():
            packed[name] = tensor
        elif bits < 8 and tensor.shape[1] % GROUP == 0:
            channels_last = tensor.float().movedim(1, -1)
            packed[name], scale = _in_groups(channels_last.flatten(0, -2), bits)
            packed[name + SCALE] = scale.unflatten(0, channels_last.shape[:-1])
        else:
            scale = row_scale(tensor, 127)
            rows = (tensor.float().flatten(1) / scale[:, None]).round()
            packed[name], packed[name + SCALE] = rows.to(torch.int8).reshape(tensor.shape), scale
    return packed


def _in_groups(matrix: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Bytes `(r, c bits / 8)` of weights and half-precision scales `(r, c / GROUP)`."""
    groups, most = matrix.unflatten(1, (-1, GROUP)), 2 ** (bits - 1) - 1
    largest = groups.abs().amax(2, keepdim=True).clamp(min=1e-6) / most
    scales = torch.stack([(largest * share).half().float().clamp(min=1e-7) for share in SHARES])
    wholes = (groups / scales).round().clamp(-most, most)
    best = (wholes * scales - groups).square().sum(-1, keepdim=True).argmin(0, keepdim=True)
    scale = scales.gather(0, best)[0]
    numbers = ((groups / scale).round().clamp(-most, most) + most).int().flatten(1)
    words = _shifted(numbers.unflatten(1, (-1, TOGETHER)), bits)
    parts = [words >> 8 * i & 255 for i in range(TOGETHER * bits // 8)]
    return torch.stack(parts, 2).flatten(1).to(torch.uint8), scale[..., 0].half()


def _from_groups(packed: Tensor, scale: Tensor) -> Tensor:
    """The inverse of `_in_groups`."""
    bits = 8 * packed.shape[1] // (GROUP * scale.shape[1])
    words = _shifted(packed.int().unflatten(1, (-1, TOGETHER * bits // 8)), 8)
    numbers = torch.stack([words >> bits * i & 2**bits - 1 for i in range(TOGETHER)], 2).flatten(1)
    weights = numbers.float() - (2 ** (bits - 1) - 1)
    return (weights.unflatten(1, (-1, GROUP)) * scale.float()[..., None]).flatten(1)


def _shifted(parts: Tensor, bits: int) -> Tensor:
    """Numbers `(.., n)` of so many bits one behind the other in a word."""
    return sum((parts[..., i] << bits * i for i in range(1, parts.shape[-1])), start=parts[..., 0])


def unpacked_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes that `unpack` makes of those of a file."""
    whole = {name: shape for name, shape in shapes.items() if not name.endswith(SCALE)}
    scales = {name: shapes.get(name + SCALE, ()) for name in whole}
    grouped = {name: scale for name, scale in scales.items() if len(scale) > 1}
    return whole | {n: (scale[0], GROUP * scale[-1], *scale[1:-1]) for n, scale in grouped.items()}


def unpack(tensors: Mapping[str, Tensor], *, source: str = "the file") -> dict[str, Tensor]:
    """The inverse of `pack`, in float32; tensors that were not packed stay as they are.

    UserError for a matrix whose scales are not those of its rows.
    """
    whole = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE):
            continue
        scale = tensors.get(name + SCALE)
        if scale is None:
            whole[name] = tensor
        elif tensor.ndim >= 2 and scale.shape == tensor.shape[:1]:
            whole[name] = (tensor.float().flatten(1) * scale[:, None]).reshape(tensor.shape)
        elif _is_grouped(tensor, scale):
            rows = _from_groups(tensor, scale.flatten(0, -2))
            whole[name] = rows.unflatten(0, scale.shape[:-1]).movedim(-1, 1).contiguous()
        else:
            raise UserError(f"{source} has no scale for each row of '{name}': fetch it again")
    return whole


def _is_grouped(packed: Tensor, scale: Tensor) -> bool:
    """Whether these are bytes and scales as `_in_groups` gives them."""
    if packed.dtype != torch.uint8 or packed.ndim != 2 or scale.ndim < 2:
        return False
    sizes = [GROUP * scale.shape[-1] * bits // 8 for bits in (4, 6)]
    return len(packed) == prod(scale.shape[:-1]) and packed.shape[1] in sizes
