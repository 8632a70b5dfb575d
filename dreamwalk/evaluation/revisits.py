"""What one finds when one comes back: the protocols of WorldMem, on exact truth, for any memory.

dreamwalk evaluate forcing.rooms --report revisits --data data/rooms-long

Protocol (WorldMem, arXiv 2504.12369, section 4, at a smaller scale): a dream is led at true poses along the
three kinds of paths of `led_paths`. It is back in a frame at least half of whose pixels show surfaces that
were seen before and then out of view for longer than the window, by true depth and poses. Those pixels are
compared with the truth (*dream*; those of them that a true frame had shown: *shown*), and on the way back of
a loop with the dream's own frame at the same pose (*own*): what was invented is to stay, but not to be true.
Beside it stand the codec's ceiling and the floor, the last true frame.

Who stands still repeats itself perfectly. So every value is also told multiplied by the gate,
min(1, (1 - s) / 0.15), where s is the least SSIM of the frame at return with those shown while the place was
left: a dream that does not move earns nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dreamwalk.clip import Clip
from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.evaluation.fidelity import decibels
from dreamwalk.evaluation.led_paths import (
    Branch,
    LedDream,
    LedPath,
    Return,
    dream_path,
    frames_away,
    loop_path,
    returns,
    straight_path,
)
from dreamwalk.evaluation.places import (
    EVERY,
    LEAST,
    long_walks,
    require_depth,
    seen_from,
    ssim_map,
    true_frame,
)
from dreamwalk.evaluation.reports import hardware, write_report
from dreamwalk.memory.contract import MemoryModel
from dreamwalk.memory.frame_memory import BankMemory
from dreamwalk.memory.points_and_bank import PointsAndBank
from dreamwalk.memory.retention import PolicyName
from dreamwalk.memory.retrieval import RetrievalMode
from dreamwalk.progress import progress
from dreamwalk.rollout.dream import to_image
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.system import System

GAPS = (32, 64, 128, 256, 512, 1024, 2048)
"""Frames out of view, of the curve; a return counts for the one that is nearest by ratio."""
STILL = 0.15
"""Least difference in SSIM of who has been somewhere else."""
BETWEEN = 16
"""Frames that are looked at for that, evenly from leaving to return."""
EACH, WHOLE = 12, 64
"""Returns of one gap that are measured on a path, and whole frames."""
DRAWS = 1000
"""Of the bootstrap."""
MEMORY = 1 << 28
"""Bytes of decoded walks that are kept."""


@dataclass(frozen=True)
class EvaluateRevisits:
    """Examine what is found on coming back: pictures and numbers into a folder."""

    report: Literal["revisits"] = "revisits"
    data: str = "data/rooms-long"
    """Long walks in levels that were not trained on, with depth and poses."""
    out: Path = Path("runs/revisits")
    clips: int = 6
    """How many walks, of different levels as far as there are."""
    branches: tuple[Branch, ...] = ("replay", "loop", "open")
    """Kinds of paths."""
    history: int = 48
    """True frames that loops and open paths begin from."""
    frames: int = 512
    """Dreamed frames of loops, out and back, and of open paths."""
    replayed: int = 600
    """True frames in the memory, of `replay`."""
    after: int = 100
    """Dreamed frames after them."""
    memory: bool = True
    """Whether it may recall."""
    retrieval: RetrievalMode | None = None
    """How frames of a bank are chosen; default: candidates by their views, of which those are shown that
    cover most by their depth. With it, those that it chooses are shown."""
    recalled: int | None = None
    """Frames of a bank that are shown; default: the system's own."""
    budget: int | None = None
    """Frames that a bank keeps; default: the system's own."""
    policy: PolicyName | None = None
    """Which of them it forgets."""
    seed: int = 0

    @property
    def length(self) -> int:
        """Frames of a walk that are needed."""
        ends = {"loop": self.history + self.out_frames, "open": self.history + self.frames}
        return max((ends | {"replay": self.replayed + self.after})[branch] for branch in self.branches)

    @property
    def out_frames(self) -> int:
        """Of a loop, before it turns."""
        return self.frames // 2 + 1

    @property
    def dreamed(self) -> int:
        """Frames, of one walk."""
        ends = {"loop": 2 * self.out_frames - 1, "open": self.frames, "replay": self.after}
        return sum(ends[branch] for branch in self.branches)


