"""An upsampler begins as the system that it starts from, and learns to heed the small clip."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learning import fallen, learn
from torch import Tensor
from toy import Toy

from dreamwalk.backbones import crossdit
from dreamwalk.clip import Clip, batch
from dreamwalk.codecs.tae import TAECodec, tae_tiny
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems import moviegen
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.conditionings import FirstFrame, Upscale
from dreamwalk.systems.moviegen import Moviegen, MoviegenConfig
from dreamwalk.systems.open import init_from
from dreamwalk.systems.upscaling import degraded, resized
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

ORDER = ClipRequest(("walk ahead", "turn left"), steps=2)


def crossed() -> MoviegenConfig:
    return replace(moviegen.tiny(), backbone=replace(crossdit.tiny(), text_dim=16))


def small(frames: int, *, h: int = 16, w: int = 32) -> Tensor:
    return torch.randint(0, 256, (1, frames, 3, h, w), dtype=torch.uint8)


def enlarging(video: Tensor) -> ClipRequest:
    return replace(ORDER, conditioning=Upscale(video))


def built(config: MoviegenConfig) -> Moviegen:
    """With no layer at zero, so that all that is shown matters."""
    torch.manual_seed(0)
    system = Moviegen(config).eval()
    for parameter in system.backbone.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return system


def started(base: Moviegen, config: MoviegenConfig, folder: Path) -> Moviegen:
    metadata = {"system": "moviegen", "config": to_json(base.config)}
    files.save(folder / "base.safetensors", base.state_dict(), metadata=metadata)
    torch.manual_seed(1)
    system = Moviegen(config)
    init_from(system, folder / "base.safetensors")
    return system.eval()


@pytest.mark.parametrize("config", [moviegen.tiny(), crossed()], ids=["mmdit", "crossdit"])
def test_at_first_it_answers_as_its_base_bit_for_bit(config: MoviegenConfig, tmp_path: Path) -> None:
    base, larger = built(config), moviegen.upsampler(config)
    backbone = replace(
        config.backbone, cond_channels=config.backbone.channels
    )  # positions as the base has them
    system = started(base, replace(larger, backbone=backbone), tmp_path)
    x, cond, sigma = torch.randn(2, 2, 4, 4, 4), torch.randn(2, 2, 4, 4, 4), torch.tensor([0.3, 0.9])
    with torch.inference_mode():
        expected = base.velocity(x, sigma, base.text_encoder(ORDER.prompts), guidance=None, cond=None)
        found = system.velocity(x, sigma, system.text_encoder(ORDER.prompts), guidance=None, cond=cond)
        assert expected.std() > 0.01 and torch.equal(found, expected)
        columns = system.backbone.embed.project.weight
        columns.data[:, columns.shape[1] // 2 :] += 0.1
        assert not torch.equal(
            system.velocity(x, sigma, system.text_encoder(ORDER.prompts), guidance=None, cond=cond), expected
        )


def test_positions_grow_with_the_clip(tmp_path: Path) -> None:
    system = started(built(crossed()), moviegen.upsampler(crossed(), factor=3), tmp_path)
    assert system.config.backbone.extent == (4, 12, 12)  # type: ignore[union-attr]
    assert system.sample_video(enlarging(small(5, h=16, w=16))).shape == (2, 5, 3, 48, 48)


def test_weights_of_other_channels_are_still_refused(tmp_path: Path) -> None:
    config = moviegen.upsampler(moviegen.tiny())
    other = replace(config, backbone=replace(config.backbone, channels=8, cond_channels=8))
    with pytest.raises(ValueError, match=r"'backbone\.embed\.project\.weight' of shape"):
        started(built(moviegen.tiny()), other, tmp_path)


def test_it_learns_to_heed_the_small_clip(tmp_path: Path) -> None:
    clip = replace(batch(list(Toy(clip_frames=5).clips(range(2)))), caption=["", ""])
    config = moviegen.tiny()
    system = started(built(config), moviegen.upsampler(config), tmp_path).train()
    assert fallen(learn(system, clip, steps=12, same_chance=True)) < 0.8
    assert system.backbone.embed.project.weight[:, 16:].abs().sum() > 0
    made = system.preview(Clip(clip.video[:1], clip.actions, caption=clip.caption[:1]))
    other = system.preview(Clip(clip.video[1:], clip.actions, caption=clip.caption[1:]))
    assert made.shape == other.shape == (1, 5, 3, 32, 32) and not torch.equal(made, other)


def test_what_it_is_shown_is_the_latent_of_the_same_frames() -> None:
    system = built(moviegen.upsampler(moviegen.tiny()))
    shown: list[Tensor] = []
    system.backbone.register_forward_pre_hook(
        lambda _, inputs, named: shown.append(named["cond"]), with_kwargs=True
    )
    given = small(9)
    with torch.inference_mode():
        *_, last = system.generate(replace(enlarging(given), guidance=1.0))
        expected = system.encode(resized(given, (32, 64)))
    assert last.latents.shape == (2, 3, 4, 4, 8)
    assert len(shown) == 2
    torch.testing.assert_close(shown[1], expected.expand(2, -1, -1, -1, -1))


@pytest.mark.parametrize("change", [{}, {"window": 2}, {"area": (16, 32)}, {"window": 2, "area": (16, 16)}])
def test_a_clip_comes_out_twice_as_large(change: dict[str, Any]) -> None:
    system = built(moviegen.upsampler(moviegen.tiny()))
    made = system.sample(ORDER.prompts, request=replace(enlarging(small(13)), **change))
    assert made.shape == (2, 13, 32, 64, 3)
    picture = system.sample("a wall", request=replace(enlarging(small(1)), **change))
    assert picture.shape == (1, 1, 32, 64, 3)


def test_frame_by_frame_as_in_the_paper() -> None:
    """An inflated TAE of one frame a latent codes every frame as an image."""
    codec = replace(tae_tiny(), temporal=1)
    base = replace(moviegen.tiny(), codec=codec)
    base = replace(base, backbone=replace(base.backbone, channels=codec.image.channels))
    system = built(moviegen.upsampler(base))
    assert isinstance(system.codec, TAECodec)
    video = small(3, h=32)
    alone = torch.cat([system.encode(frame) for frame in video.split(1, dim=1)], dim=1)
    torch.testing.assert_close(system.encode(video), alone)
    assert system.sample_video(replace(enlarging(small(3)), window=2)).shape == (2, 3, 3, 32, 64)


def test_small_clips_to_learn_from() -> None:
    plain = torch.full((2, 3, 3, 16, 24), 100, dtype=torch.uint8)
    made = degraded(plain, KeyedGenerator([(0,), (1,)]), factor=2)
    assert made.shape == (2, 3, 3, 8, 12) and made.dtype == torch.uint8
    noise = (made.float() - 100).flatten(1).std(dim=1)
    assert noise[0] != noise[1] and noise.max() < 4.5
    assert torch.equal(made[1:], degraded(plain[1:], KeyedGenerator([(1,)]), factor=2))
    ramp = torch.arange(16).mul(10).to(torch.uint8).expand(1, 1, 3, 16, 16)
    inner = resized(ramp, (32, 32))[0, 0, 0, 4, 1:-1]
    torch.testing.assert_close(inner, torch.arange(30) * 5 + 2.5)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (ORDER, "only makes clips larger"),
        (replace(ORDER, conditioning=FirstFrame(small(1))), "only makes clips larger"),
        (enlarging(small(5, h=20, w=16)), "clips of 40x32 .* nearest size is 32x32"),
        (replace(enlarging(small(5)), size=(32, 32)), "16x32 and the clip of 32x32 needs 16x16"),
        (replace(enlarging(small(5)), frames=9), "make them equal"),
        (replace(enlarging(small(5)), area=(20, 20)), "tiles of 20x20 .* nearest size is 16x16"),
    ],
)
def test_impossible_requests_are_refused(request_: ClipRequest, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        built(moviegen.upsampler(moviegen.tiny())).sample_video(request_)


def test_systems_that_cannot_make_clips_larger() -> None:
    with pytest.raises(ValueError, match="this system enlarges no clips: train one"):
        built(moviegen.tiny()).sample_video(enlarging(small(5, h=32)))
    with pytest.raises(ValueError, match=r"`moviegen\.upsampler` gives"):
        replace(moviegen.tiny(), upscale=2)
    with pytest.raises(ValueError, match="2 or more times as large"):
        moviegen.upsampler(moviegen.upsampler(moviegen.tiny()))
