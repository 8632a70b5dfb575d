"""The examples run as they are, on small settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "dreamwalk" / "pretrained" / "nextframe.doom.safetensors"
SMALL: dict[str, tuple[list[str], str]] = {
    "00_walk.py": (["--frames", "4", "--out", "walk.gif"], "4 frames"),
    "01_encode.py": (["--frames", "30", "--channels", "16"], "48 times fewer numbers"),
    "02_schedules.py": (
        ["--steps", "2", "--frames", "3", "--lag", "1", "--png", "plan.png"],
        "approximate: noisy",
    ),
    "03_train_your_own.py": (["--frames", "64", "--steps", "2", "--out", "mine"], "a dream of 32x32 pixels"),
    "04_real_game.py": (["--steps", "3"], "points from"),
    "05_plan_a_maze.py": (
        ["--train", "3", "--pairs", "2", "--plans", "0", "40", "1", "4", "40", "2", "--png", "ways.png"],
        "lag 4, weight and samples [40.0, 2]",
    ),
    "06_words_to_video.py": (["--frames", "5", "--steps", "2"], "2 clips of 5 frames"),
    "published_schedules.py": (["--png", "plans"], "resampled, approximate: nothing"),
}


def test_every_example_is_tried() -> None:
    assert sorted(SMALL) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def test_examples_are_short() -> None:
    """The numbered ones; the others are collections."""
    numbered = [name for name in SMALL if name[0].isdigit()]
    assert all(len((ROOT / "examples" / name).read_text().splitlines()) < 60 for name in numbered)


@pytest.mark.parametrize("name", SMALL)
def test_example(name: str, tmp_path: Path) -> None:
    if name == "00_walk.py" and not SHIPPED.exists():
        pytest.skip("no weights are shipped yet")
    arguments, told = SMALL[name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
