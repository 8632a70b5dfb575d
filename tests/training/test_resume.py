"""A run that was stopped and resumed gives what it would have given: real processes, bit for bit."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from dreamwalk.training import checkpoint
from dreamwalk.weights.files import read

ROOT = Path(__file__).parent.parent.parent
STEPS = 40
FLAGS = [
    "--system.backbone.grid",
    "2",
    "2",
    "--system.backbone.width",
    "64",
    "--system.backbone.depth",
    "2",
    "--system.backbone.heads",
    "2",
    "--codec",
    "None",
    "--frames",
    "4",
    "--batch",
    "4",
    "--steps",
    str(STEPS),
    "--save-every",
    "10",
    "--log-every",
    "1",
    "--device",
    "cpu",
]


def start(data: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """`dreamwalk train` as a person runs it, in a process of its own."""
    words = ["train", "nextframe.game", "--data", str(data), "--out", str(out), *FLAGS, *more]
    return subprocess.Popen(
        [sys.executable, "-m", "dreamwalk", *words],
        cwd=ROOT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def trained(data: Path, out: Path, *more: str) -> Path:
    told, complaint = (process := start(data, out, *more)).communicate(timeout=240)
    assert process.returncode == 0, complaint
    assert f"weights: {out / 'weights.safetensors'}" in told
    return out / "weights.safetensors"


def stopped(data: Path, out: Path, *, by: signal.Signals, after: int) -> tuple[int, str]:
    """Stop a run once its log has `after` rows; its exit code and what it said."""
    process = start(data, out)
    watch = threading.Timer(240, process.kill)
    watch.start()
    log = out / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= after):
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be stopped"
    process.send_signal(by)
    _, said = process.communicate()
    watch.cancel()
    return process.returncode, said


@pytest.fixture(scope="module")
def whole(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(toy_data, tmp_path_factory.mktemp("whole") / "run")


def differing(first: Path, second: Path) -> list[str]:
    one, two = read(first)[0], read(second)[0]
    assert one.keys() == two.keys() and len(one) > 30
    return [name for name, tensor in one.items() if not torch.equal(tensor, two[name])]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda by: by.name)
def test_stopped_and_resumed_it_is_what_it_would_have_been(
    by: signal.Signals, whole: Path, toy_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, said = stopped(toy_data, out, by=by, after=13)
    reached = checkpoint.latest(out) or 0
    assert 10 <= reached < STEPS
    assert code == (-by if by == signal.SIGKILL else 128 + by), said
    if by != signal.SIGKILL:  # asked to stop, it saves the step that it is at
        assert reached >= 13 and "--resume" in said
    assert differing(whole, trained(toy_data, out, "--resume")) == []
