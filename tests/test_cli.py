"""Bad input through the real command line: exit code 2, one sentence on stderr, no traceback."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from toy import toy_system

from dreamwalk import __version__
from dreamwalk.cli import EXTRAS, main
from dreamwalk.data.walks import Walk, write_walk
from dreamwalk.memory.contract import WindowConfig
from dreamwalk.memory.points import PointsConfig
from dreamwalk.training.run import Run
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json
from dreamwalk.worlds.doom import DOOM_ACTIONS

ROOT = Path(__file__).parent.parent
SAMPLE = ["sample", "nextframe.doom", "--actions"]
REFUSED = {
    "unknown verb": (["plya", "x"], "unknown verb 'plya': did you mean 'play'?"),
    "unknown verb, nothing near": (["xyzzy"], "known are play, sample, evaluate, collect, train, import"),
    "unknown run": (
        ["train", "nextframe.dom"],
        "no run called 'nextframe.dom': did you mean 'nextframe.doom'?",
    ),
    "no run": (["train"], "`dreamwalk train` needs a name first"),
    "no name but a flag": (["play", "--port", "1"], "`dreamwalk play` needs a name first"),
    "unknown weights": (
        ["play", "nowhere.at.all"],
        "no weights called 'nowhere.at.all', and no such file or folder: "
        "to play there are doom, artokens.doom, forcing.doom, forcing.rooms, moviegen.doom, nextframe.doom, "
        "voyager.doom, worldmem.doom\n",
    ),
    "weights that are misspelt": (["play", "nextframe.dom"], "did you mean 'nextframe.doom'? to play"),
    "a game that is misspelt": (["play", "dooom"], "did you mean 'doom'? to play"),
    "weights that show nothing": (
        ["play", "autoencode.doom"],
        "is of the system autoencode, which dreams nothing to look at: to play there are doom, artokens.doom",
    ),
    "a near name that shows nothing": (["sample", "autoencode.dom", "--out", "o.mp4"], ": to sample there"),
    "nothing to examine": (["evaluate", "inverse.doom"], "to evaluate there are artokens.doom"),
    "a file of another kind": (["play", "letter.txt"], "'letter.txt' is not a .safetensors file"),
    "a damaged file": (["play", "broken.safetensors"], "'broken.safetensors' is damaged"),
    "a folder without weights": (["play", "empty"], "'empty' holds no weights.safetensors"),
    "no data": (
        ["train", "nextframe.doom", "--data", "none", "--out", "r"],
        "'none/manifest.json' is missing",
    ),
    "no such memory": (
        ["train", "forcing.doom", "--system.memory", "palace"],
        "`--system.memory` is one of window, map, points, bank, points-and-bank, recurrent, got 'palace'",
    ),
    "clips have no memory": (["train", "moviegen.doom", "--system.depth"], "it has neither memory nor depth"),
    "no walks to examine": (["evaluate", "nextframe.doom", "--report", "places"], "is missing"),
    "no data to examine": (
        ["evaluate", "nextframe.doom", "--data", "none"],
        "'none/manifest.json' is missing",
    ),
    "no such level": (["play", "doom", "--level", "attic"], "unknown level 'attic'"),
    "no walk": ([*SAMPLE, "none.json", "--out", "o.mp4"], "no walk file at none.json"),
    "a walk that is text": ([*SAMPLE, "letter.txt", "--out", "o.mp4"], "the walk file is not valid JSON"),
    "another kind of JSON": ([*SAMPLE, "list.json", "--out", "o.mp4"], "must be an object, got a list"),
    "no folder for the film": ([*SAMPLE, "walk.json", "--out", "none/o.mp4"], "there is no folder 'none'"),
    "a film of another kind": ([*SAMPLE, "walk.json", "--out", "o.gif"], "name it 'o.mp4'"),
    "a seed below 0": ([*SAMPLE, "walk.json", "--out", "o.mp4", "--seed", "-1"], "a whole number from 0 up"),
    "nothing to collect": (["collect"], "say what to collect"),
    "no videos": (["collect", "videos", "--folder", "empty", "--out", "c"], "'empty' holds no videos"),
    "no such game": (["collect", "game", "--id", "Nope-v0", "--out", "c"], "no game called 'Nope-v0'"),
    "unknown published weights": (
        ["import", "genie", "empty", "--out", "o.safetensors"],
        "no published weights called 'genie': known are oasis, hunyuanvideo",
    ),
    "no published files": (
        ["import", "oasis", "empty", "--out", "o.safetensors"],
        "'empty' lacks oasis500m.safetensors: download it there",
    ),
    "no published transformer": (
        ["import", "hunyuanvideo", "empty", "--out", "o.safetensors"],
        "'empty' holds no transformer of HunyuanVideo",
    ),
    "weights of another kind": (["import", "oasis", "empty", "--out", "o.pt"], "name it 'o.safetensors'"),
    "a start that is no picture": (
        ["import", "oasis", "empty", "--out", "o.safetensors", "--start", "letter.txt"],
        "'letter.txt' is not a picture",
    ),
    "no clips to check": (["collect", "--check", "empty"], "'empty' holds no clips"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a letter, a broken weight file, an empty folder, a walk and a run `toy` in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "letter.txt").write_text("dear reader")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\x00\x00\x00")
    moves = [DOOM_ACTIONS.action(["forward"], yaw=8.0), DOOM_ACTIONS.action()]
    actions = np.stack([DOOM_ACTIONS.pack(move) for move in moves])
    names = {"buttons": DOOM_ACTIONS.buttons, "axes": DOOM_ACTIONS.axes}
    write_walk("walk.json", Walk(system="toy", seed=7, actions=actions, **names))
    toy = toy_system()
    assert toy.world_spec is not None
    tensors, about = toy.world_spec.pack()
    metadata = {"system": toy.name, "config": to_json(toy.config), "world_spec": about}
    files.save(tmp_path / "toy" / "weights.safetensors", toy.state_dict() | tensors, metadata=metadata)
    return tmp_path


def refuse(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("words", "sentence"), REFUSED.values(), ids=list(REFUSED))
def test_bad_input(words: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refuse(words, capsys)
    assert told.startswith("dreamwalk: ") and told.count("\n") == 1
    assert sentence in told


@pytest.mark.parametrize("words", [["train", "nextframe.doom", "--lr", "1"], ["play", "x", "--prot", "1"]])
def test_unknown_flags_are_named(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert words[2] in refuse(words, capsys)


def test_the_real_command_line_prints_no_traceback() -> None:
    command = [sys.executable, "-m", "dreamwalk", "train", "nextfrmae.doom"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "dreamwalk: there is no run called 'nextfrmae.doom': did you mean 'nextframe.doom'?\n"
    )


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(words)
    assert "usage: dreamwalk VERB NAME" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"dreamwalk {__version__}\n"
    assert re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1] == __version__


@pytest.mark.parametrize("words", [["collect", "--help"], ["collect", "-h"]])
def test_help_on_collecting_lists_the_sources(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(words)
    told = capsys.readouterr().out
    for source in ("doom", "videos", "game", "latents", "--check DIR"):
        assert re.search(rf"^  {source} +\w.{{20}}", told, re.M), source


def test_a_memory_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points need depth and what came before a clip; the other flags still count."""
    runs: list[Run] = []
    monkeypatch.setattr("dreamwalk.training.fit.fit", lambda run, *_, **__: runs.append(run))
    for words in (
        ["--system.memory", "points"],
        ["--system.memory=window", "--system.depth"],
        ["--past", "3"],
    ):
        main(["train", "forcing.levels", *words, "--steps", "7"])
    points, deep, plain = runs
    assert isinstance(points.system.memory, PointsConfig) and points.past == 8
    assert [run.system.codec.image_channels for run in runs] == [4, 4, 3]
    assert (
        isinstance(deep.system.memory, WindowConfig) and plain.past == 3 and plain.steps == points.steps == 7
    )


