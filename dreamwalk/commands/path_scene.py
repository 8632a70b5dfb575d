"""Scenes for the page: one picture, then path after path, each from where the last one ended."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamwalk.camera_moves import CameraMove, parse_path
from dreamwalk.camera_paths import CameraPath, from_first
from dreamwalk.commands.sample_path import (
    cached_points,
    cached_scene,
    path_cameras,
    picture_lens,
    pictures_of,
)
from dreamwalk.data.scene_files import write_scene
from dreamwalk.errors import UserError
from dreamwalk.images import fit_image
from dreamwalk.memory.frame_points import FAR
from dreamwalk.memory.point_tiles import TileBudget
from dreamwalk.memory.world_cache import WorldCache, WorldCacheConfig
from dreamwalk.rollout.dream import from_image
from dreamwalk.serve import (
    AppConfig,
    GalleryStart,
    Levels,
    ScenePoints,
    Scenes,
    WebPathRequest,
    WebSceneStart,
)
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.path_sampling import ClipJoint, PathRequest, PathSampling, clip_strides
from dreamwalk.systems.voyager import Voyager

POINTS = 500_000
"""Points of a scene that are in RAM at most."""
MOST_FRAMES, MOST_BYTES = 600, 2**28
"""Frames of a scene at most, and what they may take with their depth."""
AT_ONCE = 160
"""Frames of a path that are dreamed at once, at most."""
LONGEST_TEXT = 2000
PACE = dict.fromkeys(("forward", "back", "left", "right", "up", "down", "dolly-zoom"), 0.25)
PACE |= dict.fromkeys(("pan", "tilt", "roll", "orbit", "arc"), 5.0)
PACE |= dict.fromkeys(("spiral", "lemniscate"), 0.03)
"""Amount of a move in a frame, where a path does not say how many frames it takes."""
TURNING = 12
"""Frames of moves whose amount is no distance."""
TINTS = np.array([(13, 12, 20), (58, 44, 110), (124, 101, 214), (111, 211, 255), (241, 238, 249)], np.float32)
"""Of depth, from far to near."""


class PathScene:
    """`GrowingScene` of a system; the first picture is uint8 `(h, w, 3)`, its planar depth `(h, w)` in world
    units is estimated where it is None. UserError where nothing estimates it."""

    def __init__(
        self,
        system: Voyager,
        name: str,
        picture: np.ndarray,
        depth: np.ndarray | None = None,
        lens: np.ndarray | None = None,
    ) -> None:
        self.system, self.name = system, name
        lens = picture_lens(system.config) if lens is None else lens
        depth = self._estimated(picture) if depth is None else np.asarray(depth, np.float32)
        if not np.isfinite(depth).all() or not (depth > 0).any():
            raise UserError("no depth was found in that picture: choose another one")
        self.cameras = CameraPath(np.eye(4)[None], lens)
        self.frames, self.depth = picture[None], depth[None]
        self.film = beside_depth(self.frames, self.depth)
        self.paths: list[dict[str, object]] = []
        self.cache = WorldCache(WorldCacheConfig(budget=TileBudget(points=POINTS)))
        poses, lenses = (torch.tensor(part).float() for part in (np.eye(4)[None], lens[None]))
        self.cache.insert(from_image(picture)[None], torch.tensor(depth)[None], poses, lenses, time=0)
        self.cache.commit()
        self.points = self._points()

    def plan(self, path: str) -> CameraPath:
        """See `GrowingScene`."""
        if len(path) > LONGEST_TEXT:
            raise UserError(f"a path is written in {LONGEST_TEXT} letters at most: shorten it")
        config, joint = self.system.config, ClipJoint()
        moves = paced(parse_path(path), frames=config.frames, stride=clip_strides(self.system, joint)[2])
        frames = 1 + sum(move.frames or 0 for move in moves)
        most = min(MOST_FRAMES, MOST_BYTES // (7 * self.depth[0].size))
        if frames > AT_ONCE:
            reason = f"this path takes {frames} frames, and {AT_ONCE} are dreamed at once"
            raise UserError(f"{reason}: make it shorter, and go on from its end")
        if (whole := len(self.cameras) + frames - 1) > most:
            reason = f"this scene would have {whole} frames, of {most} that it may have"
            raise UserError(f"{reason}: make the path shorter, or download the scene and start again")
        last = self.cameras.world_from_camera[-1], self.cameras.intrinsics[-1]
        planned = from_first(path_cameras(config, moves, lens=last[1], depth=self.depth[-1]), last[0])
        if not np.abs(planned.world_from_camera[:, :3, 3]).max() < FAR / 2:
            most_far = FAR / 2 / config.unit
            raise UserError(f"this path leads farther than {most_far:g} from the start: make it shorter")
        return planned

    @torch.inference_mode()
    def walk(self, request: WebPathRequest) -> Generator[tuple[int, int]]:
        """See `GrowingScene`."""
        path = self.plan(request.path)
        clip = ClipRequest((request.prompt,), seed=request.seed, steps=request.steps)
        poses, lenses = (torch.tensor(part).float() for part in (path.world_from_camera, path.intrinsics))
        shown = from_image(self.frames[-1]), torch.tensor(self.depth[-1])
        asked = PathRequest(*shown, poses, lenses, clip, time=len(self.cameras) - 1)
        sampling, finished = PathSampling(self.system, asked, self.cache), 0
        try:
            yield 0, len(sampling.plan.rows)
            for step in sampling.steps():
                if step.finished > finished:
                    finished, self.points = step.finished, self._points()
                yield step.step, step.steps
        finally:
            if sampling.fits:
                self._keep(sampling, path, request)

    def _keep(self, sampling: PathSampling, path: CameraPath, request: WebPathRequest) -> None:
        """Put what clips are finished behind what there was."""
        rgb, far = sampling.frames()
        frames, depth = pictures_of(rgb), far.numpy()
        poses, lenses = (part[1 : len(frames)] for part in (path.world_from_camera, path.intrinsics))
        told = {"path": request.path, "prompt": request.prompt, "seed": request.seed}
        self.paths.append(told | {"steps": request.steps, "frames": len(frames) - 1})
        self.frames = np.concatenate([self.frames, frames[1:]])
        self.depth = np.concatenate([self.depth, depth[1:]])
        before = self.cameras
        self.cameras = CameraPath(
            np.concatenate([before.world_from_camera, poses]), np.concatenate([before.intrinsics, lenses])
        )
        self.film, self.points = beside_depth(frames, depth), self._points()

    def write(self, folder: Path) -> None:
        """See `GrowingScene`."""
        told = {"system": self.name, "paths": self.paths}
        made = self.frames, self.depth, self.cameras, self.cache
        write_scene(folder, cached_scene(*made, told=told, fps=self.system.config.fps))

    def close(self) -> None:
        """See `GrowingScene`."""
        self.cache.close()

    def _estimated(self, picture: np.ndarray) -> np.ndarray:
        found = self.system.estimated_depth(from_image(picture)[None].to(self.system.device))
        if found is None:
            raise UserError("this system tells no depth of a picture: begin with one of the page's own")
        return found[0].cpu().numpy()

    def _points(self) -> ScenePoints:
        """What the cache has now, but for the sky."""
        rows = "position", "rgb", "footprint", "time"
        return ScenePoints(*cached_points(self.cache, rows, around=np.zeros(3)))


def paced(moves: Sequence[CameraMove], *, frames: int, stride: int) -> list[CameraMove]:
    """Moves with the frames that each takes: of those that do not say, as many as their `PACE` makes, or more
    to fill whole clips of `frames` that begin `stride` after one another."""
    paces = [_frames_of(move) for move in moves]
    own = sum(move.frames or 0 for move in moves)
    left = math.ceil(min(sum(pace for pace, move in zip(paces, moves, strict=True) if not move.frames), 1e9))
    if left:
        clips = 1 + max(0, -(-(1 + own + left - frames) // stride))
        left = frames + (clips - 1) * stride - 1 - own
    weights = np.array([0.0 if move.frames else pace for pace, move in zip(paces, moves, strict=True)])
    ends = np.floor(np.cumsum(weights) / max(weights.sum(), 1e-9) * left + 0.5).astype(np.int64)
    shares = np.diff(ends, prepend=0).tolist()
    return [move if move.frames else move._replace(frames=n) for move, n in zip(moves, shares, strict=True)]


def _frames_of(move: CameraMove) -> float:
    return max(1.0, min(abs(move.amount) / PACE[move.name], 1e9)) if move.name in PACE else TURNING


def beside_depth(frames: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Frames uint8 `(t, h, w, 3)` with their depth `(t, h, w)` beside them in colours, nearer ones lighter:
    evenly in the logarithm, of the middle 96 % of all."""
    near, known = -np.log(np.maximum(depth, 1e-9)), depth > 0
    low, high = np.percentile(near[known], (2, 98)) if known.any() else (0.0, 1.0)
    share = np.where(known, (near - low) / max(high - low, 1e-6), 0).clip(0, 1) * (len(TINTS) - 1)
    colours = [np.interp(share, np.arange(len(TINTS)), tint) for tint in TINTS.T]
    return np.concatenate([frames, np.stack(colours, -1).round().astype(np.uint8)], axis=2)


