"""The published system as a whole against the pipelines of diffusers: imported, loaded and sampled."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    import diffusers

import dreamwalk
from dreamwalk.cli import main
from dreamwalk.conditions.text import Encoder, Widths
from dreamwalk.layers.words import Words
from dreamwalk.rollout.clips import Order, unfold
from dreamwalk.systems.moviegen import Moviegen

SIZES: dict[str, Any] = {
    "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1,
    "num_single_layers": 1, "num_refiner_layers": 1, "mlp_ratio": 4.0, "patch_size": 2, "patch_size_t": 1,
    "text_embed_dim": 12, "pooled_projection_dim": 8, "rope_axes_dim": (4, 6, 6),
}  # fmt: skip
KINDS: dict[str | None, dict[str, Any]] = {
    None: {"in_channels": 4, "guidance_embeds": True},
    "latent_concat": {"in_channels": 9, "guidance_embeds": False, "image_condition_type": "latent_concat"},
    "token_replace": {"in_channels": 4, "guidance_embeds": True, "image_condition_type": "token_replace"},
}
STEPS, SIZE = 4, (32, 48)
ORDER = Order(("", ""), frames=9, size=SIZE, steps=STEPS)


class Learnt(Encoder):
    """Texts to words that were drawn before: of two texts the second is shorter."""

    widths = Widths(12, 8)

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(1)
        self.words = {
            text: Words(
                torch.randn(2, 7, 12, generator=draw),
                torch.arange(7) < torch.tensor([[longest], [3]]),
                torch.randn(2, 8, generator=draw),
            )
            for text, longest in (("", 7), ("ugly", 5))
        }

    def describe(self) -> Any:
        return "drawn"

    def encode(self, texts: Sequence[str]) -> Words:
        return self.words[texts[0]].trimmed()


def drawn(model: torch.nn.Module) -> Any:
    for name, parameter in model.named_parameters():
        mean = 1.0 if "norm" in name and name.endswith("weight") and parameter.ndim == 1 else 0.0
        torch.nn.init.normal_(
            parameter, mean, 0.7 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        )
    return model.eval()


@pytest.fixture(scope="module", params=KINDS, ids=str)
def pipeline(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    transformer = drawn(diffusers.HunyuanVideoTransformer3DModel(**SIZES, **KINDS[request.param]))
    vae = drawn(
        diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
        )
    )
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    kind = diffusers.HunyuanVideoImageToVideoPipeline if request.param else diffusers.HunyuanVideoPipeline
    encoders = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    if request.param:
        encoders["image_processor"] = None
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    made = kind(**encoders, transformer=transformer, vae=vae, scheduler=scheduler)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def system(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Moviegen:
    folder = tmp_path_factory.mktemp("published")
    saved(pipeline, folder)
    main(["import", "hunyuanvideo", str(folder), "--out", str(folder / "h.safetensors")])
    opened = dreamwalk.load(folder / "h.safetensors")
    opened.letters.encoder = Learnt()
    return opened


def saved(pipeline: Any, folder: Path) -> None:
    pipeline.transformer.save_pretrained(folder / "transformer")
    pipeline.vae.save_pretrained(folder / "vae")


def kind_of(pipeline: Any) -> str | None:
    return pipeline.transformer.config.image_condition_type


def asked(pipeline: Any, noise: Tensor, picture: Tensor, guidance: float) -> dict[str, Any]:
    """What the pipelines are called with."""
    words = Learnt().words
    call: dict[str, Any] = {"latents": noise.transpose(1, 2), "height": SIZE[0], "width": SIZE[1],
                            "num_inference_steps": STEPS, "guidance_scale": 6.0,
                            "true_cfg_scale": guidance}  # fmt: skip
    for name, key in (("", ""), ("ugly", "negative_")):
        tokens, mask, pooled = words[name]
        call |= {f"{key}prompt_embeds": tokens, f"{key}pooled_prompt_embeds": pooled}
        call |= {f"{key}prompt_attention_mask": mask.float()}
    if kind_of(pipeline):
        call["image"] = (picture.float() / 255)[:, 0]
    return call | {"num_frames": 1 + 4 * (noise.shape[1] - 1)}


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_whole_loop(pipeline: Any, system: Moviegen, guidance: float) -> None:
    concat = kind_of(pipeline) == "latent_concat"
    noise = torch.randn(2, 3 + concat, 4, 4, 6)
    picture = torch.randint(0, 256, (2, 1, 3, *SIZE), dtype=torch.uint8)
    call = asked(pipeline, noise, picture, guidance)
    with torch.no_grad():
        latents = pipeline(**call, output_type="latent").frames.transpose(1, 2)
        video = pipeline(**call, output_type="pt").frames
    order = replace(ORDER, negative="ugly", guidance=guidance)
    given = picture if kind_of(pipeline) else None
    with torch.inference_mode():
        *_, last = unfold(system, order, given, noise=lambda frame, use: noise[:, frame])
    assert latents.std() > 0.3 and video.std() > 0.01
    print(f"{kind_of(pipeline)} {guidance}: {(last.latents[:, int(concat) :] - latents).abs().max():.1e}")
    torch.testing.assert_close(last.latents[:, int(concat) :], latents, atol=1e-5, rtol=0)
