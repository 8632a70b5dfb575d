"""The block codec: a linear code in time and space, and a filter that streams."""

import pytest
import torch

from dreamwalk.codecs.block import BlockCodec, BlockCodecConfig


@pytest.fixture(scope="module")
def codec() -> BlockCodec:
    torch.manual_seed(0)
    codec = BlockCodec(BlockCodecConfig((4, 8, 8), 24, width=8, depth=1))
    codec.fit(video(64, 17))
    torch.nn.init.normal_(codec.deblocking.last.weight, std=0.05)
    return codec.double().eval()


def video(count: int, frames: int) -> torch.Tensor:
    """Ramps that drift, which few components tell."""
    draw = torch.Generator().manual_seed(count)
    place, slope, drift = torch.rand(3, count, 1, 3, 1, 1, generator=draw) - 0.5
    x = torch.linspace(-1, 1, 16)
    t = torch.arange(frames)[None, :, None, None, None] / frames
    return place + slope * x[:, None] + drift * (x[None] + t)


def test_the_linear_code_alone_restores_what_it_was_fitted_to() -> None:
    codec = BlockCodec(BlockCodecConfig((4, 8, 8), 48, width=8, depth=1)).eval()
    clips = video(64, 17)
    codec.fit(clips)
    latents = codec.encode(clips)
    assert latents.shape == (64, 5, 48, 2, 2)
    assert 0.5 < latents.std() < 2
    with torch.no_grad():
        assert (codec.decode(latents) - clips).abs().max() < 1e-2


@pytest.mark.parametrize("frames", [1, 2, 5, 7, 9])
def test_any_count_of_frames(codec: BlockCodec, frames: int) -> None:
    clip = video(2, frames).double()
    latents = codec.encode(clip)
    assert latents.shape[1] == codec.latent_frames(frames)
    with torch.no_grad():
        assert codec.decode(latents, frames).shape == clip.shape


def test_no_latent_sees_a_later_frame_and_no_frame_a_later_latent(codec: BlockCodec) -> None:
    clip = video(1, 13).double()
    changed = clip.clone()
    changed[:, 5:] += 0.3
    before, after = codec.encode(clip), codec.encode(changed)
    assert torch.equal(before[:, :2], after[:, :2]) and not torch.equal(before[:, 2], after[:, 2])
    with torch.no_grad():
        assert torch.equal(codec.decode(before)[:, :5], codec.decode(after)[:, :5])


def test_a_stream_is_the_whole(codec: BlockCodec) -> None:
    latents = codec.encode(video(1, 17).double())
    streamed = torch.cat(list(codec.stream_decode([latents[:, :2], latents[:, 2:]])), dim=1)
    whole = codec.decode(latents)
    assert whole.requires_grad
    assert (streamed - whole).abs().max() < 1e-9


def test_a_size_that_does_not_divide_is_refused(codec: BlockCodec) -> None:
    with pytest.raises(ValueError, match="nearest size is 16x16"):
        codec.encode(torch.zeros(1, 1, 3, 16, 15))
