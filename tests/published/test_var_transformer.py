"""Against an independent computation of the published transformer: tests/tiny_var.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_var
import torch
from tiny_var import SIDES, State, transformer_weights, weights

from dreamwalk.backbones.scaleformer import ScaleFormerConfig
from dreamwalk.backbones.token_heads import TokenSampling
from dreamwalk.cli import main
from dreamwalk.errors import UserError
from dreamwalk.published.var import TOKENIZER, ImportVAR, transformer_parts, var_system
from dreamwalk.systems.nextscale import NextScale
from dreamwalk.systems.open import load

NAME = Path("var_d2.pth")


def written(folder: Path, transformer: State | None = None) -> Path:
    torch.save(weights(), folder / TOKENIZER)
    torch.save(transformer_weights() if transformer is None else transformer, folder / NAME)
    return folder


def order(folder: Path, *, size: int = 256) -> ImportVAR:
    out = folder / "ours.safetensors"
    return ImportVAR(folder, out, NAME, 256 if size == 256 else 512, unsafe_pickle=True)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> NextScale:
    """Imported by the command line, and opened again, in float64."""
    folder = written(tmp_path_factory.mktemp("var"))
    out = folder / "ours.safetensors"
    flags = ["--transformer", str(NAME), "--unsafe-pickle"]
    main(["import", "var", str(folder), "--out", str(out), *flags])
    opened = load(out)
    assert isinstance(opened, NextScale) and opened.config.sampling == TokenSampling(1.0, 900, 0.96, 2.5)
    return opened.double()


@pytest.fixture(scope="module")
def states() -> tuple[State, State]:
    both = weights(), transformer_weights()
    tokenizer, transformer = ({name: t.double() for name, t in state.items()} for state in both)
    return tokenizer, transformer


@torch.no_grad()
def test_logits_are_theirs(system: NextScale, states: tuple[State, State]) -> None:
    tokens = torch.randint(40, (2, 680), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, 5])
    indices = list(tokens.split([side**2 for side in SIDES], dim=1))
    shown = tiny_var.told(states[0], indices[:-1])
    ours = system.told_all(tokens)
    torch.testing.assert_close(ours, shown, atol=1e-9, rtol=0)
    expected = tiny_var.logits(states[1], shown, labels)
    torch.testing.assert_close(system.backbone(ours, labels), expected, atol=1e-8, rtol=1e-8)
    assert expected.std() > 0.3


@torch.no_grad()
@pytest.mark.parametrize("cfg", [0.0, 1.5])
def test_their_loop_with_a_cache(system: NextScale, states: tuple[State, State], cfg: float) -> None:
    """Scale after scale, where theirs reads all anew; the first scale is not led by guidance, the last by
    all of it."""
    expected = torch.cat(tiny_var.greedy(*states, label=2, cfg=cfg), 1)
    sampling = TokenSampling(temperature=0, guidance=1 + cfg)
    ours = system.draw([2], seeds=[0], sampling=sampling)
    assert torch.equal(ours, expected) and ours.unique().numel() > 5
    pictures = system.sample([2], seeds=[0], sampling=sampling)
    theirs = tiny_var.image(
        states[0], tiny_var.values(states[0], list(expected.split([s**2 for s in SIDES], 1)))
    )
    torch.testing.assert_close(pictures, theirs.clamp(-1, 1), atol=1e-9, rtol=0)


def test_full_size_names_of_the_transformer() -> None:
    """On the meta device, of var_d16: all tensors of the file but those that we compute, and no others."""
    with torch.device("meta"):
        full = ScaleFormerConfig(tuple((side, side) for side in SIDES)).build().state_dict()
    expected = tiny_var.transformer_shapes(1024, 16, 16, channels=32, codes=4096, classes=1000)
    for name in ("lvl_1L", "attn_bias_for_masking"):
        del expected[name]
    found = dict[str, tuple[int, ...]]()
    for name, tensor in full.items():
        parts = transformer_parts(name)
        found |= {part.name: (len(tensor) // len(parts), *tensor.shape[1:]) for part in parts}
    assert found == expected
    learned = sum(t.numel() for name, t in full.items()) - 16 * 1024  # keys have no bias at theirs
    assert learned == 310_283_520


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("blocks.1.ffn.fc1.bias"), "lacks 'blocks.1.ffn.fc1.bias': it is not a transformer"),
        (lambda s: s.pop("word_embed.weight"), "has no 'word_embed.weight' of 2 axes: it is not a transf"),
        (lambda s: s.pop("blocks.0.attn.scale_mul_1H11"), "has no 'blocks.0.attn.scale_mul_1H11' of 4 axes"),
        (lambda s: s.update({"blocks.9.x": torch.zeros(1)}), "lacks 'blocks.2.attn.scale_mul_1H11'"),
        (lambda s: s.update({"shared_ada_lin.1.weight": torch.zeros(1)}), "share their modulation"),
        (lambda s: s.update({"pos_1LC": torch.zeros(1, 679, 24)}), r"'pos_1LC' of shape \(1, 679, 24\)"),
        (
            lambda s: s.update({"head.weight": torch.zeros(41, 24), "head.bias": torch.zeros(41)}),
            "vocabulary",
        ),
        (lambda s: s.update({"word_embed.weight": torch.zeros(25, 6)}), "width that its heads divide"),
        (lambda s: s.clear(), "holds no state_dict of tensors"),
    ],
)
def test_what_is_no_transformer_is_named(
    tmp_path: Path, change: Callable[[State], object], sentence: str
) -> None:
    state = transformer_weights()
    change(state)
    with pytest.raises(UserError, match=sentence):
        var_system(order(written(tmp_path, state)))


def test_a_transformer_of_another_size_or_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'pos_1LC' of shape \(1, 680, 24\)"):
        var_system(order(written(tmp_path), size=512))
    (tmp_path / NAME).unlink()
    with pytest.raises(UserError, match=r"lacks var_d2\.pth: download it there from huggingface\.co"):
        var_system(order(tmp_path))
    with pytest.raises(UserError, match="is a pickle, of a kind that can run code"):
        var_system(ImportVAR(written(tmp_path), tmp_path / "ours.safetensors", NAME))
