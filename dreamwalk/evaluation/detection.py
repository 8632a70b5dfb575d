"""Whether a frame shows a thing, decided by the true frame with it and the true one without it.

The rule: the pixels of the thing are moved over the frame, up to 24 pixels each way. It is *present* where
the frame's squared error to them is less than `RATIO` of the error that the view without the thing has at
that very place (a background that is like the thing there counts for nothing), and the patch around it
correlates with the true one by `LIKE` (a blot of colour is no thing). Otherwise it is *absent* if at
its own place the frame is nearer to the view without it. A frame that is like neither is neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

RATIO = 0.5
"""Share of the error of the view without the thing, below which the thing is there."""
REACH = 12
"""Farthest move, in cells."""
CELL = 2
"""Pixels of a cell down and across: what is compared are means of cells."""
INSIDE = 0.7
"""Share of the thing that must stay in the picture when it is moved."""
LIKE, AROUND = 0.5, 3
"""Least correlation of the patch of the thing and so many cells around it."""
CONTRAST = 0.15
"""Root mean square difference, of [-1, 1], between the views below which nobody could tell."""


@dataclass(frozen=True)
class Verdict:
    """What a frame shows."""

    present: bool
    absent: bool
    moved: float
    """How far from its place the thing is best found, in pixels."""


def contrast(with_thing: Tensor, without: Tensor, mask: Tensor) -> float:
    """Root mean square difference of two true frames `(3, h, w)` in [-1, 1] in the pixels of the thing."""
    return float((with_thing - without)[:, mask].square().mean().sqrt())


def detect(frame: Tensor, with_thing: Tensor, without: Tensor, *, mask: Tensor) -> Verdict:
    """A verdict on a frame, from the true frames, all `(3, h, w)` in [-1, 1], and the pixels of the thing,
    bool `(h, w)` with at least one."""
    frame, with_thing, without = (avg_pool2d(x[None].float(), CELL)[0] for x in (frame, with_thing, without))
    share = avg_pool2d(mask[None, None].float(), CELL)[0, 0]
    share = torch.where(share >= min(0.5, float(share.max())), share, 0.0)
    rows, columns = (share > 0).any(1).nonzero().flatten(), (share > 0).any(0).nonzero().flatten()
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    cut = (..., slice(top, bottom + 2 * REACH), slice(left, right + 2 * REACH))
    around = [pad(x, (REACH,) * 4)[cut] for x in (frame, without, torch.ones_like(frame))]
    thing, weight = with_thing[:, top:bottom, left:right], share[top:bottom, left:right]
    own, other = (_errors(x, thing, weight, inside=around[2]) for x in around[:2])
    seen = conv2d(around[2][None, :1], weight[None, None])[0, 0] / weight.sum()
    told = (seen >= INSIDE) & (other >= RATIO * other[REACH, REACH])
    ratio = torch.where(told, own / other.clamp(min=1e-6), torch.inf)
    best = int(ratio.argmin())
    y, x = divmod(best, ratio.shape[1])
    to_with, to_without = (((frame - x).square() * share).sum() for x in (with_thing, without))
    there = slice(top + y - REACH, bottom + y - REACH), slice(left + x - REACH, right + x - REACH)
    present = float(ratio.flatten()[best]) < RATIO
    present = present and correlation(frame, with_thing, there, (top, left)) >= LIKE
    moved = CELL * float(((y - REACH) ** 2 + (x - REACH) ** 2) ** 0.5)
    return Verdict(present, not present and bool(to_without < to_with), moved)


def correlation(frame: Tensor, truth: Tensor, there: tuple[slice, slice], corner: tuple[int, int]) -> float:
    """Of the cells `there` and `AROUND` in a frame with those from `corner` on in the truth, `(3, y, x)`, as
    far as both pictures go; 0 of what is all the same."""
    parts: list[list[slice]] = [[], []]
    for place, start, side in zip(there, corner, frame.shape[1:], strict=True):
        by = place.start - start
        low, high = max(0, by, place.start - AROUND), min(side, side + by, place.stop + AROUND)
        parts[0].append(slice(low, high))
        parts[1].append(slice(low - by, high - by))
    both = torch.stack([frame[:, *parts[0]].flatten(), truth[:, *parts[1]].flatten()])
    both = both - both.mean(1, keepdim=True)
    size = both.norm(dim=1).prod()
    return float(both.prod(0).sum() / size) if size > 1e-6 else 0.0


def _errors(frame: Tensor, thing: Tensor, weight: Tensor, *, inside: Tensor) -> Tensor:
    """Weighted squared error `(2 REACH + 1, 2 REACH + 1)` of a thing `(3, y, x)` to each place of a frame."""
    weights = weight.expand_as(thing)[None]
    square = conv2d((frame.square() * inside)[None], weights)
    cross = conv2d((frame * inside)[None], weights * thing)
    return (square - 2 * cross + conv2d(inside[None], weights * thing.square()))[0, 0].clamp(min=0)
