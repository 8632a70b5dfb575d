"""Which frames of a bank are shown beside the coming one (WorldMem, arXiv 2504.12369, section 3.3).

    paper's word                        our word
    confidence alpha = o w_o - d w_t    score: `overlap_weight * overlap - time_weight / time * age`
    FOV overlap ratio o (Algorithm 2)   overlap: share of points ahead of the target that a frame sees
    similarity filter t_r (Algorithm 1) similarity: of the points that two frames see of the target, the share
                                        that both see; a frame like one that was picked is not picked

Other than in the release: points lie ahead of the target, and are the same ones every time; a frame sees them
by its true pinhole, up to a stated reach, and not through what is known to be in front; frames in the window
are no candidates. Frames beyond reach share nothing with the target, so only those near it are looked at, and
the newest of all others, whose score is the best among those: that is the same as looking at all. Only when
more than `most` are near, the newest of each cell of poses stands for the others, which it is like: so the
cost of a frame stays, however long a walk is and however often it comes back.

When fewer than `count` different frames are left, those follow that are like the fewest of the picked ones,
best score first; when there are no more candidates at all, the slots are not valid. Nothing is ever NaN.

    greedy      Algorithm 1
    confidence  the best scores, however alike
    random      any
    per-part    the first frame of the session, then the best one for each part of the coming frames in turn
                (Matrix-Game 3.0, arXiv 2604.08995)
    released    as the public code does; see `_released`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamwalk.layers.precision import float32_arithmetic
from dreamwalk.memory.frustum import Cameras, bounds, lifted, points_ahead
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.validation import Count, Positive

RetrievalMode = Literal["greedy", "released", "per-part", "random", "confidence"]
CHUNK = 256
"""Candidates that are tested together: always so many, so that no bit depends on how many there are."""
BEHIND = 1.1
"""A point hides behind a surface at this many times the surface's depth."""
SIDES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Of cells of poses: of the radius, and of a unit vector (1 / 32 is 2 degrees)."""
HASH = (73856093, 19349663, 83492791, 49979687, 86028121, 15485863)
"""Primes, which make a number of a cell."""
NONE, TAKEN = 1 << 20, 1 << 21
"""Stand for the number of picked frames that one is like: where there is none, and where it was picked."""


@dataclass(frozen=True)
class RetrievalConfig:
    """How frames are chosen; defaults are WorldMem's, with 30 m as 1024 units."""

    count: int = 8
    overlap_weight: float = 1.0
    time_weight: float = 0.2
    similarity: float = 0.9
    """Above it, two frames are alike."""
    mode: RetrievalMode = "greedy"
    occlusion: bool = False
    """A frame does not see what lies behind its coarse depth, where it has one."""
    points: int = 512
    """Over all targets; the release draws 10,000 in a sphere, of which 1,800 are in view."""
    radius: Positive = 1024.0
    """World units up to which there are points ahead of the target."""
    reach: Positive | None = 1024.0
    """World units up to which a frame sees; None for no end, and then every frame is looked at."""
    most: int | None = 1024
    """Frames that are looked at; None for all near ones."""
    seed: Count = 0
    """Of `random` and `released`."""


@dataclass(frozen=True)
class Retrieved:
    """Frames for one row, in the order in which they were picked; always `k` of them."""

    indices: Tensor
    """Their slots in the bank, int64 `(k,)`; 0 where not valid."""
    valid: Tensor
    """bool `(k,)`."""
    overlap: Tensor
    """Share of the points ahead of all targets that each sees, `(k,)`."""
    age: Tensor
    """Frames since it was made, int64 `(k,)`; 0 where not valid."""


