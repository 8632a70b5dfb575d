"""Walks in Doom as a source of clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.data.captions import caption, placed_in
from dreamwalk.data.writing import Walks
from dreamwalk.errors import UserError
from dreamwalk.world import Info
from dreamwalk.worlds.doom import DOOM_ACTIONS, Doom
from dreamwalk.worlds.levels import CLIPS_PER_LEVEL, level_for
from dreamwalk.worlds.walkers import walk

TICS = 3
WALKERS_VERSION = 2
"""Raised when walks change, so that no folder is continued with others; 2 puts down more and takes away."""


@dataclass(frozen=True, kw_only=True)
class DoomWalks(Walks):
    """Walk in Doom and write what is seen."""

    level: str = "home"
    """home, procedural (a new level every few clips), or a shipped map such as map:MAP01."""
    clips_per_level: int = CLIPS_PER_LEVEL
    """How many, in procedural levels."""
    rate, schema = 35 / TICS, DOOM_ACTIONS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clips_per_level < 1:
            raise UserError(f"a level has at least 1 clip, got clips_per_level={self.clips_per_level}")
        level_for(self.level, split=self.split, seed=self.seed, number=0)

    def describe(self) -> dict[str, Any]:
        about = {"world": "doom", "level": self.level, "split": self.split, "seed": self.seed}
        about |= {"walkers": WALKERS_VERSION}
        several = self.level == "procedural"
        return about | {"clips_per_level": self.clips_per_level} if several else about

    def clips(self, indices: range) -> Iterator[Clip]:
        for number, group in groupby(indices, lambda index: index // self.clips_per_level):
            level = level_for(self.level, split=self.split, seed=self.seed, number=number)
            with closing(Doom(level, size=self.size, tics=TICS)) as world:
                for index in group:
                    yield self.walk(world, index)

    def walk(self, world: Doom, index: int) -> Clip:
        """Clip `index`, walked in a world that is on its level."""
        random = self.random(index)
        walker = walk(world.level, random)
        next(walker)
        frame, info = world.reset(seed=int(random.integers(1 << 31)))
        frames, infos, actions = [frame], [info], [np.zeros(self.schema.size, np.float32)]
        for _ in range(self.clip_frames - 1):
            move = walker.send(info)
            action = self.schema.action(move.held, yaw=move.yaw, pitch=move.pitch)
            frame, _, _, _, info = world.step(action)
            frames.append(frame)
            infos.append(info)
            actions.append(self.schema.pack(action))
        return recorded(world, frames, infos=infos, actions=np.stack(actions), seed=index)


def recorded(
    world: Doom, frames: Sequence[np.ndarray], *, infos: Sequence[Info], actions: np.ndarray, seed: int
) -> Clip:
    """A clip of what a walk gave, frame by frame, with a caption drawn by a seed."""
    names = ("world_from_camera", "intrinsics", "depth")
    arrays: dict[str, Any] = {name: np.stack([info[name] for info in infos]) for name in names}
    arrays["placed"] = even_rows([info["placed"] for info in infos])
    clip = Clip(video=np.stack(frames), actions=actions, **arrays)
    placed = placed_in(clip, world.actions)
    return replace(clip, caption=caption(world.level, clip.world_from_camera, placed=placed, seed=seed))


def even_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows `(k, 3)` of different length as one array `(t, k, 3)` float32, NaN where a row ends."""
    array = np.full((len(rows), max(map(len, rows)), 3), np.nan, np.float32)
    for slot, row in zip(array, rows, strict=True):
        slot[: len(row)] = row
    return array
