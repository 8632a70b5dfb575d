"""The VAE of HunyuanVideo-1.5 against diffusers, at a tiny size and at the published one."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_hunyuan15 import autoencoder
from torch import Tensor

from dreamwalk.codecs.shuffle import ShuffleVAE, hunyuan15_vae
from dreamwalk.published.names import renamed
from dreamwalk.published.vae import FILE, VAE15_NAMES, read_vae15
from dreamwalk.weights import files

WIDTHS = [(16, 16, 16, 16, 16), (8, 16, 32, 64, 64)]


@pytest.fixture(params=WIDTHS[:1], ids=str)
def theirs(request: pytest.FixtureRequest) -> torch.nn.Module:
    return autoencoder(request.param)


@pytest.fixture
def folder(theirs: torch.nn.Module, tmp_path: Path) -> Path:
    theirs.save_pretrained(tmp_path)  # type: ignore[operator]
    return tmp_path


def loaded(folder: Path) -> ShuffleVAE:
    tensors, config = read_vae15(folder)
    codec = ShuffleVAE(config).eval()
    files.fill(codec, tensors, source="the VAE")
    return codec


def film(frames: int, *, b: int = 1) -> Tensor:
    return torch.rand(b, frames, 3, 32, 48, generator=torch.Generator().manual_seed(frames)) * 2 - 1


@pytest.mark.parametrize("theirs", WIDTHS, ids=str, indirect=True)
@pytest.mark.parametrize("frames", [1, 13])
@pytest.mark.parametrize("grad", [True, False])
def test_both_ways(folder: Path, theirs: torch.nn.Module, frames: int, grad: bool) -> None:
    """Two clips at once are as each by itself: theirs takes one at a time."""
    ours, video = loaded(folder), film(frames, b=2)
    with torch.no_grad():
        moments = torch.cat([_moments(theirs, clip) for clip in video.split(1)])
        latents, expected_log = moments.chunk(2, dim=2)
        expected = torch.cat([_decoded(theirs, clip) for clip in latents.split(1)])
    with torch.set_grad_enabled(grad):
        mean, log_variance = ours.posterior(video)
        decoded = ours.decode(ours.scale(latents))
    for a, b in ((mean, latents), (log_variance, expected_log), (decoded, expected)):
        assert b.std() > 0.05
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


def _moments(vae: torch.nn.Module, video: Tensor) -> Tensor:
    posterior = vae.encode(video.transpose(1, 2)).latent_dist  # type: ignore[operator]
    return torch.cat([posterior.mean, posterior.logvar], dim=1).transpose(1, 2)


def _decoded(vae: torch.nn.Module, latents: Tensor) -> Tensor:
    return vae.decode(latents.transpose(1, 2)).sample.transpose(1, 2)  # type: ignore[operator]


def test_faint_activations(folder: Path, theirs: torch.nn.Module) -> None:
    """Nothing is added to what is divided by: a millionth would show."""
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.mul_(1e-4 if "conv_in" in name else 1.0)
        theirs.save_pretrained(folder)  # type: ignore[operator]
        video = film(5)
        expected = _moments(theirs, video)[:, :, :4]
        torch.testing.assert_close(loaded(folder).posterior(video)[0], expected, atol=2e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 7, 13])
def test_streamed_equals_whole(folder: Path, frames: int) -> None:
    """In pieces of any length, with what the attention has seen."""
    codec, video = loaded(folder), film(frames)
    whole = codec.encode(video)
    for size in (1, 3, 4):
        latents = list(codec.stream_encode(video.split(size, dim=1)))
        torch.testing.assert_close(torch.cat(latents, 1), whole, atol=1e-4, rtol=1e-4)
        pieces = list(codec.stream_decode(whole.split(size, dim=1)))
        torch.testing.assert_close(torch.cat(pieces, 1), codec.decode(whole), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_no_frame_sees_a_later_one(folder: Path) -> None:
    """To the last bit."""
    codec, video = loaded(folder), film(13)
    changed = torch.cat([video[:, :5], film(8)], dim=1)
    before, after = codec.encode(video), codec.encode(changed)
    assert torch.equal(before[:, :2], after[:, :2]) and not torch.equal(before[:, 2:], after[:, 2:])
    assert torch.equal(codec.decode(before)[:, :5], codec.decode(after)[:, :5])


def test_names_and_shapes_of_the_published_size() -> None:
    with torch.device("meta"):
        ours, theirs = ShuffleVAE(hunyuan15_vae()), autoencoder(None).state_dict()
    assert (ours.stride, ours.channels, ours.scale.factor) == ((4, 16, 16), 32, 1.03682)
    translated = {renamed(name, VAE15_NAMES): tensor for name, tensor in ours.state_dict().items()}
    assert set(translated) == set(theirs) and len(theirs) == len(ours.state_dict())
    for name, tensor in translated.items():
        found, wanted = tuple(theirs[name].shape), tuple(tensor.shape)
        assert found[: len(wanted)] == wanted and math.prod(found) == math.prod(wanted)
    assert sum(p.numel() for p in ours.parameters()) == 1_260_634_115


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("decoder.conv_out.conv.bias"), "lacks 'decoder.conv_out.conv.bias'"),
        (lambda t: t.update({"x.y": torch.zeros(1)}), "also has 'x.y'"),
        (
            lambda t: t.update({"encoder.norm_out.gamma": torch.zeros(3, 1, 1, 1)}),
            r"\(3, 1, 1, 1\), .* of \(16,\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    folder: Path, change: Callable[[dict[str, Tensor]], object], sentence: str
) -> None:
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file(tensors, folder / FILE)
    with pytest.raises(ValueError, match=sentence):
        read_vae15(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"_class_name": "AutoencoderKLHunyuanVideo"}, "only 'AutoencoderKLHunyuanVideo15' can be read"),
        ({"temporal_compression_ratio": 8}, "temporal_compression_ratio 8; only 4"),
        ({"block_out_channels": [16, 16]}, "2 levels need 1 strides between them, not 4"),
        ({"block_out_channels": [8, 40, 40, 40, 40]}, "40 channels cannot follow 8 .* divides 32"),
        ({"latent_channels": 3}, "the last width, 16, is no multiple of 6"),
    ],
)
def test_another_config_is_refused(folder: Path, change: dict[str, object], sentence: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=sentence):
        read_vae15(folder)
    path.unlink()
    with pytest.raises(ValueError, match=r"there is no .*config.json': download the whole folder vae"):
        read_vae15(folder)
