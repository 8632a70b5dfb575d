import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dreamwalk.backbones.mmdit import MMDiT, MMDiTConfig, hunyuan_13b, tiny
from dreamwalk.layers import low_memory as pieces
from dreamwalk.layers.text import TextEmbedding

CONFIG = replace(tiny(), pooled_dim=6, guidance=True)
GUIDANCE = torch.tensor([6.0, 1.5])


@pytest.fixture
def backbone() -> MMDiT:
    return made(CONFIG)


def made(config: MMDiTConfig) -> MMDiT:
    """Without zeros, so that everything has a say."""
    torch.manual_seed(0)
    backbone = MMDiT(config)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return backbone.eval()


def inputs() -> tuple[Tensor, Tensor, TextEmbedding]:
    generator = torch.Generator().manual_seed(1)
    x, tokens = (torch.randn(2, *shape, generator=generator) for shape in ((3, 4, 4, 6), (7, 12)))
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    return x, torch.tensor([0.3, 0.8]), TextEmbedding(tokens, mask, torch.randn(2, 6, generator=generator))


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (hunyuan_13b(), 12_821_012_544),
        (replace(hunyuan_13b(), guidance=False), 12_810_782_784),
        (hunyuan_13b("latent_concat"), 12_810_991_680),
        (hunyuan_13b("token_replace"), 12_821_012_544),
    ],
)
def test_published_sizes(config: MMDiTConfig, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in config.build().parameters()) == count


def test_zero_at_the_start() -> None:
    x, sigma, words = inputs()
    assert (MMDiT(tiny())(x, sigma, words._replace(pooled=None)) == 0).all()


@pytest.mark.usefixtures("double")
@torch.no_grad()
def test_padding_says_nothing(backbone: MMDiT) -> None:
    """Whatever it holds, and however much of it there is."""
    x, sigma, words = inputs()
    before = backbone(x, sigma, words, guidance=GUIDANCE)
    assert words.mask is not None
    other = words._replace(tokens=words.tokens.masked_fill(~words.mask[..., None], 9.0))
    assert torch.equal(backbone(x, sigma, other, guidance=GUIDANCE), before)
    padded = TextEmbedding(
        torch.cat([words.tokens, words.tokens], 1), torch.cat([words.mask, words.mask ^ words.mask], 1)
    )
    padded = padded._replace(pooled=words.pooled)
    assert torch.equal(backbone(x, sigma, padded, guidance=GUIDANCE), before)
    alone = TextEmbedding(words.tokens[1:, :4], None, words.pooled[1:])  # type: ignore[index]
    torch.testing.assert_close(
        backbone(x[1:], sigma[1:], alone, guidance=GUIDANCE[1:]), before[1:], atol=1e-9, rtol=1e-9
    )


@pytest.mark.usefixtures("double")
@torch.no_grad()
@pytest.mark.parametrize("count", [0, 3])
def test_a_text_may_be_empty(backbone: MMDiT, count: int) -> None:
    x, sigma, words = inputs()
    words = TextEmbedding(
        words.tokens[:, :count],
        torch.arange(count).expand(2, -1) < torch.tensor([[count], [0]]),
        words.pooled,
    )
    v = backbone(x, sigma, words, guidance=GUIDANCE)
    alone = backbone(
        x[1:], sigma[1:], TextEmbedding(words.tokens[1:, :0], None, words.pooled[1:]), guidance=GUIDANCE[1:]
    )  # type: ignore[index]
    assert v.isfinite().all()
    torch.testing.assert_close(v[1:], alone, atol=1e-9, rtol=1e-9)


@pytest.mark.usefixtures("double")
@torch.no_grad()
def test_frames_with_levels_of_their_own(backbone: MMDiT) -> None:
    """All alike, they are one level for the clip; one that differs changes everything."""
    x, sigma, words = inputs()
    shared = backbone(x, sigma, words, guidance=GUIDANCE)
    levels = sigma[:, None].repeat(1, 3)
    torch.testing.assert_close(backbone(x, levels, words, guidance=GUIDANCE), shared, atol=1e-9, rtol=1e-9)
    levels[:, 0] = 0
    assert (backbone(x, levels, words, guidance=GUIDANCE) - shared).abs().amax((0, 2, 3, 4)).min() > 1e-3


