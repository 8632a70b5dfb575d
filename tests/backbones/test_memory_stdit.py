from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamwalk.backbones.frame_backbone import FrameInputs
from dreamwalk.backbones.memory_stdit import (
    MemoryPart,
    MemorySTDiT,
    MemorySTDiTConfig,
    MemoryView,
    worldmem_945m,
)
from dreamwalk.backbones.stdit import STDiT, STDiTConfig

SIZES: dict[str, Any] = {"channels": 4, "grid": (4, 6), "width": 16, "depth": 3, "heads": 2}
CONFIG = MemorySTDiTConfig(**SIZES)
LENGTHS = pytest.mark.parametrize("m", [1, 3, 8, 16])


@pytest.fixture(autouse=True)
def without_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.fixture
def backbone() -> MemorySTDiT:
    torch.manual_seed(0)
    backbone = MemorySTDiT(CONFIG).double().eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return backbone


@dataclass(frozen=True)
class Scene:
    """`t` frames of a walk, and `m` that are recalled."""

    x: Tensor
    sigma: Tensor
    conditions: Tensor
    poses: Tensor
    now: Tensor
    latents: Tensor
    still: Tensor
    cameras: Tensor
    times: Tensor

    def view(self, part: slice = slice(None)) -> MemoryView:
        """Of some of the frames."""
        seen = {"cameras": self.cameras, "times": self.times}
        return MemoryView.of(
            self.latents, self.still, **seen, poses=self.poses[:, part], now=self.now[:, part]
        )

    def whole(self, backbone: MemorySTDiT) -> Tensor:
        return backbone(self.x, self.sigma, self.conditions, view=self.view(), times=self.now[0])

    def permuted(self, order: Tensor) -> "Scene":
        moved = {name: getattr(self, name)[:, order] for name in ("latents", "still", "cameras", "times")}
        return replace(self, **moved)


def scene(m: int, t: int = 4, b: int = 2) -> Scene:
    """History is clean, the last frame noisy."""
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    def poses(k: int) -> Tensor:
        pose = torch.eye(4, dtype=torch.float64).repeat(b, k, 1, 1)
        pose[..., :3, :3] = torch.linalg.qr(normal(b, k, 3, 3)).Q
        pose[..., :3, 3] = normal(b, k, 3)
        return pose

    sigma = torch.zeros(b, t, dtype=torch.float64)
    sigma[:, -1] = 0.7
    frames = normal(b, t, 4, 4, 6), sigma, normal(b, t, 16), poses(t), torch.arange(50, 50 + t).expand(b, t)
    times = torch.randperm(40, generator=draw)[:m].expand(b, m)
    return Scene(*frames, normal(b, m, 4, 4, 6), normal(b, m, 16), poses(m), times)


def close(ours: Tensor, expected: Tensor) -> None:
    """Sinusoids of times are of single precision."""
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_published_size() -> None:
    with torch.device("meta"):
        backbone = MemorySTDiT(worldmem_945m())
    block, width = backbone.blocks[0], 1024
    unused = width * width + width
    assert sum(p.numel() for p in block.memory.parameters()) + unused == 20_985_856
    learned = sum(p.numel() for p in backbone.parameters()) + 16 * unused
    assert learned + 25 * width + width == pytest.approx(945.2e6, abs=0.1e6)


@LENGTHS
def test_cached_equals_uncached(backbone: MemorySTDiT, m: int) -> None:
    """Window and memory are read once; a pass on them is of one frame."""
    given = scene(m)
    whole = given.whole(backbone)[:, -1:]
    cache = backbone.window_cache(
        given.x[:, :-1], given.conditions[:, :-1], given.view(), times=given.now[0, :-1]
    )
    assert cache.frames == 53
    alone = backbone.recall_cache(cache.behind, given.view(slice(-1, None)))
    for one, other in zip(alone.memory, cache.memory, strict=True):
        for ours, theirs in zip(one, other, strict=True):
            close(ours, theirs)
    last = [part[:, -1:] for part in (given.x, given.sigma, given.conditions)]
    close(backbone(*last, cache), whole)
    rope = backbone.rope(backbone.times(last[0], cache))
    close(backbone.predict(*last[:2], FrameInputs(last[2]), rope, backbone.bias(cache), cache)[0], whole)


def test_window_and_memory_do_not_see_the_new_frame(backbone: MemorySTDiT) -> None:
    given = scene(3)
    changed = replace(given, x=given.x.clone(), sigma=given.sigma.clone())
    changed.x[:, -1], changed.sigma[:, -1] = 9.0, 0.2
    assert torch.equal(given.whole(backbone)[:, :-1], changed.whole(backbone)[:, :-1])


@LENGTHS
def test_with_gates_at_zero_it_is_the_base(backbone: MemorySTDiT, m: int) -> None:
    """Bit for bit, and whatever is recalled: nothing of it comes in through space or time."""
    given = scene(m)
    for block in backbone.blocks:
        assert isinstance(block.memory, MemoryPart)
        torch.nn.init.zeros_(block.memory.modulation.project.weight)
        torch.nn.init.zeros_(block.memory.modulation.project.bias)
    assert torch.equal(
        given.whole(backbone), backbone(given.x, given.sigma, given.conditions, times=given.now[0])
    )
    base = STDiT(STDiTConfig(**SIZES, clean_label=CONFIG.clean_label)).double().eval()
    shared = {name: tensor for name, tensor in backbone.state_dict().items() if name in base.state_dict()}
    base.load_state_dict(shared)
    noisy = replace(given, sigma=given.sigma + 0.1, conditions=torch.zeros_like(given.conditions))
    expected = base(noisy.x, noisy.sigma, noisy.conditions, times=given.now[0])
    assert torch.equal(noisy.whole(backbone), expected)


