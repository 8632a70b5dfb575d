"""Weights that ship say how they came about, from the first run of their lineage on."""

import re
from dataclasses import replace
from pathlib import Path

from test_fit import tiny

from dreamwalk.systems import artokens, inverse
from dreamwalk.systems.open import load
from dreamwalk.training.export_release import Release, export_release
from dreamwalk.training.fit import fit
from dreamwalk.weights import files


def test_notes_tell_the_whole_lineage(toy_data: Path, tmp_path: Path) -> None:
    fit(tiny(toy_data, steps=6), tmp_path / "first")
    fit(tiny(toy_data, steps=4, start=str(tmp_path / "first")), tmp_path / "second")
    export_release(Release(tmp_path / "second", tmp_path / "out.safetensors", hardware="a toaster"))
    told = files.metadata(tmp_path / "out.safetensors")["notes"]["trained"]
    part = r"{} steps of 4 clips in \d+ minutes"
    assert re.fullmatch(f"{part.format(6)}, then {part.format(4)}, on a toaster", told)


def test_an_alias_names_its_weights(toy_data: Path, tmp_path: Path) -> None:
    run = fit(tiny(toy_data, steps=2), tmp_path / "run")
    export_release(Release(tmp_path / "run", tmp_path / "lender.safetensors"))
    export_release(Release(run, tmp_path / "out.safetensors", alias_of=str(tmp_path / "lender.safetensors")))
    notes = files.metadata(tmp_path / "out.safetensors")["notes"]
    assert notes["weights"] == f"those of {tmp_path / 'lender.safetensors'}"
    assert notes["trained"].startswith("2 steps of 4 clips")


def test_weights_that_dream_nothing_have_no_pictures_to_begin_from(toy_data: Path, tmp_path: Path) -> None:
    kept = {}
    for name, system in (("inverse", inverse.doom()), ("artokens", artokens.tiny())):
        fit(replace(tiny(toy_data, steps=1), system=system, frames=5), tmp_path / name)
        export_release(Release(tmp_path / name, tmp_path / f"{name}.safetensors", bits=4))
        tensors = files.read(tmp_path / f"{name}.safetensors")[0]
        kept[name] = {part.split(".")[1] for part in tensors if part.startswith("world_spec.")}
        assert load(tmp_path / f"{name}.safetensors").name == name
    assert not kept["inverse"] and "starts" in kept["artokens"] and "depths" not in kept["artokens"]
