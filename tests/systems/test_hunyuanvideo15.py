"""HunyuanVideo-1.5 as a whole against the pipeline of diffusers: imported, loaded and sampled."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import Drawn
from tiny_hunyuan15 import autoencoder, published
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    import diffusers

import dreamwalk
from dreamwalk.cli import main
from dreamwalk.commands.clip_memory import whole_plan
from dreamwalk.commands.sample import SampleClip
from dreamwalk.conditions.frozen import FrozenTextEncoder
from dreamwalk.conditions.hunyuan15 import Hunyuan15TextConfig
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.moviegen import Moviegen
from dreamwalk.weights import files

STEPS, SIZE = 3, (32, 48)
ORDER = ClipRequest(("", ""), frames=9, size=SIZE, steps=STEPS)


def made(guidance: float) -> Any:
    transformer = published("t2v")
    for name, parameter in transformer.named_parameters():
        if name.startswith("proj_out"):  # velocities of the size of noise
            parameter.data *= 0.2
    pipeline = diffusers.HunyuanVideo15Pipeline(
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
        transformer=transformer,
        vae=autoencoder((16,) * 5),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=9.0),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=guidance),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def saved(pipeline: Any, folder: Path) -> Path:
    for part in ("transformer", "vae", "scheduler", "guider"):
        getattr(pipeline, part).save_pretrained(folder / part)
    return folder


def imported(pipeline: Any, folder: Path) -> Moviegen:
    main(["import", "hunyuanvideo", str(saved(pipeline, folder)), "--out", str(folder / "h.safetensors")])
    system = dreamwalk.load(folder / "h.safetensors")
    system.text_encoder.model = Drawn(letters=10)
    return system


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_whole_loop(tmp_path: Path, guidance: float) -> None:
    """Shift and guidance are those of the folder."""
    pipeline = made(guidance)
    system, noise, words = imported(pipeline, tmp_path), torch.randn(2, 3, 4, 2, 3), Drawn(letters=10).words
    assert (system.config.shift, system.config.guidance) == (9.0, guidance)
    call: dict[str, Any] = {}
    for name, key in (("", ""), ("ugly", "negative_")):
        for kind, ending in ((words[name], ""), (words[name].others[0], "_2")):
            call |= {f"{key}prompt_embeds{ending}": kind.tokens}
            call |= {f"{key}prompt_embeds_mask{ending}": kind.present.float()}
    path: list[Tensor] = []
    step = pipeline.scheduler.step

    def watched(*given: Any, **named: Any) -> Any:
        path.append(step(*given, **named)[0].transpose(1, 2))
        return (path[-1].transpose(1, 2),)

    pipeline.scheduler.step = watched
    with torch.no_grad():
        latents = pipeline(
            **call,
            latents=noise.transpose(1, 2),
            height=SIZE[0],
            width=SIZE[1],
            num_frames=9,
            num_inference_steps=STEPS,
            output_type="latent",
        ).frames
        vae = pipeline.vae
        video = torch.cat([vae.decode(x / vae.config.scaling_factor).sample for x in latents.split(1)])
    order = replace(ORDER, negative="ugly")
    with torch.inference_mode():
        moments = [
            moment.latents.clone()
            for moment in system.generate(order, noise=lambda frame, use: noise[:, frame])
        ]
        (ours,) = system.decode(order, moments[-1])
    assert len(path) == len(moments) == STEPS and path[-1].std() > 0.3 and video.std() > 0.01
    for theirs, mine in zip(path, moments, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=0)
    torch.testing.assert_close(ours, video.transpose(1, 2).clamp(-1, 1), atol=2e-3, rtol=0)


def test_what_the_folder_says(tmp_path: Path) -> None:
    system = imported(made(6.0), tmp_path)
    config = system.config
    assert config.text_encoder == Hunyuan15TextConfig(str(tmp_path)) and isinstance(
        system.text_encoder, FrozenTextEncoder
    )
    assert (config.frames, config.size, config.fps, config.steps) == (121, (480, 848), 24.0, 50)
    assert not any(name.startswith("text_encoder") for name in system.state_dict())
    asked = SampleClip(Path("a.mp4"), ClipRequest(("a",), frames=9, size=SIZE))
    assert whole_plan(asked, system).step > 0


def test_in_bfloat16(tmp_path: Path) -> None:
    folder, out = saved(made(1.0), tmp_path), tmp_path / "h.safetensors"
    main(["import", "hunyuanvideo", str(folder), "--out", str(out), "--dtype", "bfloat16"])
    assert files.metadata(out)["config"]["backbone"]["kind"] == "MultiEncoderMMDiTConfig"
    system = dreamwalk.load(out)
    dtypes = {name.split(".")[0]: tensor.dtype for name, tensor in system.state_dict().items()}
    assert dtypes == {"backbone": torch.bfloat16, "codec": torch.float32}
    system.text_encoder.model = Drawn(letters=10)
    assert all(moment.latents.isfinite().all() for moment in system.generate(replace(ORDER, steps=1)))
