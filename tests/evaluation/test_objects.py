"""The examination of objects: who copies the truth finds all again, who never shows them finds nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from dreamwalk.commands.evaluate import evaluate
from dreamwalk.data.doom_visits import DoomVisits
from dreamwalk.data.shards import Shards
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.evaluation import objects
from dreamwalk.evaluation.detection import detect
from dreamwalk.evaluation.led_paths import changed_path
from dreamwalk.evaluation.objects import (
    EvaluateObjects,
    Way,
    evaluate_objects,
    measure_objects,
    ways_of,
    wilson,
)
from dreamwalk.systems import forcing
from dreamwalk.worlds.doom import DOOM_ACTIONS
from dreamwalk.worlds.placing import PLACE

CODES = forcing.tiny()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short way."""
    visits = DoomVisits(frames=3 * 130, clip_frames=130, before=30)
    return write_clips(visits, len(visits), tmp_path_factory.mktemp("visits") / "clips")


@pytest.fixture(scope="module")
def ways(folder: Path) -> list[Way]:
    return ways_of(Shards(folder), 9)


def truth(way: Way) -> Tensor:
    frames = [view.frame for view in way.views]
    return torch.stack([torch.stack([way.true(name, t) for t in frames]) for name in objects.TRUTHS])


def share(report: dict, row: str) -> float:
    counts = report["rows"][row]
    return counts["frames hit"] / counts["frames"]


def test_the_three_walks_of_a_way_differ_in_what_stands_alone(ways: list[Way]) -> None:
    assert len(ways) == 1
    for way in ways:
        stands, nothing, taken = (np.isfinite(clip.placed[..., 0]).sum(1) for clip in way.walks)
        assert stands[-1] == 1 and stands[: way.pressed].sum() == 0 and nothing.sum() == 0
        assert taken.sum() == 12 and taken[-1] == 0
        assert {view.kind for view in way.views} == {"before", "at once", "at return"}
        assert max(view.gap for view in way.views) > objects.LEFT
        for clip in way.walks[1:]:
            assert np.array_equal(clip.world_from_camera, way.walks[0].world_from_camera)


def test_a_hidden_change_is_led_along_true_frames_that_agree(ways: list[Way]) -> None:
    """The old state is seen, then out of view; the new one once; and the way back is dreamed."""
    (way,) = ways
    for old, new in objects.CHANGES.values():
        before, after = (way.walks[objects.VARIANTS.index(name)] for name in (old, new))
        path = changed_path(before, after, way.turn, way.seen, schema=DOOM_ACTIONS)
        true, on = path.truth, slice(path.start, None)
        assert path.start == 2 * way.seen - way.turn + 1
        assert np.array_equal(true.world_from_camera[0, on], after.world_from_camera[way.turn + 1 :])
        assert np.array_equal(true.actions[0, on], after.actions[way.turn + 1 :])
        steps, own = (
            np.diff(x[:, :3, 3], axis=0) for x in (true.world_from_camera[0], before.world_from_camera)
        )
        assert np.abs(steps).max() <= np.abs(own).max(), "nowhere a jump"
        pressed = true.actions[0, :, PLACE].nonzero().flatten().tolist()
        assert pressed == ([way.pressed] if old == "stands" else [])
        one, other = (walk.video[way.turn].astype(float) for walk in (before, after))
        assert np.abs(one - other).mean() < 2, "out of view: alike but for the coding of the films"
        for walk, t in ((before, way.pressed + 3), (after, way.seen)):
            assert np.array_equal(true.video[0, t].permute(1, 2, 0).numpy(), walk.video[t])
        assert any(view.frame > way.turn for view in way.views) and way.turn < way.seen


