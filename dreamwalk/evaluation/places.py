"""What stays of a place: pixels that true frames had shown before the dream, and those that it invents.

dreamwalk evaluate forcing.rooms --report places --data data/rooms-test

Protocol: a dream begins from `history` true frames of a held-out walk and goes on under the walk's actions.
For the pixels of a later true frame the truth itself (depth and poses) says in which earlier true frames
their surface was visible. Pixels visible in the history are *seen*, all others *new*; *near* are those seen
from about as near or nearer. The *gap* of a pixel is the number of frames since its surface was last visible,
so that a gap above 1 means that it was left and found again. Poses, depth and frames of the dream can each be
replaced by the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from dreamwalk.clip import Clip, batch
from dreamwalk.codecs.rgbd import codec_input, depth_channel
from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.evaluation.fidelity import decibels
from dreamwalk.evaluation.reports import hardware, write_report
from dreamwalk.memory.contract import CameraState, FinishedFrame, Memory, MemoryModel
from dreamwalk.memory.frame_points import FAR
from dreamwalk.memory.point_cloud import CloudBudget
from dreamwalk.memory.points import Clouds, PointsMemory
from dreamwalk.progress import progress
from dreamwalk.rollout.dream import to_image
from dreamwalk.rollout.realtime import WalkState
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.system import System

HORIZONS = (1, 8, 32, 128, 512, 2000)
AROUND = 4
"""Frames up to each horizon that are averaged."""
GAPS = (1, 16, 64, 256)
"""Frames above which a gap counts for a row of the table of revisits."""
AGREE, SLACK = 1.04, 4.0
"""A surface is visible in a frame whose depth there is up to `AGREE` times and `SLACK` units from its own."""
FARTHEST = 1.25
"""Seen pixels were seen from *near* if it was from less than so many times as far: as finely, nearly."""
LEAST = 40
"""Pixels from which a mean counts."""
EVERY = 2
"""Pixels down and across of which one is asked for."""


@dataclass(frozen=True)
class EvaluatePlaces:
    """Examine what comes back: pictures and numbers into a folder."""

    report: Literal["places"] = "places"
    data: str = "data/rooms-test"
    """Clips of levels that were not trained on, with depth and poses."""
    out: Path = Path("runs/places")
    clips: int = 20
    """How many walks, of different levels as far as there are."""
    frames: int | None = None
    """Longest horizon; default: as far as the shortest of them goes."""
    history: int = 48
    """True frames that a dream begins from."""
    own: tuple[str, ...] = ("poses", "depth", "frames")
    """What the dream keeps of its own; the rest is replaced by the truth before it is remembered."""
    memory: bool = True
    """Whether it may recall."""
    pixels: bool = True
    """Whether the rendering also reaches the pixels that are shown."""
    points: int | None = None
    """Cap of the cloud; default: the system's own."""
    voxel: float | None = None
    """Side of its voxels in footprints; default: the system's own."""
    aligned: bool = True
    """Whether dreamed depth is aligned to what is known before it is stored."""
    seed: int = 0


@dataclass(frozen=True)
class DreamedWalk:
    """A dreamed walk beside the true one, from the first dreamed frame on."""

    truth: Clip
    """Of the whole walk with its history, unbatched, in torch."""
    dream: Tensor
    """`(t, 3, h, w)` in [-1, 1]."""
    history: int
    points: int
    """In the memory at the end."""


def evaluate_places(
    system: System, asked: EvaluatePlaces, *, name: str, inverse: object = None
) -> dict[str, Any]:
    """Print the tables, write `report.json` and `sheet.png` into `out`.

    UserError for a system that dreams no depth, and for data without depth or poses.
    """
    if not isinstance(system, Interactive) or system.codec.image_channels != 4:
        raise UserError(f"'{name}' makes no frames with depth: examine it without `--report places`")
    if wrong := set(asked.own) - {"poses", "depth", "frames"}:
        raise UserError(f"`--own` names poses, depth and frames, got '{sorted(wrong)[0]}'")
    clips = _clips(Shards(asked.data), asked)
    _configure(system.memory, asked)
    report: dict[str, Any] = {"name": name, "data": asked.data, "walks": len(clips), "own": asked.own}
    report |= {"history": asked.history, "seed": asked.seed, "steps": system.config.steps}
    report |= {"memory": asked.memory, "hardware": hardware()}
    with progress("dreaming", sum(len(clip) - asked.history for clip in clips)) as advance:
        walks = [dream_walk(system, clip, asked, advance=advance) for clip in clips]
    report["points"] = max(walk.points for walk in walks)
    report |= measure_places(system, walks)
    write_report(report, sheet(walks), asked.out)
    _print(report)
    return report


