"""Small orders of every kind, and token transformers with random weights for them."""

import torch
from torch import Tensor

from dreamwalk.backbones.token_heads import DiscreteHeadConfig, FlowHeadConfig, bitwise, factorised, softmax
from dreamwalk.backbones.tokenformer import TokenFormer, TokenFormerConfig
from dreamwalk.schedules.orders import Order
from dreamwalk.schedules.token_orders import (
    diagonal,
    in_groups,
    next_block,
    next_scale,
    next_token,
    pyramid,
    raster,
    windowed,
)

SCALES = [(1, 1), (1, 2), (2, 3)]
ORDERS = [
    next_token((2, 2, 3)),
    next_block((2, 2, 3), (1, 1, 3)),
    next_block((2, 2, 3), (1, 2, 3)),
    next_block((4, 2, 2), (2, 1, 2)),
    next_block((2, 2, 3), (1, 1, 3), hybrid=True),
    in_groups("distant regions", raster((1, 2, 4)), [[0], [4], [1, 5], [2, 6], [3, 7]]),
    next_scale(2, SCALES),
    pyramid((1, 2, 2), SCALES),
    pyramid((1, 2, 2), SCALES, sparse=False),
    pyramid((2, 2), [(2, 2), (2, 2)]),
    diagonal((2, 3, 3)),
    windowed(next_token((4, 1, 3)), 1),
    windowed(next_block((5, 2, 2), (1, 1, 2)), 2),
    windowed(next_scale(4, SCALES), 1),
]
HEADS: list[DiscreteHeadConfig | FlowHeadConfig] = [
    softmax(5),
    factorised(2, 3),
    bitwise(3),
    FlowHeadConfig(3, width=32, depth=2),
]


def sizes(order: Order, head: DiscreteHeadConfig | FlowHeadConfig, *, text_dim: int = 0) -> TokenFormerConfig:
    return TokenFormerConfig(
        order.trained_as,
        head,
        width=16,
        depth=3,
        heads=2,
        fillers=order.fillers,
        scales=order.scales,
        text_dim=text_dim,
        feedforward_multiple=8,
    )


def random_model(
    order: Order, head: DiscreteHeadConfig | FlowHeadConfig, *, text_dim: int = 0
) -> TokenFormer:
    """With weights that make everything matter."""
    torch.manual_seed(0)
    model = sizes(order, head, text_dim=text_dim).build().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model


def random_symbols(model: TokenFormer, rows: int, order: Order) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    blank = model.head.blank(rows, order.tokens)
    if blank.is_floating_point():
        return torch.randn(blank.shape, generator=generator, dtype=blank.dtype)
    vocabulary = int(model.head.vocabulary)  # type: ignore[arg-type]
    return torch.randint(0, vocabulary, blank.shape, generator=generator)
