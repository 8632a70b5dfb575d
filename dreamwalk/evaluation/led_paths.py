"""Paths along which a dream is led at true poses, away from places and back to them.

replay   the first frames of a walk are true, all in the memory; the frames after them are dreamed
loop     after a short true start the dream goes along the walk, turns, and goes back over the same poses
open     after a short true start the dream goes along the walk, which comes back when it likes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dreamwalk.clip import Clip, batch
from dreamwalk.evaluation.fidelity import to_bytes
from dreamwalk.evaluation.places import seen_from, shown_frames, true_frame
from dreamwalk.memory.contract import CameraState, FinishedFrame
from dreamwalk.rollout.realtime import FramePass, Session, commit_frame, extended
from dreamwalk.systems.interactive import Interactive
from dreamwalk.world import ActionSchema

Branch = Literal["replay", "loop", "open"]
OPPOSITES = (("forward", "back"), ("left", "right"))
"""Buttons that undo each other; axes undo themselves."""
KNOWN = ("video", "actions", "world_from_camera", "intrinsics", "depth")
"""What is known of a true frame."""
COARSE = 8
"""Pixels down and across of which one is asked whether a frame is a return."""
MOST = 512
"""Frames of a path of which that is asked, about."""
HALF = 0.5
"""Share of the pixels of a frame that must have been out of view for it to be one."""


@dataclass(frozen=True)
class LedPath:
    """The truth along a path, and which part of it is dreamed."""

    branch: Branch
    truth: Clip
    """A batch of one."""
    start: int
    """The first dreamed frame."""
    turn: int | None = None
    """The farthest frame of a loop."""

    def twin(self, frame: int) -> int | None:
        """The dreamed frame at the same pose on the way out of a loop."""
        return None if self.turn is None or frame <= self.turn else 2 * self.turn - frame


@dataclass(frozen=True)
class LedDream:
    """What was dreamed along a path."""

    path: LedPath
    frames: Tensor
    """uint8 `(t, 3, h, w)`, from `path.start` on."""

    def shown(self, frame: int) -> Tensor:
        """A frame of the path as it was shown, true before the dream starts: `(3, h, w)` in [-1, 1]."""
        if frame < self.path.start:
            return true_frame(self.path.truth, frame)[:3]
        return self.frames[frame - self.path.start].float() / 127.5 - 1


@dataclass(frozen=True)
class Return:
    """A frame in which one is back at what was left."""

    frame: int
    gap: int
    """Frames that the median pixel of those that were left was out of view."""


def straight_path(branch: Branch, walk: Clip, start: int, dreamed: int) -> LedPath:
    """The first frames of an unbatched walk: `start` true ones, and `dreamed` after them."""
    return LedPath(branch, batch([walk.window(0, start + dreamed)]), start)


def loop_path(walk: Clip, start: int, out: int, *, schema: ActionSchema) -> LedPath:
    """Out along `out` frames after the `start` true ones of an unbatched walk, and back over the same poses
    but the last. Actions of the way back are those that undo the ones of the way out."""
    turn = start + out - 1
    order = np.concatenate([np.arange(turn + 1), np.arange(turn - 1, start - 1, -1)])
    path = walk.pick(order)
    undone = opposite(walk.actions[turn:start:-1], schema)
    actions = np.concatenate([walk.actions[: turn + 1], undone])
    return LedPath("loop", batch([replace(path, actions=actions)]), start, turn)


def changed_path(old: Clip, new: Clip, turn: int, seen: int, *, schema: ActionSchema) -> LedPath:
    """A replay in whose true frames something changes: unbatched walks over the same poses, `old` up to frame
    `turn`, then `new` to frame `seen` and back to `turn`. The way from there to the end is dreamed."""
    out, on = np.arange(turn + 1, seen + 1), np.arange(turn + 1, len(new))
    later = new.pick(np.concatenate([out, out[-2::-1], [turn], on]))
    undone = opposite(new.actions[seen:turn:-1], schema)
    later = replace(later, actions=np.concatenate([new.actions[out], undone, new.actions[on]]))
    known = {name: (getattr(old, name)[: turn + 1], getattr(later, name)) for name in KNOWN}
    joined: dict[str, Any] = {name: np.concatenate(pair) for name, pair in known.items()}
    truth = batch([replace(later, placed=None, **joined)])
    return LedPath("replay", truth, len(truth) - len(on))


def opposite(actions: np.ndarray, schema: ActionSchema) -> np.ndarray:
    """Actions `(t, a)` that lead back: the other way, and nothing else is pressed."""
    undone, names = np.zeros_like(actions), schema.buttons
    for pair in OPPOSITES:
        if set(pair) <= set(names):
            for name, other in (pair, pair[::-1]):
                undone[:, names.index(name)] = actions[:, names.index(other)]
    undone[:, len(names) :] = -actions[:, len(names) :]
    return undone


@torch.inference_mode()
def start_after(
    system: Interactive, start: Clip, *, seed: int, frame_pass: FramePass, recalling: bool = True
) -> Session:
    """As `system.begin`, bit for bit, on a long batched clip, but quicker: all frames are written into the
    memory, and only those pass through the backbone from which the cache's last window can be told."""
    session, latents = system.begin(start.first(1), seed=seed, frame_pass=frame_pass), system.encode(start)
    session.memory.recalling = recalling
    keeps, window = system.memory.keeps_pixels, session.cache.window
    # A layer's keys depend on a window of the layer below; the first window of passes reads empty slots.
    unseen = latents.shape[1] - (len(system.blocks) + 1) * window
    for i in range(1, latents.shape[1]):
        session.camera, x = CameraState.of_clip(start, i), latents[:, i : i + 1]
        if i < unseen:
            session.cache.frames = i + 1
        else:
            found = session.memory.recall(session.camera, i)
            recalled = system.memory.to_inputs(found, system.codec)
            cache = extended(session, found, system.actions, system.backbone)
            commit_frame(frame_pass, session, x, start.actions[:, i : i + 1], recalled=recalled, cache=cache)
        if keeps:
            session.shown = true_frame(start, i)[None]
        written = x[:, 0], start.actions[:, i], session.camera, i, session.shown
        session.memory.write(FinishedFrame(*written, dreamed=False))
    return session