def test_who_copies_the_truth_finds_all_and_who_shows_none_finds_nothing(ways: list[Way]) -> None:
    perfect = measure_objects(ways, [truth(way) for way in ways])
    blind = measure_objects(ways, [truth(way)[1:2].expand(5, -1, -1, -1, -1) for way in ways])
    stubborn = measure_objects(ways, [truth(way)[:1].expand(5, -1, -1, -1, -1) for way in ways])
    for row, (_, _, what) in objects.ROWS.items():
        shows = row.startswith(("put down", "appeared"))
        assert share(perfect, row) == (1.0 if shows or what == "absent" else 0.0), row
        assert share(blind, row) == (1.0 if what == "absent" else 0.0), row
    assert share(perfect, objects.HIDDEN) == 1 and share(blind, objects.HIDDEN) == 0.5
    stale = measure_objects(ways, [truth(way)[[0, 1, 2, 4, 3]] for way in ways])
    assert share(stale, objects.HIDDEN) == 0 and share(stale, "vanished while away, there at return") == 1
    assert [share(report, objects.BOTH) for report in (perfect, blind, stubborn)] == [1, 0, 0]
    assert share(stubborn, "taken away, gone at return") == 0
    assert share(stubborn, "never put down, there at return") == 1
    assert perfect["place error in tokens"]["mean"] == 0


def test_the_rule_holds_for_frames_that_are_noisy_or_blurred(ways: list[Way]) -> None:
    draw = torch.Generator().manual_seed(0)
    for spoil in (
        lambda video: video + 0.15 * torch.randn(video.shape, generator=draw),
        lambda video: interpolate(avg_pool2d(video.flatten(0, 1), 4), scale_factor=4).view_as(video),
    ):
        report = measure_objects(ways, [spoil(truth(way)) for way in ways])
        assert share(report, "put down, there at return") >= 0.97
        assert share(report, "never put down, there at return") <= 0.03
        assert share(report, "taken away, gone at return") >= 0.97


def test_a_thing_that_is_found_aside_says_how_far_and_a_grey_picture_says_nothing() -> None:
    without = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0)) - 1
    mask = torch.zeros(96, 128, dtype=torch.bool)
    mask[30:60, 50:66] = True
    with_thing, aside = torch.where(mask, 0.9, without), torch.where(mask.roll(16, 1), 0.9, without)
    there, moved, gone, grey = (
        detect(frame, with_thing, without, mask=mask)
        for frame in (with_thing, aside, without, torch.full_like(without, 0.15))
    )
    assert there.present and there.moved == 0
    assert moved.present and moved.moved == 16
    assert gone.absent and not gone.present
    assert not grey.present


def test_intervals_are_those_of_wilson() -> None:
    assert wilson(0, 0) == (0, 1)
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=2e-3)
    assert wilson(10, 10)[1] == 1


def test_the_examination_dreams_and_writes_its_report(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = replace(CODES.codec, image_channels=3)
    backbone = replace(CODES.backbone, grid=(12, 16))
    system = replace(CODES, codec=codec, backbone=backbone).build()
    asked = EvaluateObjects(data=str(folder), out=tmp_path / "out", ways=1)
    monkeypatch.setattr(objects, "MOST_VIEWS", 2)
    report = evaluate_objects(system, asked, name="tiny")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["rows"] == report["rows"]
    assert report["rows"]["put down, there at return"]["ways"] == 1
    assert report["rows"][objects.HIDDEN]["ways"] == 2
    assert (tmp_path / "out" / "sheet.png").is_file()


def test_data_of_other_walks_are_refused(tmp_path: Path, folder: Path) -> None:
    copy = tmp_path / "clips"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes().replace(b'"visits": 1', b'"visits": 0'))
    with pytest.raises(UserError, match="holds no visits: collect them"):
        ways_of(Shards(copy), 1)
    with pytest.raises(UserError, match=r"a visit takes .* frames or more"):
        DoomVisits(clip_frames=60)
    with pytest.raises(UserError):
        evaluate(["nextframe.doom", "--report", "objects", "--data", str(tmp_path / "none")])