def scene_app(name: str, system: Voyager, levels: Levels | None = None) -> AppConfig:
    """Scenes that begin with the pictures of the weight file, with one's own, or in a level."""
    config, spec = system.config, system.world_spec
    clip_strides(system, ClipJoint())  # one that cannot go on is refused before anyone opens the page
    encoder, size = system.text_encoder, config.picture_size
    pictures = [] if spec is None else list(spec.starts)

    def begin(asked: WebSceneStart) -> PathScene:
        if asked.image is not None:
            return begun(asked.image)
        if asked.level is not None and levels is not None:
            world, options = levels.open(levels.check(asked.level))
            with closing(world):
                picture, seen = world.reset(seed=0, options=options)
            return begun(picture, seen["depth"], seen["intrinsics"])
        if spec is None or asked.start is None or asked.start >= len(pictures):
            known = f", or with a start from 0 to {len(pictures) - 1}" if pictures else ""
            raise UserError(f"a scene begins with an image{known}: send one")
        depth = spec.depths[asked.start] if len(spec.depths) else None
        return begun(pictures[asked.start], depth, spec.intrinsics)

    def begun(picture: np.ndarray, depth: Any = None, lens: Any = None) -> PathScene:
        """With what is known of a picture, if it is of the right size; others are cut."""
        if depth is None or picture.shape[:2] != size:
            return PathScene(system, name, fit_image(picture, size, "cut"))
        return PathScene(system, name, picture, np.asarray(depth, np.float32), np.asarray(lens, np.float64))

    most = None if levels is None else levels.most
    scenes = Scenes(begin, size, config.fps, config.steps, config.unit, most)
    scenes = replace(scenes, longest=encoder.max_bytes, check=encoder.check)
    starts = [GalleryStart(f"picture {k + 1}", picture) for k, picture in enumerate(pictures)]
    notes = {"what": "A neural network dreams what lies along a camera path, in colours and depth."}
    notes |= (system.about or {}).get("notes", {})
    return AppConfig(title=name, starts=starts, notes=notes, scenes=scenes)