@torch.inference_mode()
def dream_path(
    system: Interactive,
    path: LedPath,
    *,
    seed: int = 0,
    recalling: bool = True,
    advance: Callable[[], None] = lambda: None,
) -> LedDream:
    """Dream along a path, from its true start on, under its actions and at its poses."""
    start = path.truth.first(path.start)
    session = start_after(system, start, seed=seed, frame_pass=system.engine()[0], recalling=recalling)
    frames = shown_frames(system, session, path.truth, path.start, advance=advance)
    return LedDream(path, torch.stack([to_bytes(frame).cpu() for frame in frames]))


def frames_away(visible: Tensor, window: int) -> Tensor:
    """For how many frames the surface of each pixel was out of view, before it came back within the last
    `window` frames: int64 `(h, w)`; 0 where it was never seen before, 1 where it stayed in view.

    `visible` `(t, h, w)` says in which frames before the present one it was.
    """
    frame = len(visible)
    first = max(frame - window + 1, 0)
    times = torch.arange(first)[:, None, None]
    never = torch.full_like(visible[:1], -1, dtype=torch.int64)
    last = torch.cat([never, torch.where(visible[:first], times, -1)]).amax(0)
    away = torch.zeros_like(last)
    for time in range(first, frame + 1):
        here = visible[time] if time < frame else torch.ones_like(visible[0])
        away = torch.where(here & (last >= 0), away.maximum(time - last), away)
        last = torch.where(here, time, last)
    return away


def returns(path: LedPath, window: int) -> list[Return]:
    """The dreamed frames at least half of whose pixels show what was seen before and then was out of view for
    longer than the window; of a loop, those on the way back. Of long paths every second frame is asked, or
    fewer."""
    found, first = [], path.start if path.turn is None else path.turn + 1
    for frame in range(first, len(path.truth), 1 + (len(path.truth) - first) // (MOST + 1)):
        away = frames_away(seen_from(path.truth, frame, every=COARSE).isfinite(), window)
        left = away > window
        if left.float().mean() >= HALF:
            found.append(Return(frame, int(away[left].median())))
    return found