@dataclass
class BranchRows:
    """What was measured of one kind of path: of every walk, values of each of its frames."""

    all: list[list[dict[str, float]]] = field(default_factory=list)
    """Of frames evenly over a path."""
    revisits: list[list[tuple[int, dict[str, float]]]] = field(default_factory=list)
    """Of returns, with their gaps."""
    strips: list[Tensor] = field(default_factory=list)
    """Pictures of the return from farthest away, uint8 `(3, h, w)`."""


def evaluate_revisits(
    system: System, asked: EvaluateRevisits, *, name: str, inverse: object = None
) -> dict[str, Any]:
    """Print the tables, write `report.json` and `sheet.png` into `out`.

    UserError for a system that dreams no depth, for data without depth or poses or too short, and for flags
    of a bank where there is none.
    """
    if not isinstance(system, Interactive) or system.codec.image_channels != 4:
        raise UserError(f"'{name}' makes no frames with depth: examine it without `--report revisits`")
    if min(asked.clips, asked.history, asked.frames - 1, asked.replayed, asked.after) < 1:
        raise UserError(
            "`--clips`, `--history`, `--replayed` and `--after` are 1 or more, `--frames` 2 or more"
        )
    if system.codec.stride[0] > 1 or not asked.branches:
        raise UserError("`--report revisits` needs a codec of single frames, and at least one branch")
    configure_bank(system.memory, asked)
    shards = Shards(asked.data, memory=MEMORY)
    indices = long_walks(shards, asked.clips, asked.length, flags="`--frames` or `--replayed`")
    rows = {branch: BranchRows() for branch in asked.branches}
    with progress("dreaming", len(indices) * asked.dreamed) as advance:
        for index in indices:
            walk = require_depth(shards.window(index, 0, asked.length, depth=True), asked.data)
            for branch in asked.branches:
                path = _path(branch, walk, asked, shards)
                _take(rows[branch], system, path, asked, advance)
    report: dict[str, Any] = {"name": name, "data": asked.data, "walks": len(indices), "seed": asked.seed}
    flags = ("history", "frames", "replayed", "after", "memory", "retrieval", "recalled", "budget", "policy")
    report |= {flag: getattr(asked, flag) for flag in flags}
    report |= {"window": system.config.window, "steps": system.config.steps}
    report |= {"hardware": hardware()}
    report["branches"] = {branch: summary(found, asked.seed) for branch, found in rows.items()}
    sheet = _sheet([strip for found in rows.values() for strip in found.strips[:3]])
    write_report(report, sheet, asked.out)
    print_revisits(report)
    return report


def configure_bank(memory: MemoryModel, asked: EvaluateRevisits) -> None:
    """The bank as it is to be examined; UserError for flags of a bank where there is none."""
    given = [asked.retrieval, asked.recalled, asked.budget, asked.policy]
    bank = memory.bank if isinstance(memory, PointsAndBank) else memory
    if not isinstance(bank, BankMemory):
        if any(value is not None for value in given):
            raise UserError(
                "this system has no bank: leave out `--retrieval`, `--recalled`, `--budget` and `--policy`"
            )
        return
    config = bank.config
    frames = config.frames if asked.recalled is None else asked.recalled
    retrieval = replace(config.retrieval, count=max(frames, config.retrieval.count))
    if asked.retrieval is not None:
        retrieval = replace(retrieval, mode=asked.retrieval, count=frames)
    if frames < 1:
        raise UserError(f"`--recalled` is 1 or more, got {frames}")
    if asked.policy and asked.budget is None and config.budget.frames is None:
        raise UserError(
            "a bank without a bound forgets nothing: give `--policy` a `--budget`, for example 64"
        )
    budget = replace(
        config.budget,
        frames=config.budget.frames if asked.budget is None else asked.budget,
        policy=asked.policy or config.budget.policy,
    )
    bank.config = bank.tokens.config = replace(config, frames=frames, retrieval=retrieval, budget=budget)


def _path(branch: Branch, walk: Clip, asked: EvaluateRevisits, shards: Shards) -> LedPath:
    if branch == "loop":
        return loop_path(walk, asked.history, asked.out_frames, schema=shards.schema)
    start, dreamed = (asked.history, asked.frames) if branch == "open" else (asked.replayed, asked.after)
    return straight_path(branch, walk, start, dreamed)