FAULT = """
import sys
from dreamwalk.cli import main
from dreamwalk.systems.nextframe import NextFrame
def loss(self, clip, draws):
    raise ValueError("not for people")
NextFrame.loss = loss
main(sys.argv[1:])
"""


def test_a_fault_keeps_its_traceback(toy_data: Path, folder: Path) -> None:
    """A plain ValueError inside a system is no sentence for the person in front."""
    words = ["train", "nextframe.game", "--data", str(toy_data), "--codec", "None", "--out", "r"]
    words += ["--system.backbone.grid", "2", "2", "--device", "cpu", "--preview-every", "99"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FAULT, *words], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith("ValueError: not for people\n") and "in loss" in done.stderr


def test_a_walk_becomes_a_film(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dreamwalk.systems.open.load", lambda name: toy_system())
    main(["sample", "toy", "--actions", "walk.json", "--out", "o.mp4", "--start", "0"])
    assert "3 frames: o.mp4" in capsys.readouterr().out
    assert (folder / "o.mp4").read_bytes()[4:8] == b"ftyp"


def test_a_stroll_on_a_schedule_becomes_a_film(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dreamwalk.systems.open.load", lambda name: toy_system())
    words = ["sample", "toy", "--schedule", "pyramid", "--frames", "5", "--out", "o.mp4", "--steps", "4"]
    main([*words, "--plan", "p.png"])
    told = capsys.readouterr().out
    assert "5 frames: o.mp4" in told
    for reason in ("noisy frames do not see the later ones", "do not see all that are finished"):
        assert reason in told.partition("approximate: ")[2]
    assert (folder / "o.mp4").stat().st_size and (folder / "p.png").stat().st_size
    for flags, sentence in (
        (["--schedule", "spiral"], "there is no schedule 'spiral'"),
        (["--lag", "9"], "the lag must be a whole number from 0 to 4, got 9"),
        (["--chunk", "30"], "a window of 9 frames is too small for the 120"),
        (["--guide-actions", "2", "--guide-history", "2"], "not both at once"),
    ):
        assert sentence in refuse([*words, *flags], capsys)


LACKING = """
import sys
sys.modules[sys.argv[1]] = None
from dreamwalk.cli import main
main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("package", "words", "group"),
    [
        ("tensorboard", ["train", "nextframe.game", "--data", "none", "--out", "r"], "train"),
        ("matplotlib", ["evaluate", "nextframe.doom", "--data", "none"], "train"),
        ("torchmetrics", ["evaluate", "moviegen.doom", "--data", "none"], "train"),
        ("einops", ["evaluate", "nextframe.doom", "--data", "none"], ""),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_group(
    package: str, words: list[str], group: str, folder: Path
) -> None:
    """One of the packages that are always installed is a fault, with its traceback."""
    command = [sys.executable, "-c", LACKING, package, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if group:
        assert done.stderr.startswith(f"dreamwalk: this needs the package {package}: `pip install ")
        assert f"[{group}]" in done.stderr and done.stderr.count("\n") == 1 and done.returncode == 2
    else:
        assert "Traceback" in done.stderr and done.returncode == 1


def test_groups_of_packages_are_those_of_the_project() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, group in EXTRAS.items():
        assert package in {re.split("[^a-z]", each)[0] for each in groups[group]}
