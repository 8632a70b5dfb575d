"""Pictures of an examination: contact sheets and plots."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from dreamwalk.evaluation.fidelity import Rollout
from dreamwalk.evaluation.reports import picture_row
from dreamwalk.schedules.plans import Plan

matplotlib.use("Agg")


def contact_sheet(rollout: Rollout, *, walks: int = 6, columns: int = 12) -> np.ndarray:
    """uint8 `(h, w, 3)`: truth above, dream below, for the first walks, at moments over the horizon."""
    moments = np.unique(np.linspace(0, rollout.truth.shape[1] - 1, columns).astype(int))
    rows: list[np.ndarray] = []
    for walk in range(min(walks, len(rollout.truth))):
        rows += [picture_row(video[walk], moments) for video in (rollout.truth, rollout.dream)]
        rows.append(np.full((6, rows[0].shape[1], 3), 255, np.uint8))
    return np.concatenate(rows)


def horizon_plot(curves: dict[str, dict[str, np.ndarray]], path: Path, *, title: str) -> None:
    """One panel per measure (PSNR, SSIM), one line per curve, against the horizon in frames."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, len(curves))
    for axis, (measure, lines) in zip(np.atleast_1d(axes), curves.items(), strict=True):
        for name, values in lines.items():
            style = "-" if name == "dream" else "--"
            axis.plot(np.arange(1, len(values) + 1), values, label=name, linestyle=style)
        axis.set(xlabel="horizon (frames)", ylabel=measure)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def plan_picture(plan: Plan, path: Path, *, title: str = "") -> None:
    """A plan as a heat map, rows down and slots across: dark is noise, signs are its `marks`."""
    levels = np.array(plan.sigmas)[np.array(plan.levels)]
    rows, slots = levels.shape
    figure = Figure(figsize=(2 + 0.35 * slots, 1.5 + 0.22 * rows), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(levels, cmap="magma_r", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, label="noise level")
    for index in range(len(plan.rows)):
        for slot, sign in plan.marks(index).items():
            axis.text(slot, index + 1, sign, ha="center", va="center", color="tab:cyan")
    axis.set(xlabel="frame", ylabel="rows done", title=title, xticks=range(slots), xticklabels=plan.frames)
    figure.savefig(path, dpi=120)
