"""Against diffusers, with the weights that it saves, and the same under the names of their authors."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny_hunyuan import KINDS, SIZES, as_tencent, published
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    from diffusers import HunyuanVideoTransformer3DModel

from dreamwalk.backbones.mmdit import MMDiT, MMDiTConfig, hunyuan_13b
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.published.hunyuan import read_hunyuan
from dreamwalk.published.names import DIFFUSERS, TENCENT, public_parts
from dreamwalk.weights import files
from dreamwalk.weights.config import from_json

AXES = SIZES["rope_axes_dim"]


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> str | None:
    return request.param


def saved(folder: Path, model: HunyuanVideoTransformer3DModel, layout: str) -> Path:
    """Where the model is now: a folder of one file or of several, or their file."""
    if layout == "tencent":
        safetensors.torch.save_file(as_tencent(model), folder / "model.safetensors")
        return folder / "model.safetensors"
    model.save_pretrained(folder, max_shard_size="40KB" if layout == "shards" else "5GB")
    return folder


def loaded(path: Path) -> MMDiT:
    tensors, metadata = read_hunyuan(path, axes=AXES)
    backbone = MMDiT(from_json(MMDiTConfig, metadata["backbone"])).eval()
    files.fill(backbone, tensors, source="theirs")
    return backbone


def inputs(channels: int) -> tuple[Tensor, Tensor, TextEmbedding, Tensor]:
    """Video of theirs `(b, c, t, h, w)` and `sigma`, words of two lengths, and guidance."""
    generator = torch.Generator().manual_seed(1)
    x, tokens, pooled = (
        torch.randn(2, *shape, generator=generator) for shape in ((channels, 3, 8, 8), (7, 12), (8,))
    )
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    return x, torch.tensor([0.9, 0.35]), TextEmbedding(tokens, mask, pooled), torch.tensor([6.0, 1.0])


@torch.no_grad()
@pytest.mark.parametrize("layout", ["diffusers", "shards", "tencent"])
def test_the_same_velocity(tmp_path: Path, kind: str | None, layout: str) -> None:
    model = published(kind)
    backbone = loaded(saved(tmp_path, model, layout))
    x, sigma, words, guidance = inputs(KINDS[kind]["in_channels"])
    mask = words.mask
    theirs = model(x, 1000 * sigma, words.tokens, mask, words.pooled, 1000 * guidance, return_dict=False)[
        0
    ].transpose(1, 2)
    x, extra = x.transpose(1, 2).split([4, x.shape[1] - 4], dim=2)
    if kind == "token_replace":
        sigma = torch.stack([0 * sigma, sigma, sigma], dim=1)
    ours = backbone(
        x,
        sigma,
        words,
        guidance=guidance if backbone.config.guidance else None,
        cond=extra if kind == "latent_concat" else None,
    )
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() <= 2e-4 * theirs.abs().max()


@torch.no_grad()
def test_the_first_frame_has_a_level_of_its_own(tmp_path: Path) -> None:
    """The parity of token replacement would be lost without it."""
    model = published("token_replace")
    backbone = loaded(saved(tmp_path, model, "diffusers"))
    x, sigma, words, guidance = inputs(4)
    levels = torch.stack([0 * sigma, sigma, sigma], dim=1)
    x = x.transpose(1, 2)
    difference = backbone(x, levels, words, guidance=guidance) - backbone(x, sigma, words, guidance=guidance)
    assert difference.abs().max() > 1e-2


def full(kind: str | None) -> tuple[MMDiTConfig, HunyuanVideoTransformer3DModel]:
    """Both on the meta device, in the published sizes."""
    given: dict[str, Any] = {"image_condition_type": kind}
    if kind == "latent_concat":
        given |= {"in_channels": 33, "guidance_embeds": False}
    with torch.device("meta"):
        return hunyuan_13b(kind), HunyuanVideoTransformer3DModel(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", [DIFFUSERS, TENCENT])
def test_full_size_names_and_shapes(kind: str | None, layout: int) -> None:
    """Every row and column of theirs is used once, and makes tensors of our shapes."""
    config, model = full(kind)
    theirs = model.state_dict() if layout == DIFFUSERS else as_tencent(model)
    with torch.device("meta"):
        ours = MMDiT(config).state_dict()
    used = dict.fromkeys(theirs, 0)
    for name, tensor in ours.items():
        parts = public_parts(name, config, layout)
        shapes = [part.shape(tuple(theirs[part.name].shape)) for part in parts]
        assert sum(rows for rows, _ in shapes) == tensor.shape[0]
        assert all(rows * columns > 0 for rows, columns in shapes)
        assert sum(rows * columns for rows, columns in shapes) == tensor.numel()
        for part, (rows, columns) in zip(parts, shapes, strict=True):
            used[part.name] += rows * columns
    assert used == {name: tensor.numel() for name, tensor in theirs.items()}


def test_configs_are_read(tmp_path: Path, kind: str | None) -> None:
    """From config.json, and the same from shapes, without reading a weight."""
    model = published(kind)
    (tmp_path / "pipeline").mkdir()
    saved(tmp_path / "pipeline" / "transformer", model, "diffusers")
    metadata = read_hunyuan(tmp_path / "pipeline")[1]
    assert metadata["image"] == kind
    theirs = read_hunyuan(saved(tmp_path, model, "tencent"), axes=AXES)[1]
    assert theirs["backbone"] == metadata["backbone"] == json.loads(json.dumps(metadata["backbone"]))
    assert theirs["image"] == (kind if kind == "latent_concat" else None)


def test_a_tensor_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    tensors = read_hunyuan(saved(tmp_path, published(None), "diffusers"))[0]
    assert tensors["head.project.weight"] is not tensors["head.project.weight"]
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match="there is no weight file at"):
        tensors["head.project.weight"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("proj_out.bias"), "lacks 'proj_out.bias': it is not HunyuanVideo, or not all of it"),
        (lambda t: t.update({"x.y": torch.zeros(1)}), "also has 'x.y', which HunyuanVideo has not"),
        (
            lambda t: t.update({"proj_out.bias": torch.zeros(3)}),
            r"'proj_out.bias' of shape \(3,\), which does not make 'head.project.bias' of \(16,\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], sentence: str
) -> None:
    saved(tmp_path, published(None), "diffusers")
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(ValueError, match=sentence):
        read_hunyuan(tmp_path)


def test_what_is_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"'{tmp_path}' lacks config.json")):
        read_hunyuan(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKLHunyuanVideo"}')
    with pytest.raises(ValueError, match="is of AutoencoderKLHunyuanVideo, not of Hunyuan"):
        read_hunyuan(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "HunyuanVideoTransformer3DModel"}')
    with pytest.raises(ValueError, match=r"config.json' lacks 'out_channels': download it again"):
        read_hunyuan(tmp_path)
    with pytest.raises(ValueError, match="is a pickle, which can run code when loaded: convert it to safe"):
        read_hunyuan(tmp_path / "mp_rank_00_model_states.pt")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a.safetensors' is not of the layout of HunyuanVideo \('img_in"):
        read_hunyuan(tmp_path / "a.safetensors")
