"""Noise levels in training: their distribution, their keys, and the loss weights at them."""

import pytest
import torch

from dreamwalk.schedules import training
from dreamwalk.schedules.flow import logit_normal, shift
from dreamwalk.schedules.generator import KeyedGenerator


def generator(rows: int = 512) -> KeyedGenerator:
    return KeyedGenerator([(0, row) for row in range(rows)])


@pytest.mark.parametrize(("density", "median"), [("uniform", 0.75), ("logit-normal", 0.75)])
def test_sigmas_are_independent_and_shifted(density: training.Density, median: float) -> None:
    sigma = training.draw_sigmas(generator(), 4, 3.0, density=density)
    assert sigma.shape == (512, 4) and float(sigma.min()) >= 0 and float(sigma.max()) < 1
    assert sigma.median().item() == pytest.approx(median, abs=0.03)
    assert torch.corrcoef(sigma.T).fill_diagonal_(0).abs().max() < 0.15


def test_a_clip_has_the_same_sigmas_in_any_batch() -> None:
    both, alone = (
        training.draw_sigmas(KeyedGenerator(keys), 5, 3.0, pure_noise_prob=0.2, clean_prefix_prob=0.5)
        for keys in ([(7,), (8,)], [(8,)])
    )
    assert torch.equal(both[1:], alone)


def test_a_share_of_frames_is_pure_noise() -> None:
    sigma = training.draw_sigmas(generator(), 4, 1.0, pure_noise_prob=0.25)
    assert (sigma == 1).float().mean().item() == pytest.approx(0.25, abs=0.03)
    rest = training.draw_sigmas(generator(), 4, 1.0)
    assert torch.equal(torch.where(sigma == 1, rest, sigma), rest)


def test_a_share_of_clips_begins_nearly_clean() -> None:
    """With a prefix of 0 to all frames."""
    plain = shift(logit_normal(generator().normal(4)), 3.0)
    sigma = training.draw_sigmas(generator(), 4, 3.0, clean_prefix_prob=0.5)
    prefix = sigma != plain
    torch.testing.assert_close(sigma[prefix], training.NEARLY_CLEAN * plain[prefix])
    lengths = prefix.sum(1)
    assert torch.equal(prefix, torch.arange(4) < lengths[:, None])
    assert [(lengths == n).float().mean().item() for n in range(5)] == pytest.approx(
        [0.5, 0.125, 0.125, 0.125, 0.125], abs=0.05
    )


def test_snr_weight() -> None:
    assert training.snr_weight(torch.tensor([0.0, 0.5, 1.0]), floor=0.5).tolist() == [4.0, 4.0, 1.0]


def test_weighted_loss() -> None:
    terms = training.weighted_loss(torch.tensor([[1.0, 3.0]], requires_grad=True), torch.tensor([[2.0, 0.0]]))
    assert (terms["loss"].item(), terms["error"].item()) == (1.0, 2.0)
    assert terms["loss"].requires_grad and not terms["error"].requires_grad


def test_fused_snr_weight() -> None:
    """By hand for one clip, and its limits: alone it is min-SNR, beside clean frames nearly the whole."""
    sigma = torch.tensor([[0.25, 0.5, 1.0]], dtype=torch.float64)  # signal-to-noise ratios 9, 1, 0
    snr = training.FusedSNR(cap=5.0, decay=0.9)
    share = [1.0, 0.2, 0.0]
    running = [1.0, 0.9 * 1.0 + 0.1 * 0.2, 0.9 * 0.92 + 0.1 * 0.0]
    left = snr.running(sigma)
    torch.testing.assert_close(left, torch.tensor([running], dtype=torch.float64))
    weight = snr.weight(sigma, left)[0]
    expected = [5 * (1 - (1 - 0.9 * h) * (1 - s)) for h, s in zip(running, share, strict=True)]
    assert weight.tolist() == pytest.approx(expected)
    alone = snr.weight(sigma, torch.zeros_like(sigma))
    assert alone[0].tolist() == pytest.approx([5.0, 1.0, 0.0])
    beside_clean = snr.weight(sigma, torch.ones_like(sigma))
    assert beside_clean.min() == pytest.approx(4.5)
    before = snr.before(sigma)[0]
    assert before.tolist() == pytest.approx([0.0, *running[:2]])
    around = snr.around(sigma)[0]
    assert around.tolist() == pytest.approx([0.01, 0.5, running[1] / 2])
