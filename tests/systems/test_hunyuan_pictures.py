"""HunyuanVideo-I2V as a whole folder: what it reads of prompt and picture, and the clip that comes of it."""

from pathlib import Path
from typing import Any

import diffusers
import drawn
import pytest
import torch
from PIL import Image
from tiny_hunyuan import published
from tiny_llava import opened, write_llava
from torch import Tensor

import dreamwalk
from dreamwalk.cli import main
from dreamwalk.clip import Clip
from dreamwalk.commands.clip_memory import placed
from dreamwalk.commands.sample import SampleClip, write_clip
from dreamwalk.conditions.hunyuan import HunyuanTextConfig
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.conditionings import FirstFrame
from dreamwalk.systems.moviegen import Moviegen

SIZE, PROMPT, NEGATIVE = (16, 32), "light and space in the video", "texture"
EVERY = {"latent_concat": 2, "token_replace": 4}


@pytest.fixture(scope="module", params=EVERY)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it is downloaded, with one weight file of ours beside it."""
    folder = write_llava(tmp_path_factory.mktemp(kind))
    transformer = published(kind)
    transformer.proj_out.weight.data *= 0.2  # velocities of the size of noise
    transformer.save_pretrained(folder / "transformer")
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    vae.save_pretrained(folder / "vae")
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


def test_an_import_knows_what_looks(folder: Path, system: Moviegen, kind: str) -> None:
    assert system.config.text_encoder == HunyuanTextConfig(str(folder.resolve()), EVERY[kind])
    assert system.config.text_encoder.max_length == 256 + 576 // EVERY[kind]


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    vae = diffusers.AutoencoderKLHunyuanVideo.from_pretrained(folder / "vae")
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    made = diffusers.HunyuanVideoImageToVideoPipeline(
        transformer=diffusers.HunyuanVideoTransformer3DModel.from_pretrained(folder / "transformer"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        vae=vae,
        **opened(folder),
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_prompt_and_a_picture_lead_to_the_clip_of_the_pipeline(
    pipeline: Any, system: Moviegen, picture: Tensor, kind: str, guidance: float
) -> None:
    """Diffusers tells every second token of the black picture, however many it tells of the other; here they
    are as many."""
    noise = torch.randn(1, 3 + (kind == "latent_concat"), 4, 2, 4)
    call = {
        "prompt": PROMPT,
        "height": SIZE[0],
        "width": SIZE[1],
        "num_frames": 4 * noise.shape[1] - 3,
        "num_inference_steps": 2,
        "guidance_scale": 6.0,
        "true_cfg_scale": guidance,
    }
    if guidance != 1:
        with torch.no_grad():
            names = "prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask"
            black = pipeline.encode_prompt(
                Image.new("RGB", SIZE[::-1]), NEGATIVE, image_embed_interleave=EVERY[kind]
            )
        call |= {f"negative_{name}": given for name, given in zip(names, black, strict=True)}
    image = Image.fromarray(picture[0, 0].permute(1, 2, 0).numpy())
    theirs = pipeline(image, **call, latents=noise.transpose(1, 2), output_type="pt").frames
    shape = {"frames": 9, "size": SIZE, "steps": 2, "guidance": guidance}
    order = ClipRequest((PROMPT,), FirstFrame(picture), negative=NEGATIVE, **shape)  # type: ignore[arg-type]
    with torch.inference_mode():
        *_, last = system.generate(order, noise=lambda frame, use: noise[:, frame])
        (ours,) = system.decode(order, last.latents)
    assert ((ours + 1) / 2 - theirs).abs().max() <= 2e-3


def test_prompt_and_picture_are_read_once_and_the_encoders_closed(
    folder: Path, picture: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line's order; in bfloat16, as the encoders are opened by default."""
    Image.fromarray(picture[0, 0].permute(1, 2, 0).numpy()).save(tmp_path / "first.png")
    asked = SampleClip(
        tmp_path / "o.mp4",
        ClipRequest(negative=NEGATIVE, frames=5, size=SIZE, steps=1, guidance=2.0),
        prompt=PROMPT,
        image=(tmp_path / "first.png",),
    )
    asked = asked.opened(dreamwalk.load(folder / "h.safetensors"))
    system = placed(asked, dreamwalk.load(folder / "h.safetensors"), torch.device("cpu"))
    monkeypatch.setattr(HunyuanTextConfig, "open", None)
    assert write_clip(asked, system) == 5
    told, black = (
        system.text_encoder([PROMPT], picture[:, 0]),
        system.text_encoder([NEGATIVE], 0 * picture[:, 0]),
    )
    assert told.tokens.dtype == torch.float32 and told.tokens.shape[1] > black.tokens.shape[1]
    with pytest.raises(TypeError, match="not callable"):
        system.text_encoder([PROMPT], 255 - picture[:, 0])


def test_without_a_picture_it_is_said(system: Moviegen) -> None:
    with pytest.raises(ValueError, match="goes on from a picture: give it one"):
        system.sample_video(ClipRequest((PROMPT,), frames=9, size=SIZE, steps=1))
    with pytest.raises(ValueError, match="looks at a picture while it reads: give it one"):
        system.text_encoder([PROMPT])


def test_training_shows_it_too(system: Moviegen) -> None:
    video = torch.randint(0, 256, (2, 5, 3, *SIZE), dtype=torch.uint8)
    loss = system.loss(Clip(video=video, caption=[PROMPT, ""]), KeyedGenerator([(0,), (1,)]))["loss"]
    assert loss.isfinite()
