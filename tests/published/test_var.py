"""Against an independent computation of the published tokenizer: tests/tiny_var.py."""

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny_var
import torch
from damage import Hostile
from tiny_var import SIDES, State, weights

from dreamwalk.cli import main
from dreamwalk.codecs.residual_quantizers import MultiScaleConfig, nearest_filter
from dreamwalk.codecs.tokens import TokenCodec, TokenCodecConfig
from dreamwalk.codecs.vector_quantizer import VQConfig
from dreamwalk.codecs.vqgan import vqgan_f16
from dreamwalk.errors import UserError
from dreamwalk.published.var import TOKENIZER, ImportVAR, read_tokenizer, var_parts, var_system
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.autoencode import Autoencode
from dreamwalk.systems.open import load

ENDS = list(accumulate(side**2 for side in SIDES))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save(weights(), tmp_path / TOKENIZER)
    return tmp_path


@pytest.fixture(scope="module")
def doubled() -> State:
    return {name: tensor.double() for name, tensor in weights().items()}


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TokenCodec:
    """Imported by the command line, and opened again, in float64."""
    folder = tmp_path_factory.mktemp("var")
    torch.save(weights(), folder / TOKENIZER)
    out = folder / "ours.safetensors"
    main(["import", "var", str(folder), "--out", str(out), "--unsafe-pickle"])
    system = load(out)
    assert isinstance(system, Autoencode) and isinstance(system.codec, TokenCodec)
    assert system.about and system.about["notes"]["licence"] == "MIT"
    return system.codec.double()


def picture() -> torch.Tensor:
    """With large and small parts."""
    draw, sides = torch.Generator().manual_seed(1), (1, 4, 32, 256)
    parts = [torch.randn(1, 3, side, side, generator=draw, dtype=torch.float64) for side in sides]
    return sum((torch.nn.functional.interpolate(part, size=256) for part in parts), torch.zeros(())).tanh()


def order(folder: Path, **asked: Any) -> ImportVAR:
    return ImportVAR(folder, folder / "ours.safetensors", **{"unsafe_pickle": True, **asked})


@torch.inference_mode()
def test_tokens_and_pictures_are_theirs(codec: TokenCodec, doubled: State) -> None:
    """All ten scales, and what the first of them alone are."""
    seen = picture()
    theirs, ours = tiny_var.tokens(doubled, seen), codec.tokens(seen[:, None])
    assert torch.equal(ours[:, 0], torch.cat(theirs, 1)) and ours.shape == (1, 1, 680)
    assert ours.unique().numel() > 20
    for count in (1, 3, 8, 10):
        values = codec.from_tokens(ours[..., : ENDS[count - 1]])[:, 0]
        expected = tiny_var.values(doubled, theirs[:count])
        torch.testing.assert_close(values, expected, atol=1e-10, rtol=0)
    restored = codec.decode(codec.encode(seen[:, None]))[:, 0]
    expected = tiny_var.image(doubled, tiny_var.values(doubled, theirs))
    torch.testing.assert_close(restored, expected, atol=1e-9, rtol=1e-9)
    assert restored.std() > 0.1


def test_convolutions_of_scales() -> None:
    assert [nearest_filter(stage, 10, 4) for stage in range(10)] == list(tiny_var.PHI)


def test_full_size_names_and_shapes() -> None:
    """On the meta device: all tensors of the file but the counts, and no others."""
    scales = tuple((side, side) for side in SIDES)
    with torch.device("meta"):
        full = TokenCodecConfig(vqgan_f16(), MultiScaleConfig(scales=scales)).build()
    parts, expected = var_parts(full), tiny_var.shapes(160, 32, 4096)
    measured = {"power", "overlap", "energy", "steps", "share", "total"}
    ours = {n: t for n, t in full.state_dict().items() if n.rpartition(".")[2] not in measured}
    found = {parts(name)[0].name: tuple(tensor.shape) for name, tensor in ours.items()}
    del expected["quantize.ema_vocab_hit_SV"]
    assert found == expected and len(ours) == len(expected) == 323
    assert sum(tensor.numel() for tensor in ours.values()) == 108_948_355


