"""A plan counts what a run would take."""

from dataclasses import replace

import pytest
import torch

from dreamwalk.backbones.mmdit import MMDiT, hunyuan_13b, tiny
from dreamwalk.codecs.causal import CausalVAE, hunyuan_vae, small
from dreamwalk.codecs.tiles import Tiling
from dreamwalk.device.budget import GIB, MemoryPlan, memory_plan, offloaded, step_bytes
from dreamwalk.device.peak import peak_bytes
from dreamwalk.layers.text import TextEmbedding


def test_a_step_is_counted_as_it_runs() -> None:
    network = MMDiT(tiny()).eval()
    x, words = torch.randn(1, 5, 4, 16, 16), TextEmbedding(torch.randn(1, 6, 12))
    with torch.no_grad():
        real = peak_bytes(lambda: network(x, torch.ones(1), words))
    counted = step_bytes(network, (5, 4, 16, 16), tokens=6)
    assert counted == pytest.approx(real + x.nbytes, rel=0.02)


def test_two_opinions_take_twice_as_much() -> None:
    one, two = (step_bytes(MMDiT(tiny()), (5, 4, 16, 16), tokens=6, branches=n) for n in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.1)


def test_hunyuan_at_720p_fits_a_24_gb_card_on_paper() -> None:
    """129 frames of 720x1280, bfloat16 with a codec in float32, blocks in host memory, decoded in tiles."""
    with torch.device("meta"):
        network, codec = MMDiT(hunyuan_13b()).bfloat16(), CausalVAE(hunyuan_vae())
    tiling = Tiling((16, 256, 256), (4, 64, 64))
    whole = memory_plan(network, codec, latents=(33, 16, 90, 160), tokens=256, tiling=tiling)
    plan = offloaded(whole, network, eight=True)
    assert plan.peak < 22 * GIB < 24 * GIB < whole.weights
    assert 11 * GIB < plan.host < 13 * GIB


def test_encoders_and_network_are_not_there_together() -> None:
    plan = MemoryPlan(weights=4 * GIB, step=GIB, decode=2 * GIB, encoders=9 * GIB)
    assert plan.peak == 9 * GIB and "encoders       9.00 GiB" in plan.show()
    assert replace(plan, encoders=GIB).peak == 6 * GIB
    away = offloaded(plan, MMDiT(tiny()), eight=False)
    assert away.peak < 6 * GIB and away.host == 9 * GIB


def test_what_is_seen_at_once_is_what_a_step_takes() -> None:
    network, codec = MMDiT(tiny()), CausalVAE(small(4))
    plans = [
        memory_plan(network, codec, latents=(9, 4, 32, 32), tokens=6, seen=seen)
        for seen in ((0, 0, 0), (5, 0, 0), (5, 16, 16), (99, 99, 99))
    ]
    steps = [plan.step for plan in plans]
    assert steps[0] > steps[1] > 3 * steps[2]
    assert steps[3] == steps[0]


def test_long_clips_are_counted_as_quickly_as_short_ones() -> None:
    network, codec = MMDiT(tiny()), CausalVAE(small(4))
    plans = [memory_plan(network, codec, latents=(t, 4, 4, 4), tokens=6) for t in (64, 80, 100_000)]
    assert plans[0].step < plans[1].step < plans[2].step / 1000
    assert plans[0].decode < plans[1].decode < plans[2].decode / 1000
