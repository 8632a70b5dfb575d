"""The report on codebooks as tables in a terminal, and as one page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from dreamwalk.evaluation.codebook_plots import codebook_plots, picture_uri
from dreamwalk.evaluation.reports import picture_row

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; color: #222 }
table { border-collapse: collapse; margin: .6em 0 1.6em; font-variant-numeric: tabular-nums }
th, td { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
.plots { display: flex; flex-wrap: wrap; gap: 1em }
figure { margin: 0; flex: 1 1 420px; max-width: 560px }
figcaption { font-weight: 600 }
.plots img { width: 100% }
.strips td { padding: 1px .8em 1px 0; border: 0 }
.strips img { display: block; width: 100%; image-rendering: pixelated }
.scroll { overflow-x: auto }
"""
Strips = list[dict[str, np.ndarray]]
"""Of each clip shown, a row of frames for the truth and for each codec, uint8 `(h, w, 3)`."""
MOST = 4
"""Names of differences in a table; the notes have all."""
FAMILIES = {"psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 3), "lpips": ("LPIPS", 3)}


class ReportTable(NamedTuple):
    """Rows of text under a head."""

    title: str
    head: list[str]
    rows: list[list[str]]


def report_tables(report: dict[str, Any]) -> list[ReportTable]:
    """All numbers of a report but those of curves by rank."""
    rows = report["codecs"]
    made = [_quality(rows), _gaps(rows, "gap", "Gap of matched pairs"), _bypass(rows), _rates(rows)]
    made += [_latents(rows), _uses(rows), _drifts(rows, "psnr"), _drifts(rows, "same"), _trained(rows)]
    if "generation" in report:
        made.append(_generation(report["generation"]))
    return [table for table in made if table.rows]


def _protocol(report: dict[str, Any]) -> str:
    """On what was measured, in a sentence."""
    level = " ".join(part for part in (report["world"], report["level"], report["split"]) if part)
    size = "x".join(map(str, report["size"]))
    steps = ", ".join(f"{label} {_count(row['steps'])}" for label, row in report["codecs"].items())
    return (
        f"{report['name']} on {report['clips']} clips of {report['frames']} frames, {size}, of "
        f"'{report['data']}' ({level or 'split not told'}), one of a walk; round trips of "
        f"{report['drifting']} of them; seed {report['seed']}; steps of training: {steps}; "
        f"{report['hardware']}; mean over clips [95 % bootstrap interval]"
    )


def print_codebook(report: dict[str, Any]) -> None:
    """A report in a terminal."""
    print(_protocol(report))
    for title, head, rows in report_tables(report):
        widths = [max(len(line[k]) for line in (head, *rows)) for k in range(len(head))]
        print(f"  {title}")
        for line in (head, *rows):
            cells = [f"{line[0]:<{widths[0]}}", *map(str.rjust, line[1:], widths[1:])]
            print("    " + "   ".join(cells))
    for note in report["notes"]:
        print(f"  note: {note}")


def codebook_page(report: dict[str, Any], strips: Strips) -> str:
    """HTML with all tables, plots and pictures inside."""
    title = f"What the vocabulary costs: {report['name']}"
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(_protocol(report))}</p>", "<ul>"]
    parts += [f"<li>{escape(note)}</li>" for note in report["notes"]] + ["</ul>"]
    parts += [_html(table) for table in report_tables(report)]
    parts.append('<h2>Plots</h2><div class="plots">')
    for caption, uri in codebook_plots(report).items():
        alt = f'alt="{escape(caption)}"'
        parts.append(f'<figure><figcaption>{escape(caption)}</figcaption><img src="{uri}" {alt}></figure>')
    parts.append("</div><h2>Reconstructions</h2>")
    for number, clip in enumerate(strips):
        parts.append(f'<h3>Clip {number + 1}</h3><div class="scroll"><table class="strips">')
        for label, picture in clip.items():
            shown = f'<img src="{picture_uri(picture)}" alt="clip {number + 1}, {escape(label)}">'
            parts.append(f"<tr><td>{escape(label)}</td><td>{shown}</td></tr>")
        parts.append("</table></div>")
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def picture_strips(videos: dict[str, Tensor], *, clips: int = 4, columns: int = 6) -> Strips:
    """Frames evenly over some clips, of uint8 videos `(b, t, 3, h, w)` by their names."""
    count, frames = next(iter(videos.values())).shape[:2]
    moments = np.unique(np.linspace(0, frames - 1, columns).round().astype(int))
    picked = np.unique(np.linspace(0, count - 1, clips).round().astype(int))
    row = lambda video: picture_row(video, moments)
    return [{label: row(video[int(clip)]) for label, video in videos.items()} for clip in picked]


def codebook_sheet(strips: Strips) -> np.ndarray:
    """uint8 `(h, w, 3)`: all strips, a white line after each clip."""
    lines: list[np.ndarray] = []
    for clip in strips:
        lines += clip.values()
        lines.append(np.full((6, lines[0].shape[1], 3), 255, np.uint8))
    return np.concatenate(lines)


def _html(table: ReportTable) -> str:
    line = lambda cells, tag: "<tr>" + "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells) + "</tr>"
    body = "".join(line(row, "td") for row in table.rows)
    inside = f"<thead>{line(table.head, 'th')}</thead><tbody>{body}</tbody>"
    return f'<h2>{escape(table.title)}</h2><div class="scroll"><table>{inside}</table></div>'


