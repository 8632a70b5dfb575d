"""Who is asked at each step of a clip: a backbone that is told words, guided, perhaps window by window and
tile by tile."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dreamwalk.codecs.tiles import spans, trapezoids
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding, beside
from dreamwalk.rollout.execute import ModelInput, Predictor


class Velocity(Protocol):
    """`v` of noisy latents `(b, t, c, h, w)` at levels `(b,)` or `(b, t)`, told some words and perhaps
    a scale of guidance `(b,)`, and shown `extra` `(b, t, e, h, w)` beside them."""

    def __call__(
        self, x: Tensor, sigma: Tensor, words: TextEmbedding, *, guidance: Tensor | None, extra: Tensor | None
    ) -> Tensor: ...


@dataclass(frozen=True)
class ClipPredictor:
    """`execute.Predictor` of a backbone of whole clips that is told words, and what not to show.

    Classifier-free guidance (arXiv 2207.12598) asks for both opinions in one batch. `rescale` is that of
    arXiv 2305.08891, section 3.4, on the clean prediction, not on the velocity.

    A plan may guide instead: a look that is not told is answered by `against` alone. UserError for what such
    a backbone cannot do: hide frames from one another, or see frames that are no neighbours.
    """

    velocity: Velocity
    words: TextEmbedding
    against: TextEmbedding | None = None
    """Words to be guided away from; None for no guidance."""
    weight: float = 1.0
    rescale: float = 0.0
    embedded: float | None = None
    extra: Tensor | None = None
    """What all frames of the clip are shown beside, `(b, t, e, h, w)`."""

    def __call__(self, look: ModelInput) -> Tensor:
        self._check(look)
        if not look.told:
            assert self.against is not None
            return self._ask(look, self.against)
        if self.against is None or self.weight == 1:
            return self._ask(look, self.words)
        told, untold = self._ask(look, beside(self.words, self.against), opinions=2).chunk(2)
        v = untold + self.weight * (told - untold)
        return self._rescaled(look, v, told) if self.rescale else v

    def _check(self, look: ModelInput) -> None:
        if len(set(look.groups)) > 1:
            raise UserError(
                "a backbone of whole clips lets all of its frames see one another: take a plan with the mask "
                "`bidirectional`"
            )
        if look.frames != tuple(range(look.frames[0], look.frames[0] + len(look.frames))):
            raise UserError(
                f"a backbone of whole clips takes frames for neighbours, and the plan reads {look.frames}: "
                "take one whose reads leave none out"
            )
        if not look.told and (self.against is None or self.weight != 1):
            raise UserError(
                "the plan guides by what is predicted without words: say what those are, `against`, and "
                "leave the weight at 1"
            )

    def _ask(self, look: ModelInput, words: TextEmbedding, *, opinions: int = 1) -> Tensor:
        sigma = look.sigma[:, 0] if len(set(look.shown)) == 1 else look.sigma
        x, extra, guidance = torch.cat([look.x] * opinions), None, None
        if self.extra is not None:
            extra = torch.cat([self.extra[:, list(look.frames)]] * opinions)
        if self.embedded is not None:
            guidance = x.new_full((len(x),), self.embedded)
        return self.velocity(x, torch.cat([sigma] * opinions), words, guidance=guidance, extra=extra)

    def _rescaled(self, look: ModelInput, v: Tensor, told: Tensor) -> Tensor:
        sigma = look.sigma[:, :, None, None, None]
        guided, alone = look.x - sigma * v, look.x - sigma * told
        spread = alone.std((1, 2, 3, 4), keepdim=True) / guided.std((1, 2, 3, 4), keepdim=True).clamp(
            min=1e-6
        )
        scaled = guided * (1 + self.rescale * (spread - 1))
        return torch.where(sigma > 0, (look.x - scaled) / sigma.clamp(min=1e-6), v)


@dataclass(frozen=True)
class Windowed:
    """A `Predictor` that is asked about overlapping windows in time and hears their weighted mean.

    MultiDiffusion (arXiv 2302.08113), as Movie Gen's upsampler does it (arXiv 2410.13720, section 3.1.5).
    """

    predict: Predictor
    window: int
    overlap: int

    def __call__(self, look: ModelInput) -> Tensor:
        total = torch.zeros_like(look.x)
        for part, share in _shared(look.x, 1, self.window, self.overlap):
            seen = replace(
                look,
                x=look.x[:, part],
                shown=look.shown[part],
                frames=look.frames[part],
                groups=look.groups[part],
                moves=look.moves[part],
                commits=look.commits[part],
            )
            total[:, part] += share[:, None, None, None] * self.predict(seen)
        return total


@dataclass(frozen=True)
class Tiled:
    """A `Velocity` that is asked about overlapping tiles of height and width and hears their weighted mean.

    MultiDiffusion (arXiv 2302.08113), with weights that fall towards the edges of a tile. Every tile is told
    all words, and does not know where in the picture it lies.
    """

    velocity: Velocity
    tile: tuple[int, int]
    """Rows and columns of latents."""
    overlap: tuple[int, int]

    def __call__(
        self, x: Tensor, sigma: Tensor, words: TextEmbedding, *, guidance: Tensor | None, extra: Tensor | None
    ) -> Tensor:
        total = torch.zeros_like(x)
        rows, columns = (_shared(x, axis - 2, self.tile[axis], self.overlap[axis]) for axis in (0, 1))
        for (row, down), (column, across) in itertools.product(rows, columns):
            beside = None if extra is None else extra[..., row, column]
            v = self.velocity(x[..., row, column], sigma, words, guidance=guidance, extra=beside)
            total[..., row, column] += down[:, None] * across * v
        return total


def _shared(x: Tensor, axis: int, tile: int, overlap: int) -> list[tuple[slice, Tensor]]:
    """Tiles along an axis of `x`, and the weight of each place in them."""
    parts = spans(x.shape[axis], tile=tile, overlap=overlap)
    return [
        (part, weight.to(x.dtype).to(x.device)) for part, weight in zip(parts, trapezoids(parts), strict=True)
    ]
