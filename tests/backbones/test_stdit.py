import pytest
import torch
from torch import Tensor

from dreamwalk.backbones.frame_backbone import FrameInputs, Recalled
from dreamwalk.backbones.stdit import STDiT, STDiTConfig, oasis_500m
from dreamwalk.errors import UserError

CONFIG = STDiTConfig(channels=4, grid=(4, 6), width=16, depth=2, heads=2)


@pytest.fixture
def backbone() -> STDiT:
    torch.manual_seed(0)
    backbone = STDiT(CONFIG).double().eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return backbone


def inputs(frames: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, frames, 4, 4, 6, generator=generator, dtype=torch.float64)
    sigma = torch.rand(2, frames, generator=generator, dtype=torch.float64)
    return x, sigma, torch.randn(2, frames, 16, generator=generator, dtype=torch.float64)


def test_published_size() -> None:
    with torch.device("meta"):
        backbone = STDiT(oasis_500m())
    learned = sum(p.numel() for p in backbone.parameters())
    actions, frequencies = 25 * 1024 + 1024, 16 + 32
    assert learned + actions + frequencies == 607_943_792
    assert backbone.config.tokens == 144


def test_a_head_that_cannot_turn_is_refused() -> None:
    with pytest.raises(UserError, match="a multiple of 4 from 4 up: the nearest width for 2 heads is 16"):
        STDiTConfig(channels=4, grid=(4, 6), width=18, depth=1, heads=2)


@torch.inference_mode()
def test_no_leak_from_the_future(backbone: STDiT) -> None:
    x, sigma, conditions = inputs(6)
    before = backbone(x, sigma, conditions)
    x[:, 4], sigma[:, 4], conditions[:, 4] = 9.0, 0.5, -3.0
    after = backbone(x, sigma, conditions)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@torch.inference_mode()
def test_a_frame_sees_all_of_itself_and_of_its_past(backbone: STDiT) -> None:
    x, sigma, conditions = inputs(3)
    before = backbone(x, sigma, conditions)[:, 2]
    for frame in (0, 2):
        changed = x.clone()
        changed[:, frame, :, -1, -1] += 1
        difference = (backbone(changed, sigma, conditions)[:, 2] - before).abs().amax(dim=(0, 1))
        assert (difference > 1e-9).all()


@torch.inference_mode()
def test_cached_equals_uncached(backbone: STDiT) -> None:
    x, sigma, conditions = inputs(5)
    whole = backbone(x, sigma, conditions)
    cache = backbone.cache(4, batch=2)
    for t in range(5):
        frame = [part[:, t : t + 1] for part in (x, sigma, conditions)]
        torch.testing.assert_close(backbone(*frame, cache), whole[:, t : t + 1], atol=1e-6, rtol=0)
        rope = backbone.rope(backbone.times(frame[0], cache))
        cache.write(backbone.predict(*frame[:2], FrameInputs(frame[2]), rope, backbone.bias(cache), cache)[1])


@torch.inference_mode()
def test_time_may_start_anywhere(backbone: STDiT) -> None:
    x, sigma, conditions = inputs(3)
    later = backbone(x, sigma, conditions, times=torch.arange(3) + 100_000)
    torch.testing.assert_close(later, backbone(x, sigma, conditions), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_clean_frames_have_a_label_of_their_own(backbone: STDiT) -> None:
    """At sigma 0 the network sees the frame as it is, under `clean_label`."""
    x, _, conditions = inputs(2)
    rope, mask = backbone.rope(torch.arange(2)), backbone.mask(torch.ones(2, 2, dtype=torch.bool).tril())
    v, fresh = backbone.predict(x, torch.zeros(2, 2), FrameInputs(conditions), rope, mask, None)
    label = torch.full((2, 2), 14)
    u, expected = backbone.denoise(x, label, FrameInputs(conditions), rope, mask, None)
    torch.testing.assert_close(v, u - x)
    for ours, theirs in zip(fresh, expected, strict=True):
        assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


@torch.inference_mode()
def test_views_are_added_to_tokens(backbone: STDiT) -> None:
    x, sigma, conditions = inputs(1)
    rope, features = backbone.rope(torch.arange(1)), torch.zeros(2, 1, 6, 16)
    plain, zeros, ones = (
        backbone.predict(x, sigma, FrameInputs(conditions, Recalled(added)), rope, None, None)[0]
        for added in (None, features, features + 1)
    )
    assert torch.equal(zeros, plain) and not torch.equal(ones, plain)


def test_what_does_not_fit_is_refused(backbone: STDiT) -> None:
    with pytest.raises(ValueError, match="5x6 does not divide into patches of 2"):
        _ = STDiTConfig(channels=4, grid=(5, 6), width=16, depth=1, heads=2).tokens
    with pytest.raises(ValueError, match="one frame at a time, got 2"):
        backbone(*inputs(2), backbone.cache(3, batch=2))