def _quality(rows: dict[str, Any]) -> ReportTable:
    known = [name for name in FAMILIES if any(name in row for row in rows.values())]
    head = ["codec", "bits/pixel", *(FAMILIES[name][0] for name in known)]
    lines = []
    for label, row in rows.items():
        told, kl = row["rate"].get("bits_a_pixel"), row["rate"].get("kl_a_pixel")
        bits = _number(told, 4) if kl is None else f"{kl:.3f} (KL)"
        lines.append([label, bits, *(_interval(row[name], FAMILIES[name][1]) for name in known)])
    return ReportTable("Reconstruction", head, lines)


def _gaps(rows: dict[str, Any], part: str, title: str) -> ReportTable:
    found = {label: row for label, row in rows.items() if part in row}
    known = [name for name in FAMILIES if any(name in row[part] for row in found.values())]
    lines = [
        [label, row["gap to"], *(_interval(row[part][name], FAMILIES[name][1], sign=True) for name in known)]
        for label, row in found.items()
    ]
    return ReportTable(title, ["codec", "against", *(FAMILIES[name][0] for name in known)], lines)


def _bypass(rows: dict[str, Any]) -> ReportTable:
    found = {label: row for label, row in rows.items() if "bypass" in row}
    known = [name for name in FAMILIES if any(name in row["bypass"] for row in found.values())]
    head = ["codec", *(f"{FAMILIES[name][0]}{what}" for name in known for what in (" without", ", gap"))]
    lines = []
    for label, row in found.items():
        cells = [label]
        for name in known:
            digits = FAMILIES[name][1]
            cells += [_interval(row["bypass"][name], digits)]
            cells += [_interval(row["bypass gap"][name], digits, sign=True)]
        lines.append(cells)
    return ReportTable("Quantizer left out: decode(z), and less decode(Q(z))", head, lines)


def _rates(rows: dict[str, Any]) -> ReportTable:
    head = ["codec", "tokens/clip", "bits/clip", "bits/dimension", "bits/pixel", "entropy, bits/pixel"]
    lines = []
    for label, row in rows.items():
        told = row["rate"]
        if "bits" in told:
            cells = [f"{told['tokens']:,}", f"{told['bits']:,.0f}", f"{told['bits_a_dimension']:.2f}"]
            lines.append([label, *cells, f"{told['bits_a_pixel']:.4f}", f"{told['entropy_a_pixel']:.4f}"])
        elif told["kl_a_pixel"] is not None:
            lines.append([label, "-", "-", "-", "-", f"{told['kl_a_pixel']:.3f} (KL)"])
    return ReportTable("Rate", head, lines)


def _latents(rows: dict[str, Any]) -> ReportTable:
    head = ["codec", "signal to noise (dB)", "with the best gain", "bound, Gaussian"]
    names = ("snr", "gain", "bound")
    found = {label: row["latents"] for label, row in rows.items() if "latents" in row}
    lines = [[label, *(f"{told[name]:.2f}" for name in names)] for label, told in found.items()]
    return ReportTable("Latents against their codes", head, lines)


def _uses(rows: dict[str, Any]) -> ReportTable:
    head = ["codec", "stage", "tokens", "codes", "used", "dead", "perplexity", "entropy (bits)", "at most"]
    lines = []
    for label, row in rows.items():
        for stage, use in row.get("use", {}).items():
            cells = [f"{use['tokens']:,}", _codes(use["vocabulary"]), f"{use['usage']:.2%}"]
            cells += [_codes(use["dead"]), f"{use['perplexity']:,.1f}"]
            lines.append([label, stage, *cells, f"{use['entropy']:.2f}", f"{use['at_most']:.2f}"])
    return ReportTable("Use of the vocabulary", head, lines)


def _drifts(rows: dict[str, Any], what: str) -> ReportTable:
    trips = list(next(iter(rows.values()))["drift"])
    digits, title = {"psnr": (2, "PSNR (dB)"), "same": (3, "Share of tokens that stay the same")}[what]
    found = {label: row["drift"] for label, row in rows.items() if what in row["drift"][trips[0]]}
    lines = [
        [label, *(_interval(told[trip][what], digits) for trip in trips)] for label, told in found.items()
    ]
    return ReportTable(f"{title} after round trips", ["codec", *trips], lines)


def _trained(rows: dict[str, Any]) -> ReportTable:
    head = ["codec", "weights", "steps", "parameters", "channels", "stride", "differs in"]
    lines: list[list[str]] = []
    for label, row in rows.items():
        stride = "x".join(map(str, row["stride"]))
        names = list(row["differs"])
        differs = ", ".join(names[:MOST]) or "the middle alone"
        differs += f" and {len(names) - MOST} more" if len(names) > MOST else ""
        cells = [row["source"], _count(row["steps"]), f"{row['parameters']:,}", str(row["channels"]), stride]
        lines.append([label, *cells, differs if lines else "-"])
    return ReportTable("Codecs", head, lines)


def _generation(told: dict[str, Sequence[float]]) -> ReportTable:
    lines = [
        [str(frame), *(f"{value:.2f}" for value in values)]
        for frame, values in enumerate(
            zip(told["reconstructed"], told["generated"], told["modelling"], strict=True), 1
        )
    ]
    return ReportTable(
        "Vocabulary and model, PSNR (dB)", ["frame", "reconstructed", "generated", "gap"], lines
    )


def _interval(told: Sequence[float], digits: int, *, sign: bool = False) -> str:
    mean, low, high = (f"{value:{'+' if sign else ''}.{digits}f}" for value in told)
    return f"{mean} [{low}, {high}]"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "not told"


def _codes(count: int) -> str:
    """Whole where it can be read."""
    return f"{count:,}" if count < 10**9 else f"{count:.3g}"
