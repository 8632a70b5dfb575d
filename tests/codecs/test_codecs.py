from dataclasses import replace

import pytest
import torch
from toy import panorama

from dreamwalk.codecs import CodecConfig
from dreamwalk.codecs.kl_autoencoder import KLCodec, kl16, kl_tiny
from dreamwalk.codecs.patch import PatchCodec, PatchCodecConfig
from dreamwalk.codecs.vit import ViTCodec, ViTCodecConfig, vit_l20, vit_tiny

PATCH = PatchCodecConfig(channels=24, patch=8, widths=(16, 16, 16))
VIT = replace(vit_tiny(), size=(32, 32))


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    frames = torch.stack([torch.from_numpy(panorama(7.0 * k)) for k in range(40)])
    return frames.permute(0, 3, 1, 2)[None].float() / 127.5 - 1


def test_kl16_has_the_public_size() -> None:
    with torch.device("meta"):
        codec = KLCodec(kl16())
    assert sum(p.numel() for p in codec.parameters()) == 66_456_019
    assert codec.stride == (1, 16, 16)


def test_vit_l20_has_the_public_size() -> None:
    with torch.device("meta"):
        codec = ViTCodec(vit_l20())
    assert sum(p.numel() for p in codec.parameters()) == 229_246_160
    assert codec.stride == (1, 20, 20) and codec.channels == 16


def test_a_vit_knows_one_size() -> None:
    with pytest.raises(ValueError, match="frames of 16x24 only, not of 16x16"):
        ViTCodec(vit_tiny()).encode(torch.zeros(1, 1, 3, 16, 16))
    with pytest.raises(ValueError, match="30x32 do not divide into patches of 4"):
        _ = ViTCodecConfig(size=(30, 32), patch=4).grid


@pytest.mark.parametrize("config", [PATCH, kl_tiny(), VIT])
@torch.inference_mode()
def test_streamed_equals_whole(config: CodecConfig, video: torch.Tensor) -> None:
    torch.manual_seed(0)
    codec = config.build().double().eval()
    clip = video[:, :4].double()
    whole = codec.encode(clip)
    _, h, w = codec.stride
    assert whole.shape == (1, 4, codec.channels, 32 // h, 32 // w)
    frames = [codec.encode(clip[:, t : t + 1]) for t in range(4)]
    torch.testing.assert_close(torch.cat(frames, 1), whole)
    decoded = [codec.decode(frame) for frame in frames]
    torch.testing.assert_close(torch.cat(decoded, 1), codec.decode(whole))


def test_the_linear_code_is_the_best_linear_code(video: torch.Tensor) -> None:
    """No random projection of the same size restores the patches better, and latents have unit variance."""
    codec = PatchCodec(PATCH)
    codec.fit(video)
    latents = codec.encode(video)
    assert latents.square().mean().sqrt() == pytest.approx(1, abs=0.01)
    error = (codec.decode(latents) - video).square().mean()
    patches = codec._patches(video).flatten(0, -2)
    patches = patches - patches.mean(0)
    basis = torch.linalg.qr(torch.randn(patches.shape[1], PATCH.channels))[0]
    assert error < (patches - patches @ basis @ basis.T).square().mean() / 2


def test_all_components_restore_exactly(video: torch.Tensor) -> None:
    codec = PatchCodec(PatchCodecConfig(channels=192, patch=8, widths=(16, 16, 16), whitening=0.0)).double()
    noise = torch.rand(1, 20, 3, 32, 32, dtype=torch.float64)
    codec.fit(noise)
    torch.testing.assert_close(codec.decode(codec.encode(noise)), noise, atol=1e-9, rtol=0)


@pytest.mark.parametrize("config", [PATCH, kl_tiny()])
def test_sizes_that_do_not_divide_are_refused(config: PatchCodecConfig) -> None:
    with pytest.raises(ValueError, match=r"30x45 do not divide .* the nearest size is"):
        config.build().encode(torch.zeros(1, 1, 3, 30, 45))


def test_too_few_patches_and_too_many_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        PatchCodec(PATCH).fit(torch.zeros(1, 1, 3, 8, 8))
    with pytest.raises(ValueError, match="1 to 192 components"):
        PatchCodec(PatchCodecConfig(channels=500, patch=8))
