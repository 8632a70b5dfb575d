"""The sampler of tokens: cached passes are the teacher-forced ones, draws follow the probabilities."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from tiny_tokens import HEADS, ORDERS, random_model, random_symbols, sizes
from torch import Tensor

from dreamwalk.backbones.token_heads import (
    DiscreteHeadConfig,
    FlowHeadConfig,
    TokenSampling,
    factorised,
    softmax,
)
from dreamwalk.backbones.tokenformer import TokenFormer
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.orders import Order
from dreamwalk.schedules.token_orders import diagonal, next_block, next_scale, next_token, windowed
from dreamwalk.systems.token_sampler import TokenStream

pytestmark = pytest.mark.usefixtures("double")
CONDITIONS = torch.randn(5, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
ROW = next_block((3, 2, 3), (1, 1, 3))


def actions_for(rows: int) -> Callable[[Sequence[int]], Tensor]:
    """The same for every row."""
    return lambda frames: CONDITIONS[list(frames)].expand(rows, -1, -1)


ACTIONS = actions_for(4)


@torch.inference_mode()
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
def test_cached_is_teacher_forced(order: Order, guidance: float) -> None:
    """With and without eviction, and for both branches of guidance; inputs grow with what is known."""
    model = random_model(order, softmax(5))
    stream = TokenStream(model, order, (3, 4), TokenSampling(guidance=guidance), actions_for(2))
    found, tokens, symbols = [], [], random_symbols(model, 2, order)
    for index in range(order.passes):
        hidden, own = stream._pass(range(index, index + 1))
        stream.symbols[:, own] = symbols[:, own]
        found.append(hidden)
        tokens.append(own)
        assert stream.cache.held <= order.live_slots
    assert stream.done and torch.equal(stream.symbols, symbols)
    slots, place = order.slots(), torch.cat(tokens).argsort()
    whole = [model(symbols, slots, conditions=actions_for(2)(slots.frames))]
    if guidance != 1:
        whole.append(model(symbols, slots))
    torch.testing.assert_close(torch.cat(found, 1)[:, place], torch.cat(whole)[:, slots.tokens.argsort()])


@torch.inference_mode()
def test_whole_frames_leave_the_cache() -> None:
    order = windowed(next_token((6, 1, 3)), 2)
    stream = TokenStream(random_model(order, softmax(5)), order, (0,))
    held = []
    while not stream.done:
        stream.advance()
        held.append(sorted({index // 3 for index in stream.cache.sizes}))
    assert held[8:12] == [[1, 2], [1, 2, 3], [1, 2, 3], [2, 3]]
    assert stream.cache.keys.shape[3] == order.live_slots == 9


@torch.inference_mode()
@pytest.mark.parametrize("head", HEADS, ids=lambda head: str(getattr(head, "factors", "flow")))
def test_a_row_is_alone(head: DiscreteHeadConfig | FlowHeadConfig) -> None:
    """A seed gives the same clip in any batch, again and again, and another seed another."""
    model = random_model(ROW, head)
    sampling = TokenSampling(guidance=1.5, top_k=3, top_p=0.9, steps=3)

    def sampled(*seeds: int) -> Tensor:
        return TokenStream(model, ROW, seeds, sampling, actions_for(len(seeds))).finish()

    batch = sampled(5, 6, 7)
    torch.testing.assert_close(batch[1:2], sampled(6))
    assert torch.equal(batch, sampled(5, 6, 7)) and not torch.equal(batch[0], batch[1])


@torch.inference_mode()
def test_settings_that_change_nothing_and_that_leave_one() -> None:
    model = random_model(ROW, factorised(2, 3))

    def sampled(conditions: Callable[[Sequence[int]], Tensor] = ACTIONS, **settings: float) -> Tensor:
        sampling = TokenSampling(**settings)  # type: ignore[arg-type]
        return TokenStream(model, ROW, range(4), sampling, conditions).finish()

    best = sampled(temperature=0)
    assert torch.equal(best, sampled(top_k=1)) and torch.equal(best, sampled(top_p=1e-9))
    free = sampled()
    assert not torch.equal(free, best)
    assert torch.equal(free, sampled(top_k=99)) and torch.equal(free, sampled(guidance=1.0, top_p=1.0))
    without = sampled(lambda frames: torch.zeros(4, len(frames), 16))
    assert torch.equal(sampled(guidance=0.0), without) and not torch.equal(free, without)


def test_top_k_and_top_p_keep_the_most_likely() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().flip(0)
    normal = torch.special.ndtri((torch.arange(1000) + 0.5) / 1000)

    def shares(**settings: float) -> list[float]:
        drawn = TokenSampling(**settings).draw(logits.expand(1000, -1), normal)  # type: ignore[arg-type]
        return (drawn.bincount(minlength=4).flip(0) / 1000).tolist()

    assert shares() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert shares(top_k=2) == pytest.approx([4 / 7, 3 / 7, 0, 0], abs=1e-3)
    assert shares(top_p=0.6) == pytest.approx([4 / 7, 3 / 7, 0, 0], abs=1e-3)
    assert shares(top_p=0.71) == pytest.approx([4 / 9, 3 / 9, 2 / 9, 0], abs=1e-3)
    assert shares(top_k=2, top_p=0.5) == pytest.approx([1, 0, 0, 0])
    assert shares(temperature=0.5) == pytest.approx([16 / 30, 9 / 30, 4 / 30, 1 / 30], abs=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("head", [softmax(2), factorised(2, 2)], ids=["softmax", "chain"])
def test_draws_follow_the_probabilities_of_the_loss(head: DiscreteHeadConfig) -> None:
    order = next_block((2, 1, 2), (1, 1, 2)) if head.chained else next_token((1, 1, 3))
    model = random_model(order, head)
    drawn = TokenStream(model, order, range(4000)).finish()
    every, count = drawn.unique(dim=0, return_counts=True)
    p = (-model.loss(every, order.slots()).sum(1)).exp()
    assert p.sum() > 0.97
    z = (count / 4000 - p) / (p * (1 - p) / 4000).sqrt()
    assert z.square().mean() < 2 and z.abs().max() < 5


@torch.inference_mode()
@pytest.mark.parametrize("order", [ROW, next_scale(3, [(1, 1), (2, 2)])])
def test_known_tokens_are_one_pass(order: Order) -> None:
    """Behind its own first frame a clip goes on as it did."""
    model = random_model(order, softmax(5))
    whole = TokenStream(model, order, (1, 2), conditions=actions_for(2)).finish()
    first = sum(s.token is not None and s.frame == 0 for g in order.groups for s in g.slots)
    stream = TokenStream(model, order, (1, 2), conditions=actions_for(2))
    stream.give(whole[:, :first])
    assert stream.group == order.prefix(first) and torch.equal(stream.finish(), whole)


@torch.inference_mode()
def test_an_action_is_asked_for_when_its_frame_begins() -> None:
    order, asked = next_block((3, 1, 2), (1, 1, 2)), []

    def conditions(frames: Sequence[int]) -> Tensor:
        asked.extend(frames)
        return actions_for(1)(frames)

    stream = TokenStream(random_model(order, softmax(5)), order, (0,), conditions=conditions)
    stream.finish(frame=1)
    assert asked == [0, 1] and stream.group == 2
    copy = stream.cache.clone()
    stream.finish()
    assert copy.held == 4 and stream.done


@torch.inference_mode()
def test_diagonals_run_with_weights_of_next_token() -> None:
    order = next_token((2, 3, 4))
    model, fast = random_model(order, softmax(5)), diagonal((2, 3, 4))
    stream = TokenStream(model, fast, (0, 1))
    assert fast.passes == 12 < order.passes == 24 and stream.finish().max() < 5


def test_guidance_is_a_mixture_whose_identity_is_one() -> None:
    branches = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    assert TokenSampling(guidance=3.0).guided(branches).tolist() == [3.0, -2.0]
    assert torch.equal(TokenSampling().guided(branches), branches[0])


@torch.inference_mode()
def test_guidance_by_text() -> None:
    model = random_model(ROW, softmax(5), text_dim=4)
    text = TextEmbedding(torch.randn(2, 3, 4))
    free = TokenStream(model, ROW, (0, 1)).finish()
    to_none = TokenStream(model, ROW, (0, 1), TokenSampling(guidance=0.0), text=text).finish()
    assert torch.equal(free, to_none)
    assert not torch.equal(free, TokenStream(model, ROW, (0, 1), text=text).finish())


def learnt(
    order: Order, head: DiscreteHeadConfig | FlowHeadConfig, steps: int
) -> tuple[TokenFormer, Tensor, Tensor]:
    """A tiny model that has learnt two clips by heart, told apart by their actions; clips and conditions."""
    torch.manual_seed(0)
    model, slots = replace(sizes(order, head), width=32).build(), order.slots()
    symbols, conditions = random_symbols(model, 2, order), torch.randn(2, len(slots.frames), 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        noise = KeyedGenerator([(step, row) for row in range(2)]).normal(order.tokens, *model.head.loss_noise)
        optimizer.zero_grad()
        model.loss(symbols, slots, conditions=conditions, noise=noise).mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    return model, symbols, conditions


@pytest.mark.parametrize("order", [next_scale(2, [(1, 1), (2, 2)]), next_block((2, 2, 2), (1, 1, 2))])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: str(getattr(head, "factors", "flow")))
def test_clips_learnt_by_heart_are_sampled(head: DiscreteHeadConfig | FlowHeadConfig, order: Order) -> None:
    flow = isinstance(head, FlowHeadConfig)
    model, symbols, conditions = learnt(order, head, 160 if flow else 120)
    stream = TokenStream(model, order, (0, 1), conditions=lambda frames: conditions[:, list(frames)])
    if flow:
        assert (stream.finish() - symbols).square().mean() < 0.3 * symbols.var()
    else:
        assert (stream.finish() == symbols).double().mean() > 0.85


@torch.inference_mode()
def test_bad_requests_are_refused() -> None:
    model = random_model(ROW, softmax(5))
    known = random_symbols(model, 2, ROW)
    stream = TokenStream(model, ROW, (0, 1))
    for tokens, sentence in (
        (known[:, :4], "no whole groups"),
        (known[:1, :3], "as many rows of known tokens, got 1"),
        (known[:, :3] + 5, "outside the vocabulary"),
    ):
        with pytest.raises(UserError, match=sentence):
            stream.give(tokens)
    stream.advance()
    with pytest.raises(UserError, match="before the first pass"):
        stream.give(known[:, :3])
    with pytest.raises(UserError, match="needs a seed"):
        TokenStream(model, ROW, ())
    with pytest.raises(UserError, match="guidance leads towards conditions"):
        TokenStream(model, ROW, (0,), TokenSampling(guidance=2.0))
    with pytest.raises(UserError, match="need as many texts, got 1"):
        TokenStream(model, ROW, (0, 1), text=TextEmbedding(torch.zeros(1, 2, 4)))
    with pytest.raises(UserError, match="these weights were trained in the order"):
        TokenStream(model, next_token((3, 2, 3)), (0,)).advance()


@torch.inference_mode()
@pytest.mark.parametrize(
    ("make", "frames"),
    [
        (lambda frames: next_block((frames, 2, 3), (1, 1, 3)), 3),
        (lambda frames: next_token((frames, 1, 2)), 2),
        (lambda frames: next_scale(frames, [(1, 1), (2, 2)]), 3),
        (lambda frames: diagonal((frames, 2, 2)), 3),
    ],
)
def test_a_list_that_slides_is_a_long_one_with_a_window(make: Callable[[int], Order], frames: int) -> None:
    """A stream without an end draws what a long order draws whose groups see as many frames."""
    long, short = windowed(make(7), frames - 1), make(frames)
    model, told = random_model(long, softmax(5)), torch.randn(7, 16, dtype=torch.float64)
    conditions = lambda asked: told[list(asked)].expand(2, -1, -1)
    whole = TokenStream(model, long, (1, 2), conditions=conditions).finish()
    stream, drawn = TokenStream(model, short, (1, 2), conditions=conditions, endless=True), []
    for index in range(7):
        assert stream.frame == index
        drawn.append(stream.next_frame().clone())
    assert stream.left == 7 - frames and torch.equal(torch.cat(drawn, 1), whole)
