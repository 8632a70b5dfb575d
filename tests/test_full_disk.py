"""Folders and disks that cannot be written, and requests without end, through the real command line."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamwalk.cli import main
from dreamwalk.data.film import write_film
from dreamwalk.errors import UserError, require_writable
from dreamwalk.weights import files

ROOT = Path(__file__).parent.parent
LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
runpy.run_module("dreamwalk", run_name="__main__", alter_sys=True)
"""
RUN = [
    "train",
    "nextframe.game",
    "--codec",
    "None",
    "--steps",
    "1",
    "--frames",
    "4",
    "--batch",
    "2",
    "--system.backbone.depth",
    "1",
    "--save-every",
    "1",
]


def told(words: list[str], folder: Path, *, room: int | None = None) -> str:
    """The one sentence of a command in a folder, where files have no more than `room` bytes."""
    start = ["-m", "dreamwalk"] if room is None else ["-c", LIMITED, str(room)]
    done = subprocess.run(
        [sys.executable, *start, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("room", "what"),
    [
        (300, "free some space on the disk: File too large"),
        (3000, "00000000.mp4' cannot be written (File too large): free some space there"),
        (60_000, "checkpoints/00000001.partial' cannot be written"),
    ],
)
def test_a_full_disk_under_a_run(room: int, what: str, toy_data: Path, tmp_path: Path) -> None:
    """First its texts, then its film, then its checkpoint."""
    assert what in told([*RUN, "--data", str(toy_data), "--out", "r"], tmp_path, room=room)
    assert not list(tmp_path.glob("r/samples/*.mp4")) or room > 3000


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_run_folder_that_is_a_file(
    out: str, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said before the data are opened."""
    (tmp_path / "file").write_text("dear reader")
    for words in ([*RUN, "--data", "none"], ["evaluate", "nextframe.doom", "--data", str(toy_data)]):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--out", str(tmp_path / out)])
        assert stop.value.code == 2
        assert f"('{tmp_path / 'file'}' is in the way)" in capsys.readouterr().err
    require_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


def test_a_film_on_a_full_disk(tmp_path: Path) -> None:
    words = ["sample", "nextframe.doom", "--frames", "40", "--out"]
    path, limits = tmp_path / "o.mp4", resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 128, 3), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"o\.mp4' cannot be written \(File too large\): free"):
            write_film(path, noise, fps=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not path.exists()
    if Path("/dev/full").exists():
        (tmp_path / "full.mp4").symlink_to("/dev/full")
        assert "'full.mp4' cannot be written (No space left on device)" in told(
            [*words, "full.mp4"], tmp_path
        )
    (tmp_path / "folder.mp4").mkdir()
    assert "'folder.mp4' cannot be written" in told([*words, "folder.mp4"], tmp_path)


def test_a_weight_file_on_a_full_disk(tmp_path: Path) -> None:
    """The one that was there stays, and nothing is left of the new one."""
    import torch

    path, limits = tmp_path / "w.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    files.save(path, {"x": torch.ones(2)}, metadata={})
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"w\.safetensors' cannot be written"):
            files.save(path, {"x": torch.zeros(2000)}, metadata={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files.read(path)[0]["x"].sum() == 2
    assert [left.name for left in tmp_path.iterdir()] == ["w.safetensors"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        files.save(tmp_path / "file" / "w.safetensors", {"x": torch.ones(2)}, metadata={})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nextframe.doom", "--frames", "1000000000"], "at most 100000, got 1000000000"),
        (["forcing.doom", "--schedule", "pyramid", "--steps", "1000000000"], "from 1 to 64, got 1000000000"),
        (["moviegen.doom", "--prompt", "a", "--frames", "1000000000"], "100000 frames at most"),
        (["moviegen.doom", "--prompt", "a", "--frames", "99999"], "GiB of memory, and"),
        (["moviegen.doom", "--prompt", "a", "--steps", "1000000000"], "from 1 to 64, got 1000000000"),
        (["moviegen.doom", "--prompt", "a", "--size", "1000000000", "96"], "`--size`[0] must be a whole"),
        (["moviegen.doom", "--prompt", "a", "--size", "16384", "16384"], "GiB of memory, and"),
    ],
)
def test_films_without_end(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dreamwalk.commands.clip_memory.free_bytes", lambda device: 8 << 30)
    with pytest.raises(SystemExit) as stop:
        main(["sample", *words, "--out", str(tmp_path / "o.mp4")])
    assert stop.value.code == 2 and sentence in capsys.readouterr().err
    assert not (tmp_path / "o.mp4").exists()
