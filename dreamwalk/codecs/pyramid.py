"""Features of images at several resolutions, down and up again, as a delta codec has them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from dreamwalk.layers.modulation import zero_init

PATCH = 4
"""Pixels of a side at the finest level; the flow is as coarse as that."""


class Norm(nn.GroupNorm):
    """In the precision of its weights: in bfloat16 it is slower than the convolutions around it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class NormedBlock(nn.Module):
    """Two convolutions beside a shortcut, each behind a norm of its frame; the identity at first. Without
    norms the features of the coarse levels grow until nothing is learnt any more."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(Norm(8, width) for _ in range(2))
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = zero_init(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(silu(self.norms[0](x)))
        return x + self.second(silu(self.norms[1](y)))


class Pyramid(nn.Module):
    """Images `(n, c, h, w)` to features at 1/4, 1/8, ... of the resolution."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(PATCH)
        self.enter = nn.Conv2d(channels * PATCH**2 + 2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(Norm(8, a), nn.Conv2d(a, b, 3, stride=2, padding=1)) for a, b in pairwise(widths)
        )
        self.blocks = nn.ModuleList(NormedBlock(width) for width in widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The finest first."""
        patches = self.unshuffle(images)
        # Where a patch lies tells how it moves when the camera goes on or turns.
        row, column = (torch.linspace(-1, 1, side, device=images.device) for side in patches.shape[-2:])
        places = torch.stack(torch.meshgrid(row, column, indexing="ij")).to(images.dtype)
        levels = [self.blocks[0](self.enter(torch.cat([patches, places.expand(len(images), -1, -1, -1)], 1)))]
        for down, block in zip(self.down, list(self.blocks)[1:], strict=True):
            levels.append(block(down(levels[-1])))
        return levels


class UpPath(nn.Module):
    """Features of all levels, the finest first, to `out` numbers at each place of the finest, zero at first;
    an action is told at every level."""

    def __init__(self, widths: Sequence[int], actions: int, out: int) -> None:
        super().__init__()
        self.action = nn.ModuleList(nn.Linear(actions, width) for width in widths)
        self.blocks = nn.ModuleList(NormedBlock(width) for width in widths)
        self.up = nn.ModuleList(
            nn.Sequential(Norm(8, b), nn.Conv2d(b, a, 3, padding=1)) for a, b in pairwise(widths)
        )
        self.norm = Norm(8, widths[0])
        self.out = zero_init(nn.Conv2d(widths[0], out, 3, padding=1))

    def forward(self, levels: Sequence[Tensor], action: Tensor) -> Tensor:
        known = [x + linear(action)[:, :, None, None] for x, linear in zip(levels, self.action, strict=True)]
        x = self.blocks[-1](known[-1])
        for level in range(len(known) - 2, -1, -1):
            x = self.up[level](interpolate(x, scale_factor=2.0, mode="nearest"))
            x = self.blocks[level](x + known[level])
        return self.out(silu(self.norm(x)))
