from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

from dreamwalk.codecs.kl_autoencoder import kl_tiny
from dreamwalk.systems import autoencode, inverse, moviegen, nextframe
from dreamwalk.systems.autoencode import Autoencode, AutoencodeConfig
from dreamwalk.systems.moviegen import Moviegen
from dreamwalk.systems.nextframe import NextFrame, NextFrameConfig
from dreamwalk.systems.open import load, load_codec
from dreamwalk.training.run import RUNS, Run
from dreamwalk.weights import files
from dreamwalk.weights.config import from_json, to_json


@pytest.mark.parametrize(
    "config",
    [nextframe.tiny(), nextframe.doom(), nextframe.released("310M"), autoencode.doom(), inverse.doom()],
)
def test_configs_survive_json(config: object) -> None:
    assert from_json(type(config), to_json(config)) == config


@pytest.mark.parametrize("name", list(RUNS))
def test_runs_survive_json(name: str) -> None:
    run = RUNS[name]()
    assert from_json(Run, to_json(run)) == run


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ValueError, match="NextFrameConfig has no field 'colour'"):
        from_json(NextFrameConfig, to_json(nextframe.tiny()) | {"colour": 1})


def saved(path: Path, system: NextFrame | Autoencode) -> Path:
    files.save(path, system.state_dict(), metadata={"system": system.name, "config": to_json(system.config)})
    return path


def test_a_file_opens_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    system = NextFrame(nextframe.tiny())
    opened = load(saved(tmp_path / "a.safetensors", system))
    assert opened.config == system.config
    for name, tensor in system.state_dict().items():
        assert torch.equal(opened.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.safetensors", None, "no weights called"),
        ("junk.safetensors", b"not a weight file at all", "damaged or not a safetensors file"),
        ("evil.pt", b"pickled", "not a .safetensors file; other formats can run code"),
    ],
)
def test_what_is_not_a_weight_file_is_refused(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path / name)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", NextFrame(nextframe.tiny()))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="damaged"):
        load(path)


@pytest.mark.parametrize("kind", [Autoencode, NextFrame, Moviegen])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, kind: Any, broken: float) -> None:
    module = {Autoencode: autoencode, NextFrame: nextframe, Moviegen: moviegen}[kind]
    config = AutoencodeConfig(kl_tiny()) if kind is Autoencode else module.tiny()
    system = kind(config)
    name = sorted(name for name, tensor in system.state_dict().items() if tensor.is_floating_point())[-1]
    system.state_dict()[name].view(-1)[-1] = broken
    with pytest.raises(ValueError, match=f"has nan or inf in '{name}' \\(1 of [0-9]+ numbers\\): .* again"):
        load(saved(tmp_path / "a.safetensors", system))


def test_large_numbers_are_numbers() -> None:
    large = torch.full((8,), 3e38)
    files.check_finite("w", large, source="a file")
    files.check_finite("w", torch.full((8,), 6e4, dtype=torch.float16), source="a file")
    with pytest.raises(ValueError, match=r"a file has nan or inf in 'w' \(1 of 8 numbers\)"):
        files.check_finite("w", large.index_fill(0, torch.tensor([3]), float("-inf")), source="a file")


def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    import safetensors.torch

    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="was not written by dreamwalk"):
        load(tmp_path / "a.safetensors")


def test_weights_of_another_system_are_refused(tmp_path: Path) -> None:
    tensors = Autoencode(autoencode.doom()).state_dict()
    metadata = {"system": "nextframe", "config": to_json(nextframe.tiny())}
    files.save(tmp_path / "a.safetensors", tensors, metadata=metadata)
    with pytest.raises(ValueError, match=r"lacks 'actions|has 'codec"):
        load(tmp_path / "a.safetensors")


def test_a_codec_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", Autoencode(AutoencodeConfig(codec=kl_tiny())))
    with pytest.raises(ValueError, match="but this run is for"):
        load_codec(NextFrame(nextframe.tiny()), path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no weights\.safetensors"):
        load(tmp_path)


def test_a_file_that_no_memory_can_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its metadata can be read all the same."""
    path, opens = tmp_path / "w.safetensors", safetensors.safe_open
    files.save(path, {"x": torch.zeros(3)}, metadata={"system": "none"})

    def narrow(path: Path, framework: str) -> Any:
        if framework == "pt":
            raise RuntimeError(f"unable to mmap 9 bytes from file <{path}>: Cannot allocate memory (12)")
        return opens(path, framework=framework)

    monkeypatch.setattr(safetensors, "safe_open", narrow)
    assert files.metadata(path) == {"system": "none"}
    with pytest.raises(ValueError, match="is larger than memory and swap of this machine"):
        files.read(path)
