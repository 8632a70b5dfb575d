"""Print and draw plans of published methods: both ends first, queues, keyframes, windows, resampling.

    python examples/published_schedules.py --steps 4 --png plans

Masks are bidirectional. `sigmas` go from 1 down to 0; levels are indices into them that count from clean, 0.
Every function raises a UserError for what is impossible. Plans that systems use are in the package:
`schedules.staircase` and `schedules.clip_plans`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import tyro

from dreamwalk.errors import UserError
from dreamwalk.evaluation.plots import plan_picture
from dreamwalk.schedules.clip_plans import PlanDraft, count_steps, overlapping_windows
from dreamwalk.schedules.plans import Plan, check_range
from dreamwalk.schedules.sigmas import shifted_sigmas


def trapezoid(sigmas: Sequence[float], frames: int, *, lag: int) -> Plan:
    """Both ends begin and every frame further inwards starts `lag` rows later: the middle comes last.

    The trapezoid of the public code of Diffusion Forcing (arXiv 2407.01392), mended: there the last frame
    never leads, and the middle of an even number of frames is never denoised.
    """
    steps = count_steps(sigmas, frames)
    check_range("the lag", lag, 0, steps)
    waits = [lag * min(p, frames - 1 - p) for p in range(frames)]
    draft = PlanDraft(sigmas, [steps] * frames)
    for row in range(steps + max(waits)):
        draft.move((p for p in range(frames) if waits[p] <= row < waits[p] + steps), [range(frames)])
    return draft.plan()


def rolling(
    sigmas: Sequence[float],
    frames: int,
    *,
    lag: int = 1,
    history: int = 0,
    window: int = 0,
    history_sigma: float = 0.0,
) -> Plan:
    """A queue from which a clean frame leaves every `lag` rows while noise enters: `frames` leave.

    Rolling diffusion (arXiv 2402.09470) and FIFO-Diffusion (2405.11473). The plan is open: it is given
    `history` clean frames and a warm diagonal, ceil(steps / lag) - 1 frames at levels lag, 2 lag, ... (a clip
    noised to these, or the end of a walk), and ends with such a diagonal, which the next plan is given. The
    last `history` clean frames stay in view; without any, what has left is forgotten.

    A `window` (0: the whole queue) is FIFO's lookahead denoising: windows of so many frames, of which the
    second half moves, in rows of their own from the noisiest on, so that each reads what was there before.
    """
    steps = count_steps(sigmas, frames, history=history)
    check_range("the lag", lag, 1, steps)
    check_range("window", window, 0)
    if window == 1:
        raise UserError("a window has two halves, so at least 2 frames, got 1")
    waits = [lag * (p + 1) - steps for p in range(frames + -(-steps // lag) - 1)]
    levels = [0] * history + [min(steps, steps + wait) for wait in waits]
    draft = PlanDraft(sigmas, levels, clean_sigma=history_sigma)
    for row in range(lag * frames):
        moving = [history + p for p, wait in enumerate(waits) if wait <= row < wait + steps]
        first, last = moving[0], moving[-1] + 1
        half = window // 2 or len(moving)
        for end in range(last, first, -half):
            begin = end - window if window else first - history
            draft.move(range(max(first, end - half), end), [range(max(0, begin), end)])
    return draft.plan()


def stitched(sigmas: Sequence[float], frames: int, *, window: int, overlap: int) -> Plan:
    """All frames together, in windows that overlap; what several windows say of a frame is averaged.

    MultiDiffusion (arXiv 2302.08113) along time: no window waits for another, and frames that share none know
    of each other only through those between them.
    """
    steps = count_steps(sigmas, frames)
    draft = PlanDraft(sigmas, [steps] * frames)
    draft.descend(range(frames), overlapping_windows(frames, window, overlap))
    return draft.plan()


def keyframes(
    sigmas: Sequence[float], frames: int, *, every: int, known: int = 0, key_sigma: float = 0.0
) -> Plan:
    """Frames 0, `every`, 2 `every`, ... first, together; then those between, each gap with its two keyframes.

    Long videos of the Diffusion Forcing Transformer (arXiv 2502.06764). The first `known` keyframes are
    given, and keyframes are shown at `key_sigma` to the frames between them. A read holds the keyframes, or
    one gap; all gaps are denoised at once.
    """
    steps = count_steps(sigmas, frames)
    check_range("every", every, 1)
    if (frames - 1) % every:
        raise UserError(
            f"the last of {frames} frames is no keyframe: with one every {every}, take a multiple and 1"
        )
    keys = range(0, frames, every)
    check_range("the number of known keyframes", known, 0, len(keys))
    draft = PlanDraft(
        sigmas, [0 if p in keys[:known] else steps for p in range(frames)], clean_sigma=key_sigma
    )
    draft.descend(keys, [keys])
    draft.descend([p for p in range(frames) if p % every], [range(a, b + 1) for a, b in pairwise(keys)])
    return draft.plan()


def resampled(
    sigmas: Sequence[float],
    frames: int,
    *,
    jump: int,
    times: int = 1,
    begin: int | None = None,
    history: int = 0,
    history_sigma: float = 0.0,
) -> Plan:
    """Down by `jump` levels, then `times` times up again and down, and so on until clean.

    The resampling of RePaint (arXiv 2201.09865, section 4.2), which brings what is dreamt into harmony with
    the `history` that is known. `begin` is the level of a video that is given partly noised, as in SDEdit
    (2108.01073); without it frames begin as noise. Nothing goes up to pure noise, which would begin anew.
    """
    steps = count_steps(sigmas, frames, history=history)
    top = steps if begin is None else begin
    check_range("the level to begin at", top, 1, steps)
    check_range("the jump", jump, 1)
    check_range("times", times, 0)
    if top % jump or (jump == steps and times):
        raise UserError(
            f"a jump must divide the {top} levels and be smaller than the {steps} steps, got {jump}"
        )
    slots = range(history, history + frames)
    draft = PlanDraft(sigmas, [0] * history + [top] * frames, clean_sigma=history_sigma)
    for low in range(top - jump, -1, -jump):
        draft.descend(slots, [range(history + frames)], to=low)
        for _ in range(times if low + jump < steps else 0):
            draft.renoise(slots, slots, low + jump)
            draft.descend(slots, [range(history + frames)], to=low)
    return draft.plan()


@dataclass(frozen=True)
class Options:
    """The plans to print."""

    steps: int = 4
    """Denoising steps of a frame, an even number."""
    png: Path | None = None
    """Folder for heat maps of the plans."""


def main(options: Options) -> None:
    steps, sigmas = options.steps, shifted_sigmas(options.steps).tolist()
    plans = {
        "trapezoid": trapezoid(sigmas, 5, lag=1),
        "rolling": rolling(sigmas, 3, history=1),
        "stitched": stitched(sigmas, 5, window=3, overlap=1),
        "keyframes": keyframes(sigmas, 5, every=2),
        "resampled": resampled(sigmas, 2, jump=steps // 2, history=1),
    }
    for name, plan in plans.items():
        print(f"{name}, approximate: {'; '.join(plan.approximate) or 'nothing'}\n{plan.show()}\n")
        if options.png:
            options.png.mkdir(parents=True, exist_ok=True)
            plan_picture(plan, options.png / f"{name}.png", title=name)


if __name__ == "__main__":
    main(tyro.cli(Options))