def _clips(shards: Shards, asked: EvaluatePlaces) -> list[Clip]:
    """Walks of as many different levels as there are, cut to one length."""
    length = asked.history + (asked.frames or 1)
    picked = long_walks(shards, asked.clips, length)
    length = min(shards.frames_of(index) for index in picked) if asked.frames is None else length
    return [require_depth(shards.window(index, 0, length, depth=True), asked.data) for index in picked]


def long_walks(shards: Shards, most: int, frames: int, *, flags: str = "`--frames`") -> list[int]:
    """Indices of walks of so many frames, of as many different levels as there are; UserError for none."""
    long = [index for index in range(len(shards)) if shards.frames_of(index) >= frames]
    if not long:
        raise UserError(f"no walk of '{shards.path}' has {frames} frames: use a smaller {flags}")
    return [long[k * len(long) // most] for k in range(min(most, len(long)))]


def require_depth(clip: Clip, data: str) -> Clip:
    """A clip with depth and poses; UserError for one without."""
    if clip.depth is None or clip.world_from_camera is None:
        raise UserError(f"'{data}' has no depth or no poses: collect them with `dreamwalk collect doom`")
    return clip


def _configure(memory: MemoryModel, asked: EvaluatePlaces) -> None:
    """The memory as it is to be examined, where it is one of points."""
    if not isinstance(memory, PointsMemory):
        return
    budget = memory.config.budget
    points = budget.points if asked.points is None else asked.points
    voxel = budget.voxel if asked.voxel is None else asked.voxel
    memory.config = replace(memory.config, budget=CloudBudget(points, voxel, aligned=asked.aligned))
    memory.pixels = memory.pixels if asked.pixels else None


def _tell(memory: Memory, truth: Tensor, latents: Tensor, own: tuple[str, ...]) -> None:
    """Let a memory be told the truth, RGB-D `(t, 4, h, w)` and its latents, of what the dream is not to keep
    of its own."""
    write = memory.write

    def told(frame: FinishedFrame) -> None:
        true, code = truth[None, frame.time], latents[None, frame.time]
        if frame.rgbd is not None:
            rgb = (frame.rgbd if "frames" in own else true)[:, :3]
            depth = (frame.rgbd if "depth" in own else true)[:, 3:]
            frame = replace(frame, rgbd=torch.cat([rgb, depth], 1))
        write(frame if "frames" in own else replace(frame, latents=code))

    memory.write = told  # type: ignore[method-assign]


@torch.inference_mode()
def dream_walk(
    system: Interactive, clip: Clip, asked: EvaluatePlaces, *, advance: Callable[[], None] = lambda: None
) -> DreamedWalk:
    """Dream on from the history of a walk under its actions."""
    walk, history = batch([clip]), asked.history
    session = system.begin(walk.first(history), seed=asked.seed)
    if not {"frames", "depth"} <= set(asked.own):
        _tell(session.memory, codec_input(walk, 4)[0], system.encode(walk)[0], asked.own)
    session.memory.recalling = asked.memory
    own_poses = "poses" in asked.own
    frames = list(shown_frames(system, session, walk, history, own_poses=own_poses, advance=advance))
    rows = session.memory.rows if isinstance(session.memory, Clouds) else ()
    return DreamedWalk(walk, torch.stack(frames), history, sum(map(len, rows)))


def shown_frames(
    system: Interactive,
    session: WalkState,
    walk: Clip,
    first: int,
    *,
    own_poses: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Tensor]:
    """The frames `(3, h, w)` in [-1, 1] that a session shows from frame `first` of a batched walk on, under
    its actions, and seen from its cameras or from where the memory thinks to be."""
    frame_pass, decode = system.engine()
    for step in range(first, len(walk)):
        camera, action = None if own_poses else CameraState.of_clip(walk, step), walk.actions[:, step]
        x = system.advance(session, action, camera=camera, frame_pass=frame_pass, decode=decode)
        shown = decode(x)[:, 0] if session.shown is None else session.shown
        yield shown[0, :3].clamp(-1, 1)
        advance()


def visible_before(walk: Clip, frame: int) -> Tensor:
    """In which earlier frames the surfaces of the pixels of true frame `frame` were visible: bool
    `(frame, h, w)`, of every `EVERY`th pixel. Sky counts as a surface far away."""
    return seen_from(walk, frame).isfinite()


def seen_from(walk: Clip, frame: int, *, every: int = EVERY) -> Tensor:
    """How many times as far away these surfaces were in each earlier frame; inf where they were hidden."""
    assert walk.depth is not None and walk.world_from_camera is not None and walk.intrinsics is not None
    known = walk.depth, walk.world_from_camera, walk.intrinsics
    depth, poses, matrices = (part[0].float() for part in known)
    height, width = depth.shape[-2:]
    y, x = (torch.arange(every // 2, side, every) for side in (height, width))
    z = _filled(depth[frame][y[:, None], x])
    pixels = torch.stack(torch.broadcast_tensors(x + 0.5, y[:, None] + 0.5, torch.ones(()))).float()
    local = (torch.linalg.inv(matrices[frame]) @ pixels.flatten(1)) * z.flatten()
    points = poses[frame, :3, :3] @ local + poses[frame, :3, 3:]
    turns = poses[:frame, :3, :3].mT
    seen = matrices[:frame] @ (turns @ points - turns @ poses[:frame, :3, 3:])
    px, py, pz = (seen[:, 0] / seen[:, 2]).floor(), (seen[:, 1] / seen[:, 2]).floor(), seen[:, 2]
    inside = (pz > 1) & (px >= 0) & (px < width) & (py >= 0) & (py < height)
    place = torch.where(inside, py * width + px, 0).long()
    there = _filled(depth[:frame].flatten(1).gather(1, place))
    agrees = (pz < there * AGREE + SLACK) & (there < pz * AGREE + SLACK)
    return torch.where(inside & agrees, pz / z.flatten(), torch.inf).unflatten(1, z.shape)


def _filled(depth: Tensor) -> Tensor:
    """Depth with the sky far away."""
    return torch.where(depth > 0, depth, FAR)


def measure_places(system: Interactive, walks: list[DreamedWalk]) -> dict[str, Any]:
    """PSNR, SSIM and sharpness of all, seen and new pixels at the horizons, and PSNR of revisits by gap."""
    longest = min(len(walk.dream) for walk in walks)
    rows: dict[str, dict[str, list[float]]] = {}
    for horizon in (h for h in HORIZONS if h <= longest):
        for walk in walks:
            for name, value in _measure(system, walk, horizon).items():
                rows.setdefault(name, {}).setdefault(str(horizon), []).append(value)
    tables = {
        name: {h: round(float(np.nanmean(v)), 3) for h, v in row.items() if not np.isnan(v).all()}
        for name, row in rows.items()
    }
    return {"tables": tables}


def _measure(system: Interactive, walk: DreamedWalk, horizon: int) -> dict[str, float]:
    """Of one walk, over the frames up to a horizon."""
    last = walk.history + horizon
    sums: dict[str, tuple[float, float]] = {}
    for frame in range(last - (AROUND if horizon > AROUND else 1), last):
        for name, (total, count) in _of_frame(system, walk, frame).items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = before[0] + total, before[1] + count
    means = {name: total / count if count >= LEAST else float("nan") for name, (total, count) in sums.items()}
    values: dict[str, float] = {}
    for name, mean in means.items():
        kind, _, rest = name.partition(" ")
        if kind == "psnr":
            values[name] = decibels(mean)
        elif kind == "gradient":
            who, _, part = rest.partition(" ")
            if who == "dream":
                values[f"sharpness {part}"] = mean / max(means[f"gradient truth {part}"], 1e-6)
        else:
            values[name] = mean
    return values


def _of_frame(system: Interactive, walk: DreamedWalk, frame: int) -> dict[str, tuple[float, float]]:
    """Sums over pixels, and their number, of one dreamed frame."""
    truth, far = true_frame(walk.truth, frame), seen_from(walk.truth, frame)
    before, near = far.isfinite(), (far[: walk.history] < FARTHEST).any(0)
    seen = before[: walk.history].any(0)
    last = torch.where(before, torch.arange(frame)[:, None, None], -1).amax(0)
    gap = torch.where(seen, frame - last, 0)
    parts = {"all": torch.ones_like(seen), "seen": seen, "near": near, "new": ~seen}
    films = {
        "dream": walk.dream[frame - walk.history],
        "ceiling": system.codec.decode(system.codec.encode(truth[None, None]))[0, 0, :3].clamp(-1, 1),
        "last": true_frame(walk.truth, walk.history - 1)[:3],
    }
    sums: dict[str, tuple[float, float]] = {}

    def add(name: str, values: Tensor, mask: Tensor) -> None:
        picked = values[EVERY // 2 :: EVERY, EVERY // 2 :: EVERY][mask]
        sums[name] = float(picked.sum()), float(mask.sum())

    for who, film in films.items():
        error = ((film - truth[:3]) / 2).square().mean(0)
        similar = ssim_map(film, truth[:3])
        for part, mask in parts.items():
            add(f"psnr {who} {part}", error, mask)
            add(f"ssim {who} {part}", similar, mask)
        if who == "dream":
            for above in GAPS:
                add(f"psnr revisit>{above}", error, gap > above)
    for who, film in (("dream", films["dream"]), ("truth", truth[:3])):
        steep = gradient(film)
        for part, mask in parts.items():
            add(f"gradient {who} {part}", steep, mask)
    return sums


def true_frame(walk: Clip, frame: int) -> Tensor:
    """A frame of the one walk of a batched clip as RGB-D, `(4, h, w)`."""
    assert walk.depth is not None
    video = walk.video[0, frame].float() / 127.5 - 1
    return torch.cat([video, depth_channel(walk.depth[0, frame].float())[None]])


def gradient(frame: Tensor) -> Tensor:
    """Magnitude of the steps of grey to the right and down, `(h, w)`, of a frame `(3, h, w)`."""
    grey = torch.nn.functional.pad(frame.mean(0, keepdim=True), (0, 1, 0, 1), mode="replicate")[0]
    return grey.diff(dim=1)[:-1].abs() + grey.diff(dim=0)[:, :-1].abs()


def ssim_map(frame: Tensor, truth: Tensor) -> Tensor:
    """SSIM at every pixel, `(h, w)`, of frames `(3, h, w)` in [-1, 1]."""
    first, second = (x[None] / 2 + 0.5 for x in (frame, truth))
    _, full = structural_similarity_index_measure(first, second, data_range=1.0, return_full_image=True)
    return full[0].mean(0)


def sheet(walks: list[DreamedWalk], rows: int = 4, columns: int = 8) -> np.ndarray:
    """uint8 `(h, w, 3)`: of some walks the truth above the dream, from the first dreamed frame on."""
    lines = []
    for walk in walks[:rows]:
        picked = np.unique(np.geomspace(1, len(walk.dream), columns).astype(int)) - 1
        truth = [true_frame(walk.truth, walk.history + int(k))[:3] for k in picked]
        lines += [torch.cat(row, 2) for row in (truth, [walk.dream[k] for k in picked])]
    width = max(line.shape[2] for line in lines)
    lines = [torch.nn.functional.pad(line, (0, width - line.shape[2])) for line in lines]
    return to_image(torch.cat(lines, 1))


def _print(report: dict[str, Any]) -> None:
    memory = f"memory of {report['points']:,} points" if report["memory"] else "memory off"
    print(
        f"{report['name']} on {report['walks']} walks of '{report['data']}', {report['history']} true frames "
        f"first, {report['steps']} passes, own {' '.join(report['own']) or 'nothing'}, {memory}, "
        f"seed {report['seed']}"
    )
    for name, row in report["tables"].items():
        print(f"  {name:24}" + "".join(f"{horizon:>6}: {value:<7.3f}" for horizon, value in row.items()))
