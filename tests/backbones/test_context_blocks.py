from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreamwalk.backbones.clip_backbone import widened
from dreamwalk.backbones.context_blocks import ContextMMDiT, ContextMMDiTConfig, led_by_context, with_context
from dreamwalk.backbones.mmdit import MMDiT, MMDiTConfig, tiny
from dreamwalk.layers import low_memory
from dreamwalk.layers.text import TextEmbedding

BASE = replace(tiny(), cond_channels=3)
WAYS = {"all": None, "rows": 1, "end": 1}


def led(way: str) -> ContextMMDiTConfig:
    return led_by_context(BASE, gap=WAYS[way], placed="end" if way == "end" else "rows")


def made(config: MMDiTConfig) -> MMDiT:
    """Without zeros, so that everything has a say."""
    torch.manual_seed(0)
    backbone = config.build()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return backbone.eval()


@pytest.fixture(params=WAYS)
def backbone(request: pytest.FixtureRequest) -> Iterator[MMDiT]:
    torch.set_default_dtype(torch.float64)
    yield made(led(request.param))
    torch.set_default_dtype(torch.float32)


def inputs(rows: int = 5) -> tuple[Tensor, Tensor, TextEmbedding, Tensor]:
    """Latents two rows a token."""
    draw = torch.Generator().manual_seed(1)
    shapes = (3, 4, 2 * rows, 6), (7, 12), (3, 3, 2 * rows, 6)
    x, tokens, cond = (torch.randn(2, *n, generator=draw, dtype=torch.get_default_dtype()) for n in shapes)
    words = TextEmbedding(tokens, torch.arange(7) < torch.tensor([[7], [4]]))
    return x, torch.tensor([0.3, 0.8]), words, cond


def velocity(backbone: MMDiT, *, sigma: Tensor | None = None) -> Tensor:
    x, level, words, cond = inputs()
    return backbone(x, level if sigma is None else sigma, words, cond=cond)


@torch.no_grad()
@pytest.mark.parametrize("way", WAYS)
def test_with_gates_of_zero_it_is_the_base(way: str) -> None:
    """Bit for bit, also when the context begins as a copy of the first blocks."""
    plain, config = made(BASE), led(way)
    weights = with_context({f"b.{k}": v for k, v in plain.state_dict().items()}, config, prefix="b.")
    backbone = config.build()
    backbone.load_state_dict({name.removeprefix("b."): tensor for name, tensor in weights.items()})
    assert torch.equal(velocity(backbone), velocity(plain))
    assert torch.equal(backbone.context.streams.video.qkv.weight, plain.blocks[0].video.qkv.weight)
    torch.nn.init.normal_(backbone.context.behind_joint.bias)
    assert not torch.equal(velocity(backbone), velocity(plain))
    assert with_context(weights, config, prefix="b.").keys() == weights.keys()


@torch.no_grad()
def test_it_starts_from_weights_that_are_told_less() -> None:
    """As from HunyuanVideo-I2V, whose channels come first: what is told besides weighs nothing."""
    plain, config = made(BASE), replace(led("rows"), cond_channels=5)
    tensors = widened({f"b.{k}": v for k, v in plain.state_dict().items()}, config)
    weights = with_context(tensors, config, prefix="b.")
    backbone = config.build()
    backbone.load_state_dict({name.removeprefix("b."): tensor for name, tensor in weights.items()})
    x, sigma, words, cond = inputs()
    more = torch.cat([cond, torch.randn(2, 3, 2, 10, 6)], 2)
    ours, theirs = backbone(x, sigma, words, cond=more), plain(x, sigma, words, cond=cond)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_context_reads_what_it_covers(backbone: MMDiT) -> None:
    """What lies above the lower half changes nothing of what is added."""
    assert isinstance(backbone, ContextMMDiT)
    x, sigma, words, cond = inputs()
    given, extent = torch.cat([x, cond], 2), (3, 5, 3)
    condition = backbone.condition(sigma[:, None], words)
    add = lambda inputs: backbone.additions(inputs, words._replace(tokens=tokens), condition, extent)(
        zero(), 0
    )
    tokens = backbone.refiner(words, sigma)
    zero = lambda: torch.zeros(2, 3 * 5 * 3, 32)
    before, changed = add(given), given.clone()
    changed[..., :6, :] += 1
    below = backbone.config.gap is not None
    assert torch.equal(add(changed), before) == below
    changed[..., 6:, :] += 1
    assert not torch.equal(add(changed), before)
    told = before.view(2, 3, 5, 3, 32).abs().sum((0, 4)) > 0
    expected = torch.zeros(3, 5, 3, dtype=torch.bool)
    if not below:
        expected[:] = True
    elif backbone.config.placed == "rows":
        expected[:, 3:] = True
    else:
        expected.view(-1)[-18:] = True
    assert torch.equal(told, expected)


def test_in_pieces_it_is_the_same(backbone: MMDiT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without autograd, in place and in pieces, for one level and for levels of frames."""
    levels = torch.tensor([[0.0, 0.3, 0.3], [0.0, 0.8, 0.8]])
    at_once = [velocity(backbone), velocity(backbone, sigma=levels)]
    monkeypatch.setattr(low_memory, "CACHED", 5)
    with torch.no_grad():
        apart = [velocity(backbone), velocity(backbone, sigma=levels)]
    torch.testing.assert_close(apart, at_once, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("rows", "near"), [(4, 3), (1, 3)])
def test_pictures_without_two_halves_are_refused(rows: int, near: int) -> None:
    x, sigma, words, cond = inputs(rows)
    with pytest.raises(ValueError, match=f"{rows} rows of tokens has no two halves .* take one of {near}"):
        made(led("rows"))(x, sigma, words, cond=cond)


def test_a_context_is_a_copy_of_a_block_of_each_kind() -> None:
    with pytest.raises(ValueError, match="let `double_blocks` and `single_blocks` be 1 or more"):
        replace(led("all"), single_blocks=0)


def test_a_context_learns_alone() -> None:
    """All of it gets gradients once its gates are open, the gates at once."""
    backbone = led("rows").build()
    for name, parameter in backbone.named_parameters():
        if not name.startswith("context.behind"):
            torch.nn.init.normal_(parameter, std=0.2)
    velocity(backbone).square().mean().backward()
    assert backbone.context.behind_streams.weight.grad.abs().max() > 0
    assert backbone.context.streams.video.qkv.weight.grad.abs().max() == 0
    open_ = made(led("rows"))
    velocity(open_).square().mean().backward()
    silent = [name for name, p in open_.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert not silent