def test_training_goes_on_from_the_published_codes(folder: Path) -> None:
    """The first step moves codes a little and begins none anew; gains stay near one."""
    tensors, config = read_tokenizer(folder / TOKENIZER, trusted=True)
    assert config.quantizer == MultiScaleConfig(VQConfig(6, 40), tuple((s, s) for s in SIDES))
    codec = config.build()
    codec.load_state_dict(tensors)
    before = codec.quantizer.state_dict()["codes.0.codebook"].clone()
    with torch.no_grad():
        codec.bottleneck(picture()[:, None].float(), KeyedGenerator([(0, 0, 0)]), noise=0.0)
    after = codec.quantizer.state_dict()
    assert 0 < (after["codes.0.codebook"] - before).abs().max() < 0.5
    assert (after["overlap"] / after["energy"] - 1).abs().max() < 0.05


def test_larger_pictures_have_other_scales(folder: Path) -> None:
    _, metadata = var_system(order(folder, size=512))
    scales = metadata["config"]["codec"]["quantizer"]["scales"]
    assert sum(h * w for h, w in scales) == 2240 and scales[-1] == [32, 32]


def test_safetensors_need_no_flag(folder: Path) -> None:
    path = folder / TOKENIZER
    with pytest.raises(UserError, match=r"is a pickle, of a kind that can run code .* `--unsafe-pickle`"):
        var_system(order(folder, unsafe_pickle=False))
    path.unlink()
    safe = path.with_suffix(".safetensors")
    safetensors.torch.save_file({name: t.half() for name, t in weights().items()}, safe)
    for given in (folder, safe):
        tensors, _ = var_system(ImportVAR(given, folder / "ours.safetensors"))
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_nothing_in_a_pickle_is_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights() | {"more": Hostile()}, folder / TOKENIZER)
    with pytest.raises(UserError, match=r"z32\.pth' is damaged, or holds more than tensors"):
        var_system(order(folder))
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda s: s.pop("decoder.up.2.upsample.conv.bias"),
            "lacks 'decoder.up.2.upsample.conv.bias': it is",
        ),
        (lambda s: s.pop("encoder.conv_in.weight"), "has no 'encoder.conv_in.weight' of 4 axes: it is not"),
        (lambda s: s.update({"x": torch.zeros(1)}), "also has 'x', which the tokenizer of VAR has not"),
        (lambda s: s.update({"quant_conv.bias": torch.zeros(3)}), r"'quant_conv.bias' of shape \(3,\)"),
        (lambda s: s.update({"quantize.embedding.weight": torch.zeros(3)}), "embedding.weight' of 2 axes"),
        (lambda s: s.update({"quantize.embedding.weight": torch.zeros(4, 0)}), "embedding.weight' of 2 axes"),
        (lambda s: s.update({"encoder.conv_in.weight": torch.zeros(33, 3, 3, 3)}), "no network can be made"),
        (
            lambda s: s.update({"encoder.conv_in.weight": torch.zeros(0, 3, 3, 3)}),
            "conv_in.weight' of 4 axes",
        ),
        (lambda s: s.update({"quant_conv.weight": torch.zeros(())}), "quant_conv.weight' of shape"),
        (lambda s: s.clear(), "holds no state_dict of tensors"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, change: Callable[[State], object], sentence: str) -> None:
    state = weights()
    change(state)
    torch.save(state, folder / TOKENIZER)
    with pytest.raises(UserError, match=sentence):
        var_system(order(folder))


def test_damaged_and_missing_files(folder: Path) -> None:
    path = folder / TOKENIZER
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], b"", b"x" * 100):
        path.write_bytes(part)
        with pytest.raises(UserError, match="is damaged, or holds more"):
            var_system(order(folder))
    path.unlink()
    with pytest.raises(UserError, match=rf"lacks {TOKENIZER}: download it there from huggingface\.co"):
        var_system(order(folder))
    torch.save({"word_embed.weight": torch.zeros(4, 4)}, folder / "var_d16.pth")
    with pytest.raises(UserError, match="it is not the tokenizer of VAR"):
        var_system(order(folder / "var_d16.pth"))
