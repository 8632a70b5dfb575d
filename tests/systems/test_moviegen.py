"""Moviegen learns which clip belongs to which words, and opens what it wrote."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learning import learn
from toy import Toy

import dreamwalk
from dreamwalk.clip import Clip, batch
from dreamwalk.codecs.block import BlockCodecConfig
from dreamwalk.evaluation.fidelity import psnr, to_bytes
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems import moviegen
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.conditionings import FirstFrame
from dreamwalk.systems.moviegen import Moviegen, MoviegenConfig
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

PROMPTS = ("turn left to a red door", "walk into a blue hall")


def config() -> MoviegenConfig:
    codec = BlockCodecConfig((4, 8, 8), 24, width=8, depth=1)
    tiny = moviegen.tiny()
    backbone = replace(tiny.backbone, channels=24, pooled_dim=16, patch=(1, 1, 1))
    text_encoder = replace(tiny.text_encoder, pooled_dim=16)
    return replace(
        tiny,
        codec=codec,
        backbone=backbone,
        text_encoder=text_encoder,
        predicts="clean",
        cond_dropout=0.0,
        image_prob=0.3,
        steps=8,
    )


@pytest.fixture(scope="module")
def clip() -> Clip:
    return replace(batch(list(Toy(clip_frames=5).clips(range(2)))), caption=list(PROMPTS))


@pytest.fixture(scope="module")
def learnt(clip: Clip) -> Moviegen:
    torch.manual_seed(0)
    system = Moviegen(config())
    system.codec.fit(clip.video.float() / 127.5 - 1)  # type: ignore[union-attr, operator]
    learn(system, clip, steps=200, lr=2e-3)
    return system.eval()


def test_words_bring_back_their_clip(learnt: Moviegen, clip: Clip) -> None:
    size = (clip.video.shape[-2], clip.video.shape[-1])
    made = to_bytes(learnt.sample_video(ClipRequest(PROMPTS, frames=5, size=size, guidance=1.0)))
    crossed = psnr(made, clip.video.flip(0)).mean()
    assert psnr(made, clip.video).mean() > max(crossed + 4, 18)
    first = FirstFrame(clip.video[:, :1])
    going_on = to_bytes(learnt.sample_video(ClipRequest(PROMPTS, first, frames=5, size=size, guidance=1.0)))
    assert psnr(going_on, clip.video)[:, 1:].mean() > psnr(going_on, clip.video.flip(0))[:, 1:].mean() + 4


def test_a_weight_file_opens_itself(learnt: Moviegen, tmp_path: Path) -> None:
    metadata = {"system": "moviegen", "config": to_json(learnt.config)}
    files.save(tmp_path / "m.safetensors", learnt.state_dict(), metadata=metadata)
    opened = dreamwalk.load(tmp_path / "m.safetensors")
    request = ClipRequest(frames=5, steps=2)
    assert torch.equal(opened.sample("walk", request=request), learnt.sample("walk", request=request))
    assert opened.sample("walk", frames=1).shape == (1, 1, 32, 32, 3)
    assert torch.equal(opened.sample("walk", frames=1, seed=5), opened.sample("walk", frames=1, seed=5))
    assert not torch.equal(opened.sample("walk", frames=1, seed=5), opened.sample("walk", frames=1, seed=6))


def test_a_first_latent_that_is_shown_has_no_loss(clip: Clip) -> None:
    torch.manual_seed(0)
    system = Moviegen(replace(config(), image_prob=1.0))
    keys, latents = [(0, 0, row) for row in range(2)], torch.randn(2, 2, 24, 4, 4)
    losses = []
    for changed in (None, 0, 1):
        if changed is not None:
            latents[:, changed] += 0.5
        losses.append(system.loss(replace(clip, latents=latents), KeyedGenerator(keys))["loss"])
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[1], losses[2])


def test_a_clip_goes_on_from_one_latent_or_from_several(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    system = Moviegen(replace(config(), image_prob=1.0))
    told = replace(clip, latents=torch.randn(64, 6, 24, 8, 8), caption=list(PROMPTS) * 32)
    seen: list[torch.Tensor] = []

    def velocity(x: torch.Tensor, sigma: torch.Tensor, words: object, **_: object) -> torch.Tensor:
        seen.append(sigma)
        return x

    monkeypatch.setattr(system, "velocity", velocity)
    system.loss(told, KeyedGenerator([(0, 0, row) for row in range(64)]))
    given = seen[0] == 0
    assert set(given.sum(1).tolist()) == {1, 2, 3, 4, 5}
    assert torch.equal(given, given.sort(dim=1, descending=True).values)
