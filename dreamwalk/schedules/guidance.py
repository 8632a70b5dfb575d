"""Guidance as branches of a read, whose velocities are mixed before the step by weights that sum to one.

A guide is a function from the finished slots of a read to its branches. Classifier-free guidance (arXiv
2207.12598) mixes predictions with and without conditions; history guidance (arXiv 2502.06764, section 4)
those with the history, without it, with a blurred one, or with parts of it. A frame is hidden as pure noise,
which is its input at that sigma in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dreamwalk.errors import UserError
from dreamwalk.schedules.plans import Branch, Pass, Plan, check_sigma

Guide = Callable[[tuple[int, ...]], tuple[Branch, ...]]


def unguided(past: tuple[int, ...]) -> tuple[Branch, ...]:
    """One branch."""
    return (Branch(),)


def guided(plan: Plan, guide: Guide) -> Plan:
    """The same plan, every read of which has the branches of a guide."""
    rows = list(plan.rows)
    for index, (row, levels) in enumerate(zip(plan.rows, plan.levels, strict=False)):
        if isinstance(row, Pass):
            finished = (tuple(p for p in read.slots if not levels[p]) for read in row.reads)
            reads = (replace(r, branches=guide(past)) for r, past in zip(row.reads, finished, strict=True))
            rows[index] = replace(row, reads=tuple(reads))
    return replace(plan, rows=tuple(rows))


def conditions(weight: float, *, rescale: float = 0.0) -> Guide:
    """Classifier-free guidance on actions or text: `weight` with them, `1 - weight` without; 1 is none.

    `rescale` is that of arXiv 2305.08891, section 3.4, on the denoised frames.
    """
    branches = Branch(weight, rescale=rescale), Branch(1 - weight, conditional=False)
    return lambda past: branches


def history(weight: float) -> Guide:
    """Vanilla history guidance: `weight` with the whole history, `1 - weight` without any."""
    whole, none = Branch(weight), Branch(1 - weight)
    return lambda past: (whole, _at(none, past)) if past else (Branch(),)


def fractional(weight: float, *, sigma: float) -> Guide:
    """Fractional history guidance: away from no history, but only as far as a history at `sigma` leads.

    It keeps the motion that strong vanilla guidance freezes. UserError when `sigma` is not a noise level.
    """
    check_sigma("the sigma of a blurred history", sigma)
    near, far = Branch(weight - 1), Branch(1 - weight)
    return lambda past: (Branch(), _at(near, past, sigma), _at(far, past)) if past else (Branch(),)


def temporal(weights: Sequence[tuple[int, float]]) -> Guide:
    """Temporal history guidance: pairs of (last frames that are seen, weight); the rest sees no history."""
    if any(frames < 1 for frames, _ in weights):
        raise UserError("temporal guidance sees the last 1, 2, ... frames; no frames take what is left")
    branches = [(frames, Branch(weight)) for frames, weight in weights]
    rest = Branch(1 - sum(weight for _, weight in weights))

    def guide(past: tuple[int, ...]) -> tuple[Branch, ...]:
        if not past:
            return (Branch(),)
        parts = tuple(_at(branch, past[:-frames]) for frames, branch in branches)
        return (*parts, _at(rest, past)) if rest.weight else parts

    return guide


def _at(branch: Branch, slots: Sequence[int], sigma: float = 1.0) -> Branch:
    """The branch with these slots at `sigma`; 1 hides them."""
    return replace(branch, input_sigma=tuple((slot, sigma) for slot in slots))
