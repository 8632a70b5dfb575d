"""Video latents to tokens and back: patches over time, height and width, each through one linear layer."""

from __future__ import annotations

import math

from einops import rearrange
from torch import Tensor, nn

from dreamwalk.errors import UserError
from dreamwalk.layers.modulation import zero_init

Patch = tuple[int, int, int]
Extent = tuple[int, int, int]
"""Frames, rows and columns of tokens."""


class PatchEmbed(nn.Module):
    """`(b, t, c, h, w)` to tokens `(b, n, d)`, frame after frame, as a convolution of that stride does."""

    def __init__(self, channels: int, width: int, *, patch: Patch) -> None:
        super().__init__()
        self.patch = patch
        self.project = nn.Linear(channels * math.prod(patch), width)

    def forward(self, x: Tensor) -> Tensor:
        p, q, r = self.patch
        return self.project(rearrange(x, "b (t p) c (h q) (w r) -> b (t h w) (c p q r)", p=p, q=q, r=r))


class PatchHead(nn.Module):
    """Tokens `(b, n, d)` of an extent to `(b, t, c, h, w)`; zero at the start."""

    def __init__(self, width: int, channels: int, *, patch: Patch) -> None:
        super().__init__()
        self.patch = patch
        self.project = zero_init(nn.Linear(width, channels * math.prod(patch)))

    def forward(self, tokens: Tensor, extent: Extent) -> Tensor:
        (p, q, r), (_, h, w) = self.patch, extent
        return rearrange(
            self.project(tokens), "b (t h w) (c p q r) -> b (t p) c (h q) (w r)", h=h, w=w, p=p, q=q, r=r
        )


def token_extent(x: Tensor, patch: Patch) -> Extent:
    """How many tokens `(b, t, c, h, w)` has along t, h and w; UserError with the nearest size that fits."""
    size = x.shape[1], *x.shape[3:]
    if any(side % step for side, step in zip(size, patch, strict=True)):
        legal = [max(1, round(side / step)) * step for side, step in zip(size, patch, strict=True)]
        given, fits, steps = ("x".join(map(str, sides)) for sides in (size, legal, patch))
        raise UserError(f"latents of {given} do not divide into patches of {steps}: take {fits}")
    t, h, w = (side // step for side, step in zip(size, patch, strict=True))
    return t, h, w
