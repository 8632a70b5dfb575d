"""What a visual vocabulary costs: a codec of tokens, alone and beside codecs that differ by its middle alone.

dreamwalk evaluate runs/tok.fsq --report codebook --data data/rooms-test --matched runs/tok.none runs/tok.bsq

Protocol: windows of held-out walks, one of each walk at a random start, go through every codec. Told are PSNR
and SSIM of what comes back, of the same with the quantizer left out (*bypass*), and the gap to the first
codec of `--matched` that has continuous latents; signal to noise of the latents beside the bound of 6.02 dB
for each bit a dimension; bits per pixel, as they are and by the counted entropy of the indices, of a KL codec
by its KL term; the use of each vocabulary; and what is left after several times encoding and decoding.

Two codecs that were trained by themselves answer what a vocabulary costs. The bypass does not: its decoder
was trained on codes. A bound on Gaussian latents does not either, for latents gather around codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dreamwalk.clip import Clip, batch
from dreamwalk.codecs.perceptual import Perceptual
from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.evaluation.codebook_page import codebook_page, codebook_sheet, picture_strips, print_codebook
from dreamwalk.evaluation.codings import Coding
from dreamwalk.evaluation.fidelity import psnr, roll_out, ssim, to_bytes
from dreamwalk.evaluation.generation_gap import generation_gap
from dreamwalk.evaluation.matched_codecs import ExaminedCodec, differences, examined_codecs
from dreamwalk.evaluation.places import long_walks
from dreamwalk.evaluation.reports import hardware, write_report
from dreamwalk.evaluation.revisits import interval
from dreamwalk.evaluation.vocabulary_cost import (
    DECIBELS_A_BIT,
    ENOUGH,
    Drift,
    SignalToNoise,
    drift_of,
    nats_a_pixel,
    rate_of,
    stage_use,
)
from dreamwalk.progress import progress
from dreamwalk.systems.system import System
from dreamwalk.systems.walkable import Walkable
from dreamwalk.weights.vgg import read_perceptual


@dataclass(frozen=True)
class EvaluateCodebook:
    """Examine what a vocabulary costs: a page, pictures and numbers into a folder."""

    report: Literal["codebook"] = "codebook"
    data: str = "data/rooms-test"
    """Clips that were not trained on."""
    out: Path = Path("runs/codebook")
    matched: tuple[str, ...] = ()
    """Weights with codecs trained equally with something else in the middle, or with nothing."""
    clips: int = 48
    """Windows, of as many walks."""
    frames: int = 17
    """Of a window."""
    trips: tuple[int, ...] = (1, 2, 4, 8)
    """Times encoding and decoding after which drift is told."""
    drifting: int = 16
    """Windows, the first ones, that go through them."""
    at_once: int = 4
    """Windows in a pass."""
    perceptual: str = ""
    """A .safetensors file of VGG16 with the heads of LPIPS (`weights/vgg.py`), for that distance."""
    seed: int = 0
    """Of where windows start, and of the bootstrap."""


@dataclass
class PassedThrough:
    """What a codec made of the windows; videos are uint8 `(b, t, 3, h, w)`."""

    restored: list[Tensor] = field(default_factory=list)
    bypassed: list[Tensor] = field(default_factory=list)
    """With the quantizer left out."""
    parts: list[tuple[Tensor, ...]] = field(default_factory=list)
    nats: list[Tensor] = field(default_factory=list)
    noise: SignalToNoise = field(default_factory=SignalToNoise)
    dimensions: int = 0
    """Latent numbers of a window."""
    drift: list[Drift] = field(default_factory=list)


def evaluate_codebook(
    system: System, asked: EvaluateCodebook, *, name: str, inverse: object = None
) -> dict[str, Any]:
    """Print the tables, write `report.json`, `codebook.html` and `sheet.png` into `out`.

    UserError for weights without a codec of tokens, `--matched` without a codec, and windows that do not fit.
    """
    if min(asked.frames, asked.drifting, asked.at_once, *asked.trips, len(asked.trips)) < 1:
        raise UserError("`--frames`, `--drifting`, `--at-once` and each of `--trips` are 1 or more")
    if asked.clips < 2:
        raise UserError("`--clips` is 2 or more: an interval over clips needs several")
    codecs = examined_codecs(system, name, asked.matched)
    distance = read_perceptual(asked.perceptual) if asked.perceptual else None
    shards = Shards(asked.data)
    clips = drawn_windows(shards, asked)
    video, skipped = batch(clips).video, max(each.coding.given for each in codecs)
    for each in codecs:
        each.coding.check_frames(video, each.source)
    found, drifting = {}, min(asked.drifting, len(video))
    passes = -(-len(video) // asked.at_once) + -(-drifting // asked.at_once) * max(asked.trips)
    with progress("coding", len(codecs) * passes) as advance:
        for each in codecs:
            found[each.label] = pass_through(each.coding, clips, asked, skipped=skipped, advance=advance)
    report: dict[str, Any] = {"name": name, "data": asked.data, "clips": len(video)}
    report |= {fact: shards.manifest.get(fact, "") for fact in ("world", "level", "split")}
    report |= {"frames": asked.frames, "size": list(shards.size), "seed": asked.seed, "trips": asked.trips}
    report |= {"drifting": drifting, "skipped": skipped, "perceptual": asked.perceptual}
    report["hardware"] = hardware()
    report["codecs"] = _measured(codecs, found, video[:, skipped:], asked=asked, distance=distance)
    if isinstance(system, Walkable):
        dreamed = roll_out(system, clips, history=1, seed=asked.seed, size=asked.at_once)
        report["generation"] = generation_gap(dreamed.truth, dreamed.ceiling, dreamed.dream).told()
    report["notes"] = _notes(report)
    _write(report, video, {label: torch.cat(each.restored) for label, each in found.items()}, asked.out)
    print_codebook(report)
    return report


def _write(report: dict[str, Any], video: Tensor, restored: dict[str, Tensor], out: Path) -> None:
    """Numbers, page and contact sheet into a folder."""
    strips = picture_strips({"truth": video} | restored)
    write_report(report, codebook_sheet(strips), out)
    (out / "codebook.html").write_text(codebook_page(report, strips))


def drawn_windows(shards: Shards, asked: EvaluateCodebook) -> list[Clip]:
    """One of each walk, of as many different levels as there are; UserError for fewer than two."""
    chance, found = np.random.default_rng(asked.seed), []
    for index in long_walks(shards, asked.clips, asked.frames):
        start = int(chance.integers(shards.frames_of(index) - asked.frames + 1))
        found.append(shards.window(index, start, asked.frames))
    if len(found) < 2:
        raise UserError(
            f"'{asked.data}' has only one walk of {asked.frames} frames: collect more, or use a smaller "
            "`--frames`"
        )
    return found


def pass_through(
    coding: Coding,
    clips: Sequence[Clip],
    asked: EvaluateCodebook,
    *,
    skipped: int,
    advance: Callable[[], None],
) -> PassedThrough:
    """All windows through one codec, and the first of them again and again, where frames are compared after
    the first `skipped`."""
    made = PassedThrough()
    for first in range(0, len(clips), asked.at_once):
        clip = batch(clips[first : first + asked.at_once])
        x, actions = clip.video.float() / 127.5 - 1, clip.actions
        coded, bypassed = coding.code(x, actions), coding.bypassed(x, actions)
        made.restored.append(to_bytes(coded.restored))
        made.dimensions, made.parts = coded.values[0].numel(), [*made.parts, coded.parts]
        if coded.points is not None:
            made.noise.add(coded.points, coded.values)
        made.bypassed += [] if bypassed is None else [to_bytes(bypassed)]
        made.nats += [] if coded.nats is None else [coded.nats]
        advance()
        if (some := asked.drifting - first) > 0:
            again = x[:some], actions[:some]
            made.drift.append(drift_of(coding, *again, trips=asked.trips, skipped=skipped, advance=advance))
    return made


def _measured(
    codecs: Sequence[ExaminedCodec],
    found: dict[str, PassedThrough],
    video: Tensor,
    *,
    asked: EvaluateCodebook,
    distance: Perceptual | None,
) -> dict[str, Any]:
    """The part of a report for each codec, by its label: means over windows with their intervals, of the
    last frames, as many as `video` has."""
    last, scores = slice(-video.shape[1], None), {}
    for each in codecs:
        scores[each.label] = scored(torch.cat(found[each.label].restored)[:, last], video, distance)
    reference = next((each for each in codecs if each.continuous), None)
    told = {}
    for each in codecs:
        made, own = found[each.label], scores[each.label]
        row: dict[str, Any] = {"source": each.source, "steps": each.steps, "parameters": each.parameters}
        row |= {"channels": each.coding.channels, "stride": list(each.coding.stride)}
        row["differs"] = differences(codecs[0], each)
        row |= {name: with_interval(values, asked.seed) for name, values in own.items()}
        if reference and each is not reference:
            theirs = scores[reference.label]
            row["gap to"] = reference.label
            row["gap"] = {name: with_interval(own[name] - theirs[name], asked.seed) for name in own}
        if made.bypassed:
            past = scored(torch.cat(made.bypassed)[:, last], video, distance)
            row["bypass"] = {name: with_interval(values, asked.seed) for name, values in past.items()}
            row["bypass gap"] = {name: with_interval(past[name] - own[name], asked.seed) for name in own}
        pixels = (asked.frames - each.coding.given) * video[0, 0, 0].numel()
        row |= _rates(each, made, pixels=pixels) | {"drift": _drift(made.drift, asked.seed)}
        told[each.label] = row
    return told


def scored(restored: Tensor, video: Tensor, distance: Perceptual | None) -> dict[str, np.ndarray]:
    """Of each window the means over its frames, `(b)`."""
    told = {name: score(restored, video).mean(1) for name, score in (("psnr", psnr), ("ssim", ssim))}
    if distance is not None:
        pairs = zip(restored.float() / 127.5 - 1, video.float() / 127.5 - 1, strict=True)
        with torch.inference_mode():
            told["lpips"] = np.array([float(distance(a[None], b[None])) for a, b in pairs])
    return told


def with_interval(values: np.ndarray, seed: int) -> list[float]:
    """Mean over windows, and the ends of its 95 % bootstrap interval."""
    return [round(float(value), 4) for value in (values.mean(), *interval(values, seed))]


def _rates(each: ExaminedCodec, made: PassedThrough, *, pixels: int) -> dict[str, Any]:
    """Rate, latents against codes, and use of the vocabulary, where there is one; or the KL term."""
    if each.continuous:
        kl = nats_a_pixel(torch.cat(made.nats), pixels) if made.nats else None
        return {"rate": {"dimensions": made.dimensions, "kl_a_pixel": kl}}
    stages = each.coding.stages
    parts = [torch.cat(part) for part in zip(*made.parts, strict=True)]
    uses = {name: stage_use(part, stages[name]) for name, part in zip(stages, parts, strict=True)}
    bits = rate_of(stages, parts, uses=uses, dimensions=made.dimensions, pixels=pixels)
    told: dict[str, Any] = {"rate": asdict(bits) | {"dimensions": made.dimensions}}
    if made.noise.count:
        told["latents"] = made.noise.decibels() | {"bound": DECIBELS_A_BIT * bits.bits_a_dimension}
    return told | {"use": {name: asdict(use) for name, use in uses.items()}}


def _drift(parts: list[Drift], seed: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for trip in parts[0].psnr:
        told[str(trip)] = {"psnr": with_interval(np.concatenate([part.psnr[trip] for part in parts]), seed)}
        if parts[0].same:
            same = np.concatenate([part.same[trip] for part in parts])
            told[str(trip)]["same"] = with_interval(same, seed)
    return told


def _notes(report: dict[str, Any]) -> list[str]:
    """What one has to know to read the numbers."""
    found = [
        "The decoder was trained on codes, not on what is quantized: the bypass gap does not tell what the "
        "vocabulary costs. That is the gap between codecs that were trained equally.",
        f"{DECIBELS_A_BIT:.2f} dB for each bit a dimension bounds white Gaussian latents; latents that "
        "gather around codes can be above it.",
    ]
    if report["skipped"]:
        found.append(f"Frames that are given to a codec do not count: {report['skipped']} of each clip.")
    rows = report["codecs"]
    if not any("gap" in row for row in rows.values()):
        found.append("No codec of continuous latents is beside it, so there is no gap of matched pairs.")
    for label, row in rows.items():
        few = {name: use["tokens"] for name, use in row.get("use", {}).items() if use["tokens"] < ENOUGH}
        if few:
            counts = ", ".join(
                f"{count:,}" if name == "all" else f"{name} {count:,}" for name, count in few.items()
            )
            found.append(f"{label}: use is counted on fewer than {ENOUGH:,} tokens ({counts}).")
        use = row.get("use", {}).values()
        if any(one["vocabulary"] * 4 > one["tokens"] for one in use):
            found.append(
                f"{label}: the vocabulary is large against the tokens counted, so entropy, perplexity and "
                "usage are too low."
            )
        if row["rate"].get("kl_a_pixel") is not None:
            found.append(f"{label}: means of the posterior are decoded; its rate is that of samples.")
        if row["differs"]:
            pairs = (f"{name} {ours} / {theirs}" for name, (ours, theirs) in row["differs"].items())
            found.append(f"{label} is not matched to {next(iter(rows))}: {'; '.join(pairs)}.")
        if row["steps"] is None:
            found.append(f"{label}: the file does not tell how the codec was trained.")
    return found
