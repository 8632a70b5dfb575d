"""A plan counts what a run would take."""

import pytest
import torch

from dreamwalk.backbones.mmdit import MMDiT, hunyuan_13b, tiny
from dreamwalk.codecs.causal import CausalVAE, hunyuan
from dreamwalk.codecs.footprint import peak_bytes
from dreamwalk.codecs.tiles import Tiling
from dreamwalk.layers.words import Words
from dreamwalk.rollout.memory import GIB, MemoryPlan, memory_plan, step_bytes


def test_a_step_is_counted_as_it_runs() -> None:
    network = MMDiT(tiny()).eval()
    x, words = torch.randn(1, 5, 4, 16, 16), Words(torch.randn(1, 6, 12))
    with torch.no_grad():
        real = peak_bytes(lambda: network(x, torch.ones(1), words))
    counted = step_bytes(network, (5, 4, 16, 16), words=6)
    assert counted == pytest.approx(real + x.nbytes, rel=0.02)


def test_hunyuan_at_720p_fits_a_24_gb_card_on_paper() -> None:
    """129 frames of 720x1280, bfloat16, blocks in host memory, decoded in tiles."""
    with torch.device("meta"):
        network, codec = MMDiT(hunyuan_13b()).bfloat16(), CausalVAE(hunyuan()).bfloat16()
    asked = {"latents": (33, 16, 90, 160), "words": 256, "tiling": Tiling((16, 256, 256), (4, 64, 64))}
    plan = memory_plan(network, codec, offload=True, eight=True, **asked)  # type: ignore[arg-type]
    assert plan.peak < 22 * GIB
    assert 11 * GIB < plan.host < 13 * GIB
    assert "fits into 22.0 GiB" in plan.show(22 * GIB)
    alone = memory_plan(network, codec, **asked)  # type: ignore[arg-type]
    assert alone.weights > 24 * GIB and "--offload" in alone.verdict(24 * GIB)


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (MemoryPlan(weights=4 * GIB, host=0, step=GIB, decode=9 * GIB), "--tile"),
        (MemoryPlan(weights=12 * GIB, host=0, step=GIB, decode=GIB), "--offload"),
        (MemoryPlan(weights=4 * GIB, host=GIB, step=9 * GIB, decode=GIB), "fewer frames"),
        (MemoryPlan(weights=4 * GIB, host=GIB, step=GIB, decode=GIB), "this fits"),
    ],
)
def test_a_verdict_says_what_to_ask_for(plan: MemoryPlan, sentence: str) -> None:
    assert sentence in plan.verdict(10 * GIB)
