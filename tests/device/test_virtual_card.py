"""Training, dreaming and clouds as on a card: nothing mixes its tensors with those of the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.distributed as dist
from box_room import AHEAD, SIDE, STILL, dream_of_rooms, walk, walked
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_mask
from virtual_card import CARD, CardTensor, virtual_card

from dreamwalk.clip import Clip
from dreamwalk.codecs.critic import CriticConfig
from dreamwalk.distributed import Process
from dreamwalk.layers import attention
from dreamwalk.memory.contract import CameraState
from dreamwalk.memory.level_map import draw_map
from dreamwalk.memory.pixel_filter import PixelFilterConfig
from dreamwalk.memory.point_cloud import CloudBudget, PointCloud
from dreamwalk.memory.points import PointsConfig
from dreamwalk.memory.splatting import render
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems import open as opening
from dreamwalk.systems.forcing import Forcing
from dreamwalk.training.fit import Training
from dreamwalk.training.flops import count_flops
from dreamwalk.training.optim import EMA, build_optimizers
from dreamwalk.training.run import OptimConfig, Run

FILTERED = PointsConfig(pixels=PixelFilterConfig(width=8, blocks=1), critic=CriticConfig(width=8))
SMALL = CloudBudget(1500)


def attend_densely(q: Tensor, k: Tensor, v: Tensor, *, block_mask: BlockMask) -> Tensor:
    mask = create_mask(block_mask.mask_mod, None, None, q.shape[2], k.shape[2], device="cuda")
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A virtual card; attention there is not compiled."""
    monkeypatch.setattr(attention, "MANY", 1)
    monkeypatch.setattr(attention, "_flex", lambda fused: attend_densely)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # everything is tiny
    with virtual_card():
        yield
    torch.set_num_threads(threads)


def moved(memory: PointsConfig | None = None) -> Forcing:
    made = dream_of_rooms(memory).to("cuda")
    assert all(isinstance(x, CardTensor) for x in [*made.parameters(), *made.buffers()])
    return made


@contextmanager
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def episode() -> Clip:
    """Four frames behind four of before."""
    return replace(
        walk([(5 * i, 0, 10 * i) for i in range(4)]), past=walk([(-30, 0, h) for h in (0, 20, 40)])
    )


def test_two_devices_do_not_mix(card: None) -> None:
    here, there = torch.ones(4), torch.zeros(3, 4, device="cuda")
    assert there.device == CARD and there.sum().item() == 0 and there.cpu().device.type == "cpu"
    wrong: list[Callable[[], Any]] = [
        lambda: there + here,
        lambda: torch.cat([there[0], here]),
        lambda: there.index_select(0, torch.tensor([1])),
        lambda: here[there[0].long()],
        lambda: torch.cat([there[0, :1], torch.tensor(1.0)[None]]),
        lambda: nn.Linear(4, 4)(there),
        lambda: torch.randn(3, device="cuda", generator=torch.Generator()),
        lambda: there.long() @ there.long().T,
    ]
    for call in wrong:
        with pytest.raises(RuntimeError, match=r"same device|generator|not implemented"):
            call()
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    there[0] = here
    assert (there * torch.tensor(2.0))[torch.tensor([0])].tolist() == [[2.0] * 4]
    assert torch.tensor([1, 2], device=there.device).device == here.to("cuda").device == CARD


@pytest.mark.parametrize(
    ("memory", "method"), [(PointsConfig(), "adamw"), (FILTERED, "muon")], ids=["plain", "filtered"]
)
def test_a_step_of_training(card: None, memory: PointsConfig, method: Any, tmp_path: Path) -> None:
    """Also what it previews and exports; the loss is that of the CPU."""
    memory = replace(memory, dreamed_prob=1.0, empty_prob=0.0)
    made, plain, process = moved(memory), dream_of_rooms(memory), Process(0, 1, CARD, mesh=cast(Any, None))
    run = Run("test", made.config, past=3, batch=1, precision="float32", optim=OptimConfig(method=method))
    trained = {name: p for name, p in made.named_parameters() if p.requires_grad}
    optimizers = build_optimizers(made, made.blocks, run.optim)
    training = Training(run, tmp_path, process, made, optimizers, EMA(trained, decay=0.9))
    before = {name: p.detach().clone() for name, p in trained.items()}
    values, clip = training.advance(episode().to(CARD)), episode().to(CARD)
    wanted = plain.loss(episode(), KeyedGenerator([(0, 0, 0)]))
    assert values["loss"] == pytest.approx(float(wanted["loss"].detach()), rel=1e-3)
    changed = [name for name, p in training.trained.items() if not torch.equal(before[name], p)]
    assert changed and values["gradient"] > 0
    with training.averaged_system() as system:
        assert system.preview(replace(clip.first(2), past=None)).device == CARD
    with process_group():
        training.export({}, {})
    assert opening.load(tmp_path / "weights.safetensors").config == made.config


