"""What a run says and leaves behind: on the screen, in its folder, in TensorBoard and Weights & Biases."""

import json
import math
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_fit import equal, tiny
from torch import nn

from dreamwalk.clip import batch
from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems import nextframe
from dreamwalk.systems.nextframe import NextFrame
from dreamwalk.training import logger as journal
from dreamwalk.training.batches import draw, open_data, read_window
from dreamwalk.training.fit import fit
from dreamwalk.training.flops import count_flops
from dreamwalk.training.logger import Logger
from dreamwalk.training.run import OptimConfig, Run
from dreamwalk.weights import files


def test_it_says_what_it_trains_before_the_first_step(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tiny(toy_data), tmp_path / "run", minutes=30, device="cpu")
    lines = capsys.readouterr().out.splitlines()
    system = NextFrame(nextframe.tiny())
    learnt = sum(p.numel() for p in system.parameters() if p.requires_grad) / 1e6
    total = sum(p.numel() for p in system.parameters()) / 1e6
    assert lines[0] == (
        f"nextframe.tiny: {learnt:.2f} million parameters to train of {total:.2f}, "
        f"on CPU, {torch.get_num_threads()} threads, in float32"
    )
    assert lines[1] == f"{toy_data}: 288 frames in 24 clips"
    assert lines[2] == f"{tmp_path / 'run'}: steps 1 to 8 of 4 clips of 4 frames, for 30 min at most"
    assert lines[3].startswith("step 1/8  loss ")
    assert lines[-1].startswith("step 8/8  ") and lines[-1].endswith("  0 s left")


