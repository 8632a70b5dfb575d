"""Weights that ship say how they came about, from the first run of their lineage on."""

import re
from pathlib import Path

from test_fit import tiny

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
