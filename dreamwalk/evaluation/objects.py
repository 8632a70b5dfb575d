"""What stays of things: a pillar that the dream puts down itself, leaves, and comes back to.

dreamwalk collect visits --out data/objects-test
dreamwalk evaluate forcing.rooms --report objects --data data/objects-test

Protocol: a dream begins from the true frames of a way of the data and goes on under its actions at true
poses, three times: the key is pressed and the pillar stands; it is never pressed; it is pressed again before
leaving, so that the pillar is gone. `detection` judges its frames by the true ones of the three. A way counts
as one: what most of its frames of a kind show. Views in which too few pixels show the pillar, or in which it
is hardly to be told from what is behind it, are left out.

Hidden changes are a replay: somebody else puts the pillar down, or takes it away, while it is out of view.
True frames show the old state, lead away and back to one look at the new state, and away again over the same
poses, half of the longest time that the way is away; the return is dreamed. They are those of the walks that
have the old and the new state, changed over where the pillar is out of view.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dreamwalk.clip import Clip, batch
from dreamwalk.codecs.rgbd import codec_input
from dreamwalk.data.doom_visits import LEAST_PIXELS, VARIANTS, frames_found
from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.evaluation.detection import CONTRAST, Verdict, contrast, detect
from dreamwalk.evaluation.led_paths import changed_path, dream_path
from dreamwalk.evaluation.places import shown_frames
from dreamwalk.evaluation.reports import hardware, write_report
from dreamwalk.progress import progress
from dreamwalk.rollout.dream import from_image, to_image
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.system import System
from dreamwalk.worlds.doom import DOOM_ACTIONS
from dreamwalk.worlds.placing import placed_mask
from dreamwalk.worlds.visits import WATCHED

TOKEN = 16
"""Pixels of a token, in which errors of place are told."""
LEFT = 16
"""Frames out of view from which a thing was left."""
GAPS = (LEFT, 100, 200, 10_000)
"""Bounds of the rows of the table of how long it was left."""
KINDS = ("before", "at once", "at return")
"""Of views."""
MOST_VIEWS = 24
"""Of a kind, of one way."""
LOOK = 5
"""Frames of the look at a new state after the first in which half as many pixels as ever show the pillar."""
CHANGES = {"appeared": ("nothing", "stands"), "vanished": ("stands", "nothing")}
"""Hidden changes: the walks that have the old and the new state."""
DREAMS = (*VARIANTS, *CHANGES)
TRUTHS = (*VARIANTS, *(new for _, new in CHANGES.values()))
"""The walk that each of the dreams should show."""


@dataclass(frozen=True)
class EvaluateObjects:
    """Examine what stays of what was put down: pictures and numbers into a folder."""

    report: Literal["objects"] = "objects"
    data: str = "data/objects-test"
    """Ways in levels that were not trained on, as `dreamwalk collect visits` writes them."""
    out: Path = Path("runs/objects")
    ways: int = 20
    """How many; each is dreamed three times, and two returns to what has changed."""
    seed: int = 0


@dataclass(frozen=True)
class ObjectView:
    """A frame of a way, and which pixels show the pillar in it where that stands."""

    frame: int
    mask: Tensor
    """bool `(h, w)`."""
    kind: Literal["before", "at once", "at return"]
    gap: int = 0
    """Frames out of view before it was found again."""


@dataclass(frozen=True)
class Way:
    """The true walks of one way, by `VARIANTS`, and where in them one looks."""

    walks: list[Clip]
    history: int
    pressed: int
    """The frame that the press leads into."""
    views: list[ObjectView]
    turn: int
    """The middle of the longest time that the pillar is out of view."""
    seen: int
    """The last frame of the first whole look at it after that."""

    def true(self, variant: str, frame: int) -> Tensor:
        """A true frame `(3, h, w)` in [-1, 1]."""
        return from_image(self.walks[VARIANTS.index(variant)].video[frame])


def evaluate_objects(
    system: System, asked: EvaluateObjects, *, name: str, inverse: object = None
) -> dict[str, Any]:
    """Print the table, write `report.json` and `sheet.png` into `out`.

    UserError for a system that cannot go on frame after frame, and for data that are not of visits.
    """
    if not isinstance(system, Interactive):
        raise UserError(f"'{name}' cannot go on frame after frame, so there is no dream to examine")
    ways = ways_of(Shards(asked.data), asked.ways)
    frames = sum(len(VARIANTS) * (len(way.walks[0]) - way.history) for way in ways)
    frames += sum(len(CHANGES) * (len(way.walks[0]) - 1 - way.turn) for way in ways)
    with progress("dreaming", frames) as advance:
        dreams = [dream_way(system, way, seed=asked.seed, advance=advance) for way in ways]
    report: dict[str, Any] = {"name": name, "data": asked.data, "ways": len(ways), "seed": asked.seed}
    report |= {"history": ways[0].history, "steps": system.config.steps}
    report |= {"hardware": hardware()}
    report |= measure_objects(ways, dreams)
    coded = [coded_truth(system, way) for way in ways]
    report["rule on coded true frames"] = measure_objects(ways, coded)["rows"]
    write_report(report, objects_sheet(ways, dreams), asked.out)
    print_objects(report)
    return report


def ways_of(shards: Shards, most: int) -> list[Way]:
    """The first ways of a folder; UserError for one that holds something else."""
    history = shards.manifest.get("before")
    if not shards.manifest.get("visits") or not isinstance(history, int) or len(shards) < len(VARIANTS):
        raise UserError(f"'{shards.path}' holds no visits: collect them with `dreamwalk collect visits`")
    count = min(most, len(shards) // len(VARIANTS))
    threes = ([shards.clip(len(VARIANTS) * k + v) for v in range(len(VARIANTS))] for k in range(count))
    return [way_of(walks, history) for walks in threes]


def way_of(walks: list[Clip], history: int) -> Way:
    """The views of a way, from the truth of the walk on which the pillar stands."""
    stands = walks[0]
    if stands.placed is None or stands.depth is None:
        raise UserError("these visits do not say where pillars stand: collect them again, into a new folder")
    known = np.isfinite(stands.placed[..., 0]).any(1)
    pressed = int(known.argmax())
    if not known.any() or pressed < history:
        raise UserError(f"the pillar of a visit is put down before frame {history}: collect visits again")
    masks = [_mask(stands, t) for t in range(len(stands))]
    shown = np.array([mask.sum() for mask in masks])
    found, gap, last = frames_found(shown, after=LEFT), 0, pressed
    settled, poses, views, turn = pressed + 3, stands.world_from_camera, [], pressed
    for t in range(history, len(stands)):
        if t < pressed and np.array_equal(poses[t], poses[settled]) and shown[settled] >= LEAST_PIXELS:
            views.append(ObjectView(t, torch.from_numpy(masks[settled]), "before"))
        elif pressed < t < pressed + WATCHED and shown[t] >= LEAST_PIXELS:
            views.append(ObjectView(t, torch.from_numpy(masks[t]), "at once"))
        if shown[t]:
            if t - last > max(gap, LEFT):
                gap, turn = t - last, (t + last) // 2
            last = t
        if found[t]:
            views.append(ObjectView(t, torch.from_numpy(masks[t]), "at return", gap))
    later = shown[turn + 1 :]
    seen = min(turn + 1 + int((2 * later >= later.max()).argmax()) + LOOK, len(stands) - 1)
    way = Way(walks, history, pressed, views, turn, seen)
    kept = [view for view in views if _told(way, view)]
    return replace(way, views=[view for kind in KINDS for view in _some(kept, kind)])


def _some(views: list[ObjectView], kind: str) -> list[ObjectView]:
    """Some of the views of a kind, evenly chosen."""
    picked = [view for view in views if view.kind == kind]
    count = min(MOST_VIEWS, len(picked))
    return [picked[k * len(picked) // count] for k in range(count)]


def _told(way: Way, view: ObjectView) -> bool:
    return contrast(*_both(way, view), view.mask) >= CONTRAST


def _both(way: Way, view: ObjectView) -> tuple[Tensor, Tensor]:
    """The true frames of a view with the pillar and without it."""
    shown = view.frame if view.kind != "before" else way.pressed + 3
    return way.true("stands", shown), way.true("nothing", view.frame)


def _mask(clip: Clip, frame: int) -> np.ndarray:
    """Which pixels of a frame show something that was put down."""
    info = {name: getattr(clip, name)[frame] for name in ("depth", "intrinsics", "world_from_camera")}
    places = clip.placed[frame][np.isfinite(clip.placed[frame][:, 0])]
    return np.any([np.zeros(info["depth"].shape, bool), *(placed_mask(p, info) for p in places)], axis=0)


@torch.inference_mode()
def dream_way(
    system: Interactive, way: Way, *, seed: int = 0, advance: Callable[[], None] = lambda: None
) -> Tensor:
    """The views of a way in each of `DREAMS`, at true poses, `(5, views, 3, h, w)` in [-1, 1]; what is not
    dreamed, since it is before a change, is 0."""
    start = batch(way.walks[:1]).first(way.history)  # the three begin alike
    begun = system.begin(start, seed=seed)
    places = _places(way)
    dreams = torch.zeros(len(DREAMS), len(way.views), *start.video.shape[2:])
    for v, walk in enumerate(map(batch, zip(way.walks, strict=True))):
        session = copy.deepcopy(begun)
        frames = shown_frames(system, session, walk, way.history, advance=advance)
        for step, shown in enumerate(frames, way.history):
            if step in places:
                dreams[v, places[step]] = shown.cpu()
    for v, (old, new) in enumerate(CHANGES.values(), len(VARIANTS)):
        before, after = (way.walks[VARIANTS.index(name)] for name in (old, new))
        path = changed_path(before, after, way.turn, way.seen, schema=DOOM_ACTIONS)
        dream = dream_path(system, path, seed=seed, advance=advance)
        for frame, k in places.items():
            if frame > way.turn:
                dreams[v, k] = dream.shown(path.start + frame - way.turn - 1)
    return dreams


def _places(way: Way) -> dict[int, int]:
    """Which view each frame is that is looked at."""
    return {view.frame: k for k, view in enumerate(way.views)}


@torch.inference_mode()
def coded_truth(system: Interactive, way: Way) -> Tensor:
    """The true frames of a way's views through the system's codec, as `dream_way` gives them."""
    walks = [way.walks[VARIANTS.index(name)] for name in TRUTHS]
    made = torch.zeros(len(DREAMS), len(way.views), 3, *walks[0].video.shape[1:3])
    if system.codec.stride[0] > 1:
        return made
    for frame, k in _places(way).items():
        one = batch([walk.window(frame, 1) for walk in walks])
        coded = system.codec.decode(system.codec.encode(codec_input(one, system.codec.image_channels)))
        made[:, k] = coded[:, 0, :3].clamp(-1, 1)
    return made


ROWS: dict[str, tuple[str, str, str]] = {
    "put down, there at once": ("stands", "at once", "present"),
    "put down, there at return": ("stands", "at return", "present"),
    "not yet put down, there": ("stands", "before", "present"),
    "never put down, there": ("nothing", "at once", "present"),
    "never put down, there at return": ("nothing", "at return", "present"),
    "taken away, gone at return": ("taken", "at return", "absent"),
    "taken away, there at return": ("taken", "at return", "present"),
    "never put down, gone at return": ("nothing", "at return", "absent"),
    "appeared while away, there at return": ("appeared", "at return", "present"),
    "vanished while away, gone at return": ("vanished", "at return", "absent"),
    "vanished while away, there at return": ("vanished", "at return", "present"),
}
"""Of the table: in which dream, in which views, what is counted."""
BOTH = "there where it stands and gone where taken, at return"
"""Last row: who never shows anything is right in each case of `gone`, and never here."""
HIDDEN = "hidden change, shown in the new state at return"
"""Both kinds of it."""
NEW_STATES = ("appeared while away, there at return", "vanished while away, gone at return")
OVER_GAPS = ("put down, there at return", "taken away, gone at return")
"""Rows that are also told by how long the pillar was out of view."""


def measure_objects(ways: list[Way], dreams: list[Tensor]) -> dict[str, Any]:
    """`rows` of counts of ways and of frames with their 95 % intervals, rows of `gaps`, and the error of
    place of what was there at return, in tokens."""
    told = [(way, _verdicts(way, dream)) for way, dream in zip(ways, dreams, strict=True)]
    rows = {name: _counts([_hits(*pair, *row) for pair in told]) for name, row in ROWS.items()}
    rows[BOTH] = _counts([_both_right(*pair) for pair in told])
    rows[HIDDEN] = _counts([_hits(*pair, *ROWS[name]) for pair in told for name in NEW_STATES])
    gaps: dict[str, dict[str, Any]] = {}
    for low, high in pairwise(GAPS):
        some = [pair for pair in told if low <= max((view.gap for view in pair[0].views), default=0) < high]
        for name in OVER_GAPS:
            bounds = f"{low} to {high - 1}" if high < GAPS[-1] else f"{low} or more"
            gaps[f"{name}, left for {bounds}"] = _counts([_hits(*pair, *ROWS[name]) for pair in some])
    back = [seen["stands", k] for way, seen in told for k in _of_kind(way, "at return")]
    moved = [verdict.moved / TOKEN for verdict in back if verdict.present]
    error = {"median": float(np.median(moved)), "mean": float(np.mean(moved))} if moved else {}
    return {"rows": rows, "gaps": gaps, "place error in tokens": error | {"frames": len(moved)}}


def _verdicts(way: Way, dream: Tensor) -> dict[tuple[str, int], Verdict]:
    """On every view, of each of the dreams of a way that has it."""
    return {
        (name, k): detect(dream[v, k], *_both(way, view), mask=view.mask)
        for k, view in enumerate(way.views)
        for v, name in enumerate(DREAMS)
        if name in VARIANTS or view.frame > way.turn
    }


def _hits(way: Way, told: dict[tuple[str, int], Verdict], variant: str, kind: str, what: str) -> list[bool]:
    """Of the views of a kind, which show what is asked for."""
    return [getattr(told[variant, k], what) for k in _of_kind(way, kind) if (variant, k) in told]


def _both_right(way: Way, told: dict[tuple[str, int], Verdict]) -> list[bool]:
    """Of the views at return, in which the dreams show it where it stands and not where it was taken."""
    there, gone = (_hits(way, told, *ROWS[name]) for name in OVER_GAPS)
    return [a and b for a, b in zip(there, gone, strict=True)]


def _of_kind(way: Way, kind: str) -> list[int]:
    return [k for k, view in enumerate(way.views) if view.kind == kind]


def _counts(ways: list[list[bool]]) -> dict[str, Any]:
    """How many ways show it in most of their frames, and how many frames do."""
    some = [hits for hits in ways if hits]
    hit, frames = sum(2 * sum(hits) > len(hits) for hits in some), [x for hits in some for x in hits]
    low, high = wilson(hit, len(some))
    counts: dict[str, Any] = {"hit": hit, "ways": len(some), "low": round(low, 3), "high": round(high, 3)}
    return counts | {"frames hit": sum(frames), "frames": len(frames)}


def wilson(hit: int, count: int) -> tuple[float, float]:
    """The 95 % interval of Wilson of a share; (0, 1) of nothing."""
    if not count:
        return 0.0, 1.0
    z, share = 1.96, hit / count
    middle, whole = share + z * z / (2 * count), 1 + z * z / count
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def objects_sheet(ways: list[Way], dreams: list[Tensor], *, rows: int = 4, columns: int = 8) -> np.ndarray:
    """uint8 `(h, w, 3)`: of some ways the truth above the dream, with the pillar, with the one taken, and
    with hidden changes."""
    lines = []
    for way, dream in zip(ways[:rows], dreams, strict=False):
        views = [k for k, view in enumerate(way.views) if view.kind != "before"] or list(
            range(len(way.views))
        )
        picked = [views[k * len(views) // columns] for k in range(columns if views else 0)]
        for v, variant in enumerate(TRUTHS):
            if DREAMS[v] != "nothing":
                lines.append(torch.cat([way.true(variant, way.views[k].frame) for k in picked], 2))
                lines.append(torch.cat([dream[v, k] for k in picked], 2))
    return to_image(torch.cat(lines, 1))


def print_objects(report: dict[str, Any]) -> None:
    """The table of a report."""
    print(
        f"{report['name']} on {report['ways']} ways of '{report['data']}', {report['history']} true frames "
        f"first, {report['steps']} passes, true poses, seed {report['seed']}"
    )
    for part in ("rows", "gaps", "rule on coded true frames"):
        print(f"  {part}:" if part != "rows" else "  ways in most of whose frames it is so, and frames:")
        for name, row in report[part].items():
            share = f"{100 * row['hit'] / row['ways']:5.1f} %" if row["ways"] else "    -  "
            bounds = f"[{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
            of = f"{row['hit']}/{row['ways']}"
            print(f"    {name:58}{of:>7} {share} {bounds:>10}  {row['frames hit']:>5}/{row['frames']}")
    error = report["place error in tokens"]
    if error["frames"]:
        print(f"  error of place at return: median {error['median']:.2f}, mean {error['mean']:.2f} tokens")
