"""The autoencoder of images inside of a tokenizer: frame by frame, and trained with what quantizes it."""

import pytest
import torch
from torch import Tensor

from dreamwalk.codecs.residual_quantizers import MultiScaleConfig
from dreamwalk.codecs.tokens import TokenCodec, tokenized
from dreamwalk.codecs.vector_quantizer import VQConfig
from dreamwalk.codecs.vqgan import VQGANConfig, vqgan_f16
from dreamwalk.errors import UserError
from dreamwalk.schedules.generator import KeyedGenerator

SCALES = ((1, 1), (2, 3), (4, 6))


def tiny() -> TokenCodec:
    torch.manual_seed(0)
    inner = VQGANConfig(width=16, multiples=(1, 2), blocks=1)
    return tokenized(inner, MultiScaleConfig(VQConfig(4, 32), SCALES, filters=2)).build()


def film(frames: int) -> Tensor:
    draw = torch.Generator().manual_seed(frames)
    return torch.rand(2, frames, 3, 8, 12, generator=draw) * 2 - 1


def noise(step: int) -> KeyedGenerator:
    return KeyedGenerator([(0, step, row) for row in range(2)])


@torch.no_grad()
def test_frames_are_coded_one_by_one() -> None:
    codec, video = tiny().double(), film(3).double()
    whole = codec.tokens(video)
    assert whole.shape == (2, 3, 31)
    pieces = list(codec.stream_tokens([video[:, :2], video[:, 2:]]))
    assert len(pieces) == 3 and torch.equal(torch.cat(pieces, 1), whole)
    latents = codec.from_tokens(whole)
    assert torch.equal(latents, codec.encode(video))
    streamed = torch.cat(list(codec.stream_decode(latents.split(2, dim=1))), 1)
    torch.testing.assert_close(streamed, codec.decode(latents))
    torch.testing.assert_close(codec.decode(latents)[:, 1:2], codec.decode(latents[:, 1:2]))


def test_it_learns_through_the_codes() -> None:
    codec, video = tiny(), film(1)
    optimizer, errors = torch.optim.Adam(codec.parameters(), 3e-3), []
    for step in range(60):
        latents, losses, _ = codec.bottleneck(video, noise(step), noise=0.0)
        error = (codec.decode(latents) - video).square().mean()
        loss = error + torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.5 * errors[0]
    assert all(parameter.grad is not None for parameter in codec.inner.parameters())


def test_sizes() -> None:
    with torch.device("meta"):
        codec = vqgan_f16().build()
    assert codec.stride == (1, 16, 16) and codec.channels == 32
    with pytest.raises(UserError, match="frames of 8x13 do not divide by 2x2: the nearest size is 8x12"):
        tiny().tokens(torch.zeros(1, 1, 3, 8, 13))
    with pytest.raises(UserError, match="the last scale has 4x6 latents, not 4x4"):
        tiny().tokens(torch.zeros(1, 1, 3, 8, 8))
