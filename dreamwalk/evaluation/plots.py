"""Pictures of an examination: contact sheets and plots."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from dreamwalk.evaluation.fidelity import Rollout
from dreamwalk.schedules.plans import Plan

matplotlib.use("Agg")


def contact_sheet(rollout: Rollout, path: Path, *, walks: int = 6, columns: int = 12) -> None:
    """Truth above, dream below, for the first walks, at `columns` moments spread over the horizon."""
    moments = np.unique(np.linspace(0, rollout.truth.shape[1] - 1, columns).astype(int))
    rows: list[np.ndarray] = []
    for walk in range(min(walks, len(rollout.truth))):
        rows += [_row(rollout.truth[walk], moments), _row(rollout.dream[walk], moments)]
        rows.append(np.full((6, rows[0].shape[1], 3), 255, np.uint8))
    Image.fromarray(np.concatenate(rows)).save(path)


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


def _row(video: Tensor, moments: np.ndarray) -> np.ndarray:
    return np.concatenate([video[int(moment)].permute(1, 2, 0).numpy() for moment in moments], axis=1)
