"""Configs and indices of published checkpoints that are damaged: one sentence that names file and field."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny_hunyuan
import tiny_hunyuan15
import torch
from damage import GONE, Verdicts, bounded_memory, changed, damaged
from diffusers import AutoencoderKLHunyuanVideo

from dreamwalk.codecs.perceptual import FIRST, Perceptual
from dreamwalk.errors import UserError
from dreamwalk.published.hunyuan import read_hunyuan
from dreamwalk.published.hunyuan15 import hunyuan15_config
from dreamwalk.published.vae import read_vae, read_vae15
from dreamwalk.weights.vgg import read_perceptual

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts pages as Linux does")


def _vae() -> AutoencoderKLHunyuanVideo:
    return AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4
    )


PUBLISHED: dict[str, tuple[Any, Any, str]] = {
    "transformer": (lambda: tiny_hunyuan.published(None), read_hunyuan, "num_layers"),
    "transformer 1.5": (lambda: tiny_hunyuan15.published("t2v"), read_hunyuan, "num_layers"),
    "vae": (_vae, read_vae, "layers_per_block"),
    "vae 1.5": (lambda: tiny_hunyuan15.autoencoder((16, 16, 16, 16, 16)), read_vae15, "layers_per_block"),
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_field_of_a_config(name: str, tmp_path: Path) -> None:
    make, read, layers = PUBLISHED[name]
    make().save_pretrained(tmp_path)
    path, verdicts = tmp_path / "config.json", Verdicts()
    config = json.loads(path.read_text())
    read(tmp_path)
    with bounded_memory():
        for label, wrong in damaged(config, values=5):
            path.write_text("" if wrong is GONE else json.dumps(wrong))
            verdicts.read(label, lambda: read(tmp_path))
    assert not verdicts.faults and len(verdicts.refused) > 30
    assert not [sentence for sentence in verdicts.refused.values() if str(tmp_path) not in sentence]
    assert f"config.json': {layers} must be a whole number" in verdicts.refused[f"{layers} = -1"]
    path.write_text(json.dumps(config | {layers: 2**24}))
    with bounded_memory(), pytest.raises(UserError, match=r"asks for more than the \d+ tensors"):
        read(tmp_path)


def test_an_index_names_files_of_its_folder(tmp_path: Path) -> None:
    tiny_hunyuan.published(None).save_pretrained(tmp_path / "t", max_shard_size="100KB")
    [path] = (tmp_path / "t").glob("*.index.json")
    index = json.loads(path.read_text())
    first = next(iter(index["weight_map"]))
    for wrong in ("../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "", 3, None):
        path.write_text(json.dumps(changed(index, ("weight_map", first), wrong)))
        with pytest.raises(
            UserError, match=re.escape(path.name) + ".*(within its own folder|must be a text)"
        ):
            read_hunyuan(tmp_path / "t")
    for text in ("", "[]", "{}", '{"weight_map": []}', "[" * 10_000):
        path.write_text(text)
        with pytest.raises(UserError, match=re.escape(path.name)):
            read_hunyuan(tmp_path / "t")


@pytest.mark.parametrize("text", ["", "[]", '{"shift": "x"}', '{"shift": NaN}', '{"shift": 0}'])
def test_configs_beside_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(text)
    with pytest.raises(UserError, match=r"scheduler_config\.json'"):
        hunyuan15_config(tmp_path, None, None, "", image=None)  # type: ignore[arg-type]


def test_widths_that_a_file_of_vgg_does_not_fill(tmp_path: Path) -> None:
    path = tmp_path / "vgg.safetensors"
    tensors = Perceptual((4, 5, 6, 7, 8)).state_dict()
    for wrong in (torch.zeros(()), torch.zeros(2**20), torch.zeros(2**20, 0, 3, 3)):
        lie = {**tensors, **{f"features.{index}.weight": wrong.clone() for index in FIRST}}
        safetensors.torch.save_file(lie, path)
        with bounded_memory(), pytest.raises(UserError, match=r"features\.0\.weight"):
            read_perceptual(path)
