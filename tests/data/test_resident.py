"""Batches that are gathered on the device are those that are read, bit for bit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import Toy

from dreamwalk.clip import Clip, batch
from dreamwalk.data.resident import ResidentClips
from dreamwalk.data.shards import Shards
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.systems import nextframe
from dreamwalk.training.batches import draw, read_window
from dreamwalk.training.fit import fit
from dreamwalk.training.run import Run, forcing_layout


@dataclass(frozen=True)
class Deep(Toy):
    """The toy with depths up to the largest that a file can hold."""

    def clips(self, indices: range) -> Iterator[Clip]:
        for clip in super().clips(indices):
            counts = np.random.default_rng(0).integers(0, 1 << 16, clip.video.shape[:3])
            yield replace(clip, depth=(counts / 8).astype(np.float32))


def same(one: Clip, other: Clip) -> None:
    for name in ("video", "actions", "world_from_camera", "intrinsics", "depth"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b)), name
    assert one.caption == other.caption


@pytest.mark.parametrize("past", [0, 3])
def test_batches_are_the_same(tmp_path: Path, past: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if past:
        monkeypatch.setattr("dreamwalk.data.resident.SHARE", 2)  # by two processes
    shards = Shards(write_clips(Deep(), 5, tmp_path / "deep"))
    run: Run = replace(forcing_layout(), data=str(tmp_path / "deep"), frames=4, past=past)
    resident = ResidentClips(shards, depth=True, device=torch.device("cpu"))
    for step in range(3):
        windows = [draw(run, shards, step, row) for row in range(6)]
        read = batch([read_window(shards, window, depth=True) for window in windows])
        gathered = resident.batch(windows)
        same(read, gathered)
        assert (read.past is None) == (past == 0) == (gathered.past is None)
        if read.past is not None and gathered.past is not None:
            same(read.past, gathered.past)


def test_a_run_is_the_same(toy_data: Path, tmp_path: Path) -> None:
    run = Run("tiny", nextframe.tiny(), data=str(toy_data), frames=4, batch=2, steps=2, preview_every=100)
    files = [fit(replace(run, resident=held), tmp_path / str(held)) for held in (False, True)]
    assert files[0].read_bytes()[-10_000:] == files[1].read_bytes()[-10_000:]


def test_clips_without_depth_are_named(toy_data: Path) -> None:
    with pytest.raises(UserError, match="no depth"):
        ResidentClips(Shards(toy_data), depth=True, device=torch.device("cpu"))
