"""Walks that put things down: they are seen, left, found again, and some are taken away."""

import numpy as np
import pytest

from dreamwalk.data.captions import placed_in
from dreamwalk.data.doom_walks import DoomWalks, even_rows
from dreamwalk.data.shards import Shards, encode_clip, index_shard, write_shard
from dreamwalk.data.writing import write_clips
from dreamwalk.worlds.doom import DOOM_ACTIONS, Doom
from dreamwalk.worlds.placing import shown_pixels
from dreamwalk.worlds.walkers import HOME, WALKERS, WILD


def walked(kind: str, *, seed: int, frames: int) -> list[dict]:
    world = Doom("procedural:2")
    walker = WALKERS[kind](world.level, np.random.default_rng(seed))
    next(walker)
    _, info = world.reset(seed=seed)
    infos = [info]
    for _ in range(frames):
        move = walker.send(info)
        _, _, _, _, info = world.step(world.actions.action(move.held, yaw=move.yaw, pitch=move.pitch))
        infos.append(info)
    world.close()
    return infos


def test_furnishing_puts_down_leaves_and_finds_again_and_takes_some() -> None:
    infos = [walked("furnish", seed=seed, frames=120) for seed in range(4)]
    counts = [np.array([len(info["placed"]) for info in walk]) for walk in infos]
    assert all(count.max() > 0 for count in counts)
    assert any((np.diff(count) < 0).any() for count in counts)
    found = 0
    for walk in infos:
        shown = np.flatnonzero([len(info["placed"]) and shown_pixels(info).sum() > 20 for info in walk])
        found += (np.diff(shown) > 4).any()
    assert found >= 3


def test_home_and_the_shares_of_the_others_are_as_they_were() -> None:
    assert "furnish" not in HOME.shares and not HOME.drops
    assert WILD.shares["tour"] / WILD.shares["mouse"] == pytest.approx(0.2 / 0.14)


def test_where_pillars_stand_is_written_and_old_folders_open_without(tmp_path) -> None:
    source = DoomWalks(level="procedural", frames=24, clip_frames=24, size=(48, 64), seed=5)
    folder = write_clips(source, 1, tmp_path / "clips")
    (clip,) = source.clips(range(1))
    data = Shards(folder)
    assert np.array_equal(data.clip(0).placed, clip.placed, equal_nan=True)
    placed = even_rows([np.zeros((k, 3), np.float32) for k in (0, 1, 2, 1) * 6])
    assert placed.shape == (24, 2, 3) and np.isnan(placed[0]).all() and np.isfinite(placed[2]).all()
    from dataclasses import replace

    for name, known in (("new", placed), ("old", None)):
        files = encode_clip(replace(clip, placed=known), source.rate)
        assert ("placed.npy" in files) == (known is not None)
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / "000000.tar", [(0, files)])
        manifest = (folder / "manifest.json").read_text()
        old, new = data._entries[0][1], index_shard(tmp_path / name / "000000.tar")[0]
        manifest = manifest.replace(old.sha256, new.sha256)
        (tmp_path / name / "manifest.json").write_text(
            manifest.replace(f'"size": {old.size}', f'"size": {new.size}')
        )
        read = Shards(tmp_path / name).window(0, 2, 4)
        assert (read.placed is None) == (known is None)
        if known is not None:
            assert placed_in(read, DOOM_ACTIONS).tolist() == [0, -1, -1, 1]
            assert "take away a golden pillar" in read.caption
