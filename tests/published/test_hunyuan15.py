"""The transformer of HunyuanVideo-1.5 against diffusers, with the weights that it saves."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import HunyuanVideo15Transformer3DModel
from tiny_hunyuan15 import published
from torch import Tensor

from dreamwalk.backbones.mmdit_multi import MultiEncoderMMDiT, MultiEncoderMMDiTConfig, hunyuan_8b
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.published.hunyuan import read_hunyuan
from dreamwalk.published.hunyuan15 import transformer_config
from dreamwalk.published.names import DIFFUSERS, public_parts
from dreamwalk.weights import files
from dreamwalk.weights.config import from_json

LENGTHS = {
    "as long": ([7, 7], [5, 5]),
    "ragged": ([7, 4], [2, 5]),
    "no letters": ([7, 4], [0, 0]),
    "letters for one": ([3, 7], [0, 4]),
}


def loaded(folder: Path) -> MultiEncoderMMDiT:
    tensors, metadata = read_hunyuan(folder)
    backbone = MultiEncoderMMDiT(from_json(MultiEncoderMMDiTConfig, metadata["backbone"])).eval()
    files.fill(backbone, tensors, source="theirs")
    return backbone


def kind_of_words(shape: tuple[int, ...], lengths: list[int]) -> TextEmbedding:
    return TextEmbedding(torch.randn(shape), torch.arange(shape[1]) < torch.tensor(lengths)[:, None])


def both(
    backbone: MultiEncoderMMDiT, model: HunyuanVideo15Transformer3DModel, words: TextEmbedding
) -> tuple[Tensor, Tensor]:
    """Velocities of two noisy clips, ours and theirs; without a picture they are given one of zeros."""
    x, sigma, shown = torch.randn(2, 9, 3, 4, 6), torch.tensor([0.9, 0.35]), len(words.others) > 1
    if not shown:
        x[:, 4:] = 0
    picture = words.others[1].tokens if shown else torch.zeros(2, 3, 6)
    theirs = model(
        x,
        1000 * sigma,
        words.tokens,
        words.present.float(),
        None,
        words.others[0].tokens,
        words.others[0].present.float(),
        picture,
        return_dict=False,
    )[0].transpose(1, 2)
    noisy, extra = x.transpose(1, 2).split([4, 5], dim=2)
    return backbone(noisy, sigma, words, cond=extra), theirs


@torch.no_grad()
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("task", ["t2v", "i2v"])
def test_the_same_velocity(tmp_path: Path, task: str, lengths: tuple[list[int], list[int]]) -> None:
    model = published(task)
    model.save_pretrained(tmp_path, max_shard_size="100KB" if task == "i2v" else "5GB")
    letters = kind_of_words((2, 5, 10), lengths[1])
    picture = (TextEmbedding(torch.randn(2, 3, 6)),) if task == "i2v" else ()
    words = kind_of_words((2, 7, 12), lengths[0])._replace(others=(letters, *picture))
    ours, theirs = both(loaded(tmp_path), model, words)
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() <= 2e-4


@torch.no_grad()
@pytest.mark.parametrize("place", [0, 1])
def test_every_kind_is_heard(tmp_path: Path, place: int) -> None:
    """The parity would be lost without letters, or without the picture."""
    published("i2v").save_pretrained(tmp_path)
    backbone, x, sigma = loaded(tmp_path), torch.randn(1, 1, 4, 2, 2), torch.tensor([0.5])
    others = [TextEmbedding(torch.randn(1, 5, 10)), TextEmbedding(torch.randn(1, 3, 6))]
    words, extra = TextEmbedding(torch.randn(1, 7, 12)), torch.zeros(1, 1, 5, 2, 2)
    heard = backbone(x, sigma, words._replace(others=tuple(others)), cond=extra)
    others[place] = TextEmbedding(torch.randn_like(others[place].tokens))
    other = backbone(x, sigma, words._replace(others=tuple(others)), cond=extra)
    assert (heard - other).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"(glyph|image) embeddings are \d+ wide here, not 3"):
        others[place] = TextEmbedding(torch.randn(1, 5, 3))
        backbone(x, sigma, words._replace(others=tuple(others)), cond=extra)


def test_full_size_names_and_shapes() -> None:
    """Every row and column of theirs is used once, and makes tensors of our shapes."""
    with torch.device("meta"):
        theirs, ours = (
            HunyuanVideo15Transformer3DModel().state_dict(),
            MultiEncoderMMDiT(hunyuan_8b()).state_dict(),
        )
    used = dict.fromkeys(theirs, 0)
    for name, tensor in ours.items():
        parts = public_parts(name, hunyuan_8b(), DIFFUSERS)
        shapes = [part.shape(tuple(theirs[part.name].shape)) for part in parts]
        assert sum(rows for rows, _ in shapes) == tensor.shape[0]
        assert sum(rows * columns for rows, columns in shapes) == tensor.numel()
        for part, (rows, columns) in zip(parts, shapes, strict=True):
            used[part.name] += rows * columns
    assert used == {name: tensor.numel() for name, tensor in theirs.items()}
    assert sum(used.values()) == 8_326_608_160


@pytest.mark.parametrize(("task", "image"), [("t2v", None), ("i2v", "latent_concat")])
def test_the_published_config_is_read(tmp_path: Path, task: str, image: str | None) -> None:
    with torch.device("meta"):
        model = HunyuanVideo15Transformer3DModel(task_type=task)
    model.save_config(tmp_path)
    given = json.loads((tmp_path / "config.json").read_text())
    assert transformer_config(given, "theirs") == (hunyuan_8b(), image)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    model = published("t2v")
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"use_meanflow": True}))
    with pytest.raises(ValueError, match=r"distilled by MeanFlow .*: take one without `step_distilled`"):
        read_hunyuan(tmp_path)
    del config["text_embed_2_dim"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json' lacks 'text_embed_2_dim': download it again"):
        read_hunyuan(tmp_path)
