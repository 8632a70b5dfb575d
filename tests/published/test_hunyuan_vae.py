"""Against diffusers, at a tiny size and at the published one."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamwalk.codecs.causal import CausalVAE, hunyuan_vae
from dreamwalk.published.names import renamed
from dreamwalk.published.vae import FILE, VAE_NAMES, read_vae
from dreamwalk.weights import files


@pytest.fixture(scope="module")
def theirs() -> AutoencoderKLHunyuanVideo:
    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4
    )
    for name, parameter in vae.named_parameters():
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        torch.nn.init.normal_(parameter, mean, parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3)
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    return vae.eval()


@pytest.fixture
def folder(theirs: AutoencoderKLHunyuanVideo, tmp_path: Path) -> Path:
    theirs.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def ours(folder: Path) -> CausalVAE:
    tensors, config = read_vae(folder)
    codec = CausalVAE(config).eval()
    files.fill(codec, tensors, source="the VAE")
    return codec


@pytest.mark.parametrize("frames", [1, 5, 9, 13, 17])
@pytest.mark.parametrize("grad", [True, False])
def test_both_ways(ours: CausalVAE, theirs: AutoencoderKLHunyuanVideo, frames: int, grad: bool) -> None:
    video = torch.rand(2, frames, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        posterior = theirs.encode(video.transpose(1, 2)).latent_dist
        expected = theirs.decode(posterior.mean).sample.transpose(1, 2)
    with torch.set_grad_enabled(grad):
        mean, log_variance = (x.transpose(1, 2) for x in ours.posterior(video))
        decoded = ours.decode(ours.scale(posterior.mean.transpose(1, 2)))
    for a, b in ((mean, posterior.mean), (log_variance, posterior.logvar), (decoded, expected)):
        assert b.std() > 0.05
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


def test_names_and_shapes_of_the_published_size() -> None:
    with torch.device("meta"):
        ours, theirs = CausalVAE(hunyuan_vae()).state_dict(), AutoencoderKLHunyuanVideo().state_dict()
    translated = {renamed(name, VAE_NAMES): tensor.shape for name, tensor in ours.items()}
    assert len(translated) == len(ours)
    assert translated == {name: tensor.shape for name, tensor in theirs.items()}


def test_the_config_is_read(folder: Path) -> None:
    config = read_vae(folder)[1]
    assert (config.channels, config.widths, config.blocks, config.groups) == (4, (8, 16, 16, 16), 1, 4)
    assert config.scale == hunyuan_vae().scale and not config.strict
    assert read_vae(folder / FILE)[1] == config


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("decoder.conv_out.conv.bias"), "lacks 'decoder.conv_out.conv.bias'"),
        (lambda t: t.update({"x.y": torch.zeros(1)}), "also has 'x.y'"),
        (lambda t: t.update({"quant_conv.bias": torch.zeros(3)}), r"of shape \(3,\), .* of \(8,\)"),
    ],
)
def test_what_does_not_fit_is_named(
    folder: Path, change: Callable[[dict[str, Tensor]], object], sentence: str
) -> None:
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file(tensors, folder / FILE)
    with pytest.raises(ValueError, match=sentence):
        read_vae(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"_class_name": "AutoencoderKL"}, "_class_name 'AutoencoderKL'; only 'AutoencoderKLHunyuanVideo'"),
        ({"temporal_compression_ratio": 8}, "temporal_compression_ratio 8; only 4"),
        ({"block_out_channels": [8, 8]}, "2 levels; only 4"),
    ],
)
def test_another_config_is_refused(folder: Path, change: dict[str, object], sentence: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=sentence):
        read_vae(folder)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"is not valid JSON: .*: download it again"):
        read_vae(folder)


def test_a_missing_file_says_where_it_is(tmp_path: Path) -> None:
    sentence = f"there is no '{tmp_path / FILE}': download it from the folder vae of huggingface.co/"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_vae(tmp_path)
