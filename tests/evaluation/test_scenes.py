"""The examination of scenes along paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from box_room import walk
from carrying_voyager import carrying_voyager
from test_places import BoxWalks

from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.evaluation.scenes import EvaluateScenes, chamfer, evaluate_scenes
from dreamwalk.systems import forcing


def test_the_examination_writes_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = carrying_voyager(walk([(0.0, 0.0, 10.0 * i) for i in range(9)]))
    data = write_clips(BoxWalks(9), 1, tmp_path / "data")
    asked = EvaluateScenes(data=str(data), out=tmp_path / "out", walks=1, frames=9)
    report = evaluate_scenes(system, asked, name="voyager.tiny")
    for row in (report["rows"]["cache"], report["rows"]["picture"]):
        assert 0 < row["seen"] < 60 and 0 < row["depth"] < 2 and row["chamfer"] >= 0 and "loop 16" in row
    assert json.loads((tmp_path / "out" / "report.json").read_text())["rows"] == report["rows"]
    assert (tmp_path / "out" / "sheet.png").is_file() and "9 frames and back" in capsys.readouterr().out
    with pytest.raises(UserError, match="makes no scenes"):
        evaluate_scenes(forcing.tiny().build(), asked, name="forcing.tiny")
    flat = write_clips(BoxWalks(9, deep=False), 1, tmp_path / "flat")
    with pytest.raises(UserError, match="no depth"):
        evaluate_scenes(system, EvaluateScenes(data=str(flat), out=tmp_path / "b"), name="voyager.tiny")


def test_the_distance_of_clouds_is_that_of_shifted_ones() -> None:
    flat = torch.tensor([[900.0], [900], [0]])
    cloud = torch.rand(3, 3000, generator=torch.Generator().manual_seed(0)) * flat
    assert chamfer(cloud, cloud, seed=0) == 0
    assert chamfer(cloud, cloud + torch.tensor([[0.0], [0], [30]]), seed=0) == pytest.approx(30, rel=0.05)