def test_flops_are_counted_without_flex_attention(card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the counter it fails, on every device."""
    made, keys = moved(), [(0, 0)]
    made.codec.refine = None  # the counter asks CUDA itself how it would do a convolution
    monkeypatch.setattr(attention, "_flex", lambda fused: pytest.fail("it was called"))
    clip = episode().to(CARD)
    assert count_flops(made, lambda: made.loss(clip, KeyedGenerator(keys, device=CARD))["loss"]) > 0


@pytest.mark.parametrize("memory", [PointsConfig(SMALL), replace(FILTERED, budget=SMALL)])
def test_a_dream(card: None, memory: PointsConfig, tmp_path: Path) -> None:
    made, there = moved(memory), walk([(0, 0, 10 * i) for i in range(2)]).to(CARD)
    session = made.begin(walk([(0, 0, 0)]).to(CARD))
    twin = session.clone()
    for i in range(2):
        made.advance(session, AHEAD.to(CARD))
        made.advance(session, STILL.to(CARD), camera=CameraState.of_clip(there, i))
    assert session.shown is not None and session.shown.device == CARD
    (cloud,) = session.memory.rows
    assert len(cloud) <= 1500 and len(twin.memory.rows[0]) > 0
    seen = walk([(0, 0, 90)]).to(CARD)
    made.memory.show(session.memory, seen, made.encode(seen))
    session.memory.save(tmp_path)
    (again,) = made.memory.open(tmp_path, rows=1).rows
    assert torch.equal(again.points().position, cloud.points().position)
    assert session.to("cpu").shown is not None


def test_a_fit(card: None) -> None:
    made = moved()
    made.memory.kinematics.response.zero_()
    made.codec.mean.zero_()
    clip = walk([(5 * i, 0, 10 * i) for i in range(8)])
    made.fit_from_data(SimpleNamespace(paths=walked, large_batch=lambda: clip))  # type: ignore[arg-type]


def test_a_cloud(card: None, tmp_path: Path) -> None:
    cloud, clip = PointCloud(SMALL, device="cuda"), walk([(30 * i, 0, 40 * i) for i in range(6)]).to(CARD)
    poses, lenses = clip.world_from_camera[0], clip.intrinsics[0]
    for i in range(6):
        shot = clip.video[0, i].float() / 127.5 - 1, clip.depth[0, i], poses[i], lenses[i]
        cloud.insert(*shot, time=i, dreamed=i % 2 == 1)
        cloud.render(poses[i], lenses[i], size=(SIDE, SIDE))
    here = cloud.to("cpu")
    assert 0 < cloud.near(poses[0, :3, 3], 200.0).shape[1] <= len(cloud.clone()) <= 1500
    eyes = poses[0, :3, 3]
    maps = [draw_map(cloud, eyes, highest=50.0), draw_map(here, eyes.cpu(), highest=50.0)]
    assert np.array_equal(maps[0][0], maps[1][0]) and maps[0][1] == maps[1][1]
    cloud.save(tmp_path / "cloud.safetensors")
    twin = PointCloud.open(tmp_path / "cloud.safetensors", device="cuda")
    views = [
        render([each.points()] * 2, poses[:2], intrinsics=lenses[:2], size=(SIDE, SIDE))
        for each in (cloud, twin)
    ]
    assert torch.equal(views[0].rgb, views[1].rgb) and here.points().rgb.device.type == "cpu"
