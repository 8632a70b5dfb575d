"""Voyager's files against a computation apart from ours (tests/tiny_voyager.py), and against diffusers."""

import re
from pathlib import Path

import pytest
import safetensors.torch
import tiny_voyager
import torch
from tiny_llava import write_llava
from tiny_voyager import AXES, CHANNELS, INPUTS, base, full, state, velocity, write_voyager
from torch import Tensor

from dreamwalk.backbones.context_blocks import ContextMMDiTConfig, led_by_context
from dreamwalk.backbones.mmdit import MMDiT
from dreamwalk.conditions.hunyuan import HunyuanTextConfig, TencentTextConfig
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.published import voyager
from dreamwalk.published.voyager import ImportVoyager, read_voyager, voyager_parts, voyager_system
from dreamwalk.systems.open import load
from dreamwalk.systems.voyager import Voyager, VoyagerConfig, released
from dreamwalk.weights import files
from dreamwalk.weights.config import from_json

STATES = "Voyager/transformers/mp_rank_00_model_states{}.pt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voyager(tmp_path_factory.mktemp("voyager"))


def opened(folder: Path, *, context: bool) -> MMDiT:
    path = folder / STATES.format("_context" if context else "")
    tensors, config = read_voyager(path, trusted=True, axes=AXES)
    backbone = config.build().eval()
    files.fill(backbone, tensors, source="theirs")
    return backbone


def inputs() -> tuple[Tensor, Tensor, TextEmbedding]:
    """`(b, t, c, h, w)` of pictures 4 and 4 rows of latents high with 2 between, and words of two lengths."""
    draw = torch.Generator().manual_seed(1)
    x, tokens, pooled = (torch.randn(2, *n, generator=draw) for n in ((3, INPUTS, 10, 8), (7, 12), (8,)))
    return (
        x,
        torch.tensor([0.9, 0.35]),
        TextEmbedding(tokens, torch.arange(7) < torch.tensor([[7], [4]]), pooled),
    )


@torch.no_grad()
@pytest.mark.parametrize("context", [False, True])
def test_the_same_velocity(folder: Path, context: bool) -> None:
    """In float64, where only the timestep's sinusoids are of single precision in ours."""
    backbone = opened(folder, context=context).double()
    s = {name: tensor.double() for name, tensor in state(context=context).items()}
    x, sigma, words = inputs()
    x, words = x.double(), words.to(torch.device("cpu"), torch.float64)
    ours = backbone(x[:, :, :CHANNELS], sigma, words, cond=x[:, :, CHANNELS:])
    assert words.pooled is not None
    for row, length in ((0, 7), (1, 4)):
        given = x[row : row + 1].transpose(1, 2), 1000 * sigma[row : row + 1].double()
        told = words.tokens[row : row + 1, :length], words.pooled[row : row + 1]
        theirs = velocity(s, *given, *told).transpose(1, 2)
        assert theirs.std() > 0.1
        assert (ours[row] - theirs[0]).abs().max() <= 1e-4 * theirs.abs().max()
        if context:
            otherwise = velocity(s, *given, *told, at_end=False).transpose(1, 2)
            assert (otherwise - theirs).abs().max() > 1e-2 * theirs.abs().max()


@torch.no_grad()
def test_without_context_it_is_hunyuan_video(folder: Path) -> None:
    """Diffusers' transformer of HunyuanVideo-I2V, with 14 channels for 9."""
    x, sigma, words = inputs()
    mask = words.mask
    assert mask is not None
    theirs = base()(x.transpose(1, 2), 1000 * sigma, words.tokens, mask, words.pooled, return_dict=False)[0]
    ours = opened(folder, context=False)(x[:, :, :CHANNELS], sigma, words, cond=x[:, :, CHANNELS:])
    assert (ours - theirs.transpose(1, 2)).abs().max() <= 2e-4 * theirs.abs().max()


@pytest.mark.parametrize("context", [False, True])
def test_full_size_names_and_shapes(context: bool) -> None:
    """Every row and column of theirs is used once, and makes tensors of our shapes."""
    config = released().backbone
    if context:
        config = led_by_context(config, gap=1, placed="end")
    theirs, used = full(context=context), {}
    with torch.device("meta"):
        ours = config.build().state_dict()
    for name, tensor in ours.items():
        parts = voyager_parts(name, config)
        shapes = [part.shape(tuple(theirs[part.name].shape)) for part in parts]
        assert sum(rows * columns for rows, columns in shapes) == tensor.numel()
        assert sum(rows for rows, _ in shapes) == tensor.shape[0]
        for part, (rows, columns) in zip(parts, shapes, strict=True):
            used[part.name] = used.get(part.name, 0) + rows * columns
    assert used == {name: tensor.numel() for name, tensor in theirs.items()}
    assert theirs["img_in.proj.weight"].shape == (3072, 50, 1, 2, 2)
    count = sum(tensor.numel() for tensor in ours.values())
    assert count == (13_312_121_664 if context else 12_811_200_576)


