"""A network whose blocks visit one by one computes what it computed, and few blocks are there at once."""

import pytest
import torch

from dreamwalk.backbones.mmdit import MMDiT, tiny
from dreamwalk.device.offload import Offload
from dreamwalk.layers.text import TextEmbedding


@pytest.fixture
def network() -> MMDiT:
    torch.manual_seed(0)
    network = MMDiT(tiny()).eval()
    for p in network.parameters():
        p.data += 0.05 * torch.randn_like(p)
    return network


def asked(network: MMDiT) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 4, 8, 8, generator=draw)
    with torch.no_grad():
        return network(x, torch.tensor([0.7]), TextEmbedding(torch.randn(1, 5, 12, generator=draw)))


def resident(network: MMDiT) -> int:
    return sum(any(p.numel() for p in block.parameters()) for block in network.blocks)


def test_blocks_come_and_go_and_change_nothing(network: MMDiT) -> None:
    before = asked(network)
    offload = Offload(network.blocks, torch.device("cpu"))
    most = []
    for block in network.blocks:
        block.register_forward_hook(lambda *_: most.append(resident(network)))
    assert resident(network) == 0
    for _ in range(2):
        assert torch.equal(asked(network), before)
    assert offload.fetches == 2 * len(network.blocks)
    assert max(most) <= 1 and resident(network) == 0
    offload.remove()
    assert resident(network) == len(network.blocks)
    assert torch.equal(asked(network), before)


def test_eight_bits_halve_what_is_held_and_cost_little(network: MMDiT) -> None:
    network = network.bfloat16()
    before = asked(network)
    plain = sum(p.nbytes for block in network.blocks for p in block.parameters())
    offload = Offload(network.blocks, torch.device("cpu"), eight=True)
    assert offload.host_bytes < 0.65 * plain
    error = (asked(network) - before).float().square().mean() / before.float().square().mean()
    assert error < 0.01
    assert network.blocks[0].video.qkv.weight.dtype == torch.bfloat16  # type: ignore[union-attr]
