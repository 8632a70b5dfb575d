"""Against the public code: tests/published/make_oasis_tiny.py says how the numbers were made."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_oasis
import torch
from safetensors import safe_open
from tiny_oasis import GOLDEN, PROMPT, SIZES, STEPS, WINDOW, Given, rewrite, write_files
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import FrameInputs
from dreamwalk.layers import vp
from dreamwalk.published import oasis
from dreamwalk.published.names import renamed
from dreamwalk.rollout.realtime import EagerPass, commit_frame, denoise_frame
from dreamwalk.schedules.ddim import ddim_sigmas
from dreamwalk.weights import files
from dreamwalk.weights.config import from_json


@pytest.fixture
def golden() -> dict[str, Tensor]:
    return tiny_oasis.golden()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path)


@pytest.fixture(params=["float64", "float32"])
def parts(request: pytest.FixtureRequest, folder: Path) -> Iterator[nn.ModuleDict]:
    """Our parts with their weights, in both precisions."""
    filled = oasis.oasis_modules(SIZES).eval()
    files.fill(filled, oasis.read_oasis(folder, SIZES)[0], source="oasis")
    with torch.inference_mode(), tiny_oasis.precision(getattr(torch, request.param)) as dtype:
        yield filled.to(dtype)


def close(ours: Tensor, theirs: Tensor) -> None:
    """Float32 differs by up to 4e-5 on the processors seen so far."""
    tolerance = 1e-6 if ours.dtype == torch.float64 else 5e-4
    torch.testing.assert_close(ours, theirs.to(ours.dtype), atol=tolerance, rtol=tolerance)


def given(parts: nn.ModuleDict, tensor: Tensor) -> Tensor:
    """An input in the precision of the parts."""
    return tensor.to(next(parts.parameters()).dtype)


def test_a_pass_of_the_network(parts: nn.ModuleDict, golden: dict[str, Tensor]) -> None:
    backbone, y = parts["backbone"], given(parts, golden["net.y"])
    conditions, rope = parts["actions"](given(parts, golden["net.actions"])), backbone.rope(torch.arange(4))
    mask = backbone.mask(torch.ones(4, 4, dtype=torch.bool).tril())
    inputs = FrameInputs(conditions)
    close(backbone.denoise(y, golden["net.timesteps"], inputs, rope, mask, None)[0], golden["net.u"])


def test_the_codec(parts: nn.ModuleDict, golden: dict[str, Tensor]) -> None:
    codec = parts["codec"]
    means = codec.encode(given(parts, golden["codec.video"])) / codec.config.scale
    close(means.flatten(3)[0].mT, golden["codec.means"])
    close(codec.decode(given(parts, golden["codec.codes"]) * codec.config.scale)[0], golden["codec.restored"])


def start(parts: nn.ModuleDict, golden: dict[str, Tensor]) -> Tensor:
    latents = parts["codec"].encode(given(parts, golden["codec.video"]))
    close(latents, golden["loop.latents"][:, :PROMPT])
    return latents


def test_their_loop_without_a_cache(parts: nn.ModuleDict, golden: dict[str, Tensor]) -> None:
    """Frames 4 to 6 lie beyond the window, which slides."""
    latents, backbone = start(parts, golden), parts["backbone"]
    conditions = parts["actions"](given(parts, golden["loop.actions"]))
    grid = ddim_sigmas(STEPS).to(latents.dtype)
    for t, noise in enumerate(given(parts, golden["loop.noise"]), PROMPT):
        x, first = vp.to_flow(noise, grid[0]), max(0, t + 1 - WINDOW)
        for now, following in itertools.pairwise(grid):
            seen = torch.cat([latents[:, first:], x], 1)
            sigma = torch.zeros(seen.shape[:2])
            sigma[:, -1] = now
            x = x + (following - now) * backbone(seen, sigma, conditions[:, first : t + 1])[:, -1:]
        latents = torch.cat([latents, x], 1)
    close(latents, golden["loop.latents"])


def test_their_loop_on_a_cache(parts: nn.ModuleDict, golden: dict[str, Tensor]) -> None:
    """Every frame passes once as history: the same up to the window's size, then another window."""
    latents, step = start(parts, golden), EagerPass(parts["actions"], parts["backbone"])
    cache, noise = parts["backbone"].cache(WINDOW - 1), tuple(given(parts, golden["loop.noise"]))
    sizes = {"history_sigma": 0.0, "shape": (4, 4, 6)}
    session = Given(cache=cache, seed=0, steps=STEPS, **sizes, drawn=noise)
    actions, grid = given(parts, golden["loop.actions"]), tuple(ddim_sigmas(STEPS).flip(0).tolist())
    for t in range(PROMPT):
        commit_frame(step, session, latents[:, t : t + 1], actions[:, t : t + 1])
    for t in range(PROMPT, PROMPT + len(noise)):
        x = denoise_frame(step, session, actions[:, t : t + 1], sigmas=grid)
        latents = torch.cat([latents, x], 1)
    close(latents[:, :WINDOW], golden["loop.latents"][:, :WINDOW])
    beyond = latents[:, WINDOW:] - given(parts, golden["loop.latents"][:, WINDOW:])
    assert beyond.abs().max() > 1e-2


