"""Collecting clips: walks in Doom, and what backs `dreamwalk collect` for all worlds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.data import shards
from dreamwalk.data.captions import caption, placed_in
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.images import Fit
from dreamwalk.world import DOOM_ACTIONS, ActionSchema
from dreamwalk.worlds import walkers
from dreamwalk.worlds.doom import Doom
from dreamwalk.worlds.levels import CLIPS_PER_LEVEL, SPLITS, level_for

TICS = 3


@dataclass(frozen=True)
class DoomWalks:
    """Walks in Doom as a source of clips: clip `i` is a pure function of (level, split, seed, i)."""

    level: str = "home"
    split: str = "train"
    seed: int = 0
    clip_frames: int = 64
    size: tuple[int, int] = (96, 128)
    fps: float = 35 / TICS
    schema: ActionSchema = DOOM_ACTIONS

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(f"unknown split '{self.split}': known are {', '.join(SPLITS)}")
        if self.clip_frames < 2:
            raise UserError(f"a clip has at least 2 frames, got clip_frames={self.clip_frames}")
        level_for(self.level, split=self.split, seed=self.seed, number=0)

    def describe(self) -> dict[str, Any]:
        return {"world": "doom", "level": self.level, "split": self.split, "seed": self.seed}

    def clips(self, indices: range) -> Iterator[Clip]:
        for number, group in groupby(indices, lambda index: index // CLIPS_PER_LEVEL):
            level = level_for(self.level, split=self.split, seed=self.seed, number=number)
            with closing(Doom(level, size=self.size, tics=TICS)) as world:
                for index in group:
                    yield self.walk(world, index)

    def walk(self, world: Doom, index: int) -> Clip:
        """Clip `index`, walked in a world that is on its level."""
        random = np.random.default_rng((self.seed, SPLITS.index(self.split), index))
        mix = walkers.mix_for(world.level)
        kind = walkers.draw(mix, random)
        walker = walkers.walk(kind, world.level, random=random, pitch=mix.pitch)
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
        poses = np.stack([info["world_from_camera"] for info in infos])
        return Clip(
            video=np.stack(frames),
            actions=np.stack(actions),
            world_from_camera=poses,
            intrinsics=np.stack([info["intrinsics"] for info in infos]),
            depth=np.stack([info["depth"] for info in infos]),
            caption=caption(world.level, poses, placed=placed_in(np.stack(actions), self.schema), seed=index),
        )


def collect(
    *,
    level: str = "home",
    split: str = "train",
    frames: int = 40_000,
    out: str | Path = "data/doom",
    workers: int = 1,
    seed: int = 0,
    clip_frames: int = 64,
    size: tuple[int, int] = (96, 128),
) -> Path:
    """Walk in Doom and write at least `frames` frames as clips into the folder `out`, which is returned.

    `level` is "home", "procedural" (a new level every 8 clips) or a shipped map such as "map:MAP01".
    `workers` are processes, best one per core. The same command goes on where it was stopped. UserError when
    `out` holds something else or the disk is full.
    """
    if frames < 1 or workers < 1:
        raise UserError(f"frames and workers are at least 1, got frames={frames}, workers={workers}")
    walks = DoomWalks(level, split, seed, clip_frames, size)
    return write_clips(walks, -(-frames // clip_frames), out, workers=workers)


def check(path: str | Path) -> list[tuple[str, str]]:
    """Compare a folder with its manifest byte by byte: (file, what is wrong) for each fault; [] if none."""
    folder = Path(path)
    faults: list[tuple[str, str]] = []
    for shard in shards.read_manifest(folder)["shards"]:
        file = folder / shard["file"]
        if not file.is_file():
            faults.append((shard["file"], "missing"))
            continue
        data = file.read_bytes()
        for number, clip in enumerate(shard["clips"]):
            part = data[clip["offset"] : clip["offset"] + clip["size"]]
            if len(part) < clip["size"]:
                faults.append((shard["file"], f"cut short: ends inside its clip {number}"))
                break
            if hashlib.sha256(part).hexdigest() != clip["sha256"]:
                faults.append((shard["file"], f"clip {number} has changed bytes"))
    return faults


@dataclass(frozen=True)
class CollectDoom:
    """Walk in Doom and write what is seen."""

    out: str
    """Folder for the clips; run the same command again to go on."""
    level: str = "home"
    """home, procedural (a new level every 8 clips), or a shipped map such as map:MAP01."""
    split: Literal["train", "validation", "test"] = "train"
    frames: int = 40_000
    workers: int = 1
    """Processes, best one per core."""
    seed: int = 0
    clip_frames: int = 64
    size: tuple[int, int] = (96, 128)
    """Height and width of the frames."""


@dataclass(frozen=True)
class CollectVideos:
    """Cut your own videos, with files of actions beside them, into clips."""

    out: str
    """Folder for the clips."""
    folder: str
    """Folder with the videos; docs/data.md says what the files of actions look like."""
    fps: float | None = None
    """Choose so many frames a second, by their time; all are kept if left out."""
    split: Literal["train", "validation", "test"] = "train"
    workers: int = 1
    clip_frames: int = 64
    size: tuple[int, int] = (96, 128)
    fit: Fit = "letterbox"
    """What becomes of frames of another shape: whole between bars, stretched, or cut about the middle."""


@dataclass(frozen=True)
class CollectGame:
    """Play any gymnasium game with random keys and write what is seen."""

    out: str
    """Folder for the clips."""
    id: str
    """Name of the game, such as CartPole-v1, or with the package that registers it: ale_py:ALE/Pong-v5."""
    split: Literal["train", "validation", "test"] = "train"
    frames: int = 40_000
    workers: int = 1
    seed: int = 0
    clip_frames: int = 64
    size: tuple[int, int] = (96, 128)
    fit: Fit = "letterbox"
    """What becomes of frames of another shape: whole between bars, stretched, or cut about the middle."""
    repeat: int = 1
    """Steps of the game per step here."""
    skip: int = 0
    """Clips begin up to so many steps into an episode."""


def run_collect(words: list[str]) -> None:
    """`dreamwalk collect doom|videos|game --out DIR ...`, or `dreamwalk collect --check DIR`."""
    import tyro

    kinds: dict[str, Any] = {"doom": CollectDoom, "videos": CollectVideos, "game": CollectGame}
    if words[:1] == ["--check"] and len(words) == 2:
        _report(Path(words[1]))
        return
    if not words or words[0] not in kinds:
        usage = "dreamwalk collect doom|videos|game|latents --out DIR, or dreamwalk collect --check DIR"
        raise UserError(f"say what to collect: {usage}")
    asked = tyro.cli(kinds[words[0]], args=words[1:], prog=f"dreamwalk collect {words[0]}")
    flags = dict(vars(asked))
    if isinstance(asked, CollectVideos):
        from dreamwalk.data.videos import collect_videos

        folder = collect_videos(flags.pop("folder"), **flags)
    elif isinstance(asked, CollectGame):
        from dreamwalk.data.game_walks import collect_game

        folder = collect_game(flags.pop("id"), **flags)
    else:
        folder = collect(**flags)
    data = shards.Shards(folder)
    print(f"{data.frames} frames in {len(data)} clips: {folder}")


def _report(folder: Path) -> None:
    """Print what `check` finds; UserError when it finds anything."""
    faults = check(folder)
    for file, what in faults:
        print(f"{file}: {what}")
    if faults:
        broken = sorted({file for file, _ in faults})
        raise UserError(f"{len(broken)} broken files in '{folder}': delete them and collect into it again")
    data = shards.Shards(folder)
    print(f"all is well: {data.frames} frames in {len(data)} clips")
