from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreamwalk.backbones.crossdit import CrossDiT, CrossDiTConfig, grown, movie_gen, tiny
from dreamwalk.layers import low_memory as pieces
from dreamwalk.layers.text import TextEmbedding

CONFIG = replace(tiny(), pooled_dim=6, cond_channels=1)


@pytest.fixture
def backbone() -> CrossDiT:
    return made(CONFIG)


def made(config: CrossDiTConfig) -> CrossDiT:
    """Without zeros, so that everything has a say."""
    torch.manual_seed(0)
    backbone = CrossDiT(config)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return backbone.eval()


def inputs() -> dict[str, Tensor | TextEmbedding]:
    generator = torch.Generator().manual_seed(1)
    x, tokens, extra = (
        torch.randn(2, *shape, generator=generator) for shape in ((3, 4, 4, 6), (7, 12), (3, 1, 4, 6))
    )
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    words = TextEmbedding(tokens, mask, torch.randn(2, 6, generator=generator))
    return {"x": x, "sigma": torch.tensor([0.3, 0.8]), "text": words, "cond": extra}


@pytest.mark.parametrize(
    ("size", "blocks", "everything"), [("1B", 0.91, 0.93), ("5B", 4.83, 4.93), ("30B", 28.99, 29.36)]
)
def test_published_sizes(size: str, blocks: float, everything: float) -> None:
    """Blocks have 8 d^2 + 3 d f parameters each, and a few vectors."""
    with torch.device("meta"):
        backbone = movie_gen(size).build()  # type: ignore[arg-type]
    counts = (sum(p.numel() for p in part.parameters()) / 1e9 for part in (backbone.blocks, backbone))
    assert [round(count, 2) for count in counts] == [blocks, everything]


def test_zero_at_the_start() -> None:
    assert (CrossDiT(CONFIG)(**inputs()) == 0).all()


@pytest.mark.usefixtures("double")
@torch.no_grad()
def test_padding_says_nothing(backbone: CrossDiT) -> None:
    given = inputs()
    before, words = backbone(**given), given["text"]
    assert isinstance(words, TextEmbedding) and words.mask is not None
    other = words._replace(tokens=words.tokens.masked_fill(~words.mask[..., None], 9.0))
    assert torch.equal(backbone(**{**given, "text": other}), before)


@pytest.mark.usefixtures("double")
@torch.no_grad()
def test_a_text_may_be_empty(backbone: CrossDiT) -> None:
    """With others beside it or not, it is the same: nothing is read."""
    given = inputs()
    words = given["text"]
    assert isinstance(words, TextEmbedding) and words.mask is not None and words.pooled is not None
    v = backbone(**{**given, "text": words._replace(mask=words.mask & torch.tensor([[True], [False]]))})
    none = backbone(**{**given, "text": words._replace(mask=torch.zeros_like(words.mask))})
    torch.testing.assert_close(v[1], none[1], atol=1e-9, rtol=1e-9)
    assert (v[0] - none[0]).abs().max() > 1e-3


@pytest.mark.usefixtures("double")
@torch.no_grad()
def test_frames_with_levels_of_their_own(backbone: CrossDiT) -> None:
    given = inputs()
    shared, levels = backbone(**given), given["sigma"][:, None].repeat(1, 3)  # type: ignore
    torch.testing.assert_close(backbone(**{**given, "sigma": levels}), shared, atol=1e-9, rtol=1e-9)
    levels[:, 0] = 0
    difference = (backbone(**{**given, "sigma": levels}) - shared).abs()
    assert difference.amax((0, 2, 3, 4)).min() > 1e-4


@pytest.mark.usefixtures("double")
def test_in_pieces_it_is_the_same(backbone: CrossDiT, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = backbone(**inputs())
    monkeypatch.setattr(pieces, "CACHED", 5)
    with torch.no_grad():
        torch.testing.assert_close(backbone(**inputs()), at_once, atol=1e-9, rtol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("by_frame", [False, True])
def test_bfloat16(backbone: CrossDiT, autocast: bool, by_frame: bool) -> None:
    """Weights of lower precision, or the arithmetic alone; the velocity is as precise as the latents."""
    given = inputs()
    given["sigma"] = given["sigma"][:, None].repeat(1, 3) if by_frame else given["sigma"]  # type: ignore
    before = backbone(**given)
    backbone = backbone if autocast else backbone.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        v = backbone(**given)
    assert v.dtype == torch.float32
    assert (v - before).norm() < 0.1 * before.norm()


@pytest.mark.usefixtures("double")
def test_gradients_reach_everything(backbone: CrossDiT) -> None:
    """Apart from rows of positions that the clip does not reach."""
    backbone(**inputs()).square().mean().backward()
    assert not [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]


@torch.no_grad()
def test_positions_grow(backbone: CrossDiT) -> None:
    """To the same extent nothing changes; to a larger one ends stay ends, and new rows lie between."""
    weights = backbone.state_dict()
    same = grown(weights, CONFIG.extent)
    assert all(torch.equal(same[name], weights[name]) for name in weights)
    larger = CrossDiT(replace(CONFIG, extent=(4, 7, 10)))
    larger.load_state_dict(grown(weights, (4, 7, 10)))
    small, large = backbone.positions, larger.positions
    assert torch.equal(large.time, small.time)
    torch.testing.assert_close(large.height[::2], small.height)
    torch.testing.assert_close(large.height[1], small.height[:2].mean(0))
    torch.testing.assert_close(large.width[::3], small.width)


@torch.no_grad()
def test_clips_beyond_the_tables_are_refused(backbone: CrossDiT) -> None:
    given = inputs()
    wide = {name: value.repeat(1, 1, 1, 1, 2) for name, value in given.items() if name in ("x", "cond")}
    with pytest.raises(ValueError, match="positions for 4x4x4 tokens, not for 3x2x6: let them grow"):
        backbone(**{**given, **wide})
    with pytest.raises(ValueError, match="`guidance` is not an input of this network"):
        backbone(**given, guidance=torch.ones(2))
