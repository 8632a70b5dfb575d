"""Codecs of tokens learn a clip by heart, and tell how their vocabulary is used."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learning import learn

from dreamwalk.clip import Clip
from dreamwalk.codecs import CodecConfig
from dreamwalk.codecs.delta import DeltaCodecConfig, delta_tiny
from dreamwalk.codecs.quantizers import BSQConfig, FSQConfig, LFQConfig, UnquantizedConfig
from dreamwalk.codecs.residual_quantizers import MultiScaleConfig, ResidualConfig
from dreamwalk.codecs.rgbd import codec_input
from dreamwalk.codecs.tokens import TokenCodec, tokenized, tokens_tiny
from dreamwalk.codecs.vector_quantizer import VQConfig
from dreamwalk.systems.autoencode import Autoencode, AutoencodeConfig, tiny
from dreamwalk.systems.open import init_from, load
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

INNER = replace(tokens_tiny().codec, channels=8)
FAMILY: dict[str, CodecConfig] = {
    "none": tokenized(INNER, UnquantizedConfig(8)),
    "kl": INNER,
    "fsq": tokenized(INNER, FSQConfig((8, 8, 8, 8))),
    "bsq": tokenized(INNER, BSQConfig(8)),
    "vq": tokenized(INNER, VQConfig(4, 64)),
    "lfq": tokenized(INNER, LFQConfig(8)),
    "residual": tokenized(INNER, ResidualConfig(VQConfig(4, 32), 3)),
    "scales": tokenized(INNER, MultiScaleConfig(VQConfig(4, 64), ((1, 1), (2, 2), (4, 4)), 3)),
}


@pytest.fixture
def clip() -> Clip:
    """A square that moves over a slope."""
    video = torch.linspace(0, 160, 16).expand(2, 5, 3, 16, 16).clone()
    for frame in range(5):
        video[0, frame, :, 4:10, 2 * frame : 2 * frame + 5] = 230
        video[1, frame, 1, frame : frame + 6, 6:12] = 20
    return Clip(video=video.byte(), actions=torch.zeros(2, 5, 1))


def learnt(config: AutoencodeConfig, clip: Clip, *, steps: int) -> tuple[Autoencode, list[dict[str, float]]]:
    torch.manual_seed(0)
    system = Autoencode(config)
    return system, learn(system, clip, steps=steps)


def test_the_tiny_one_learns_a_clip_by_heart(clip: Clip) -> None:
    clip = Clip(video=clip.video[:1], actions=clip.actions[:1])
    system, told = learnt(tiny(), clip, steps=120)
    assert isinstance(system.codec, TokenCodec)
    share = system.codec.agreement(codec_input(clip, 3))
    print({name: round(value, 3) for name, value in told[-1].items()}, f"agreement {share:.2f}")
    assert told[-1]["psnr"] > told[0]["psnr"] + 10 and share > 0.5


@pytest.mark.parametrize("kind", FAMILY)
def test_the_family_learns(kind: str, clip: Clip) -> None:
    system, told = learnt(AutoencodeConfig(FAMILY[kind]), clip, steps=30)
    assert told[-1]["psnr"] > told[0]["psnr"] + 3
    counted = {"usage", "perplexity", "dead"} & set(told[-1])
    assert len(counted) == (0 if kind in ("none", "kl") else 3)
    assert system.preview(clip).shape == clip.video.shape


def test_weights_bring_their_codebook(tmp_path: Path, clip: Clip) -> None:
    """And what was measured of every stage: the tokens are those of the codec that was trained."""
    system, _ = learnt(AutoencodeConfig(FAMILY["residual"]), clip, steps=2)
    path = tmp_path / "tokens.safetensors"
    files.save(path, system.state_dict(), metadata={"system": "autoencode", "config": to_json(system.config)})
    again, video = load(path), codec_input(clip, 3)
    assert isinstance(again, Autoencode) and isinstance(again.codec, TokenCodec)
    assert isinstance(system.codec, TokenCodec)
    assert torch.equal(again.codec.tokens(video), system.codec.tokens(video))


@pytest.mark.parametrize(
    "changed",
    [
        replace(delta_tiny(), quantizer=UnquantizedConfig(4)),
        replace(delta_tiny(), quantizer=FSQConfig((3, 3, 3, 3))),
        replace(delta_tiny(), quantizer=BSQConfig(6)),
        replace(delta_tiny(), tells="frame"),
    ],
)
def test_another_quantizer_begins_anew_beside_layers_that_go_on(
    changed: DeltaCodecConfig, tmp_path: Path
) -> None:
    """Also where the layers next to it have the same shapes, and where tokens tell another thing; with the
    same ones all goes on."""
    torch.manual_seed(0)
    given, path = AutoencodeConfig(delta_tiny()), tmp_path / "delta.safetensors"
    first = Autoencode(given)
    for p in first.parameters():
        torch.nn.init.normal_(p)
    files.save(path, first.state_dict(), metadata={"system": "autoencode", "config": to_json(given)})
    again = Autoencode(given)
    init_from(again, path)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in first.state_dict().items())
    other = Autoencode(AutoencodeConfig(changed))
    fresh = {name: x.clone() for name, x in other.state_dict().items()}
    init_from(other, path)
    parts = ["from_code", "spread", "change", "paint", *(["own", "add"] if changed.tells == "frame" else [])]
    middle = tuple(f"codec.{part}." for part in parts)
    for name, x in other.state_dict().items():
        assert torch.equal(x, fresh[name] if name.startswith(middle) else first.state_dict()[name]), name