def test_fresh_weights_are_the_base() -> None:
    backbone, given = MemorySTDiT(CONFIG).double().eval(), scene(2)
    torch.nn.init.normal_(backbone.head.weight)
    assert torch.equal(
        given.whole(backbone), backbone(given.x, given.sigma, given.conditions, times=given.now[0])
    )


@LENGTHS
def test_the_order_of_memory_does_not_count(backbone: MemorySTDiT, m: int) -> None:
    given = scene(m)
    order = torch.arange(m).flip(0).roll(1)
    close(given.permuted(order).whole(backbone), given.whole(backbone))


@LENGTHS
def test_memory_never_sees_the_window(backbone: MemorySTDiT, m: int) -> None:
    """What is read of recalled frames is the same behind another history, of the same cameras."""
    given = scene(m)
    other = replace(given, x=given.x + 1, conditions=given.conditions - 1)
    first, second = (
        backbone.window_cache(one.x[:, :-1], one.conditions[:, :-1], one.view(), times=one.now[0, :-1])
        for one in (given, other)
    )
    for ours, theirs in zip(first.memory, second.memory, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(first.layer(1).keys, second.layer(1).keys)


@LENGTHS
def test_every_recalled_frame_counts_and_reaches_the_others(backbone: MemorySTDiT, m: int) -> None:
    given = scene(m)
    for parameter in backbone.parameters():
        parameter.mul_(0.5)  # or attention is of one token alone
    before = backbone.window_cache(
        given.x[:, :-1], given.conditions[:, :-1], given.view(), times=given.now[0, :-1]
    )
    changed = replace(given, latents=given.latents.clone())
    changed.latents[:, 0] += 1
    after = backbone.window_cache(
        given.x[:, :-1], given.conditions[:, :-1], changed.view(), times=given.now[0, :-1]
    )
    n = CONFIG.tokens
    moved = [
        (b.keys - a.keys).abs().unflatten(2, (m, n)).amax((0, 1, 3, 4))
        for a, b in zip(before.memory, after.memory, strict=True)
    ]
    assert moved[0][0] > 1e-6 and not moved[0][1:].any() and (moved[1] > 1e-9).all()
    assert not torch.equal(given.whole(backbone)[:, -1], changed.whole(backbone)[:, -1])


def test_split_equals_fused(backbone: MemorySTDiT) -> None:
    """Queries, keys and values of x and of states apart, against one product with their sum."""
    part, given = backbone.blocks[0].memory, scene(3)
    qkv, (b, m, n, d) = part.attention.qkv, (2, 3, CONFIG.tokens, CONFIG.width)
    y = torch.randn(b, m, n, d, dtype=torch.float64)
    states = backbone.state(given.view(slice(-1, None)).poses[:, 0], torch.zeros(b, m))
    level = torch.zeros(b, 1, d, dtype=torch.float64)
    together = y.flatten(1, 2)[:, None]
    keys, values = part.content(together, level)
    keys = keys + part.state_part(states.flatten(1, 2)[:, None], 1)
    shift, scale, *_ = part.modulation(level)
    normal = part.norm_attention(together) * (1 + scale) + shift
    fused = qkv(normal + part.state(states.flatten(1, 2)[:, None])).chunk(3, -1)[1]
    close(keys, fused)
    close(values, qkv(normal).chunk(3, -1)[2])
    close(part.state_part(states, 0), qkv(part.state(states)).chunk(3, -1)[0])


def test_rays_are_plucker_coordinates_in_the_frame_that_looks(backbone: MemorySTDiT) -> None:
    """One block straight ahead and turned right about: o x d is a moment about where the frame looks from."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.tensor([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # looks to the right
    pose[2, 3] = 1
    rays = backbone.state.rays(pose[None, None])[0, 0]
    moment, direction = rays[:, :3], rays[:, 3:]
    assert (direction[:, 0] > 0.4).all()
    close(direction.norm(dim=-1), torch.ones(CONFIG.tokens, dtype=torch.float64))
    close(moment, torch.linalg.cross(pose[:3, 3].expand_as(direction), direction))
    identity = backbone.state.rays(torch.eye(4, dtype=torch.float64)[None, None])[0, 0]
    assert not identity[:, :3].any() and (identity[:, 5] > 0).all()
    first = (0.5 / 120 - 0.5) / 0.35, (0.5 / 80 - 0.5) / 0.35
    close(identity[0, 3:5] / identity[0, 5], torch.tensor(first, dtype=torch.float64))


def test_views_are_relative(backbone: MemorySTDiT) -> None:
    """Another origin of the world and of time changes nothing."""
    given, shift = scene(3), torch.eye(4, dtype=torch.float64)
    shift[:3, :3] = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    shift[:3, 3] = torch.tensor([3.0, -2.0, 7.0])
    moved = replace(
        given,
        poses=shift @ given.poses,
        cameras=shift @ given.cameras,
        times=given.times + 9,
        now=given.now + 9,
    )
    close(moved.whole(backbone), given.whole(backbone))
