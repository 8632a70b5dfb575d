from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dreamwalk.codecs.kl_autoencoder import Downsample, KLCodec, KLCodecConfig, kl_tiny
from dreamwalk.codecs.penalties import outlier_penalty
from dreamwalk.codecs.tae import Doubled, TAECodec, TAEConfig, inflate, tae_released, tae_tiny

EIGHT = TAEConfig(image=KLCodecConfig(channels=4, width=8, multiples=(1, 1, 2, 2), blocks=1))


@pytest.fixture(params=[tae_tiny(), EIGHT, replace(EIGHT, temporal=2)], ids=["4x4x4", "8x8x8", "2x8x8"])
def pair(request: pytest.FixtureRequest) -> tuple[TAECodec, KLCodec]:
    """A new TAE and the image codec that it was inflated from, in float64."""
    torch.manual_seed(0)
    image = KLCodec(request.param.image).double()
    tae = TAECodec(request.param).double()
    inflate(tae, image)
    return tae, image


def picture(frames: int, *, side: int = 16) -> Tensor:
    return torch.rand(2, frames, 3, side, side, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("frames", [1, 8, 11])
@torch.inference_mode()
def test_inflated_is_the_image_codec_where_nothing_moves(pair: tuple[TAECodec, KLCodec], frames: int) -> None:
    tae, image = pair
    video = picture(1).expand(-1, frames, -1, -1, -1)
    latents = tae.encode(video)
    assert latents.shape[1] == tae.latent_frames(frames) == -(-frames // tae.stride[0])
    expected = image.encode(video)
    torch.testing.assert_close(latents, expected[:, : latents.shape[1]], atol=1e-6, rtol=0)
    torch.testing.assert_close(tae.decode(latents, frames), image.decode(expected), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_inflated_picks_the_first_frame_of_every_group(pair: tuple[TAECodec, KLCodec]) -> None:
    tae, image = pair
    video, step = picture(11), tae.stride[0]
    picked = image.encode(video[:, ::step])
    torch.testing.assert_close(tae.encode(video), picked, atol=1e-6, rtol=0)
    restored = image.decode(picked).repeat_interleave(step, dim=1)[:, :11]
    torch.testing.assert_close(tae.decode(tae.encode(video), 11), restored, atol=1e-6, rtol=0)


@pytest.mark.parametrize("frames", range(1, 10))
@torch.inference_mode()
def test_any_number_of_frames(frames: int) -> None:
    tae = shaken(TAECodec(EIGHT))
    latents = tae.encode(picture(frames).float())
    assert latents.shape == (2, tae.latent_frames(frames), 4, 2, 2)
    assert tae.decode(latents).shape == (2, 8 * latents.shape[1], 3, 16, 16)
    assert tae.decode(latents, frames).shape == (2, frames, 3, 16, 16)


@torch.inference_mode()
def test_an_image_alone_is_a_group_of_its_copies() -> None:
    """One frame is not padded, and need not be."""
    tae = shaken(TAECodec(tae_tiny()).double())
    image = picture(1)
    torch.testing.assert_close(tae.encode(image), tae.encode(image.expand(-1, 4, -1, -1, -1)))


def test_gradients_reach_what_is_new() -> None:
    """All temporal convolutions learn from the first step; attention over frames by its last layer first."""
    tae = TAECodec(tae_tiny())
    video = picture(8).float()
    (tae.decode(tae.encode(video)) - video).square().mean().backward()
    silent = {name for name, p in tae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    later = ("time.norm.weight", "time.qkv.weight", "time.qkv.bias")
    assert silent == {name for name, _ in tae.named_parameters() if name.endswith(later)}


def test_frames_are_told_apart_once_trained() -> None:
    """Later frames change earlier ones (nothing is causal), and a changed frame changes its latent."""
    tae = shaken(TAECodec(tae_tiny()).double())
    video = picture(12)
    changed = torch.cat([video[:, :6], -video[:, 6:7], video[:, 7:]], dim=1)
    with torch.inference_mode():
        difference = (tae.encode(video) - tae.encode(changed)).abs().amax((0, 2, 3, 4))
    assert (difference > 1e-4).all()


def test_time_is_coarse_inside_only() -> None:
    """The halvings nearest to the pixels halve the frames, so most layers see few of them."""
    tae = TAECodec(replace(EIGHT, temporal=2))
    down = [layer.time.stride for layer in tae.encoder if isinstance(getattr(layer, "space", 0), Downsample)]
    up = [type(layer.time) for layer in tae.decoder if isinstance(getattr(layer, "space", 0), nn.Upsample)]
    assert down == [(2, 1), (1, 1), (1, 1)] and up == [nn.Identity, nn.Identity, Doubled]


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        tae, image = TAECodec(tae_released()), KLCodec(tae_released().image)
    assert tae.stride == (8, 8, 8) and tae.channels == 16
    spatial = sum(p.numel() for name, p in tae.named_parameters() if ".space." in name)
    assert spatial == sum(p.numel() for p in image.parameters())
    assert sum(p.numel() for p in tae.parameters()) == 118_267_921
    video = torch.zeros(1, 17, 3, 256, 256, device="meta")
    assert tae.decode(tae.encode(video), 17).shape == video.shape


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"8 frames a latent do not fit .* 4x4 .* nearest that do are 4"):
        TAECodec(TAEConfig(image=kl_tiny(), temporal=8))
    with pytest.raises(ValueError, match="nearest that do are 2"):
        TAECodec(TAEConfig(image=kl_tiny(), temporal=3))
    with pytest.raises(ValueError, match="30x45 do not divide by 4x4: the nearest size is 32x44"):
        TAECodec(tae_tiny()).encode(torch.zeros(1, 5, 3, 30, 45))
    with pytest.raises(ValueError, match="2 latents are 1 to 8 frames, not 9"):
        TAECodec(tae_tiny()).decode(torch.zeros(1, 2, 4, 2, 2), frames=9)
    with pytest.raises(ValueError, match="build it for that"):
        inflate(TAECodec(tae_tiny()), KLCodec(replace(kl_tiny(), width=8)))


def shaken(tae: TAECodec) -> TAECodec:
    """Every parameter moved a little, so that no temporal layer is as it began."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in tae.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return tae


def test_outliers_by_hand() -> None:
    """One loud place of sixteen: mean 1/16, std sqrt(15)/16, and it lies (15 - 3 sqrt(15))/16 too far."""
    latents = torch.zeros(1, 2, 1, 4, 4, dtype=torch.float64)
    latents[0, 0, 0, 1, 2] = 1
    excess = (15 - 3 * 15**0.5) / 16
    assert outlier_penalty(latents).item() == pytest.approx(excess / 32)
    assert outlier_penalty(latents, r=4.0) == 0
    assert outlier_penalty(7 + 5 * latents).item() == pytest.approx(5 * excess / 32)


def test_the_outlier_penalty_pulls_outliers_in_and_is_silent_elsewhere() -> None:
    latents = torch.randn(1, 1, 2, 8, 8).clamp(-2, 2)
    latents[:, :, 1] = 0
    latents[0, 0, 0, 3, 3] = 20
    latents.requires_grad_()
    penalty = outlier_penalty(latents)
    penalty.backward()
    assert latents.grad is not None and latents.grad.isfinite().all()
    assert latents.grad[0, 0, 0, 3, 3] > 0 and (latents.grad[0, 0, 1] == 0).all()
