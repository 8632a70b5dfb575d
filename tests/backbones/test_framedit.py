from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreamwalk.backbones.frame_backbone import FrameInputs
from dreamwalk.backbones.framedit import FrameDiT, FrameDiTConfig, released
from dreamwalk.errors import UserError

CONFIG = FrameDiTConfig(channels=4, grid=(4, 6), patch=2, width=64, depth=3, heads=2, feedforward_multiple=32)
CLEAN = replace(CONFIG, predicts="clean", velocity_floor=0.5)


@pytest.fixture(params=[CONFIG, CLEAN], ids=["velocity", "clean"])
def backbone(request: pytest.FixtureRequest) -> FrameDiT:
    torch.manual_seed(0)
    backbone = FrameDiT(request.param).double().eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return backbone


def inputs(frames: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, frames, 4, 4, 6, generator=generator, dtype=torch.float64)
    sigma = torch.rand(2, frames, generator=generator, dtype=torch.float64)
    return x, sigma, torch.randn(2, frames, 64, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("size", "low", "high"), [("130M", 129.5, 130.3), ("310M", 309.8, 311.0), ("774M", 772.2, 774.8)]
)
def test_published_sizes(size: str, low: float, high: float) -> None:
    with torch.device("meta"):
        backbone = FrameDiT(released(size))  # type: ignore[arg-type]
    assert low < sum(p.numel() for p in backbone.parameters()) / 1e6 < high
    assert backbone.config.tokens == 84


@torch.inference_mode()
def test_no_leak_from_the_future(backbone: FrameDiT) -> None:
    x, sigma, conditions = inputs(6)
    before = backbone(x, sigma, conditions)
    x[:, 4], sigma[:, 4], conditions[:, 4] = 9.0, 0.5, -3.0
    after = backbone(x, sigma, conditions)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@torch.inference_mode()
def test_a_frame_sees_all_of_itself_and_of_its_past(backbone: FrameDiT) -> None:
    x, sigma, conditions = inputs(3)
    before = backbone(x, sigma, conditions)[:, 2]
    for frame in (0, 2):
        changed = x.clone()
        changed[:, frame, :, -1, -1] += 1
        difference = (backbone(changed, sigma, conditions)[:, 2] - before).abs().amax(dim=(0, 1))
        assert (difference > 1e-9).all()


@torch.inference_mode()
@pytest.mark.parametrize("window", [8, 3])
def test_cached_equals_uncached(backbone: FrameDiT, window: int) -> None:
    """A window of all frames makes the cache equal to the whole clip; a smaller one, to a banded mask."""
    x, sigma, conditions = inputs(7)
    visible = torch.ones(7, 7, dtype=torch.bool).tril().triu(-window)
    whole = backbone(x, sigma, conditions, visible=visible)
    cache = backbone.cache(window, batch=2)
    for t in range(7):
        frame = [part[:, t : t + 1] for part in (x, sigma, conditions)]
        torch.testing.assert_close(backbone(*frame, cache), whole[:, t : t + 1], atol=1e-9, rtol=1e-9)
        rope = backbone.rope(backbone.times(frame[0], cache))
        cache.write(backbone.predict(*frame[:2], FrameInputs(frame[2]), rope, backbone.bias(cache), cache)[1])


@torch.inference_mode()
@pytest.mark.parametrize("head", [6, 10, 16, 24, 48, 80, 112])
def test_every_head_width_runs(head: int) -> None:
    """All at once and one by one on a cache, which turns by time alone what it holds."""
    torch.manual_seed(0)
    backbone = FrameDiT(replace(CONFIG, width=2 * head, depth=1)).double().eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, sigma, _ = inputs(3)
    conditions = torch.randn(2, 3, 2 * head, dtype=torch.float64)
    whole, cache = backbone(x, sigma, conditions), backbone.cache(4, batch=2)
    for t in range(3):
        frame = [part[:, t : t + 1] for part in (x, sigma, conditions)]
        torch.testing.assert_close(backbone(*frame, cache), whole[:, t : t + 1], atol=1e-9, rtol=1e-9)
        rope = backbone.rope(backbone.times(frame[0], cache))
        cache.write(backbone.predict(*frame[:2], FrameInputs(frame[2]), rope, backbone.bias(cache), cache)[1])


def test_a_head_that_cannot_turn_is_refused() -> None:
    with pytest.raises(UserError, match="the nearest width for 4 heads is 64"):
        replace(CONFIG, width=60, heads=4)
    with pytest.raises(UserError, match="a multiple of 2 from 6 up: the nearest width for 16 heads is 96"):
        replace(CONFIG, width=64, heads=16)


def test_it_starts_at_zero() -> None:
    x, sigma, conditions = (part.float() for part in inputs(2))
    assert (FrameDiT(CONFIG)(x, sigma, conditions) == 0).all()


def test_a_grid_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="5x6 does not divide into patches of 2"):
        _ = FrameDiTConfig(channels=4, grid=(5, 6), patch=2, width=64, depth=1, heads=2).tokens


def test_clean_prediction_is_the_same_velocity() -> None:
    """Predicting x and predicting v differ by the algebra of the path only."""
    from dreamwalk.schedules.flow import add_noise, denoised

    x, eps = torch.randn(2, 1, 3, 4, 2, 2, dtype=torch.float64)
    sigma = torch.rand(1, 3, dtype=torch.float64) * 0.9 + 0.1
    noisy = add_noise(x, eps, sigma)
    torch.testing.assert_close((noisy - x) / sigma[:, :, None, None, None], eps - x)
    torch.testing.assert_close(denoised(noisy, eps - x, sigma), x)
