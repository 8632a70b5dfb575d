"""Guidance as views of a read: opinions with weights that sum to one, mixed before the step.

A guide is a function from the finished slots of a read to its views. Classifier-free guidance (arXiv
2207.12598) weighs what is predicted with and without conditions; history guidance (arXiv 2502.06764, section
4) what is predicted with the history, without it, with a blurred one, or with parts of it. A frame is hidden
by showing it as pure noise, which is what it looked like at that level in training.
"""

from __future__ import annotations

from collections.abc import Sequence

from dreamwalk.errors import UserError
from dreamwalk.schedules.plans import View
from dreamwalk.schedules.staircase import Guide


def _at(slots: Sequence[int], sigma: float) -> tuple[tuple[int, float], ...]:
    return tuple((slot, sigma) for slot in slots)


def conditions(weight: float) -> Guide:
    """Classifier-free guidance on actions or words: `weight` with them, `1 - weight` without; 1 is none."""
    return lambda past: (View(weight), View(1 - weight, told=False))


def history(weight: float) -> Guide:
    """Vanilla history guidance: `weight` with the whole history, `1 - weight` without any."""
    return lambda past: (View(weight), View(1 - weight, shown=_at(past, 1.0))) if past else (View(),)


def fractional(weight: float, *, sigma: float) -> Guide:
    """Fractional history guidance: away from no history, but only as far as a history shown at `sigma` leads.

    It keeps the motion that strong vanilla guidance freezes. UserError when `sigma` is not a level.
    """
    if not 0 <= sigma <= 1:
        raise UserError(f"history is shown at a level between 0 and 1, got {sigma}")

    def guide(past: tuple[int, ...]) -> tuple[View, ...]:
        blurred, hidden = _at(past, sigma), _at(past, 1.0)
        return (
            (View(1.0), View(weight - 1, shown=blurred), View(1 - weight, shown=hidden))
            if past
            else (View(),)
        )

    return guide


def temporal(weights: Sequence[tuple[int, float]]) -> Guide:
    """Temporal history guidance: pairs of (last frames that are seen, weight); the rest sees no history."""
    if any(frames < 1 for frames, _ in weights):
        raise UserError("temporal guidance sees the last 1, 2, ... frames; no frames take what is left")

    def guide(past: tuple[int, ...]) -> tuple[View, ...]:
        if not past:
            return (View(),)
        parts = tuple(View(weight, shown=_at(past[:-frames], 1.0)) for frames, weight in weights)
        rest = 1 - sum(weight for _, weight in weights)
        return (*parts, View(rest, shown=_at(past, 1.0))) if rest else parts

    return guide
