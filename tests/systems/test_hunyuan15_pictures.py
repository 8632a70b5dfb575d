"""HunyuanVideo-1.5 for pictures as a whole folder: the clip that comes of a prompt and a picture."""

import warnings
from pathlib import Path
from typing import Any

import drawn
import pytest
import torch
from tiny_hunyuan15 import autoencoder, published
from tiny_kinds import opened, write_kinds
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    import diffusers

import dreamwalk
from dreamwalk.cli import main
from dreamwalk.clip import Clip
from dreamwalk.commands.clip_memory import placed, whole_plan
from dreamwalk.commands.sample import SampleClip, write_clip
from dreamwalk.conditions.hunyuan15 import Hunyuan15TextConfig
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.conditionings import FirstFrame
from dreamwalk.systems.moviegen import Moviegen

SIZE, PROMPT, NEGATIVE = (32, 48), 'light and "space" in the video', "texture"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it is downloaded, with one weight file of ours beside it."""
    folder = write_kinds(tmp_path_factory.mktemp("pictures"))
    transformer = published("i2v")
    for name, parameter in transformer.named_parameters():
        if name.startswith("proj_out"):  # velocities of the size of noise
            parameter.data *= 0.2
    transformer.save_pretrained(folder / "transformer")
    autoencoder((16,) * 5).save_pretrained(folder / "vae")
    diffusers.FlowMatchEulerDiscreteScheduler(shift=9.0).save_pretrained(folder / "scheduler")
    diffusers.ClassifierFreeGuidance(guidance_scale=4.0).save_pretrained(folder / "guider")
    main(["import", "hunyuanvideo", str(folder), "--out", str(folder / "h.safetensors")])
    return folder


@pytest.fixture(scope="module")
def system(folder: Path) -> Moviegen:
    system = dreamwalk.load(folder / "h.safetensors")
    encoder = system.text_encoder
    encoder.model = encoder.config.open(torch.device("cpu"), torch.float32)
    return system


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return drawn.picture(SIZE)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    made = diffusers.HunyuanVideo15ImageToVideoPipeline(
        transformer=diffusers.HunyuanVideo15Transformer3DModel.from_pretrained(folder / "transformer"),
        vae=diffusers.AutoencoderKLHunyuanVideo15.from_pretrained(folder / "vae"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        guider=diffusers.ClassifierFreeGuidance(),
        **opened(folder),
    )
    made.target_size = 48  # whose sizes are 32x48 and some others
    made.tokenizer_max_length = made.tokenizer_2_max_length = 40  # less padding, which nobody sees
    made.set_progress_bar_config(disable=True)
    return made


def test_an_import_knows_what_looks(folder: Path, system: Moviegen) -> None:
    config = system.config
    assert (
        config.text_encoder == Hunyuan15TextConfig(str(folder.resolve()), 1)
        and config.text_encoder.max_length == 1985
    )
    assert (config.image_prob, config.image_mix, config.discard_frames) == (1.0, 0.0, 0)
    assert (config.shift, config.guidance, config.frames) == (9.0, 4.0, 121)
    names = "text_encoder", "text_encoder_2", "image_encoder"
    files = [folder / name / "model.safetensors" for name in names]
    assert system.text_encoder.nbytes == sum(file.stat().st_size for file in files)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_prompt_and_a_picture_lead_to_the_clip_of_the_pipeline(
    pipeline: Any, system: Moviegen, picture: Tensor, guidance: float
) -> None:
    noise = torch.randn(1, 3, 4, 2, 3, generator=torch.Generator().manual_seed(2))
    pipeline.guider = diffusers.ClassifierFreeGuidance(guidance_scale=guidance)
    theirs = pipeline(
        drawn.image(picture),
        PROMPT,
        NEGATIVE,
        latents=noise.transpose(1, 2),
        num_frames=9,
        num_inference_steps=2,
        output_type="pt",
    ).frames
    shape = {"frames": 9, "size": SIZE, "steps": 2, "guidance": guidance}
    order = ClipRequest((PROMPT,), FirstFrame(picture), negative=NEGATIVE, **shape)  # type: ignore[arg-type]
    with torch.inference_mode():
        *_, last = system.generate(order, noise=lambda frame, use: noise[:, frame])
        (ours,) = system.decode(order, last.latents)
    assert ours.shape == (1, 9, 3, *SIZE) and 0.3 < ours.std() < 0.8
    assert (ours - (2 * theirs - 1)).abs().max() <= 2e-3


def test_another_picture_leads_to_another_clip(system: Moviegen, picture: Tensor) -> None:
    """By its latents, and by what SigLIP tells of it alone; the words stay the same."""
    other = picture // 8
    orders = [
        ClipRequest((PROMPT,), FirstFrame(given), frames=5, size=SIZE, steps=1, guidance=1.0)
        for given in (picture, other)
    ]
    first, second = map(system.sample_video, orders)
    assert (first - second).abs().max() > 1e-2
    one, two = (system.text_encoder([PROMPT], given[:, 0]) for given in (picture, other))
    assert torch.equal(one.tokens, two.tokens)
    x, cond = torch.randn(1, 2, 4, 2, 3), torch.zeros(1, 2, 5, 2, 3)
    v, w = (system.velocity(x, torch.ones(1, 2), text, guidance=None, cond=cond) for text in (one, two))
    assert (v - w).abs().max() > 1e-4


def test_an_order_of_the_command_line(folder: Path, picture: Tensor, tmp_path: Path) -> None:
    """Prompt and picture are read once and the encoders closed; in bfloat16, as they are by default."""
    drawn.image(picture).save(tmp_path / "first.png")
    asked = SampleClip(
        tmp_path / "o.mp4",
        ClipRequest(negative=NEGATIVE, frames=5, size=SIZE, steps=1),
        prompt=PROMPT,
        image=(tmp_path / "first.png",),
    )
    asked = asked.opened(dreamwalk.load(folder / "h.safetensors"))
    system = placed(asked, dreamwalk.load(folder / "h.safetensors"), torch.device("cpu"))
    assert "model" not in vars(system.text_encoder) and whole_plan(asked, system).step > 0
    assert write_clip(asked, system) == 5
    system.text_encoder.config = Hunyuan15TextConfig("nowhere", 1)
    told, against = (system.text_encoder([text], picture[:, 0]) for text in (PROMPT, NEGATIVE))
    assert torch.equal(told.others[1].tokens, against.others[1].tokens)
    with pytest.raises(ValueError, match="nowhere"):
        system.text_encoder([PROMPT], 255 - picture[:, 0])


def test_without_a_picture_it_is_said(system: Moviegen) -> None:
    with pytest.raises(ValueError, match="goes on from a picture: give it one"):
        system.sample_video(ClipRequest((PROMPT,), frames=9, size=SIZE, steps=1))


def test_training_shows_it_too(system: Moviegen) -> None:
    video = torch.randint(0, 256, (2, 5, 3, *SIZE), dtype=torch.uint8)
    loss = system.loss(Clip(video=video, caption=[PROMPT, ""]), KeyedGenerator([(0,), (1,)]))["loss"]
    assert loss.isfinite()
