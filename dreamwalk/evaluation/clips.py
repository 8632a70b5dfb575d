"""The examination of generators of clips: prompt adherence on captions of held-out walks.

dreamwalk evaluate moviegen.doom --data data/home-test --train data/home-train
"""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from dreamwalk.clip import Clip, batch
from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.evaluation import prompt_adherence
from dreamwalk.evaluation.prompt_adherence import Adherence, CaptionFacts, ClipClassifiers, adherence
from dreamwalk.evaluation.reports import picture_row, write_report
from dreamwalk.progress import followed
from dreamwalk.systems.clip_generator import ClipGenerator
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.inverse import Inverse
from dreamwalk.systems.system import System
from dreamwalk.worlds.levels import level_named


@dataclass(frozen=True)
class EvaluateClips:
    """Examine a generator of clips on the captions of held-out walks."""

    data: str = "data/doom-test"
    """Clips that were not trained on, as `dreamwalk collect --split test` writes them."""
    train: str = "data/doom"
    """Clips that were, which the classifiers of rooms and walking are fitted to."""
    out: Path = Path("runs/examination")
    clips: int = 200
    """How many captions."""
    frames: int | None = None
    """Frames of a clip; default: those of the system."""
    steps: int | None = None
    guidance: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    at_once: int = 10
    inverse: str = "inverse.doom"
    """Inverse-dynamics model that reads motion back."""
    seed: int = 0


@dataclass(frozen=True)
class PromptTest:
    """Captions of held-out windows, their checkable content, and the classifiers."""

    windows: list[Clip]
    facts: list[CaptionFacts]
    classifiers: ClipClassifiers

    @property
    def truth(self) -> Tensor:
        """uint8 `(b, t, 3, h, w)`."""
        return batch(self.windows).video

    def real(self) -> Adherence:
        """What is read from the real frames."""
        return adherence(self.truth, self.facts, self.classifiers)


def draw_prompt_test(asked: EvaluateClips, inverse: Inverse, *, frames: int) -> PromptTest:
    """Draw captions and fit the classifiers; UserError when the level of the data is not known."""
    held_out, train = Shards(asked.data), Shards(asked.train)
    name = str(held_out.manifest.get("level", ""))
    if name in ("", "procedural") or held_out.manifest.get("split") == "train":
        raise UserError(f"'{asked.data}' has no held-out walks in a known level: collect a test split of one")
    level = level_named(name)
    windows = prompt_adherence.draw_windows(held_out, asked.clips, frames=frames, seed=asked.seed)
    facts = [prompt_adherence.caption_facts(level, window.world_from_camera) for window in windows]
    return PromptTest(windows, facts, prompt_adherence.fit_classifiers(train, level, inverse))


def generate(
    system: ClipGenerator, test: PromptTest, request: ClipRequest, *, at_once: int, precision: str
) -> Tensor:
    """The clips of all captions, uint8 `(b, t, 3, h, w)`."""
    texts = [str(window.caption) for window in test.windows]
    made = []
    for first in followed(range(0, len(texts), at_once), "dreaming clips", total=-(-len(texts) // at_once)):
        seeded = replace(request, seed=request.seed + first)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            made.append(system.sample(texts[first : first + at_once], request=seeded))
    return torch.cat(made).permute(0, 1, 4, 2, 3)


def evaluate_clips(
    system: System, asked: EvaluateClips, *, name: str, inverse: Inverse | None = None
) -> dict[str, Any]:
    """Measure prompt adherence; prints the table, writes `report.json` and a contact sheet into `out`."""
    if not isinstance(system, ClipGenerator):
        raise UserError(f"'{name}' makes no clips from words, so there are no words to obey")
    if inverse is None:
        raise UserError("an inverse-dynamics model reads motion: leave `--inverse` as it is, or train one")
    if asked.clips < 1 or asked.at_once < 1:
        raise UserError("`--clips` and `--at-once` are at least 1")
    request = ClipRequest(frames=asked.frames, seed=asked.seed, steps=asked.steps, guidance=asked.guidance)
    request.check()
    settings = system.settings(request)
    frames = settings.frames
    test = draw_prompt_test(asked, inverse, frames=frames)
    began = perf_counter()
    video = generate(system, test, request, at_once=asked.at_once, precision=asked.precision)
    seconds = (perf_counter() - began) / asked.clips
    shuffled = [test.facts[i] for i in np.random.default_rng(asked.seed).permutation(len(test.facts))]
    rows = {
        "real frames": test.real(),
        "dream": adherence(video, test.facts, test.classifiers),
        "dream, others' captions": adherence(video, shuffled, test.classifiers),
    }
    report: dict[str, Any] = {"name": name, "data": asked.data, "clips": asked.clips, "frames": frames}
    report |= {"seed": asked.seed, "steps": settings.steps, "guidance": settings.guidance}
    report |= {"machine": platform.processor() or platform.machine(), "seconds a clip": round(seconds, 2)}
    report["distance"] = round(prompt_adherence.frechet_distance(test.truth, video, inverse), 2)
    report["rows"] = {row: asdict(value) for row, value in rows.items()}
    write_report(report, captioned_sheet(test.windows, video), asked.out)
    _print(report)
    return report


def _print(report: dict[str, Any]) -> None:
    """Print a report as a table."""
    print(
        f"{report['name']}: {report['clips']} captions of '{report['data']}', {report['frames']} frames, "
        f"{report['steps']} steps, guidance {report['guidance']}, seed {report['seed']}, "
        f"{report['seconds a clip']} s a clip"
    )
    for row, value in report["rows"].items():
        print(
            f"  {row:24} turns right way {value['turn']:6.1%} of {value['turns']:3}   "
            f"walks or not {value['walk']:6.1%} of {value['walks']:3}   "
            f"room {value['room']:6.1%} of {value['rooms']:3}"
        )


def captioned_sheet(windows: Sequence[Clip], video: Tensor) -> np.ndarray:
    """uint8 `(h, w, 3)`: each caption above the frames that were dreamt, and those above the frames that it
    was taken from."""
    moments = np.linspace(0, video.shape[1] - 1, 7).astype(int)
    rows: list[np.ndarray] = []
    for window, made in zip(windows[:10], video, strict=False):
        rows += _captioned(window, made, moments)
    return np.concatenate(rows)


def _captioned(window: Clip, made: Tensor, moments: np.ndarray) -> Iterator[np.ndarray]:
    dreamt = picture_row(made, moments)
    lines = textwrap.wrap(str(window.caption), dreamt.shape[1] // 6)
    strip = Image.new("RGB", (dreamt.shape[1], 4 + 14 * len(lines)), "white")
    ImageDraw.Draw(strip).text((3, 2), "\n".join(lines), fill="black")
    yield np.asarray(strip)
    yield dreamt
    yield np.concatenate(list(window.video[moments]), axis=1)
