"""The published system as a whole against the pipelines of diffusers: imported, loaded and sampled."""

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from drawn import Drawn
from tiny_hunyuan import KINDS, as_tencent, published
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    import diffusers

import dreamwalk
from dreamwalk.cli import main
from dreamwalk.published.hunyuan import ImportHunyuan, hunyuan_system
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.conditionings import FirstFrame, TextOnly
from dreamwalk.systems.moviegen import Moviegen
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

STEPS, SIZE = 3, (16, 32)
OUT = Path("unused.safetensors")
ORDER = ClipRequest(("", ""), frames=9, size=SIZE, steps=STEPS)


@pytest.fixture(scope="module", params=KINDS, ids=str)
def pipeline(request: pytest.FixtureRequest) -> Any:
    transformer = published(request.param)
    for name, parameter in transformer.named_parameters():
        if name.startswith("proj_out"):  # velocities of the size of noise
            parameter.data *= 0.2
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    kind = diffusers.HunyuanVideoImageToVideoPipeline if request.param else diffusers.HunyuanVideoPipeline
    encoders = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    if request.param:
        encoders["image_processor"] = None
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    made = kind(**encoders, transformer=transformer, vae=vae.eval(), scheduler=scheduler)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def system(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Moviegen:
    folder = saved(pipeline, tmp_path_factory.mktemp("published"))
    main(["import", "hunyuanvideo", str(folder), "--out", str(folder / "h.safetensors")])
    opened = dreamwalk.load(folder / "h.safetensors")
    assert not any(name.startswith("text_encoder") for name in opened.state_dict())
    opened.text_encoder.model = Drawn(pooled=8)
    return opened


def saved(pipeline: Any, folder: Path) -> Path:
    pipeline.transformer.save_pretrained(folder / "transformer")
    pipeline.vae.save_pretrained(folder / "vae")
    return folder


def kind_of(pipeline: Any) -> str | None:
    return pipeline.transformer.config.image_condition_type


def asked(pipeline: Any, noise: Tensor, picture: Tensor, guidance: float) -> dict[str, Any]:
    """What the pipelines are called with."""
    words = Drawn(pooled=8).words
    call: dict[str, Any] = {
        "latents": noise.transpose(1, 2),
        "height": SIZE[0],
        "width": SIZE[1],
        "num_inference_steps": STEPS,
        "guidance_scale": 6.0,
        "true_cfg_scale": guidance,
    }
    for name, key in (("", ""), ("ugly", "negative_")):
        tokens, mask, pooled = words[name][:3]
        call |= {f"{key}prompt_embeds": tokens, f"{key}pooled_prompt_embeds": pooled}
        call |= {f"{key}prompt_attention_mask": mask.float()}
    if kind_of(pipeline):
        call["image"] = (picture.float() / 255)[:, 0]
    return call | {"num_frames": 1 + 4 * (noise.shape[1] - 1)}


def on(pipeline: Any, picture: Tensor) -> ClipRequest:
    """A request, with the picture where the pipeline takes one."""
    return replace(ORDER, conditioning=FirstFrame(picture) if kind_of(pipeline) else TextOnly())


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_whole_loop(pipeline: Any, system: Moviegen, guidance: float) -> None:
    concat = int(kind_of(pipeline) == "latent_concat")
    noise = torch.randn(2, 3 + concat, 4, 2, 4)
    picture = torch.randint(0, 256, (2, 1, 3, *SIZE), dtype=torch.uint8)
    path: list[Tensor] = []

    def watch(pipeline: Any, step: int, time: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
        path.append(given["latents"].transpose(1, 2))
        return {}

    with torch.no_grad():
        call = asked(pipeline, noise, picture, guidance)
        video = pipeline(**call, output_type="pt", callback_on_step_end=watch).frames
    order = replace(on(pipeline, picture), negative="ugly", guidance=guidance)
    with torch.inference_mode():
        moments = [
            moment.latents.clone()
            for moment in system.generate(order, noise=lambda frame, use: noise[:, frame])
        ]
        (ours,) = system.decode(order, moments[-1])
    assert len(path) == len(moments) == STEPS and path[-1].std() > 0.3 and video.std() > 0.01
    for theirs, mine in zip(path, moments, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=0)
    torch.testing.assert_close((ours + 1) / 2, video, atol=2e-3, rtol=0)


def test_pictures_are_asked_for_where_they_were_trained(pipeline: Any, system: Moviegen) -> None:
    picture = torch.zeros(1, 1, 3, *SIZE, dtype=torch.uint8)
    wrong, sentence = TextOnly(), "goes on from a picture"
    if not kind_of(pipeline):
        wrong, sentence = FirstFrame(picture), "leave them out"
    with pytest.raises(ValueError, match=sentence):
        system.sample_video(replace(ORDER, conditioning=wrong))


def test_the_scale_of_embedded_guidance_can_be_ordered(pipeline: Any, system: Moviegen) -> None:
    order = replace(on(pipeline, torch.zeros(1, 1, 3, *SIZE, dtype=torch.uint8)), steps=1)
    strong = replace(order, embedded_guidance=9.0)
    if kind_of(pipeline) == "latent_concat":
        with pytest.raises(ValueError, match="`guidance` is not an input"):
            system.sample_video(strong)
    else:
        usual = system.sample_video(order)
        assert torch.equal(usual, system.sample_video(replace(strong, embedded_guidance=6.0)))
        assert not torch.equal(usual, system.sample_video(strong))


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 6000.0), ("bfloat16", 6016.0)])
def test_guidance_is_told_as_it_was_released(
    pipeline: Any, tmp_path: Path, dtype: Any, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 a guidance of 6 is 6016 to the networks of diffusers, and so to ours."""
    if kind_of(pipeline) == "latent_concat":
        pytest.skip("this one is not told a scale of guidance")
    noise = torch.randn(2, 3, 4, 2, 4)
    picture = torch.randint(0, 256, (2, 1, 3, *SIZE), dtype=torch.uint8)
    theirs: list[float] = []
    half = copy.deepcopy(pipeline.transformer).to(getattr(torch, dtype))
    half.time_text_embed.register_forward_pre_hook(lambda module, given: theirs.append(float(given[2][0])))
    monkeypatch.setattr(pipeline, "transformer", half)
    with torch.no_grad():
        pipeline(**asked(pipeline, noise, picture, 1.0), output_type="latent")
    monkeypatch.undo()
    tensors, metadata = hunyuan_system(ImportHunyuan(saved(pipeline, tmp_path), OUT, dtype=dtype))
    files.save(tmp_path / "h.safetensors", tensors, metadata=metadata)
    system = dreamwalk.load(tmp_path / "h.safetensors")
    system.text_encoder.model = Drawn(pooled=8)
    ours: list[float] = []
    at = system.backbone.guidance.at
    monkeypatch.setattr(system.backbone.guidance, "at", lambda told: ours.append(float(told[0])) or at(told))
    system.sample_video(on(pipeline, picture))
    assert ours == theirs == [scale] * STEPS


def test_under_its_authors_names_it_is_the_same(pipeline: Any, system: Moviegen, tmp_path: Path) -> None:
    for name, tensors in (("t", as_tencent(pipeline.transformer)), ("v", pipeline.vae.state_dict())):
        (tmp_path / name).mkdir()
        safetensors.torch.save_file(tensors, tmp_path / name / "model.safetensors")
    pipeline.vae.save_config(tmp_path / "v")
    image = "token_replace" if kind_of(pipeline) == "token_replace" else None
    order = ImportHunyuan(tmp_path, OUT, text_encoders="encoders", image=image)  # type: ignore[arg-type]
    tensors, metadata = hunyuan_system(order, axes=(4, 6, 6))
    every = {None: 0, "latent_concat": 2, "token_replace": 4}[kind_of(pipeline)]
    assert metadata["config"]["text_encoder"] == {
        "kind": "HunyuanTextConfig",
        "source": "encoders",
        "image_interleave": every,
        "cache": "",
    }
    expected = to_json(system.config) | {"text_encoder": metadata["config"]["text_encoder"]}
    assert metadata["config"] == expected
    for name, tensor in system.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


def test_in_bfloat16(pipeline: Any, tmp_path: Path) -> None:
    tensors, metadata = hunyuan_system(ImportHunyuan(saved(pipeline, tmp_path), OUT, dtype="bfloat16"))
    files.save(tmp_path / "h.safetensors", tensors, metadata=metadata)
    system = dreamwalk.load(tmp_path / "h.safetensors")
    dtypes = {name.split(".")[0]: tensor.dtype for name, tensor in system.state_dict().items()}
    assert dtypes == {"backbone": torch.bfloat16, "codec": torch.float32}
    system.text_encoder.model = Drawn(pooled=8)
    order = replace(on(pipeline, torch.zeros(1, 1, 3, *SIZE, dtype=torch.uint8)), steps=1)
    assert system.sample_video(order).isfinite().all()