@pytest.mark.usefixtures("double")
def test_in_pieces_it_is_the_same(backbone: MMDiT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without autograd, in place and in pieces of five tokens, against all at once."""
    x, sigma, words = inputs()
    given, levels = x.clone(), torch.stack([0 * sigma, sigma, sigma], 1)
    at_once = [backbone(x, level, words, guidance=GUIDANCE) for level in (sigma, levels)]
    monkeypatch.setattr(pieces, "CACHED", 5)
    with torch.no_grad():
        apart = [backbone(x, level, words, guidance=GUIDANCE) for level in (sigma, levels)]
    torch.testing.assert_close(apart, at_once, atol=1e-9, rtol=1e-9)
    assert torch.equal(x, given)


@pytest.mark.usefixtures("double")
def test_gradients_reach_everything(backbone: MMDiT) -> None:
    """And blocks that are computed again give the same ones."""
    x, sigma, words = inputs()
    backbone(x, sigma, words, guidance=GUIDANCE).square().mean().backward()
    gradients = {name: p.grad for name, p in backbone.named_parameters()}
    assert not [name for name, grad in gradients.items() if grad is None or not grad.abs().max() > 0]
    backbone.zero_grad()
    for block in backbone.blocks:
        forward = block.forward
        block.forward = lambda *given, f=forward: checkpoint(f, *given, use_reentrant=False)
    backbone(x, sigma, words, guidance=GUIDANCE).square().mean().backward()
    torch.testing.assert_close({name: p.grad for name, p in backbone.named_parameters()}, gradients)


@torch.no_grad()
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("by_frame", [False, True])
def test_bfloat16(backbone: MMDiT, autocast: bool, by_frame: bool) -> None:
    """Weights of lower precision, or the arithmetic alone; the velocity is as precise as the latents."""
    x, sigma, words = inputs()
    sigma = sigma[:, None].repeat(1, 3) if by_frame else sigma
    guidance = torch.full_like(GUIDANCE, 4.096)  # a thousand times as much is a number of bfloat16 too
    before = backbone(x, sigma, words, guidance=guidance)
    backbone = backbone if autocast else backbone.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        v = backbone(x, sigma, words, guidance=guidance)
    assert v.dtype == torch.float32
    assert (v - before).norm() < 0.1 * before.norm()


def test_guidance_is_not_rounded() -> None:
    """The embedding of 6.0, 6000, is 6016 in bfloat16."""
    backbone = made(replace(CONFIG, guidance=True)).bfloat16()
    assert backbone.guidance is not None
    near = backbone.guidance(torch.tensor([6.0])), backbone.guidance(torch.tensor([6.016]))
    assert not torch.equal(*near)
    frequency = math.exp(-math.log(10_000) / 128)
    assert abs(math.cos(6000 * frequency) - math.cos(6016 * frequency)) > 0.1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": torch.zeros(2, 3, 4, 5, 6)}, "3x5x6 do not divide into patches of 1x2x2: take 3x4x6"),
        ({"x": torch.zeros(2, 3, 5, 4, 6)}, r"\(b, t, 4, h, w\) here, not \(2, 3, 5, 4, 6\)"),
        ({"guidance": None}, "`guidance` is missing: 6.0"),
        ({"cond": torch.zeros(2, 3, 5, 4, 6)}, "`cond` has 0 channels here, not 5"),
        ({"text": TextEmbedding(torch.zeros(2, 7, 11))}, "text embeddings are 12 wide here, not 11"),
        ({"text": TextEmbedding(torch.zeros(2, 7, 12))}, "`TextEmbedding.pooled` is 6 wide here, not 0"),
    ],
)
def test_what_does_not_fit_is_named(backbone: MMDiT, change: dict[str, Tensor], sentence: str) -> None:
    x, sigma, words = inputs()
    given = {"x": x, "sigma": sigma, "text": words, "guidance": GUIDANCE, **change}
    with pytest.raises(ValueError, match=sentence):
        backbone(**given)


def test_configs_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"axes \(4, 6, 4\) must be even and sum to the width of a head, 16"):
        replace(tiny(), axes=(4, 6, 4))
    with pytest.raises(ValueError, match="width 32 does not divide by 3 heads"):
        replace(tiny(), heads=3)
    with pytest.raises(ValueError, match="`guidance` is not an input"):
        made(tiny())(*inputs()[:2], TextEmbedding(torch.zeros(2, 7, 12)), guidance=GUIDANCE)
