"""Rotary positions over time, height and width.

The head dimension is split into [nT, nH, nW] parts, each rotated by its own axis (HunyuanVideo, arXiv
2412.03603, section 3.2; the same split in Next-Frame Diffusion, arXiv 2506.01380). Scores depend on
differences of positions only, so an absolute frame index may grow forever: angles are computed in float64 and
only then rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dreamwalk.errors import UserError


def head_width(width: int, heads: int, *, multiple: int = 2, least: int = 2) -> int:
    """The width of one of `heads`; UserError, with the nearest width that can be had, unless it is a
    `multiple` of at least `least`."""
    heads, head = max(1, heads), width / max(1, heads)
    nearest = max(round(head / multiple) * multiple, least)
    if head != nearest:
        raise UserError(
            f"a width of {width} makes heads {head:g} wide, and they must be a multiple of {multiple} from "
            f"{least} up: the nearest width for {heads} heads is {nearest * heads}"
        )
    return nearest


def split_axes(head: int) -> tuple[int, int, int]:
    """[nT, nH, nW], all even, with nT nearly 1/8 of the head: 64 -> (8, 28, 28), 48 -> (8, 20, 20).

    The head is even and at least 6 wide, as `head_width` checks.
    """
    side = 2 * (7 * head // 32)
    return head - 2 * side, side, side


def rope_tables(
    times: Tensor, *, grid: tuple[int, int], axes: tuple[int, int, int], theta: float
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for frames at `times` `(b, t)` or `(t,)` on a grid `(h, w)`.

    `axes` are the parts of a head that turn with time, height and width. Returns two float32 tensors
    `(b or 1, 1, t*h*w, sum(axes) / 2)`, ready to broadcast over heads.
    """
    times = times.double().reshape(-1, times.shape[-1])
    (b, t), (h, w) = times.shape, grid
    rows, columns = (torch.arange(side, device=times.device).double() for side in grid)
    positions = times[:, :, None, None], rows[:, None], columns[None]
    angles = [_angles(position, part, theta) for part, position in zip(axes, positions, strict=True)]
    shape = b, 1, t * h * w, sum(axes) // 2
    cos, sin = (
        torch.cat([turn(angle).float().expand(b, t, h, w, -1) for angle in angles], dim=-1).reshape(shape)
        for turn in (torch.cos, torch.sin)
    )
    return cos, sin


def place_tables(places: Tensor, *, axes: tuple[int, int, int], theta: float) -> tuple[Tensor, Tensor]:
    """As `rope_tables` for tokens at any `places` `(s, 3)`, time, row and column, which need not be whole:
    two float32 tensors `(1, 1, s, sum(axes) / 2)`."""
    parts = zip(axes, places.double().unbind(-1), strict=True)
    angle = torch.cat([_angles(position, part, theta) for part, position in parts], dim=-1)[None, None]
    return angle.cos().float(), angle.sin().float()


def _angles(position: Tensor, part: int, theta: float) -> Tensor:
    """`(..., part / 2)` for float64 positions `(...)`."""
    frequency = theta ** (-torch.arange(0, part, 2, device=position.device, dtype=torch.float64) / part)
    return position[..., None] * frequency


def time_tables(times: Tensor, *, head_width: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(1, 1, t, head_width / 2)` of the default dtype; the whole head turns with time."""
    frequency = theta ** (-torch.arange(0, head_width, 2, device=times.device).double() / head_width)
    angle = (times.double()[:, None] * frequency)[None, None]
    dtype = torch.get_default_dtype()
    return angle.cos().to(dtype), angle.sin().to(dtype)


def pixel_tables(
    grid: tuple[int, int], head: int, axis: int, *, max_frequency: float, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Tables `(1, 1, h*w, head / 2)` for a fixed picture, both axes from -1 to 1: of the `head` channels
    `axis` turn with the row, as many with the column, at frequencies pi to pi max_frequency / 2, and the rest
    stays (angle 0). Angles are of the default dtype; float32 it is in the networks that were trained with
    them (Diffusion Forcing, open-oasis), and at several hundred radians float64 would show.
    """
    if 2 * axis > head or axis % 2:
        raise UserError(f"two even parts of {axis} do not fit into a head of {head}")
    steps = torch.linspace(1, max_frequency / 2, axis // 2, device=device, dtype=torch.float64)
    frequency = (steps * torch.pi).float()  # as they lie in the published files
    row, column = (torch.linspace(-1, 1, side, device=device)[:, None] * frequency for side in grid)
    angle = torch.cat([row[:, None].expand(*grid, -1), column[None].expand(*grid, -1)], dim=-1).flatten(0, 1)
    angle = torch.nn.functional.pad(angle, (0, head // 2 - angle.shape[-1]))[None, None]
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate interleaved pairs of `x` `(b, heads, n, head_width)` by the tables of `rope_tables`.

    Of another order of axes too, if the tables broadcast to it.
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    rotated = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return rotated.flatten(-2).to(x.dtype)


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As `rotate` without autograd, in place where `x` is of single precision or more; in lower precision a
    new float32 tensor."""
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(torch.complex(cos, sin))
    return x
