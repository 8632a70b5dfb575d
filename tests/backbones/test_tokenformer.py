"""Token transformers of every order and head: nothing leaks, nothing is forgotten, all sums to one."""

import json

import pytest
import torch
from tiny_tokens import HEADS, ORDERS, random_model, random_symbols, sizes
from torch import Tensor

from dreamwalk.backbones.token_heads import (
    DiscreteHeadConfig,
    FlowHeadConfig,
    TokenSampling,
    bitwise,
    factorised,
    softmax,
)
from dreamwalk.backbones.tokenformer import TokenFormerConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.schedules.orders import Group, Order
from dreamwalk.schedules.token_orders import next_block, next_scale, next_token, pyramid
from dreamwalk.weights.config import from_json, to_json

pytestmark = pytest.mark.usefixtures("double")


def by_token(hidden: Tensor, tokens: Tensor) -> Tensor:
    """Hidden vectors in the order of the list."""
    return hidden[:, tokens.argsort()]


def group_of(order: Order) -> Tensor:
    groups = {s.token: index for index, g in enumerate(order.groups) for s in g.slots}
    return torch.tensor([groups[token] for token in range(order.tokens)])


@torch.inference_mode()
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
def test_no_leak_and_nothing_forgotten(order: Order) -> None:
    """A token changes the prediction of every token of every later group, and of no other, bit for bit."""
    model, slots, groups = random_model(order, softmax(5)), order.slots(), group_of(order)
    symbols = random_symbols(model, 1, order).repeat(order.tokens, 1)
    changed = (symbols + torch.eye(order.tokens, dtype=torch.long)) % 5
    before, after = (by_token(model(each, slots), slots.tokens) for each in (symbols, changed))
    depends = (before != after).any(-1)
    assert torch.equal(depends, groups[:, None] < groups[None, :])


@torch.inference_mode()
def test_the_checks_above_catch_a_wrong_mask() -> None:
    """Off by one a mask leaks, and causal inside its groups it hides neighbours."""
    order = next_block((2, 2, 3), (1, 1, 3))
    model, slots = random_model(order, softmax(5)), order.slots()
    symbols = random_symbols(model, 1, order)
    changed = symbols.clone()
    changed[0, 2] = (changed[0, 2] + 1) % 5
    open_mask = slots._replace(mask=None)
    assert not torch.equal(model(symbols, open_mask)[:, :3], model(changed, open_mask)[:, :3])
    causal = slots._replace(mask=torch.ones(12, 12, dtype=torch.bool).tril())
    assert torch.equal(model(symbols, causal)[:, 3], model(changed, causal)[:, 3])
    assert not torch.equal(model(symbols, slots)[:, 3], model(changed, slots)[:, 3])


@torch.inference_mode()
@pytest.mark.parametrize("head", [softmax(2), factorised(2, 2), bitwise(2)], ids=["softmax", "chain", "bits"])
@pytest.mark.parametrize(
    "order",
    [
        next_token((2, 1, 2)),
        next_block((2, 1, 2), (1, 1, 2)),
        next_block((1, 2, 2), (1, 1, 2), hybrid=True),
        next_scale(2, [(1, 1)]),
        next_scale(1, [(1, 1), (1, 2)]),
        pyramid((1, 1), [(1, 1), (1, 1)]),
    ],
    ids=lambda order: order.name,
)
def test_probabilities_sum_to_one(order: Order, head: DiscreteHeadConfig) -> None:
    """Over all sequences of a tiny vocabulary."""
    model = random_model(order, head)
    values = torch.arange(model.head.vocabulary)  # type: ignore[union-attr]
    every = torch.cartesian_prod(*[values] * order.tokens)
    logp = -model.loss(every, order.slots()).sum(1)
    assert logp.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert logp.std() > 0.01


@torch.inference_mode()
@pytest.mark.parametrize("order", [next_block((2, 2, 3), (1, 2, 3)), next_scale(2, [(1, 1), (2, 2)])])
def test_slots_of_a_group_have_no_order(order: Order) -> None:
    groups = tuple(Group(group.slots[::-1], group.sees) for group in order.groups)
    turned, model = Order(order.name, groups), random_model(order, softmax(5))
    symbols = random_symbols(model, 2, order)
    one, other = (by_token(model(symbols, o.slots()), o.slots().tokens) for o in (order, turned))
    torch.testing.assert_close(one, other)


