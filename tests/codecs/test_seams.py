"""Tiles against those of diffusers: the same weights, the same tiles, the same overlap."""

import warnings

import pytest
import torch
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    from diffusers import AutoencoderKLHunyuanVideo

from dreamwalk.codecs.causal import CausalVAE, CausalVAEConfig
from dreamwalk.codecs.tiles import Tiling, tiled_decode, tiled_encode
from dreamwalk.published.names import renamed
from dreamwalk.published.vae import VAE_NAMES


def pair(seed: int) -> tuple[CausalVAE, AutoencoderKLHunyuanVideo]:
    """Random weights with quiet branches, so that a picture passes through as in a trained network."""
    torch.manual_seed(seed)
    ours = CausalVAE(CausalVAEConfig(channels=4, widths=(8, 8, 16, 16), blocks=1, groups=4, scale=1.0))
    for name, parameter in ours.named_parameters():
        if ".conv2." in name or ".attention.out." in name:
            parameter.data *= 0.1
    theirs = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4
    )
    theirs.load_state_dict({renamed(name, VAE_NAMES): tensor for name, tensor in ours.state_dict().items()})
    theirs.enable_tiling(32, 32, 16, 24, 24, 12)
    return ours.eval(), theirs.eval()


def psnr(tiled: Tensor, whole: Tensor) -> float:
    peak = whole.max() - whole.min()
    return float(10 * torch.log10(peak**2 / (tiled - whole).square().mean()))


@pytest.mark.parametrize("seed", [0, 1])
@torch.inference_mode()
def test_seams_are_smaller_than_theirs(seed: int) -> None:
    """Tiles of 16 frames and 32x32 pixels that share a quarter, as their defaults do."""
    ours, theirs = pair(seed)
    tiling = Tiling(tile=(16, 32, 32), overlap=(4, 8, 8))
    rough = torch.randn(1, 3, 5, 6, 5)
    video = torch.nn.functional.interpolate(rough, size=(37, 48, 40), mode="trilinear").transpose(1, 2)
    latents = ours.encode(video.clamp(-1, 1))
    whole = ours.decode(latents)
    decoded = psnr(tiled_decode(ours, latents, tiling), whole)
    encoded = psnr(tiled_encode(ours, video.clamp(-1, 1), tiling), latents)
    their_video = theirs.decode(latents.transpose(1, 2)).sample.transpose(1, 2)
    their_latents = theirs.encode(video.clamp(-1, 1).transpose(1, 2)).latent_dist.mean.transpose(1, 2)
    print(f"decoded: {decoded:.2f} dB, diffusers {psnr(their_video, whole):.2f} dB; ", end="")
    print(f"encoded: {encoded:.2f} dB, diffusers {psnr(their_latents, latents):.2f} dB")
    assert decoded > psnr(their_video, whole) + 1 and encoded > psnr(their_latents, latents) + 1
