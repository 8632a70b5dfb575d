"""Plots of the report on codebooks, as SVG in data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from dreamwalk.evaluation.vocabulary_cost import DECIBELS_A_BIT

SCALAR = {1: 4.40, 2: 9.30, 3: 14.62, 4: 20.22}
"""dB of signal to noise of the best scalar quantizers of a Gaussian, by bits (Max 1960, table 1)."""


def codebook_plots(report: dict[str, Any]) -> dict[str, str]:
    """SVG by what it shows; only what the report has numbers for."""
    rows = report["codecs"]
    colors = {label: f"C{k % 10}" for k, label in enumerate(rows)}
    drawn = {
        "PSNR and bits per pixel": _plot(lambda axis: _rates(axis, rows, colors)),
        "Signal to noise of the latents": _plot(lambda axis: _latents(axis, rows, colors)),
        "Shares of codes by rank": _plot(lambda axis: _ranks(axis, rows, colors)),
        "PSNR after round trips": _plot(lambda axis: _drift(axis, rows, colors, "psnr")),
        "Tokens that stay the same": _plot(lambda axis: _drift(axis, rows, colors, "same")),
    }
    if "generation" in report:
        drawn["Vocabulary and model"] = _plot(lambda axis: _generation(axis, report["generation"]))
    return drawn


def picture_uri(picture: np.ndarray) -> str:
    """A uint8 picture `(h, w, 3)` as a data URI."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _plot(draw: Any) -> str:
    figure = Figure(figsize=(5.4, 3.8), layout="constrained")
    axis = figure.subplots()
    draw(axis)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=8)
    file = io.BytesIO()
    # ids from a fixed salt and no date: the same report gives the same page
    with matplotlib.rc_context({"svg.hashsalt": "dreamwalk"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _rates(axis: Axes, rows: dict[str, Any], colors: dict[str, str]) -> None:
    for label, row in rows.items():
        height, low, high = row["psnr"]
        known = [row["rate"].get(name) for name in ("bits_a_pixel", "kl_a_pixel", "entropy_a_pixel")]
        bits, kl, entropy = known
        at = kl if bits is None else bits
        if at is None:  # continuous numbers have no rate
            axis.axhline(height, color=colors[label], linestyle="--", label=label)
            continue
        error, marker = [[height - low], [high - height]], "s" if bits is None else "o"
        axis.errorbar(at, height, yerr=error, color=colors[label], fmt=marker, label=label, elinewidth=0.6)
        if entropy:
            axis.plot(entropy, height, "o", color=colors[label], fillstyle="none")
            axis.plot([entropy, at], [height, height], color=colors[label], linewidth=0.8)
    axis.set(xscale="log", xlabel="bits per pixel (hollow: counted entropy)", ylabel="PSNR (dB)")


def _latents(axis: Axes, rows: dict[str, Any], colors: dict[str, str]) -> None:
    found = {label: row for label, row in rows.items() if "latents" in row}
    most = max([4.0, *(row["rate"]["bits_a_dimension"] for row in found.values())])
    axis.plot([0, most], [0, DECIBELS_A_BIT * most], color="black", linewidth=1, label="bound, Gaussian")
    axis.plot(list(SCALAR), list(SCALAR.values()), ":", color="black", label="best scalar, Gaussian")
    for label, row in found.items():
        bits, told = row["rate"]["bits_a_dimension"], row["latents"]
        axis.plot(bits, told["snr"], "o", color=colors[label], label=label)
        axis.plot(bits, told["gain"], "o", color=colors[label], fillstyle="none")
    axis.set(xlabel="bits a dimension", ylabel="signal to noise (dB; hollow: best gain)")


def _ranks(axis: Axes, rows: dict[str, Any], colors: dict[str, str]) -> None:
    for label, row in rows.items():
        for number, (stage, use) in enumerate(row.get("use", {}).items()):
            ranks, shares = zip(*use["ranks"], strict=True)
            name = label if stage == "all" else f"{label}, {stage}"
            axis.plot(ranks, shares, color=colors[label], alpha=1 / (1 + 0.3 * number), label=name)
    axis.set(xscale="log", yscale="log", xlabel="rank of a code", ylabel="share of the tokens")


def _drift(axis: Axes, rows: dict[str, Any], colors: dict[str, str], what: str) -> None:
    for label, row in rows.items():
        told = {int(trip): values[what] for trip, values in row["drift"].items() if what in values}
        if told:
            style = "-" if "use" in row else "--"
            means = [mean for mean, _, _ in told.values()]  # intervals are of all codecs alike: of the clips
            axis.plot(list(told), means, style, marker=".", color=colors[label], label=label)
    axis.set(xlabel="round trips", ylabel={"psnr": "PSNR (dB)", "same": "share"}[what])
    if what == "same":
        axis.set_ylim(0, 1.02)


def _generation(axis: Axes, told: dict[str, Any]) -> None:
    for name in ("reconstructed", "generated"):
        axis.plot(range(1, 1 + len(told[name])), told[name], label=name)
    axis.set(xlabel="horizon (frames)", ylabel="PSNR against the truth (dB)")