@torch.no_grad()
@float32_arithmetic()
def retrieve(
    cameras: Cameras,
    target: Cameras,
    *,
    time: int,
    before: int,
    config: RetrievalConfig,
    points: Tensor | None = None,
) -> Retrieved:
    """Frames of a bank with `cameras` for the frame `time`, of those from before frame `before`, where the
    window begins.

    `target` are the cameras of the coming frames, or of their parts. `points` `(n, 3)`, of surfaces in the
    world that the target sees, are to be covered in place of those ahead of it, if there are any.
    """
    assert cameras.time is not None
    if config.mode == "released":
        return _released(cameras, target, time, config)
    aims = points_ahead(target, max(config.points // len(target), 1), radius=config.radius)
    aims = aims if points is None or not len(points) else points[None]
    index, views = _candidates(cameras, aims, before, config)
    depth = cameras.depth[index] if config.occlusion and cameras.depth is not None else None
    shows = _seen(views, aims, depth, unit=config.radius)
    overlap, age = shows.mean(2), time - cameras.time[index]
    score = config.overlap_weight * overlap - config.time_weight / max(time, 1) * age.abs()[:, None]
    shown = shows.flatten(1) if config.mode == "greedy" else None
    if config.mode == "per-part":
        score = _by_part(score, config.count)
    elif config.mode == "random":
        score = KeyedGenerator([(config.seed, time)], device=score.device).uniform(len(index)).T
    else:
        score = score.mean(1, keepdim=True)
    picks = _picked(score, shown, config)
    return _told(picks, index, overlap.mean(1), age)


def _candidates(
    cameras: Cameras, aims: Tensor, before: int, config: RetrievalConfig
) -> tuple[Tensor, Tensor]:
    """Slots that are worth a look, from the newest frame to the oldest, and the bounds of their views."""
    time, count = cameras.time, config.count
    assert time is not None
    wanted, (centre, extent) = time < before, _ball(aims)
    always = torch.ones_like(wanted)
    if len(cameras) > count and config.mode != "random":
        always = torch.zeros_like(wanted)
        always[_largest(time.masked_fill(~wanted, torch.iinfo(time.dtype).min), count)] = True
        always[time.argmin()] |= config.mode == "per-part"
    if config.reach is not None:
        wanted &= always | ((cameras.position - centre).norm(dim=1) <= extent + config.reach)
    index = wanted.nonzero()[:, 0]
    views = bounds(cameras.rows(index), centre, unit=config.radius, reach=config.reach)
    # Most look elsewhere: the ball around the points is out of one side of their view.
    inside = views[:, :4, 3] + 1.001 * extent / config.radius * views[:, :4, :3].norm(dim=2) >= 0
    kept = (inside.all(1) | always[index]).nonzero()[:, 0]
    kept = kept[time[index[kept]].argsort(descending=True, stable=True)]
    if config.most is not None and len(kept) > config.most:
        poses = cameras.rows(index[kept])
        cells = torch.cat([poses.position / config.radius, poses.direction], 1)
        kept = kept[_newest_of_cells(cells, always[index[kept]], config.most)]
    return index[kept], views.index_select(0, kept)


def _newest_of_cells(poses: Tensor, always: Tensor, most: int) -> Tensor:
    """Of poses `(n, 6)` from new to old the first of each cell, and those that are kept `always`, in order.
    Cells are as small as leaves `most` of them."""
    kept = torch.arange(len(poses), device=poses.device)
    for side in SIDES:
        if len(kept) <= most:
            break
        cell = ((poses[kept] / side).round().long() * torch.tensor(HASH, device=poses.device)).sum(1)
        _, where = cell.unique(return_inverse=True)
        first = torch.full_like(kept, len(poses)).scatter_reduce(0, where, kept, "amin")
        kept = kept[always[kept] | (first[where] == kept)]
    return kept


def _ball(aims: Tensor) -> tuple[Tensor, Tensor]:
    """Centre `(3,)` and radius of a ball around points `(m, p, 3)`."""
    centre = aims.flatten(0, 1).mean(0)
    return centre, (aims - centre).norm(dim=-1).max()


def _largest(values: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest: of the rows of 64 with the largest ones, which is quicker."""
    rows = F.pad(values, (0, -len(values) % 64), value=torch.iinfo(values.dtype).min).view(-1, 64)
    best = rows.amax(1).topk(min(count, len(rows))).indices
    inside = rows[best].flatten().topk(count).indices
    return (best[inside // 64] * 64 + inside % 64).clamp(max=len(values) - 1)


def _seen(views: Tensor, aims: Tensor, depth: Tensor | None, *, unit: float) -> Tensor:
    """Whether views with bounds `(n, 5, 5)` hold each point of `aims` `(m, p, 3)`: 1 or 0, `(n, m, p)`."""
    points = lifted(aims.flatten(0, 1), _ball(aims)[0], unit=unit)
    found = points.new_empty(len(views), points.shape[1])
    for start in range(0, len(views), CHUNK):
        part = views[start : start + CHUNK].transpose(0, 1)
        count = part.shape[1]
        part = F.pad(part, (0, 0, 0, CHUNK - count))
        results = (part.flatten(0, 1) @ points).unflatten(0, part.shape[:2])[:, :count]
        seen = results.amin(0) >= 0
        if depth is not None:
            seen &= ~_hidden(results, depth[start : start + CHUNK] / unit)
        found[start : start + count] = seen
    return found.unflatten(1, aims.shape[:2])


def _hidden(results: Tensor, depth: Tensor) -> Tensor:
    """Whether points with results `(5, n, m)` lie behind the surfaces of coarse depths."""
    rows, columns = depth.shape[1:]
    ahead = (results[0] + results[1]).clamp(min=1e-9)
    column = (results[0] / ahead * columns).clamp(0, columns - 1).long()
    row = (results[2] / ahead * rows).clamp(0, rows - 1).long()
    known = depth.flatten(1).gather(1, row * columns + column)
    return (known > 0) & (ahead > BEHIND * known)


def _by_part(score: Tensor, count: int) -> Tensor:
    """Scores `(n, m)` for `m` parts as those of each of `count` picks in turn: the oldest frame first."""
    first = torch.full_like(score[:, :1], -torch.inf)
    first[-1:] = 0
    part = torch.arange(count - 1, device=score.device) * score.shape[1] // max(count - 1, 1)
    return torch.cat([first, score[:, part]], 1)


def _picked(score: Tensor, shown: Tensor | None, config: RetrievalConfig) -> Tensor:
    """Rows of the best scores, one after the other, `(k,)`; rows past the end where there are no more.

    `score` is `(n, 1)`, or `(n, k)` with one of its own for each pick. Rows of `shown` `(n, p)`, 0 or 1, that
    are similar to one that was picked come after all that are not.
    """
    short = max(config.count - len(score), 0)
    score = F.pad(score, (0, 0, 0, short))
    like = F.pad(torch.zeros_like(score[: len(score) - short, 0]), (0, short), value=NONE)
    picks, sizes = [], None if shown is None else shown.sum(1)
    for i in range(config.count):
        best = torch.where(like == like.min(), score[:, i % score.shape[1]], -torch.inf)
        picks.append(best.argmax()[None])
        if shown is not None and sizes is not None and len(shown):
            pick = picks[-1].clamp(max=len(shown) - 1)
            both = shown @ shown[pick][0]
            like[: len(shown)] += both > config.similarity * (sizes + sizes[pick] - both)
        like.index_fill_(0, picks[-1], TAKEN)
    return torch.cat(picks)


def _told(picks: Tensor, index: Tensor, overlap: Tensor, age: Tensor) -> Retrieved:
    """Picks among the candidates as what `retrieve` tells."""
    valid = picks < len(index)
    found = [
        torch.cat([x, x.new_zeros(len(picks))])[picks.clamp(max=len(index))] for x in (index, overlap, age)
    ]
    return Retrieved(found[0], valid, found[1], found[2])


def _released(cameras: Cameras, target: Cameras, time: int, config: RetrievalConfig) -> Retrieved:
    """As the public code chooses, for parity with what it was measured with.

    Points are drawn in a sphere around the target. A frame sees those whose angles differ from its own by
    less than half the field of view, but its pitch is taken with the wrong sign. Frames in the window are
    candidates. A pick takes the points that it sees from the rest; when none are left, 0 / 0 makes all scores
    NaN, of which the search for the largest returns the first: frames 0, 1, 2 follow. Up to `count` frames
    are all taken; where the release repeats frame 0, slots are not valid, with index 0.
    """
    assert cameras.time is not None
    n, age = len(cameras), time - cameras.time
    draw = KeyedGenerator([(config.seed, time)], device=cameras.pose.device).uniform(config.points, 3)[0]
    height, turn = 2 * draw[:, 0] - 1, 2 * torch.pi * draw[:, 1]
    flat = (1 - height.square()).sqrt()
    sphere = torch.stack([flat * turn.cos(), flat * turn.sin(), height], 1) * draw[:, 2:] ** (1 / 3)
    points = target.position.mean(0) + config.radius * sphere
    left = _in_mirrored_view(target, points).any(0)
    parts = [cameras.rows(slice(i, i + CHUNK)) for i in range(0, n, CHUNK)]
    seen = torch.cat([left[None, :][:0], *(_in_mirrored_view(part, points) for part in parts)])
    picks = torch.arange(config.count, device=age.device)
    overlap = (seen & left).sum(1) / left.sum().clamp(min=1)
    for i in range(config.count if n > config.count else 0):
        shares = (seen & left).sum(1) / left.sum()
        score = config.overlap_weight * shares - config.time_weight * age / max(time, 1)
        score[picks[:i]] = -1e10
        picks[i] = score.nan_to_num(nan=torch.inf).argmax()
        left = left & ~seen[picks[i]]
    return _told(picks, torch.arange(n, device=age.device), overlap, age)


def _in_mirrored_view(cameras: Cameras, points: Tensor) -> Tensor:
    """Whether points `(p, 3)` are within the angles of cameras turned upside down in pitch, `(n, p)`."""
    azimuth, elevation = _angles(points - cameras.position[:, None])
    ahead, up = (x[:, None] for x in _angles(cameras.direction))
    sides = torch.tensor([cameras.size[1], cameras.size[0]], device=points.device)
    half = (sides / 2 / cameras.intrinsics[:, [0, 1], [0, 1]]).atan()
    turn = (azimuth - ahead + torch.pi) % (2 * torch.pi) - torch.pi
    return (turn.abs() < half[:, :1]) & ((elevation + up).abs() < half[:, 1:])


def _angles(vector: Tensor) -> tuple[Tensor, Tensor]:
    """Azimuth and elevation of `(..., 3)`; z is up."""
    x, y, z = vector.unbind(-1)
    return torch.atan2(y, x), torch.atan2(z, torch.hypot(x, y))