def lines_of(run: Run, folder: Path, seconds: list[float], *, minutes: float = math.inf) -> list[str]:
    """What a journal says when steps take so long."""
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "time", clock)
        book = Logger(folder, run, wandb=False, first=0, deadline=now + 60 * minutes)
        for step, each in enumerate(seconds, 1):
            now += each
            book.log(step, {"loss": 1.0}, last=step == len(seconds))
        book.close()
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_it_tells_every_few_seconds(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines come by the clock, rows of the log by the step."""
    rows = lines_of(tiny(toy_data, steps=1000, log_every=20), tmp_path / "slow", [2.0] * 30)
    spoken = [int(step) for step in re.findall(r"^step (\d+)/", capsys.readouterr().out, re.M)]
    assert spoken == [1, *range(4, 30, 3), 30]  # six seconds apart
    assert [row["step"] for row in rows] == [20, 30]
    assert rows[0]["frames_per_second"] == pytest.approx(8.0)
    lines_of(tiny(toy_data, steps=1000, log_every=20), tmp_path / "quick", [0.01] * 500)
    assert capsys.readouterr().out.count("\nstep ") == 1  # the first and the last


def test_the_time_left_knows_the_minutes(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny(toy_data, steps=10**6, log_every=1)
    lines_of(run, tmp_path / "short", [0.1, 5.9, 0.1], minutes=0.3)
    assert [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()] == [
        "18 s left",
        "12 s left",
        "0 s left",
    ]
    lines_of(run, tmp_path / "long", [0.36, 5.9, 0.1])
    assert capsys.readouterr().out.splitlines()[0].endswith("  100 h 00 min left")


def test_pictures_reach_tensorboard(toy_data: Path, tmp_path: Path) -> None:
    fit(tiny(toy_data, preview_every=4), tmp_path / "run")
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    shown = board.Images("sample")
    assert [image.step for image in shown] == [0, 4, 8]
    # four clips, the truth above the dream, eight moments of 32x32
    assert {(image.height, image.width) for image in shown} == {(4 * 2 * 32, 8 * 32)}
    assert {"loss", "frames_per_second"} <= set(board.Tags()["scalars"])


class Board:
    """Records what Weights & Biases is given."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []

    def init(self, **settings: Any) -> "Board":
        self.started.append(settings)
        return self

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def define_metric(self, name: str, *, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "step")

    def finish(self) -> None:
        pass

    def Video(self, path: str, *, format: str) -> Path:
        assert format == "mp4"
        return Path(path)


def test_a_resumed_run_stays_one_run_of_wandb(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board()
    monkeypatch.setitem(sys.modules, "wandb", board)
    fit(tiny(toy_data), tmp_path / "run", minutes=0.0, wandb=True)
    fit(tiny(toy_data), tmp_path / "run", resume=True, wandb=True)
    fit(tiny(toy_data, steps=1), tmp_path / "other", wandb=True)
    first, again, other = (settings["id"] for settings in board.started)
    assert first == again != other and len(first) >= 8
    assert {settings["resume"] for settings in board.started} == {"allow"}
    films = [row["sample"] for row in board.rows if "sample" in row]
    assert len(films) == 5 and all(film.stat().st_size for film in films)
    assert [row["step"] for row in board.rows if "loss" in row] == [1, 2, 4, 6, 8, 1]


def test_a_finished_run_writes_the_weights_that_it_lacks(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fit(tiny(toy_data), tmp_path / "run")
    whole.rename(tmp_path / "kept.safetensors")
    again = fit(tiny(toy_data), tmp_path / "run", resume=True)
    equal(tmp_path / "kept.safetensors", again, tolerance=0)
    assert files.metadata(again)["step"] == 8
    assert files.metadata(again) == files.metadata(tmp_path / "kept.safetensors")


def test_no_git_is_needed(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    fit(tiny(toy_data, steps=1), tmp_path / "run")
    assert (tmp_path / "run" / "commit.txt").read_text().startswith("unknown (dreamwalk ")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_weight_files_have_the_mode_that_umask_says(tmp_path: Path, umask: int) -> None:
    path, before = tmp_path / "w.safetensors", os.umask(umask)
    try:
        (tmp_path / ".w.safetensors.partial").write_bytes(b"left behind")
        files.save(path, {"x": torch.zeros(2)}, metadata={})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_flops_are_counted_right_and_leave_the_system_as_it_was(toy_data: Path) -> None:
    linear = nn.Linear(8, 4)
    rows = torch.randn(16, 8)
    assert count_flops(linear, lambda: linear(rows).sum()) == 2 * (2 * 16 * 8 * 4)  # out, and the gradient
    norm = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    assert count_flops(norm, lambda: norm(rows).square().sum())
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    assert all(p.grad is None for p in norm.parameters())


def test_a_step_is_the_same_whether_flops_were_counted_or_not(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fit(tiny(toy_data), tmp_path / "plain")
    monkeypatch.setattr("dreamwalk.training.fit.peak_flops", lambda device: 1e12)
    monkeypatch.setattr("dreamwalk.training.logger.peak_flops", lambda device: 1e12)
    counted = fit(tiny(toy_data), tmp_path / "counted")
    equal(plain, counted, tolerance=0)
    row = json.loads((tmp_path / "counted" / "log.jsonl").read_text().splitlines()[-1])
    system, run = NextFrame(nextframe.tiny()), tiny(toy_data)
    data = open_data(run)
    assert isinstance(data, Shards)
    clip = batch([read_window(data, draw(run, data, 0, row), depth=False) for row in range(run.batch)])
    generator = KeyedGenerator([(0, 0, row) for row in range(4)])
    flops = count_flops(system, lambda: system.loss(clip, generator)["loss"])
    assert row["mfu"] == pytest.approx(flops * row["frames_per_second"] / 16 / 1e12)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": 0}, "`--steps` is a whole number from 1 up, got 0"),
        ({"batch": -1}, "`--batch` is a whole number from 1 up"),
        ({"save_every": 0}, "`--save-every` is a whole number from 1 up"),
        ({"log_every": 0}, "`--log-every` is"),
        ({"keep": 0}, "`--keep` is"),
        ({"seed": -1}, "`--seed` lies from 0 up, got -1"),
        ({"ema": 1.0}, "`--ema` lies from 0 to below 1"),
        ({"optim": OptimConfig(lr=math.nan)}, "`--optim.lr` lies above 0, got nan"),
        ({"optim": OptimConfig(betas=(0.9, 1.0))}, "`--optim.betas` lies"),
        ({"optim": OptimConfig(decay=2)}, "`--optim.decay` lies from 0 to 1, got 2"),
    ],
)
def test_numbers_that_no_run_can_have(
    toy_data: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        fit(replace(tiny(toy_data), **changes), tmp_path / "run")
    with pytest.raises(UserError, match="`--minutes` lies from 0 up"):
        fit(tiny(toy_data), tmp_path / "run", minutes=math.nan)
    assert not (tmp_path / "run").exists()
