from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dreamwalk.codecs.critic import Critic, CriticConfig, adversarial
from dreamwalk.codecs.perceptual import CONVOLUTIONS, Perceptual
from dreamwalk.weights.vgg import read_perceptual

CRITIC = CriticConfig(width=8, levels=2)
TINY = (4, 6, 6, 8, 8)


def video(frames: int = 2, *, side: int = 16) -> Tensor:
    return torch.rand(2, frames, 3, side, side) * 2 - 1


@pytest.mark.parametrize(("frames", "expected"), [(1, 1), (5, 3)])
def test_a_critic_judges_patches_of_images_and_videos(frames: int, expected: int) -> None:
    assert Critic(CRITIC)(video(frames)).shape == (2, expected, 4, 4)


def test_one_backward_pass_teaches_both() -> None:
    """The codec's gradients are those of its term alone, the critic's those of its own."""
    torch.manual_seed(0)
    critic, codec = Critic(CRITIC), nn.Conv3d(3, 3, 1)
    real = video()
    fake = codec(real.transpose(1, 2)).transpose(1, 2)
    generator_term, critic_term = adversarial(critic, real, fake)
    ours, theirs = list(codec.parameters()), list(critic.parameters())
    together = torch.autograd.grad(generator_term + critic_term, ours + theirs, retain_graph=True)
    expected = torch.autograd.grad(-critic(fake).mean(), ours, retain_graph=True)
    loss = (1 - critic(real)).relu().mean() / 2 + (1 + critic(fake.detach())).relu().mean() / 2
    expected += torch.autograd.grad(loss, theirs)
    for one, other in zip(together, expected, strict=True):
        torch.testing.assert_close(one, other)
        assert one.dim() == 1 or one.abs().sum() > 0


def test_a_critic_learns_to_tell_noise_from_flats() -> None:
    torch.manual_seed(0)
    critic = Critic(CRITIC)
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    real = torch.rand(2, 2, 3, 1, 1).expand(-1, -1, -1, 16, 16)
    for _ in range(20):
        _, term = adversarial(critic, real, video())
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
    assert critic(real).mean() > 0.5 > -0.5 > critic(video()).mean()


def tensors() -> dict[str, Tensor]:
    """Random weights in the layout of torchvision's `vgg16`, and of the heads of LPIPS."""
    torch.manual_seed(0)
    given, index, width = {"classifier.0.weight": torch.randn(3, 3)}, 0, 3
    for stage, (following, count) in enumerate(zip(TINY, CONVOLUTIONS, strict=True)):
        for _ in range(count):
            given[f"features.{index}.weight"] = torch.randn(following, width, 3, 3) * (2 / width / 9) ** 0.5
            given[f"features.{index}.bias"] = 0.1 * torch.randn(following)
            index, width = index + 2, following
        index += 1
        given[f"lin{stage}.model.1.weight"] = torch.rand(1, following, 1, 1)
    return given


def by_the_paper(given: dict[str, Tensor], one: Tensor, other: Tensor) -> Tensor:
    """Equation 1 of LPIPS, written out for single frames."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    seen = [((x + 1) / 2 - mean[:, None, None]) / std[:, None, None] for x in (one, other)]
    index, distance = 0, torch.zeros(())
    for stage, count in enumerate(CONVOLUTIONS):
        for _ in range(count):
            weight, bias = given[f"features.{index}.weight"], given[f"features.{index}.bias"]
            seen = [nn.functional.conv2d(x, weight, bias, padding=1).relu() for x in seen]
            index += 2
        index += 1
        a, b = (x / (x.square().sum(0, keepdim=True).sqrt() + 1e-10) for x in seen)
        distance = distance + (given[f"lin{stage}.model.1.weight"][0] * (a - b) ** 2).sum(0).mean()
        seen = [nn.functional.max_pool2d(x, 2) for x in seen] if stage < 4 else []
    return distance


@pytest.mark.parametrize("heads", [True, False])
def test_the_distance_is_that_of_the_paper(tmp_path: Path, heads: bool) -> None:
    given = tensors()
    if not heads:
        given = {name: tensor for name, tensor in given.items() if "lin" not in name}
    save_file(given, tmp_path / "vgg.safetensors")
    perceptual = read_perceptual(tmp_path / "vgg.safetensors")
    one, other = video(), video()
    if not heads:
        given |= {f"lin{k}.model.1.weight": torch.ones(1, width, 1, 1) for k, width in enumerate(TINY)}
    pairs = zip(one.flatten(0, 1), other.flatten(0, 1), strict=True)
    expected = torch.stack([by_the_paper(given, a, b) for a, b in pairs]).mean()
    torch.testing.assert_close(perceptual(one, other), expected, rtol=1e-4, atol=0)
    assert perceptual(one, one) == 0


def test_only_the_video_learns_from_the_distance() -> None:
    perceptual = Perceptual(TINY)
    restored = video().requires_grad_()
    perceptual(restored, video()).backward()
    assert restored.grad is not None and restored.grad.isfinite().all() and restored.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in perceptual.parameters())
    with pytest.raises(ValueError, match="8x8 are too small"):
        perceptual(video(side=8), video(side=8))


def test_gradients_are_finite_where_no_feature_fires() -> None:
    perceptual = Perceptual(TINY)
    for parameter in perceptual.parameters():
        parameter.fill_(-1)
    restored = torch.ones(1, 1, 3, 16, 16, requires_grad=True)
    perceptual(restored, video(1)[:1]).backward()
    assert restored.grad is not None and restored.grad.isfinite().all()


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg.safetensors"
    with pytest.raises(ValueError, match="there is no weight file at"):
        read_perceptual(path)
    save_file({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(
        ValueError, match=r"lacks 'features.0.weight': it is not of the layout of torchvision"
    ):
        read_perceptual(path)
    given = tensors()
    del given["lin3.model.1.weight"]
    save_file(given, path)
    with pytest.raises(ValueError, match=r"lacks 'lin3.model.1.weight'"):
        read_perceptual(path)
    save_file(tensors() | {"features.7.weight": torch.zeros(6, 5, 3, 3)}, path)
    with pytest.raises(ValueError, match=r"'features.7.weight' of shape \(6, 5, 3, 3\), not \(6, 6, 3, 3\)"):
        read_perceptual(path)


def test_the_published_size() -> None:
    with torch.device("meta"):
        perceptual = Perceptual()
    assert sum(p.numel() for p in perceptual.features.parameters()) == 14_714_688
    assert {"features.28.bias", "lin4.model.1.weight"} < set(perceptual.state_dict())
