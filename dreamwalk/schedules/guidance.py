"""Guidance as views of a read: opinions with weights that sum to one, mixed before the step.

A guide is a function from the finished slots of a read to its views. Classifier-free guidance (arXiv
2207.12598) weighs what is predicted with and without conditions; history guidance (arXiv 2502.06764, section
4) what is predicted with the history, without it, with a blurred one, or with parts of it. A frame is hidden
by showing it as pure noise, which is what it looked like at that level in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dreamwalk.errors import UserError
from dreamwalk.schedules.plans import Branch, check_shown
from dreamwalk.schedules.staircase import Guide


def _at(slots: Sequence[int], sigma: float) -> tuple[tuple[int, float], ...]:
    return tuple((slot, sigma) for slot in slots)


def conditions(weight: float) -> Guide:
    """Classifier-free guidance on actions or words: `weight` with them, `1 - weight` without; 1 is none."""
    views = Branch(weight), Branch(1 - weight, told=False)
    return lambda past: views


def history(weight: float) -> Guide:
    """Vanilla history guidance: `weight` with the whole history, `1 - weight` without any."""
    seen = Branch(weight)
    return lambda past: (seen, Branch(1 - weight, shown=_at(past, 1.0))) if past else (Branch(),)


def fractional(weight: float, *, sigma: float) -> Guide:
    """Fractional history guidance: away from no history, but only as far as a history shown at `sigma` leads.

    It keeps the motion that strong vanilla guidance freezes. UserError when `sigma` is not a level.
    """
    check_shown("history is", sigma)
    near, far = Branch(weight - 1), Branch(1 - weight)

    def guide(past: tuple[int, ...]) -> tuple[Branch, ...]:
        blurred, hidden = replace(near, shown=_at(past, sigma)), replace(far, shown=_at(past, 1.0))
        return (Branch(), blurred, hidden) if past else (Branch(),)

    return guide


def temporal(weights: Sequence[tuple[int, float]]) -> Guide:
    """Temporal history guidance: pairs of (last frames that are seen, weight); the rest sees no history."""
    if any(frames < 1 for frames, _ in weights):
        raise UserError("temporal guidance sees the last 1, 2, ... frames; no frames take what is left")
    views = [(frames, Branch(weight)) for frames, weight in weights]

    def guide(past: tuple[int, ...]) -> tuple[Branch, ...]:
        if not past:
            return (Branch(),)
        parts = tuple(replace(view, shown=_at(past[:-frames], 1.0)) for frames, view in views)
        rest = 1 - sum(weight for _, weight in weights)
        return (*parts, Branch(rest, shown=_at(past, 1.0))) if rest else parts

    return guide
