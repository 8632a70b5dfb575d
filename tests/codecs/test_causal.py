from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreamwalk.codecs.causal import CausalVAE, CausalVAEConfig, hunyuan_vae, small, small_published
from dreamwalk.codecs.causal_layers import CausalConv, GroupNorm, StreamState, convolve, frames_of_a_piece

STRICT = CausalVAEConfig(4, (8, 8, 16, 16), 1, groups=4, norm="position", attention="frame")
PUBLISHED = replace(STRICT, norm="group", attention="causal")
FOLDED = replace(STRICT, widths=(8, 16), strides=((2, 2, 2),), patch=2)
CONFIGS = pytest.mark.parametrize("config", [STRICT, PUBLISHED, replace(STRICT, attention="causal"), FOLDED])
GRAD = pytest.mark.parametrize("grad", [True, False])


def build(config: CausalVAEConfig) -> CausalVAE:
    torch.manual_seed(0)
    codec = CausalVAE(config)
    for name, parameter in codec.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, 0.0 if name.endswith("bias") else 1.0, 0.3)
    return codec


def film(frames: int, *, b: int = 1, h: int = 16, w: int = 24) -> Tensor:
    return torch.rand(b, frames, 3, h, w, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_the_published_size() -> None:
    with torch.device("meta"):
        codec = CausalVAE(hunyuan_vae())
    assert sum(p.numel() for p in codec.parameters()) == 246_478_803
    assert codec.stride == (4, 8, 8) and codec.channels == 16 and codec.causal


def test_the_small_ones_have_the_published_stride() -> None:
    for config in (small(8), small_published(8)):
        with torch.device("meta"):
            codec = CausalVAE(config)
        assert codec.stride == (4, 8, 8) and codec.channels == 8
    assert small().strict and not small_published().strict


@CONFIGS
@pytest.mark.parametrize("frames", [1, 2, 5, 7])
@torch.no_grad()
def test_any_number_of_frames(config: CausalVAEConfig, frames: int) -> None:
    """The last frame is repeated for coding, and cut when decoding."""
    codec = build(config)
    t, h, w = codec.stride
    video = film(frames)
    latents = codec.encode(video)
    n = codec.latent_frames(frames)
    assert latents.shape == (1, n, 4, 16 // h, 24 // w) and codec.channel_weights.shape == (4, 1, 1)
    whole = torch.cat([video, video[:, -1:].expand(-1, 1 + (n - 1) * t - frames, -1, -1, -1)], 1)
    assert torch.equal(codec.encode(whole), latents)
    assert codec.decode(latents).shape == whole.shape
    assert torch.equal(codec.decode(latents, frames), codec.decode(latents)[:, :frames])
    mean, log_variance = codec.posterior(video)
    assert mean.shape == log_variance.shape and torch.equal(codec.scale(mean), latents)


@CONFIGS
@pytest.mark.parametrize(("frames", "positions"), [(1, 1), (2, 1), (9, 1), (9, 2**16)])
def test_pieces_equal_the_whole(
    config: CausalVAEConfig, frames: int, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are wanted of the whole; without, it is coded in pieces. What is coded is not changed."""
    monkeypatch.setattr("dreamwalk.codecs.causal_layers.POSITIONS", positions)
    codec, video = build(config).double(), film(frames, b=2).double()
    kept = video.clone()
    moments = torch.stack(codec.posterior(video))
    latents = torch.randn_like(moments[0])
    decoded = codec.decode(latents)
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(codec.posterior(video)), moments, atol=1e-12, rtol=1e-9)
        torch.testing.assert_close(codec.decode(latents), decoded, atol=1e-12, rtol=1e-9)
        assert (codec.float().decode(latents.float()) - decoded).abs().max() < 2e-4
    assert torch.equal(video, kept)


def test_small_frames_are_coded_many_at_a_time() -> None:
    for height, width, frames in ((720, 1280, 2), (64, 128, 8)):
        assert frames_of_a_piece(torch.empty(1, 1, 1, height, width), (1, 1, 1)) == frames


@pytest.mark.parametrize("size", [1, 3])
@torch.no_grad()
def test_a_convolution_is_that_of_torch(size: int) -> None:
    """Of few positions and of many, on whose number it depends which of torch's loops runs."""
    for side in (4, 40):
        conv, x = torch.nn.Conv3d(64, 16, size, stride=(1, 2, 2)), torch.randn(1, 64, 4, side, side)
        torch.testing.assert_close(convolve(conv, x), conv(x), atol=1e-4, rtol=1e-4)


@CONFIGS
def test_all_parameters_learn(config: CausalVAEConfig) -> None:
    """But for the bias of keys, which moves all scores of a query alike."""
    codec = build(config)
    mean, log_variance = codec.posterior(film(5))
    (codec.decode(mean).square().mean() + log_variance.square().mean()).backward()
    still = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in still if not name.endswith("k.bias")]


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_statistics_of_pieces_are_those_of_the_whole(dtype: torch.dtype, most: float) -> None:
    """Also where the mean is much larger than what varies."""
    x = torch.randn(2, 8, 7, 5, 5) + torch.arange(7).view(7, 1, 1) + 300
    expected = torch.nn.functional.group_norm(x.double(), 2, eps=1e-6)
    norm = GroupNorm(8, groups=2).to(dtype)
    for sizes in ([7], [1, 4, 2]):
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            pieces = list(x.to(dtype).contiguous(memory_format=layout).split(sizes, dim=2))
            y = torch.cat(list(norm(pieces)), 2)
            assert y.dtype == dtype and (y - expected).abs().max() < most


@torch.no_grad()
def test_half_precision_stays_near() -> None:
    for config in (STRICT, PUBLISHED):
        codec, video = build(config), film(5)
        latents = codec.encode(video)
        half = codec.bfloat16().encode(video.bfloat16())
        assert half.dtype == torch.bfloat16
        assert (half - latents).abs().mean() < 0.05 * latents.abs().mean()


@GRAD
@pytest.mark.parametrize("config", [STRICT, replace(STRICT, attention="causal"), FOLDED])
def test_the_future_does_not_matter(config: CausalVAEConfig, grad: bool) -> None:
    """To the last bit, in both ways; and the present does."""
    codec, video = build(config), film(9)
    later = video.clone()
    t = codec.stride[0]
    later[:, 1 + t :] += 0.5
    with torch.set_grad_enabled(grad):
        a, b = codec.encode(video), codec.encode(later)
        assert torch.equal(a[:, :2], b[:, :2]) and not torch.equal(a[:, 2], b[:, 2])
        c, d = codec.decode(a), codec.decode(torch.cat([a[:, :2], a[:, 2:] + 0.5], 1))
        assert torch.equal(c[:, : 1 + t], d[:, : 1 + t]) and not torch.equal(c[:, 1 + t], d[:, 1 + t])


@torch.no_grad()
def test_the_published_one_sees_the_future() -> None:
    """Through its group norms: the last frame changes the first latent, and that the first frame."""
    codec, video = build(PUBLISHED), film(9)
    later = video.clone()
    later[:, 8] = 1
    a, b = codec.encode(video), codec.encode(later)
    assert (a[:, 0] - b[:, 0]).abs().max() > 1e-4
    c, d = codec.decode(a), codec.decode(torch.cat([a[:, :2], a[:, 2:] + 1], 1))
    assert (c[:, 0] - d[:, 0]).abs().max() > 1e-4


@pytest.mark.parametrize("config", [STRICT, FOLDED])
@pytest.mark.parametrize("frames", [1, 7])
def test_streamed_equals_whole(config: CausalVAEConfig, frames: int) -> None:
    codec, video = build(config).double(), film(frames, b=2).double()
    whole = codec.encode(video).detach()
    decoded = codec.decode(whole)
    for size in (1, 2, 3, 5, frames):
        latents = list(codec.stream_encode(video.split(size, dim=1)))
        assert [x.shape[1] for x in latents] == [1] * codec.latent_frames(frames)
        close(torch.cat(latents, 1), whole)
        pieces = list(codec.stream_decode(whole.split(size, dim=1)))
        assert [x.shape[1] for x in pieces] == [1] + [codec.stride[0]] * (whole.shape[1] - 1)
        close(torch.cat(pieces, 1), decoded)


def test_latents_come_as_soon_as_they_are_known() -> None:
    codec, asked = build(STRICT), 0

    def camera() -> Iterator[Tensor]:
        nonlocal asked
        for frame in film(20).split(1, dim=1):
            asked += 1
            yield frame

    stream = codec.stream_encode(camera())
    assert [(next(stream).shape[1], asked) for _ in range(3)] == [(1, 1), (1, 5), (1, 9)]
    assert not list(codec.stream_encode([])) and not list(codec.stream_decode([]))


@torch.no_grad()
def test_a_stream_needs_constant_space() -> None:
    """What is carried is as large after twenty frames as after nine, and two frames a convolution at most."""
    codec, past, sizes = build(STRICT), StreamState(), []
    for frame in film(21).split(1, dim=1):
        codec.encoder([codec._folded(frame)], past)
        sizes.append(sum(x.untyped_storage().nbytes() for x in past.values()))
    assert sizes[8::4] == [sizes[8]] * len(sizes[8::4]) and max(sizes) == max(sizes[:9])
    assert all(isinstance(conv, CausalConv) and kept.shape[2] <= 2 for conv, kept in past.items())


def test_what_cannot_be_streamed_says_what_can() -> None:
    for config in (PUBLISHED, replace(STRICT, attention="causal"), replace(STRICT, norm="group")):
        codec = build(config)
        with pytest.raises(ValueError, match="one with norm='position' and attention='frame' can"):
            codec.stream_encode([film(1)])
        with pytest.raises(ValueError, match="one with norm='position' and attention='frame' can"):
            codec.stream_decode([])


def test_what_does_not_fit_is_refused() -> None:
    codec = build(STRICT)
    with pytest.raises(ValueError, match="30x45 do not divide by 8x8: the nearest size is 32x48"):
        codec.encode(film(1, h=30, w=45))
    with pytest.raises(ValueError, match="30x45 do not divide by 8x8"):
        next(codec.stream_encode([film(1, h=30, w=45)]))
    with pytest.raises(ValueError, match="2 latents are 1 to 5 frames, not 6"):
        codec.decode(torch.zeros(1, 2, 4, 2, 2), frames=6)
    with pytest.raises(ValueError, match="3 levels need 2 strides between them, not 3"):
        replace(STRICT, widths=(8, 8, 8))
    with pytest.raises(ValueError, match="width 8 does not divide into 3 groups"):
        replace(PUBLISHED, groups=3)
