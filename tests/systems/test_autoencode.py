"""Codecs of every kind learn a clip by heart, and what joins their loss does what it says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learning import learn
from safetensors.torch import save_file
from toy import AsData

from dreamwalk.clip import Clip
from dreamwalk.codecs import CodecConfig
from dreamwalk.codecs.block import BlockCodecConfig
from dreamwalk.codecs.causal import CausalVAE, CausalVAEConfig
from dreamwalk.codecs.critic import CriticConfig
from dreamwalk.codecs.kl_autoencoder import KLCodec, KLCodecConfig
from dreamwalk.codecs.perceptual import Perceptual
from dreamwalk.codecs.rgbd import codec_input
from dreamwalk.codecs.tae import TAECodec, TAEConfig
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.autoencode import Autoencode, AutoencodeConfig
from dreamwalk.systems.open import init_from, load
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

STRICT = CausalVAEConfig(8, (16, 16), 1, ((2, 2, 2),), None, 2, groups=4, norm="position", attention="frame")
IMAGE = KLCodecConfig(channels=8, width=16, multiples=(1, 2), blocks=1, scale=None)
CODECS: dict[str, CodecConfig] = {
    "strict": STRICT,
    "hunyuan": replace(STRICT, norm="group", attention="causal"),
    "image": IMAGE,
    "tae": TAEConfig(IMAGE, temporal=2),
    "blocks": BlockCodecConfig((2, 4, 4), 3, width=8, depth=1),
}


@pytest.fixture
def clip() -> Clip:
    """A square that moves over a slope."""
    video = torch.linspace(0, 160, 16).expand(2, 5, 3, 16, 16).clone()
    for frame in range(5):
        video[0, frame, :, 4:10, 2 * frame : 2 * frame + 5] = 230
        video[1, frame, 1, frame : frame + 6, 6:12] = 20
    return Clip(video=video.byte(), actions=torch.zeros(2, 5, 1))


def built(codec: CodecConfig, **changes: object) -> Autoencode:
    torch.manual_seed(0)
    return Autoencode(replace(AutoencodeConfig(codec), **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", CODECS)
def test_every_codec_learns_a_clip(kind: str, clip: Clip) -> None:
    """And its latents are as loud as noise where their scale is measured."""
    system = built(CODECS[kind], noise=0.0)
    system.fit_from_data(AsData(clip))
    told = learn(system, clip, steps=60)
    assert told[-1]["loss"] < 0.75 * told[0]["loss"]
    assert system.preview(clip).shape == clip.video.shape
    if kind != "blocks":
        latents = system.codec.encode(codec_input(clip, 3))
        assert 0.5 < latents.square().mean() < 2


def test_a_published_scale_stays() -> None:
    codec = CausalVAE(replace(STRICT, scale=0.5))
    codec.scale.measure(torch.full((1, 1, 8, 2, 2), 7.0))
    assert not dict(codec.scale.named_buffers())
    assert torch.equal(codec.scale(torch.ones(3)), torch.full((3,), 0.5))


def test_a_measured_scale_is_kept_with_the_weights(tmp_path: Path) -> None:
    system = built(STRICT)
    assert isinstance(system.codec, CausalVAE)
    for value in (2.0, 2.0, 2.0):
        system.codec.scale.measure(torch.full((1, 1, 8, 2, 2), value))
    path = saved(system, tmp_path / "codec.safetensors")
    codec = load(path).codec  # type: ignore[union-attr]
    torch.testing.assert_close(codec.scale(torch.ones(3)), torch.full((3,), 0.5))
    torch.testing.assert_close(codec.scale.undo(codec.scale(torch.ones(3))), torch.ones(3))


def saved(system: Autoencode, path: Path) -> Path:
    metadata = {"system": "autoencode", "config": to_json(system.config)}
    files.save(path, system.state_dict(), metadata=metadata)
    return path


def test_a_critic_learns_along(clip: Clip) -> None:
    """One loss and one optimizer; the codec is told what the critic says."""
    system = built(STRICT, critic=CriticConfig(width=8, levels=2), adversarial=0.1)
    told = learn(system, clip, steps=12)
    assert min(terms["critic"] for terms in told[1:]) < told[0]["critic"] - 0.02
    terms = system.loss(clip, KeyedGenerator([(0, 0, 0), (0, 0, 1)]))
    plain = built(STRICT)
    plain.load_state_dict({k: v for k, v in system.state_dict().items() if not k.startswith("critic")})
    alone = plain.loss(clip, KeyedGenerator([(0, 0, 0), (0, 0, 1)]))["loss"]
    torch.testing.assert_close(terms["loss"], alone + 0.1 * terms["verdict"] + terms["critic"])


def test_the_perceptual_distance_joins_the_loss_but_not_the_weights(tmp_path: Path, clip: Clip) -> None:
    torch.manual_seed(1)
    path = tmp_path / "vgg.safetensors"
    save_file(Perceptual((4, 4, 4, 4, 4)).state_dict(), path)
    system, plain = built(STRICT, perceptual=str(path), perceptual_weight=2.0), built(STRICT)
    keys = [(0, 0, 0), (0, 0, 1)]
    terms, alone = system.loss(clip, KeyedGenerator(keys)), plain.loss(clip, KeyedGenerator(keys))
    assert terms["perceptual"] != 0
    torch.testing.assert_close(terms["loss"], alone["loss"] + 2 * terms["perceptual"])
    assert system.state_dict().keys() == plain.state_dict().keys()
    assert len(list(system.parameters())) == len(list(plain.parameters()))
    with pytest.raises(ValueError, match="there is no weight file at"):
        built(STRICT, perceptual="nowhere.safetensors").loss(clip, KeyedGenerator(keys))


def test_outliers_join_the_loss() -> None:
    """Noise in enough places has some beyond three stds."""
    noise = torch.randint(0, 256, (2, 1, 3, 64, 64), dtype=torch.uint8)
    clip = Clip(video=noise, actions=torch.zeros(2, 1, 1))
    terms = built(STRICT, outliers=1e5).loss(clip, KeyedGenerator([(0, 0, 0), (0, 0, 1)]))
    alone = built(STRICT).loss(clip, KeyedGenerator([(0, 0, 0), (0, 0, 1)]))
    assert terms["outliers"] > 0
    torch.testing.assert_close(terms["loss"], alone["loss"] + 1e5 * terms["outliers"])


def test_a_tae_starts_from_an_image_codec_and_from_its_like(tmp_path: Path, clip: Clip) -> None:
    image = built(IMAGE)
    learn(image, clip, steps=2)
    tae = built(CODECS["tae"])
    init_from(tae, saved(image, tmp_path / "image.safetensors"))
    assert isinstance(tae.codec, TAECodec) and isinstance(image.codec, KLCodec)
    video = codec_input(clip, 3)
    torch.testing.assert_close(tae.codec.encode(video), image.codec.encode(video[:, ::2]), atol=1e-4, rtol=0)
    learn(tae, clip, steps=1)
    again = built(CODECS["tae"])
    init_from(again, saved(tae, tmp_path / "tae.safetensors"))
    torch.testing.assert_close(again.codec.encode(video), tae.codec.encode(video))
