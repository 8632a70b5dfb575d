"""Walks in Doom for the examination of objects: one way three times, and what is there at its end differs.

Of the clips `3 k .. 3 k + 2` the first puts a pillar down, leaves and comes back to it; the second never puts
it down; the third takes it away before it leaves. All else, poses as well, is the same in the three, so that
each is the truth without, or with, what another shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.data.doom_walks import TICS, recorded
from dreamwalk.data.writing import Walks
from dreamwalk.errors import UserError
from dreamwalk.worlds.doom import DOOM_ACTIONS, Doom
from dreamwalk.worlds.levels import Split, level_for
from dreamwalk.worlds.placing import PLACE, shown_pixels
from dreamwalk.worlds.visits import STILL, WATCHED, visit

AWAY = (50, 100, 200, 300)
"""Steps for which a walk leaves, in turn."""
VARIANTS = ("stands", "nothing", "taken")
"""What is there at the end of the clips of three."""
WAYS_PER_LEVEL = 2
LEAST_PIXELS, LEAST_FRAMES = 64, 5
"""A way counts when so many pixels show the pillar in so many frames after it was left."""
TRIES = 6
"""Ways that are tried before a shorter one is asked for."""


@dataclass(frozen=True, kw_only=True)
class DoomVisits(Walks):
    """Walk away from a pillar in Doom and back to it, for `evaluate --report objects`."""

    split: Split = "test"
    frames: int = 448 * 60
    clip_frames: int = 448
    before: int = 48
    """Frames of looking around before anything is put down: those that a dream begins from."""
    rate, schema = 35 / TICS, DOOM_ACTIONS

    def __post_init__(self) -> None:
        super().__post_init__()
        least = self.before + STILL + WATCHED + 60
        if self.before < 1 or self.clip_frames < least:
            raise UserError(f"a visit takes {least} frames or more: use a larger `--clip-frames`")

    def describe(self) -> dict[str, Any]:
        about = {"world": "doom", "level": "procedural", "split": self.split, "seed": self.seed}
        return about | {"clips_per_level": WAYS_PER_LEVEL * len(VARIANTS), "visits": 1, "before": self.before}

    def clips(self, indices: range) -> Iterator[Clip]:
        for number, group in groupby(indices, lambda index: index // (WAYS_PER_LEVEL * len(VARIANTS))):
            level = level_for("procedural", split=self.split, seed=self.seed, number=number)
            with closing(Doom(level, size=self.size, tics=TICS)) as world:
                for way, wanted in groupby(group, lambda index: index // len(VARIANTS)):
                    three = self.walk(world, way)
                    yield from (three[index % len(VARIANTS)] for index in wanted)

    def walk(self, world: Doom, way: int) -> list[Clip]:
        """The clips of a way, in a world that is on its level: the first that comes back and is walked
        alike with and without the pillar. Shorter ones are taken where none is found."""
        longest = self.clip_frames - self.before - STILL - WATCHED - 40
        for attempt in itertools.count():
            away = min(AWAY[way % len(AWAY)], longest) >> (attempt // TRIES)
            random = self.random(way, attempt)
            seed, actions = self._stands(world, random, away)
            if actions is None:
                continue
            three = [self._walked(world, seed, variant_of(actions, name), index=way) for name in VARIANTS]
            if all(np.array_equal(three[0].world_from_camera, clip.world_from_camera) for clip in three):
                return three
        raise AssertionError("there is always a shorter way")

    def _stands(self, world: Doom, random: np.random.Generator, away: int) -> tuple[int, np.ndarray | None]:
        """The seed and actions `(t, a)` of a way on which the pillar stands; None where it does not come back
        to it, or where the pillar is in its way."""
        walker = visit(world.level, random, before=self.before, away=away)
        next(walker)
        seed = int(random.integers(1 << 31))
        _, info = world.reset(seed=seed)
        actions, shown = [np.zeros(self.schema.size, np.float32)], [0]
        for step in range(1, self.clip_frames):
            move = walker.send(info)
            action = self.schema.action(move.held, yaw=move.yaw, pitch=move.pitch)
            _, _, _, _, info = world.step(action)
            actions.append(self.schema.pack(action))
            shown.append(int(shown_pixels(info).sum()))
            if step == self.before + STILL + 2 and shown[-1] < LEAST_PIXELS:
                return seed, None
        vectors, end = np.stack(actions), info["world_from_camera"]
        world.reset(seed=seed)
        *_, info = world.follow(variant_of(vectors, "nothing")[1:])
        found = frames_found(np.array(shown), after=away // 2).sum() >= LEAST_FRAMES
        return seed, vectors if found and np.array_equal(info["world_from_camera"], end) else None

    def _walked(self, world: Doom, seed: int, actions: np.ndarray, *, index: int) -> Clip:
        """A clip of known actions."""
        frame, info = world.reset(seed=seed)
        frames, infos = [frame], [info]
        for vector in actions[1:]:
            frame, _, _, _, info = world.step(self.schema.unpack(vector))
            frames.append(frame)
            infos.append(info)
        return recorded(world, frames, infos=infos, actions=actions, seed=index)


def variant_of(actions: np.ndarray, name: str) -> np.ndarray:
    """Actions `(t, a)` of the walk on which the pillar stands, as another of `VARIANTS` presses `place`."""
    pressed, changed = np.flatnonzero(actions[:, PLACE] > 0.5)[0], actions.copy()
    changed[pressed, PLACE] = name != "nothing"
    changed[pressed + WATCHED, PLACE] = name == "taken"
    return changed


def frames_found(shown: np.ndarray, *, after: int) -> np.ndarray:
    """In which frames something is seen again that was out of view for more than `after` frames, bool `(t,)`,
    from the pixels that show it, `(t,)`."""
    found, left, again = np.zeros(len(shown), bool), -1, False
    for t, pixels in enumerate(shown):
        if pixels:
            again = again or (left >= 0 and t - left > after)
            left = t
        found[t] = again and pixels >= LEAST_PIXELS
    return found
