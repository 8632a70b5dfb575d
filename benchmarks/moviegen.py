"""Text-to-video swept over guidance, spacing of levels and steps: prompt adherence and cost.

    python benchmarks/moviegen.py moviegen.doom --data DIR --train DIR --clips 60 --plot sweep.png

Every point dreams the same captions of held-out walks from the same noise. `docs/systems/moviegen.md` has
what this printed.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure

from dreamwalk.evaluation.clips import EvaluateClips, PromptTest, draw_prompt_test, generate
from dreamwalk.evaluation.prompt_adherence import adherence, frechet_distance
from dreamwalk.schedules.sigmas import Spacing
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.inverse import Inverse
from dreamwalk.systems.moviegen import Moviegen
from dreamwalk.systems.open import load


@dataclass(frozen=True)
class Options(EvaluateClips):
    """What is swept; each sweep leaves the rest as the system says."""

    system: tyro.conf.Positional[str] = "moviegen.doom"
    guidances: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0, 9.0)
    spacings: tuple[Spacing, ...] = ("linear", "shifted", "linear-quadratic")
    counts: tuple[int, ...] = (4, 8, 16, 32)
    """Steps."""
    json: Path | None = None
    plot: Path | None = None


def measured(system: Moviegen, test: PromptTest, request: ClipRequest, asked: Options) -> dict[str, Any]:
    """One point of a sweep."""
    video = generate(system, test, request, at_once=asked.at_once, precision=asked.precision)
    far = frechet_distance(test.truth, video, test.classifiers.inverse)
    return asdict(adherence(video, test.facts, test.classifiers)) | {"distance": far}


def main(asked: Options) -> None:
    system, inverse = load(asked.system).eval(), load(asked.inverse)
    assert isinstance(system, Moviegen) and isinstance(inverse, Inverse)
    frames = asked.frames or system.config.frames
    test = draw_prompt_test(asked, inverse, frames=frames)
    steps = asked.steps or system.config.steps
    rows = []
    for weight in asked.guidances:
        request = ClipRequest(frames=frames, seed=asked.seed, steps=steps, guidance=weight)
        rows.append({"sweep": "guidance", "guidance": weight} | measured(system, test, request, asked))
        tell(rows[-1])
    for spacing in asked.spacings:
        for count in asked.counts:
            request = ClipRequest(
                frames=frames, seed=asked.seed, steps=count, spacing=spacing, guidance=asked.guidance
            )
            about = {"sweep": "steps", "spacing": spacing, "steps": count}
            rows.append(about | measured(system, test, request, asked))
            tell(rows[-1])
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))
    if asked.plot:
        plot(rows, asked.plot, title=f"{asked.system}, {asked.clips} captions of held-out walks")


def tell(row: dict[str, Any]) -> None:
    what = (
        f"guidance {row['guidance']:g}"
        if row["sweep"] == "guidance"
        else f"{row['spacing']}, {row['steps']} steps"
    )
    print(
        f"{what:28} turn {row['turn']:6.1%}  room {row['room']:6.1%}  walk {row['walk']:6.1%}  "
        f"distance {row['distance']:.2f}",
        flush=True,
    )


def plot(rows: list[dict[str, Any]], path: Path, *, title: str) -> None:
    """Two measures over guidance, and over steps for each spacing."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 2)
    swept = [row for row in rows if row["sweep"] == "guidance"]
    for name in ("turn", "room", "walk"):
        axes[0, 0].plot(
            [row["guidance"] for row in swept], [row[name] for row in swept], marker="o", label=name
        )
    axes[1, 0].plot([row["guidance"] for row in swept], [row["distance"] for row in swept], marker="o")
    for spacing in dict.fromkeys(row["spacing"] for row in rows if row["sweep"] == "steps"):
        points = [row for row in rows if row.get("spacing") == spacing]
        counts = [row["steps"] for row in points]
        axes[0, 1].plot(
            counts, [(row["turn"] + row["room"]) / 2 for row in points], marker="o", label=spacing
        )
        axes[1, 1].plot(counts, [row["distance"] for row in points], marker="o", label=spacing)
    labels = [
        ("obeyed", "guidance"),
        ("obeyed (turn and room)", "steps"),
        ("distance", "guidance"),
        ("distance", "steps"),
    ]
    for axis, (y, x) in zip(axes.flat, labels, strict=True):
        axis.set(xlabel=x, ylabel=y)
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    axes[0, 1].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Options))
