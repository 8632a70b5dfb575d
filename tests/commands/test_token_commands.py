"""Weights of tokens in every verb: a film, a page, the examination; and what they refuse."""

import json
from pathlib import Path

import pytest
import torch

from dreamwalk.cli import main
from dreamwalk.codecs.quantizers import FSQConfig
from dreamwalk.codecs.shuffle import ShuffleVAEConfig
from dreamwalk.codecs.tokens import tokenized
from dreamwalk.commands.play import open_app
from dreamwalk.data.shards import Shards
from dreamwalk.systems import artokens
from dreamwalk.systems.artokens import ArTokensConfig
from dreamwalk.training.world_spec import world_spec
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

LAYERS = ShuffleVAEConfig(4, (16, 32), 1, ((2, 2, 2),), None, 4)


def written(config: ArTokensConfig, folder: Path, data: Path) -> str:
    torch.manual_seed(0)
    tensors, about = world_spec(Shards(str(data))).pack()
    metadata = {"system": "artokens", "config": to_json(config), "world_spec": about}
    path = folder / "tokens.safetensors"
    files.save(path, config.build().state_dict() | tensors, metadata=metadata)
    return str(path)


@pytest.fixture
def walked(tmp_path: Path, toy_data: Path) -> str:
    return written(artokens.tiny(), tmp_path, toy_data)


def test_a_film_of_a_walk(walked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = tmp_path / "walk.mp4"
    main(["sample", walked, "--frames", "7", "--out", str(film)])
    assert "7 frames" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["sample", walked, "--schedule", "pyramid", "--out", str(film)])
    assert "leave out schedule, guidance and steps" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sample", walked, "--prompt", "a hall", "--out", str(film)])
    assert "were trained without captions" in capsys.readouterr().err


def test_a_film_of_tokens_that_stand_for_several_frames(
    tmp_path: Path, toy_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ArTokensConfig(
        tokenized(LAYERS, FSQConfig((4, 4, 4, 4))),
        actions=7,
        grid=(4, 4),
        frames=3,
        width=32,
        depth=2,
        heads=2,
    )
    film, name = tmp_path / "walk.mp4", written(config, tmp_path, toy_data)
    main(["sample", name, "--frames", "8", "--out", str(film)])
    assert "8 frames" in capsys.readouterr().out and film.stat().st_size > 0
    with pytest.raises(ValueError, match="tokens stand for several frames"):
        open_app(name, "cpu")


def test_the_page_has_what_tokens_have(walked: str) -> None:
    app = open_app(walked, "cpu")
    assert app.memory is None and not app.schedules and app.dream is not None
    world = app.dream()
    world.reset(seed=1)
    assert world.step(world.actions.action(["forward"]))[0].shape == (32, 32, 3)


def test_the_examination_tells_tokens_and_bits(walked: str, toy_data: Path, tmp_path: Path) -> None:
    flags = ["--data", str(toy_data), "--clips", "2", "--frames", "4", "--history", "1", "--inverse", ""]
    main(["evaluate", walked, *flags, "--out", str(tmp_path / "out")])
    report = (tmp_path / "out" / "report.json").read_text()
    assert '"tokens": 4.0' in report and '"bits"' in report and '"passes": 4.0' in report


def test_the_codebook_report_parts_vocabulary_and_model(walked: str, toy_data: Path, tmp_path: Path) -> None:
    flags = ["--report", "codebook", "--data", str(toy_data), "--clips", "2", "--frames", "4", "--trips", "1"]
    main(["evaluate", walked, *flags, "--out", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    told, (row,) = report["generation"], report["codecs"].values()
    assert {len(curve) for curve in told.values()} == {3} and report["skipped"] == 1
    assert sum(told["reconstructed"]) / 3 == pytest.approx(row["psnr"][0], abs=2e-3)