def _take(
    rows: BranchRows, system: Interactive, path: LedPath, asked: EvaluateRevisits, advance: Callable[[], None]
) -> None:
    """Dream along a path, measure it and let it go: only numbers and a strip of pictures are kept."""
    dream = dream_path(system, path, seed=asked.seed, recalling=asked.memory, advance=advance)
    window = system.config.window
    found = returns(path, window)
    rows.all.append(measure_all(system, dream))
    rows.revisits.append([(one.gap, measure_return(system, dream, one, window)) for one in chosen(found)])
    if found:
        rows.strips.append(_strip(dream, max(found, key=lambda one: one.gap)))


def chosen(found: list[Return]) -> list[Return]:
    """Up to `EACH` returns of each gap of the curve, and of those below it, evenly."""
    kept = []
    for gap in (0, *GAPS):
        some = [one for one in found if (bin_of(one.gap) or 0) == gap]
        kept += [some[k * len(some) // EACH] for k in range(EACH)] if len(some) > EACH else some
    return kept


def bin_of(gap: int) -> int | None:
    """The gap of the curve for which one counts; None for those that are too short."""
    nearest = min(GAPS, key=lambda other: abs(math.log2(gap / other)))
    return nearest if gap > GAPS[0] / math.sqrt(2) else None


@torch.inference_mode()
def measure_all(system: Interactive, dream: LedDream) -> list[dict[str, float]]:
    """PSNR and SSIM of whole frames, evenly over what was dreamed: WorldMem's own measure."""
    first, count = dream.path.start, len(dream.frames)
    picked = np.unique(np.linspace(0, count - 1, min(count, WHOLE)).astype(int))
    return [_compared(system, dream, first + int(k)) for k in picked]


@torch.inference_mode()
def measure_return(system: Interactive, dream: LedDream, found: Return, window: int) -> dict[str, float]:
    """PSNR and SSIM of the pixels that one is back at, and the same with the gate."""
    path, frame = dream.path, found.frame
    visible = seen_from(path.truth, frame).isfinite()
    mask = frames_away(visible, window) > window
    values = _compared(system, dream, frame, masks=(mask, mask & visible[: path.start].any(0)))
    true = lambda t: true_frame(path.truth, t)[:3]
    first = max(frame - found.gap, path.start - 1)
    gates = {"dream": gate(dream.shown, first, frame), "truth": gate(true, first, frame), "floor": 0.0}
    gates |= {"own": gates["dream"], "shown": gates["dream"], "ceiling": gates["truth"]}
    for name, value in dict(values).items():
        values[f"gated {name}"] = value * gates[name.split()[1]]
    return values | {f"gate {who}": gates[who] for who in ("dream", "truth")}


def gate(shown: Callable[[int], Tensor], first: int, last: int) -> float:
    """How much of its score one earns for coming back in frame `last`, from what was shown since `first`."""
    between = np.unique(np.linspace(first, last - 1, BETWEEN).astype(int))
    least = 1.0
    for t in between:
        least = min(least, float(ssim_map(shown(int(t)), shown(last)).mean()))
        if least <= 1 - STILL:  # all is earned
            break
    return min(1.0, max(0.0, (1 - least) / STILL))


def _compared(
    system: Interactive, dream: LedDream, frame: int, *, masks: tuple[Tensor, Tensor] | None = None
) -> dict[str, float]:
    """PSNR and SSIM of a frame and its bounds, of a loop also with the dream's own frame at the pose; of all
    pixels, or of the first mask, and of the second against the truth."""
    path = dream.path
    truth, twin = true_frame(path.truth, frame), path.twin(frame)
    made, coded = dream.shown(frame), system.codec.decode(system.codec.encode(truth[None, None]))
    last = true_frame(path.truth, path.start - 1)[:3]
    pairs = {"dream": (made, truth[:3]), "ceiling": (coded[0, 0, :3].clamp(-1, 1), truth[:3])}
    pairs |= {"floor": (last, truth[:3])} | ({} if twin is None else {"own": (made, dream.shown(twin))})
    values: dict[str, float] = {}

    def add(who: str, maps: tuple[Tensor, Tensor]) -> None:
        values[f"psnr {who}"] = decibels(maps[0].mean())
        values[f"ssim {who}"] = float(maps[1].mean())

    for who, (one, other) in pairs.items():
        maps = ((one - other) / 2).square().mean(0), ssim_map(one, other)
        if masks is None:
            add(who, maps)
            continue
        error, similar = (part[EVERY // 2 :: EVERY, EVERY // 2 :: EVERY] for part in maps)
        add(who, (error[masks[0]], similar[masks[0]]))
        if who == "dream" and masks[1].sum() >= LEAST:
            add("shown", (error[masks[1]], similar[masks[1]]))
    return values


def summary(rows: BranchRows, seed: int) -> dict[str, Any]:
    """Means over walks with their intervals, of all frames and of returns by gap."""
    told: dict[str, Any] = {"all frames": _means(rows.all, seed), "revisits": {}}
    for gap in (None, *GAPS):
        walks = [[v for g, v in walk if gap is None or bin_of(g) == gap] for walk in rows.revisits]
        told["revisits"]["any" if gap is None else str(gap)] = _means(walks, seed)
    return told


def _means(walks: list[list[dict[str, float]]], seed: int) -> dict[str, Any]:
    """Of each row the mean over the walks that have such frames, of the means of their frames."""
    some = [walk for walk in walks if walk]
    told: dict[str, Any] = {"walks": len(some), "frames": sum(map(len, some)), "rows": {}}
    for name in dict.fromkeys(name for walk in some for values in walk for name in values):
        of_walks = [[values[name] for values in walk if name in values] for walk in some]
        means = np.array([np.mean(values) for values in of_walks if values])
        low, high = interval(means, seed)
        told["rows"][name] = [round(float(value), 4) for value in (means.mean(), low, high)]
    return told


def interval(means: np.ndarray, seed: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean over walks; that of a single one says nothing."""
    draws = np.random.default_rng(seed).integers(len(means), size=(DRAWS, len(means)))
    low, high = np.percentile(means[draws].mean(1), (2.5, 97.5))
    return float(low), float(high)


def _strip(dream: LedDream, found: Return, columns: int = 8) -> Tensor:
    """The truth above the dream, from before a place was left until the return."""
    picked = np.linspace(found.frame - found.gap, found.frame, columns).astype(int)
    lines = [
        [true_frame(dream.path.truth, int(t))[:3] for t in picked],
        [dream.shown(int(t)) for t in picked],
    ]
    return torch.cat([torch.cat(line, 2) for line in lines], 1)


def _sheet(strips: list[Tensor]) -> np.ndarray:
    """uint8 `(h, w, 3)`; one grey line where nothing was found again."""
    return to_image(torch.cat(strips, 1) if strips else torch.zeros(3, 1, 8))


def print_revisits(report: dict[str, Any]) -> None:
    """The tables of a report: a column for whole frames, one for all returns, and the curve over gaps."""
    off = "" if report["memory"] else ", memory off"
    print(
        f"{report['name']} on {report['walks']} walks of '{report['data']}', true poses, window of "
        f"{report['window']}, {report['steps']} passes{off}, seed {report['seed']}; mean over walks [95 %]"
    )
    for branch, told in report["branches"].items():
        columns = {"whole frames": told["all frames"], "returns": told["revisits"]["any"]}
        columns |= {f"away for {gap}": told["revisits"][str(gap)] for gap in GAPS}
        columns = {name: part for name, part in columns.items() if part["frames"]}
        print(f"  {branch:20}" + "".join(f"{name:>20}" for name in columns))
        counts = [f"{part['frames']} of {part['walks']} walks" for part in columns.values()]
        print(f"    {'frames':18}" + "".join(f"{count:>20}" for count in counts))
        names = dict.fromkeys(name for part in columns.values() for name in part["rows"])
        for name in (name for name in names if not name.startswith("gated psnr")):
            cells = [_cell(name, part["rows"].get(name)) for part in columns.values()]
            print(f"    {name:18}" + "".join(f"{cell:>20}" for cell in cells))


def _cell(name: str, row: list[float] | None) -> str:
    return "-" if row is None else "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*row, d=1 if "psnr" in name else 2)
