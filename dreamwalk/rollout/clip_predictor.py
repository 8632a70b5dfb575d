"""Predictors of whole clips, optionally in windows of time and in tiles of height and width."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from dreamwalk.codecs.tiles import spans, trapezoids
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding, beside
from dreamwalk.rollout.execute import ModelInput, Predictor


class Velocity(Protocol):
    """`v` of noisy latents `(b, t, c, h, w)` at sigma `(b,)` or `(b, t)`, given text, perhaps an embedded
    guidance scale `(b,)`, and perhaps channels beside the latents, `cond` `(b, t, e, h, w)`."""

    def __call__(
        self, x: Tensor, sigma: Tensor, text: TextEmbedding, *, guidance: Tensor | None, cond: Tensor | None
    ) -> Tensor: ...


@dataclass(frozen=True)
class ClipPredictor:
    """`Predictor` of a backbone of whole clips and their text: all branches of a read in one batch.

    UserError for plans that such a backbone cannot honour: a mask that is not bidirectional, reads that leave
    frames out, guidance without a `negative` text.
    """

    velocity: Velocity
    text: TextEmbedding
    negative: TextEmbedding | None = None
    """Text of the unconditional branch; None where no plan guides."""
    embedded_guidance: float | None = None
    """Guidance scale that a distilled backbone takes as an input."""
    cond: Tensor | None = None
    """Channels beside the latents of all frames, `(b, t, e, h, w)`."""

    def __call__(self, branches: Sequence[ModelInput]) -> list[Tensor]:
        for branch in branches:
            self._check(branch)
        n, frames = len(branches), list(branches[0].frames)
        x, sigma = (torch.cat([getattr(branch, name) for branch in branches]) for name in ("x", "sigma"))
        if all(len(set(branch.input_sigma)) == 1 for branch in branches):
            sigma = sigma[:, 0]
        text = reduce(beside, [self._text(branch) for branch in branches])
        cond = None if self.cond is None else torch.cat([self.cond[:, frames]] * n)
        guidance = None if self.embedded_guidance is None else x.new_full((len(x),), self.embedded_guidance)
        return list(self.velocity(x, sigma, text, guidance=guidance, cond=cond).chunk(n))

    def _text(self, branch: ModelInput) -> TextEmbedding:
        if branch.conditional:
            return self.text
        if self.negative is None:
            raise UserError("the plan guides away from a negative text, and there is none: give `negative`")
        return self.negative

    def _check(self, branch: ModelInput) -> None:
        if len(set(branch.groups)) > 1:
            raise UserError(
                "in a backbone of whole clips all frames see one another: take a plan with the mask "
                "`bidirectional`"
            )
        if branch.frames != tuple(range(branch.frames[0], branch.frames[0] + len(branch.frames))):
            raise UserError(
                f"a backbone of whole clips takes frames for neighbours, and the plan reads {branch.frames}: "
                "take one whose reads leave none out"
            )


@dataclass(frozen=True)
class WindowedPredictor:
    """`Predictor` that runs another on overlapping windows in time and blends their velocities.

    MultiDiffusion (arXiv 2302.08113), as Movie Gen's upsampler does it (arXiv 2410.13720, section 3.1.5).
    """

    predictor: Predictor
    window: int
    overlap: int

    def __call__(self, branches: Sequence[ModelInput]) -> list[Tensor]:
        totals = [torch.zeros_like(branch.x) for branch in branches]
        for part, weight in _blended(branches[0].x, 1, self.window, self.overlap):
            velocities = self.predictor([branch.window(part) for branch in branches])
            for total, v in zip(totals, velocities, strict=True):
                total[:, part] += weight[:, None, None, None] * v
        return totals


@dataclass(frozen=True)
class TiledVelocity:
    """`Velocity` that runs another on overlapping tiles of height and width and blends the results.

    MultiDiffusion (arXiv 2302.08113), with weights that fall towards the edges of a tile. Every tile gets the
    whole text, and not its position in the picture.
    """

    velocity: Velocity
    tile: tuple[int, int]
    """Rows and columns of latents."""
    overlap: tuple[int, int]

    def __call__(
        self, x: Tensor, sigma: Tensor, text: TextEmbedding, *, guidance: Tensor | None, cond: Tensor | None
    ) -> Tensor:
        total = torch.zeros_like(x)
        rows, columns = (_blended(x, axis - 2, self.tile[axis], self.overlap[axis]) for axis in (0, 1))
        for (row, down), (column, across) in itertools.product(rows, columns):
            beside = None if cond is None else cond[..., row, column]
            v = self.velocity(x[..., row, column], sigma, text, guidance=guidance, cond=beside)
            total[..., row, column] += down[:, None] * across * v
        return total


def _blended(x: Tensor, axis: int, tile: int, overlap: int) -> list[tuple[slice, Tensor]]:
    """Overlapping parts of an axis of `x`, and the blending weight of each place in them."""
    parts = spans(x.shape[axis], tile=tile, overlap=overlap)
    return [(part, weight.to(x)) for part, weight in zip(parts, trapezoids(parts), strict=True)]