def order(folder: Path, out: Path, **asked: bool) -> ImportVoyager:
    return ImportVoyager(folder, out, **{"unsafe_pickle": True, **asked})  # type: ignore[arg-type]


@pytest.mark.parametrize("context", [False, True])
def test_an_import_is_a_system(folder: Path, tmp_path: Path, context: bool) -> None:
    tensors, metadata = voyager_system(order(folder, tmp_path / "v.safetensors", context=context), axes=AXES)
    files.save(tmp_path / "v.safetensors", tensors, metadata=metadata)
    system = load(tmp_path / "v.safetensors")
    assert isinstance(system, Voyager)
    theirs = tiny_voyager.vae().state_dict()["encoder.conv_in.conv.weight"]
    assert torch.equal(system.codec.state_dict()["encoder.first.conv.weight"], theirs)
    backbone, config = system.config.backbone, system.config
    assert backbone.cond_channels == 10 and isinstance(backbone, ContextMMDiTConfig) == context
    assert isinstance(config.text_encoder, HunyuanTextConfig) and config.text_encoder.image_interleave == 2
    assert (config.frames, config.discard_frames, config.steps, config.shift) == (45, 4, 50, 7.0)


def test_a_pickle_is_not_opened_unasked(folder: Path, tmp_path: Path) -> None:
    asked = order(folder, tmp_path / "v.safetensors", unsafe_pickle=False)
    with pytest.raises(ValueError, match="is a pickle, of a kind that can run code"):
        voyager_system(asked, axes=AXES)
    with pytest.raises(ValueError, match=re.escape(f"lacks {STATES.format('')}: download it there")):
        voyager_system(order(tmp_path, tmp_path / "v.safetensors"), axes=AXES)


def test_the_same_as_safetensors(folder: Path, tmp_path: Path) -> None:
    """Under `ckpts`, and without the flag; tensors of the VAE may be marked, with others beside them."""
    root = tmp_path / "ckpts"
    autoencoder = {f"vae.{name}": tensor for name, tensor in tiny_voyager.vae().state_dict().items()}
    autoencoder["loss.logvar"] = torch.zeros(1)
    for name, tensors in (
        (STATES.format("_context"), state(context=True)),
        (f"{voyager.VAE}/pytorch_model.pt", autoencoder),
    ):
        path = (root / name).with_suffix(".safetensors")
        path.parent.mkdir(parents=True)
        safetensors.torch.save_file(tensors, path)
    config = folder / voyager.VAE / "config.json"
    (root / voyager.VAE / "config.json").write_text(config.read_text())
    asked = order(tmp_path, tmp_path / "v.safetensors", unsafe_pickle=False, context=True)
    mine, about = voyager_system(asked, axes=AXES)
    theirs, same = voyager_system(order(folder, asked.out, context=True), axes=AXES)
    assert about == same and all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_text_encoders_beside_it_are_found(folder: Path, tmp_path: Path) -> None:
    """In the layout of its authors they say what diffusers' says."""
    parts = write_llava(tmp_path / "diffusers")
    root = tmp_path / "ckpts"
    for part, folders in {
        "text_encoder_i2v": ("text_encoder", "tokenizer", "image_processor"),
        "text_encoder_2": ("text_encoder_2", "tokenizer_2"),
    }.items():
        (root / part).mkdir(parents=True)
        for source in folders:
            for file in (parts / source).iterdir():
                (root / part / file.name).write_bytes(file.read_bytes())
    found = voyager._text_encoders(root, "")
    assert found == TencentTextConfig(str(root.resolve()), 2)
    ours, theirs = (
        config.open(torch.device("cpu"), torch.float32)
        for config in (found, HunyuanTextConfig(str(parts), 2))
    )
    picture = torch.randint(0, 256, (1, 3, 48, 48), dtype=torch.uint8)
    mine, others = (model.encode(["light and space"], picture) for model in (ours, theirs))
    assert torch.equal(mine.tokens, others.tokens) and torch.equal(mine.pooled, others.pooled)


def test_what_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    given = state(context=True)
    for change, sentence in (
        (lambda s: s.pop("zero_linear2.bias"), "lacks 'zero_linear2.bias': it is not HunyuanWorld-Voyager"),
        (lambda s: s.update({"x.y": torch.zeros(1)}), "also has 'x.y', which HunyuanWorld-Voyager has not"),
    ):
        changed = dict(given)
        change(changed)
        torch.save({"module": changed}, tmp_path / "mp.pt")
        with pytest.raises(ValueError, match=sentence):
            read_voyager(tmp_path / "mp.pt", trusted=True, axes=AXES)


def test_a_config_goes_to_json_and_back() -> None:
    from dreamwalk.weights.config import to_json

    assert from_json(VoyagerConfig, to_json(released())) == released()
