"""A folder of captioned videos becomes latents, and a system of clips trains on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dreamwalk
from dreamwalk.cli import main
from dreamwalk.data.h264 import encode_video
from dreamwalk.systems import autoencode, moviegen, nextframe
from dreamwalk.systems.autoencode import Autoencode, AutoencodeConfig
from dreamwalk.systems.moviegen import MoviegenConfig
from dreamwalk.training.fit import fit
from dreamwalk.training.run import Run
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos and a picture of other shapes, each with a text."""
    folder = tmp_path_factory.mktemp("mine")
    random = np.random.default_rng(0)
    for name, size in (("wide", (36, 64)), ("tall", (64, 36))):
        (folder / f"{name}.mp4").write_bytes(
            encode_video(random.integers(0, 255, (12, *size, 3), np.uint8), 10)
        )
        (folder / f"{name}.txt").write_text(f"something {name}")
    Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / "still.png")
    (folder / "still.txt").write_text("something that stands still")
    return folder


def codec_of(config: MoviegenConfig, path: Path, *, seed: int = 0) -> str:
    torch.manual_seed(seed)
    trained = AutoencodeConfig(codec=config.codec)
    files.save(
        path, Autoencode(trained).state_dict(), metadata={"system": "autoencode", "config": to_json(trained)}
    )
    return str(path)


def test_from_a_folder_to_a_system(mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = moviegen.tiny(), str(tmp_path / "latents")
    codec = codec_of(config, tmp_path / "codec.safetensors")
    words = ["--folder", str(mine), "--codec", codec, "--size", "32", "32", "--frames", "5", "--out", out]
    main(["collect", "latents", *words, "--device", "cpu"])
    told = capsys.readouterr().out
    assert "latents of 5 clips in 3 sizes" in told
    run = Run(
        name="mine",
        system=config,
        data=out,
        codec=codec,
        frames=5,
        batch=2,
        steps=4,
        save_every=4,
        preview_every=4,
        log_every=1,
    )
    fit(run, tmp_path / "run")
    system = dreamwalk.load(tmp_path / "run")
    assert system.world_spec is None
    assert system.sample("something wide").shape == (1, 5, 32, 32, 3)
    assert list((tmp_path / "run" / "samples").glob("*.mp4"))


def test_latents_of_another_codec_are_refused(mine: Path, tmp_path: Path) -> None:
    config, out = moviegen.tiny(), str(tmp_path / "latents")
    codec = codec_of(config, tmp_path / "codec.safetensors")
    other = codec_of(config, tmp_path / "other.safetensors", seed=1)
    words = ["--folder", str(mine), "--codec", codec, "--size", "32", "32", "--frames", "5", "--out", out]
    main(["collect", "latents", *words])
    run = Run(name="mine", system=config, data=out, codec=other, frames=5, batch=2, steps=1)
    with pytest.raises(ValueError, match="latents of another codec than this run's: give `--codec`"):
        fit(run, tmp_path / "run")
    larger = replace(run, system=moviegen.upsampler(config), codec=codec)
    with pytest.raises(ValueError, match="an upsampler learns from pixels"):
        fit(larger, tmp_path / "larger")
    with pytest.raises(ValueError, match="the system nextframe trains on clips: collect clips"):
        fit(Run(name="mine", system=nextframe.tiny(), data=out), tmp_path / "frames")
    with pytest.raises(ValueError, match="the system autoencode trains on clips"):
        fit(Run(name="mine", system=autoencode.doom(), data=out), tmp_path / "frames")


def test_a_system_without_a_codec_of_videos_is_refused(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["collect", "latents", "--folder", str(mine), "--codec", "inverse.doom", "--out", str(tmp_path)])
    assert "'inverse.doom' is of the system inverse" in capsys.readouterr().err