@torch.inference_mode()
@pytest.mark.parametrize("order", [next_block((1, 2, 3), (1, 2, 3)), next_scale(1, [(1, 1), (2, 2)])])
def test_slots_with_the_same_input_know_where_they_are(order: Order) -> None:
    model = random_model(order, softmax(5))
    (hidden,) = model(random_symbols(model, 1, order), order.slots())
    assert torch.pdist(hidden).min() > 1e-3


@torch.inference_mode()
def test_an_action_moves_its_frame_and_later_ones() -> None:
    order = next_block((3, 1, 2), (1, 1, 2))
    model, slots = random_model(order, softmax(5)), order.slots()
    symbols, conditions = random_symbols(model, 2, order), torch.randn(2, 3, 16)
    before = model(symbols, slots, conditions=conditions)
    conditions[:, 1] += 1
    after = model(symbols, slots, conditions=conditions)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.isclose(before[:, 2:], after[:, 2:]).all(-1).any()


@torch.inference_mode()
def test_text_matters_and_what_is_masked_does_not() -> None:
    order = next_token((1, 1, 3))
    model, slots = random_model(order, softmax(5), text_dim=4), order.slots()
    symbols, tokens, mask = random_symbols(model, 2, order), torch.randn(2, 3, 4), torch.ones(2, 3).bool()
    mask[:, 2] = False
    with_text = model(symbols, slots, text=TextEmbedding(tokens, mask))
    short = model(symbols, slots, text=TextEmbedding(tokens[:, :2]))
    torch.testing.assert_close(with_text, short)
    none, empty = model(symbols, slots), model(symbols, slots, text=TextEmbedding(tokens[:, :0]))
    torch.testing.assert_close(none, empty)
    assert not torch.isclose(none, short).all(-1).any()


@torch.inference_mode()
def test_half_precision_runs() -> None:
    order = next_scale(2, [(1, 1), (2, 2)])
    model = random_model(order, softmax(5)).to(torch.bfloat16)
    symbols, slots = random_symbols(model, 2, order), order.slots()
    assert model(symbols, slots).dtype == torch.bfloat16
    assert torch.isfinite(model.loss(symbols, slots)).all()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: str(getattr(head, "factors", "flow")))
def test_a_config_goes_through_json(head: DiscreteHeadConfig | FlowHeadConfig) -> None:
    config = sizes(ORDERS[0], head)
    assert from_json(TokenFormerConfig, json.loads(json.dumps(to_json(config)))) == config


def test_bad_input_is_refused() -> None:
    order = next_token((2, 1, 2))
    model, slots = random_model(order, softmax(5)), order.slots()
    symbols = random_symbols(model, 2, order)
    other = next_block((2, 1, 2), (1, 1, 2))
    bad = [
        (symbols, other.slots(), None, r"trained in the order 'blocks of 1x1x1 .*', not 'blocks of 1x1x2"),
        (symbols[:, :3], slots, None, "the order has 4 tokens and the clip 3"),
        (symbols + 5, slots, None, "lies outside the vocabulary, 0 to 4"),
        (symbols - 9, slots, None, r"token -[5-9] lies outside the vocabulary"),
        (symbols.double(), slots, None, r"tokens are whole numbers .* got torch.float64"),
        (symbols, slots, torch.zeros(2, 1, 16), "give every frame its action"),
    ]
    for tokens, these, conditions, sentence in bad:
        with pytest.raises(UserError, match=sentence):
            model(tokens, these, conditions=conditions)
    with pytest.raises(UserError, match="take no text"):
        model(symbols, slots, text=TextEmbedding(torch.zeros(2, 1, 4)))
    with pytest.raises(UserError, match="continuous tokens are vectors"):
        random_model(order, FlowHeadConfig(3))(symbols, slots)
    with pytest.raises(UserError, match="factors of an index"):
        bitwise(63)
    with pytest.raises(UserError, match="nearest width"):
        TokenFormerConfig("any", softmax(5), width=9, depth=1, heads=2)
    with pytest.raises(UserError, match="top_p over 0"):
        TokenSampling(top_p=0.0)
