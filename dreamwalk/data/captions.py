"""Captions of walks from their poses and a known level: motion, rooms, landmarks.

    walk through a green marble hall, then turn left to a blue torch, then walk into a red room

A caption is made from what truly happened in just these frames, so a window of a clip has its own. The same
thing is said in several ways, drawn by a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise
from typing import Any, Literal

import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.levels import level_for, level_named
from dreamwalk.worlds.scenery import ALL_LANDMARKS, PLACED, Level, Room
from dreamwalk.worlds.textures import WALLS

Turn = Literal["turn left", "turn right", "bear left", "bear right"]
Motion = Literal["ahead", "back", "left", "right", "still", Turn]
MOVING = 3.0
"""Map units a frame from which one walks."""
TURNING = 2.0
"""Degrees a frame from which one turns."""
SMOOTHING = 5
"""Frames over which motion is averaged."""
MIN_FRAMES = 5
"""Frames of a phase, at least."""
MAX_PHASES = 3
"""Phases of a caption, at most."""
EXAMPLES = (
    "walk through a brick hall, then turn left to a torch",
    "turn right in a red metal room",
    "walk ahead into a stone room",
    "walk backwards in a green marble hall",
)
"""Prompts to begin with."""
SEEN_WITHIN, SEEN_ANGLE = 400.0, 38.0
"""How near (units) and how far from the middle of the view (degrees) a landmark counts as seen."""
PHRASES: dict[Motion, tuple[str, ...]] = {
    "ahead": ("walk", "walk ahead", "go forward", "move forward"),
    "back": ("walk backwards", "back away", "step back"),
    "left": ("step to the left", "sidestep left"),
    "right": ("step to the right", "sidestep right"),
    "turn left": ("turn left", "look to the left", "turn to the left"),
    "turn right": ("turn right", "look to the right", "turn to the right"),
    "bear left": ("walk ahead and turn left", "walk in a curve to the left", "bear left"),
    "bear right": ("walk ahead and turn right", "walk in a curve to the right", "bear right"),
    "still": ("stand still", "stand", "wait"),
}
PREPOSITIONS: dict[Motion, tuple[str, ...]] = {"back": ("away from",), "still": ("in front of", "before")}
WALL_NAMES = {"sandstone": ("sandstone", "orange brick", "brick"), "red metal": ("red metal", "red")}
WALL_NAMES |= {"green marble": ("green marble", "green"), "steel": ("steel", "grey metal")}
"""Other words for walls."""
DONE = {1: "put down", -1: "take away"}
"""What is done to pillars, by how many more stand after it."""
CONNECTIVES: tuple[str, ...] = ("a", "an", "then", "and", "with", "in", "into", "through", "to")
CONNECTIVES += ("towards", *DONE.values(), *(words for near in PREPOSITIONS.values() for words in near))
"""Words that join the parts of a caption."""
WindowCaption = Callable[[int, Clip, int], str]
"""The caption of a window: index of the clip, the window, and where it starts."""


@dataclass(frozen=True)
class Phase:
    """Frames `start .. stop` in which the motion is one."""

    motion: Motion
    start: int
    stop: int


def motions(poses: np.ndarray) -> list[Motion]:
    """The motion that leads out of each frame but the last, from poses `(t, 4, 4)`."""
    change = np.diff(poses[:, :2, 3], axis=0)
    ahead = (change * poses[:-1, :2, 2]).sum(1)
    aside = (change * poses[:-1, :2, 0]).sum(1)
    heading = np.unwrap(np.arctan2(poses[:, 1, 2], poses[:, 0, 2]))
    turn = np.rad2deg(np.diff(heading))
    kernel = np.ones(max(1, min(SMOOTHING, len(turn))))
    weight = np.convolve(np.ones(len(turn)), kernel, "same")
    ahead, aside, turn = (np.convolve(x, kernel, "same") / weight for x in (ahead, aside, turn))
    return [_motion(*step) for step in zip(ahead, aside, turn, strict=True)]


def _motion(ahead: float, aside: float, turn: float) -> Motion:
    if abs(turn) >= TURNING:
        if ahead >= MOVING:
            return "bear left" if turn > 0 else "bear right"
        return "turn left" if turn > 0 else "turn right"
    if max(abs(ahead), abs(aside)) < MOVING:
        return "still"
    if abs(ahead) >= abs(aside):
        return "ahead" if ahead > 0 else "back"
    return "right" if aside > 0 else "left"


def phases(poses: np.ndarray) -> list[Phase]:
    """Phases in order, at most `MAX_PHASES`; the shortest are merged into their neighbours."""
    runs = [(motion, len(list(same))) for motion, same in groupby(motions(poses))]
    while len(runs) > 1:
        lengths = [length for _, length in runs]
        shortest = int(np.argmin(lengths))
        if lengths[shortest] >= MIN_FRAMES and len(runs) <= MAX_PHASES:
            break
        beside = [k for k in (shortest - 1, shortest + 1) if 0 <= k < len(runs)]
        taker = max(beside, key=lambda k: lengths[k])
        runs[taker] = runs[taker][0], lengths[taker] + lengths[shortest]
        del runs[shortest]
        groups = [(motion, list(same)) for motion, same in groupby(runs, key=lambda run: run[0])]
        runs = [(motion, sum(length for _, length in same)) for motion, same in groups]
    stops = np.cumsum([0, *(length for _, length in runs)])
    return [Phase(motion, int(a), int(b)) for (motion, _), (a, b) in zip(runs, pairwise(stops), strict=True)]


def placed_in(clip: Clip, schema: ActionSchema) -> np.ndarray | None:
    """By how many pillars more stand in each frame of a clip than in the one before, `(t,)`; None in a world
    where that is not done. A clip that does not know where they stand counts every press."""
    if clip.placed is not None:
        return np.diff(
            np.isfinite(clip.placed[..., 0]).sum(1), prepend=np.isfinite(clip.placed[:1, :, 0]).sum()
        )
    return (clip.actions[:, schema.buttons.index("place")] > 0.5) * 1 if "place" in schema.buttons else None


def caption(level: Level, poses: np.ndarray, *, placed: np.ndarray | None = None, seed: int = 0) -> str:
    """A sentence on the frames of `poses` `(t, 4, 4)`; `placed` `(t,)`: 1 where a pillar was put down, -1
    where one was taken away."""
    random = np.random.default_rng(seed)
    if len(poses) == 1:
        return _picture_caption(level, poses, random)
    parts, room, mark = [], None, None
    for phase in phases(poses):
        words = _pick(random, PHRASES[phase.motion])
        now = room_at(level, poses, phase.stop)
        if now is not None and now is not room:
            entered = room is not None or room_at(level, poses, phase.start) is not now
            words += f" {_preposition(phase.motion, entered=entered)} {_describe(now, random)}"
            room = now
        seen = _landmark_in_view(level, poses[phase.stop])
        if seen and seen != mark:
            towards = PREPOSITIONS.get(phase.motion, ("to", "towards"))
            words += f" {_pick(random, towards)} {_article(_pick(random, (seen, seen.split()[-1])))}"
            mark = seen
        for change, done in DONE.items():
            if placed is not None and (placed[phase.start : phase.stop] == change).any():
                words += f" and {done} {_article(PLACED.name)}"
                placed = np.where(placed == change, 0, placed)  # each is said once
        parts.append(words)
    return ", then ".join(parts)


def vocabulary(level: str) -> dict[str, tuple[str, ...]]:
    """All that captions of a level say, by kind; of "procedural", in all of its levels.

    UserError for an unknown level.
    """
    if level == "procedural":
        walls, marks = tuple(WALLS), tuple(ALL_LANDMARKS)
    else:
        known = level_named(level)
        walls = tuple(dict.fromkeys(room.wall for room in known.rooms))
        marks = tuple(dict.fromkeys(name for _, _, name in known.landmarks))
    names = dict.fromkeys(word for wall in walls for word in WALL_NAMES.get(wall, (wall,)))
    done = tuple(dict.fromkeys(words for said in PHRASES.values() for words in said))
    words = {"What is done": done, "Walls": (*names, "room", "hall")}
    return words | {"Things": (*marks, "doorway", PLACED.name), "Between them": CONNECTIVES}


def window_caption(manifest: dict[str, Any], schema: ActionSchema) -> WindowCaption | None:
    """Who tells windows of the clips that a manifest describes; None where the level is not known."""
    kind = manifest.get("level")
    if manifest.get("world") != "doom" or not isinstance(kind, str):
        return None

    @cache
    def level_of(number: int) -> Level:
        return level_for(kind, split=manifest["split"], seed=manifest["seed"], number=number)

    def caption_window(index: int, window: Clip, start: int) -> str:
        level = level_of(index // manifest.get("clips_per_level", 8))
        placed = placed_in(window, schema)
        return caption(level, window.world_from_camera, placed=placed, seed=start)

    return caption_window


def _picture_caption(level: Level, poses: np.ndarray, random: np.random.Generator) -> str:
    """A caption of a picture."""
    room, seen = room_at(level, poses, 0), _landmark_in_view(level, poses[0])
    words = _describe(room, random) if room else "a doorway"
    return f"{words} with {_article(_pick(random, (seen, seen.split()[-1])))}" if seen else words


def _preposition(motion: Motion, *, entered: bool) -> str:
    if motion not in ("ahead", "bear left", "bear right"):
        return "in"
    return "into" if entered else "through"


def room_at(level: Level, poses: np.ndarray, at: int) -> Room | None:
    """The room at frame `at`, or that of the nearest frame before it that was not in a doorway."""
    inside = (level.room_at(*pose[:2, 3]) for pose in poses[at::-1])
    return next((room for room in inside if room is not None), None)


def _landmark_in_view(level: Level, pose: np.ndarray) -> str | None:
    """A landmark of the room that one is in that is near and in view, the nearest first."""
    room = level.room_at(*pose[:2, 3])
    inside = [(x, y, name) for x, y, name in level.landmarks if room is not None and room.holds(x, y)]
    away = [(np.array([x, y]) - pose[:2, 3], name) for x, y, name in inside]
    for vector, name in sorted(away, key=lambda mark: float(np.hypot(*mark[0]))):
        distance = float(np.hypot(*vector))
        if distance < SEEN_WITHIN and vector @ pose[:2, 2] > np.cos(np.deg2rad(SEEN_ANGLE)) * distance:
            return name
    return None


def _describe(room: Room, random: np.random.Generator) -> str:
    wall = _pick(random, WALL_NAMES.get(room.wall, (room.wall,)))
    return _article(f"{wall} {_pick(random, ('room', 'hall'))}")


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _pick(random: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[random.integers(len(choices))]