def test_full_size_names_and_shapes() -> None:
    """Those of the public modules on the meta device, with nothing missing and nothing too much."""
    with safe_open(GOLDEN, framework="pt") as file:
        dit, vae = json.loads(file.metadata()["full"])
    with torch.device("meta"):
        ours = oasis.oasis_modules(oasis.OasisSizes()).state_dict()
    theirs = {}
    for name, tensor in ours.items():
        patch = 20 if name.startswith("codec") else 2
        theirs[renamed(name, oasis.OASIS_NAMES)] = list(
            oasis.public_shape(name, tuple(tensor.shape), patch=patch)
        )
    rotary = {name for name in dit if oasis.ROTARY.fullmatch(name)}
    assert len(theirs) == len(ours) and len(rotary) == 2 + 2 * 16
    assert theirs == {name: shape for name, shape in (dit | vae).items() if name not in rotary}


def test_metadata_say_the_sizes(folder: Path) -> None:
    metadata = oasis.read_oasis(folder, SIZES)[1]
    assert json.loads(json.dumps(metadata))
    assert {name: from_json(type(config), metadata[name]) for name, config in vars(SIZES).items()} == vars(
        SIZES
    )
    assert len(oasis.ACTIONS) == 25 and oasis.ACTIONS[15] == "cameraX"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("dit.final_layer.linear.bias"), "lacks 'final_layer.linear.bias'"),
        (lambda t: t.update({"dit.x.y": torch.zeros(1)}), "also has 'x.y'"),
        (
            lambda t: t.update({"dit.t_embedder.mlp.2.bias": torch.zeros(3)}),
            r"of shape \(3,\), .* of \(16,\)",
        ),
        (
            lambda t: t.update({"dit.blocks.1.t_attn.rotary_emb.freqs": torch.ones(4)}),
            "other frequencies in 'blocks.1.t_attn.rotary_emb.freqs'",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    folder: Path, golden: dict[str, Tensor], change: Callable[[dict[str, Tensor]], object], sentence: str
) -> None:
    tensors = {name: tensor for name, tensor in golden.items() if name.startswith("dit.")}
    change(tensors)
    rewrite(folder / "oasis500m.safetensors", tensors)
    with pytest.raises(ValueError, match=sentence):
        oasis.read_oasis(folder, SIZES)


def test_a_missing_file_says_where_it_is(tmp_path: Path) -> None:
    sentence = f"'{tmp_path}' lacks oasis500m.safetensors: download it there from huggingface.co/Etched"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        oasis.read_oasis(tmp_path)
