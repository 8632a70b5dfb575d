"""The imported system against the release's steps: its conditions, its loop, its frames, computed apart."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from drawn import Drawn
from tiny_voyager import AXES, CHANNELS, state, vae, velocity, write_voyager
from torch import Tensor

from dreamwalk.published.voyager import ImportVoyager, voyager_system
from dreamwalk.systems.along_path import AlongPath
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.open import load
from dreamwalk.systems.voyager import Voyager
from dreamwalk.weights import files

STEPS, FRAMES, SIDES = 3, 9, (32, 16)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "context"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Voyager:
    folder = write_voyager(tmp_path_factory.mktemp("voyager"))
    out = folder / "v.safetensors"
    order = ImportVoyager(folder, out, context=request.param, unsafe_pickle=True)
    tensors, metadata = voyager_system(order, axes=AXES)
    for part in ("weight", "bias"):  # velocities of the size of noise
        tensors[f"backbone.head.project.{part}"] *= 0.2
    files.save(Path(out), tensors, metadata=metadata)
    opened = load(out)
    assert isinstance(opened, Voyager)
    opened.text_encoder.model = Drawn(pooled=8)
    return opened


@pytest.fixture(scope="module")
def path() -> AlongPath:
    draw = torch.Generator().manual_seed(2)
    rand = lambda *shape: torch.rand(*shape, generator=draw)
    known = F.interpolate(rand(2, FRAMES, 4, 2), scale_factor=8.0) > 0.3
    known[:, 0] = True
    picture, depth = 2 * rand(2, 3, *SIDES) - 1, 3 + 20 * rand(2, *SIDES)
    rgb, depths = 2 * rand(2, FRAMES, 3, *SIDES) - 1, 3 + 20 * rand(2, FRAMES, *SIDES)
    return AlongPath(picture, depth, rgb, depths, known).ranged(1.1)


def one_picture(colours: Tensor, code: Tensor) -> Tensor:
    """`(b, 3, t, 2 h + 16, w)` of `(b, t, 3, h, w)` and `(b, t, h, w)`."""
    gap = torch.ones(*colours.shape[:3], 16, colours.shape[-1])
    return torch.cat([colours, gap, torch.stack([code] * 3, 2)], dim=3).transpose(1, 2)


def conditions(path: AlongPath) -> Tensor:
    """The 2 c + 2 channels, `(b, 10, t, h, w)`."""
    coder, known, bounds = vae(), path.known, path.depth_range
    assert bounds is not None
    coder.use_framewise_encoding = False
    coded = lambda video: coder.encode(video).latent_dist.mode() * coder.config.scaling_factor
    first = coded(one_picture(path.picture[:, None], bounds.code(path.picture_depth[:, None])))
    black = torch.where(known[:, :, None], path.rgb, torch.tensor(-1.0))
    partial = coded(one_picture(black, torch.where(known, bounds.code(path.depth), torch.tensor(-1.0))))
    mask = 2 * known[:, :, None].float().expand(-1, -1, 3, -1, -1) - 1
    unknown = 1 - one_picture(mask, mask[:, :, 0])[:, :1]
    unknown = torch.cat([unknown[:, :, :1]] * 3 + [unknown], dim=2)
    cells = 1 - F.max_pool3d(unknown, (4, 8, 8), (4, 8, 8))
    reference = torch.cat([first, torch.zeros_like(partial[:, :, 1:])], dim=2)
    is_first = torch.zeros_like(cells)
    is_first[:, :, 0] = 1
    return torch.cat([reference, is_first, partial, cells], dim=1)


@torch.inference_mode()
def test_the_whole_loop(system: Voyager, path: AlongPath) -> None:
    """Conditions, every step of the sampler, and what is decoded of it without the first four frames."""
    words = system.text_encoder.model.words[""]  # type: ignore[union-attr]
    cond = conditions(path)
    torch.testing.assert_close(system.path_channels(path).transpose(1, 2), cond, atol=2e-4, rtol=0)
    noise = torch.randn(2, 3, CHANNELS, 10, 2, generator=torch.Generator().manual_seed(5))
    s = state(context="context.embed.project.weight" in system.backbone.state_dict())
    for part in ("weight", "bias"):
        s[f"final_layer.linear.{part}"] = 0.2 * s[f"final_layer.linear.{part}"]
    x = 0.999 * noise.transpose(1, 2) + 0.001 * cond[:, :CHANNELS, :1]
    even = torch.linspace(1, 0, STEPS + 1)
    levels, moments = 7 * even / (1 + 6 * even), []
    for now, after in itertools.pairwise(levels):
        rows = []
        for row in range(2):
            told = words.tokens[row : row + 1][:, words.mask[row]], words.pooled[row : row + 1]
            given = torch.cat([x, cond], 1)[row : row + 1], 1000 * now[None]
            rows.append(velocity(s, *given, *told))
        x = x + (after - now) * torch.cat(rows)
        moments.append(x.transpose(1, 2))
    request = ClipRequest(("", ""), path, steps=STEPS, guidance=1.0)
    found = [
        step.latents.clone() for step in system.generate(request, noise=lambda frame, use: noise[:, frame])
    ]
    for ours, theirs in zip(found, moments, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)
    assert moments[-1].std() > 0.3
    decoder = vae()
    decoder.use_framewise_decoding = False
    video = decoder.decode(x / decoder.config.scaling_factor).sample.clamp(-1, 1)[:, :, 4:]
    ours = torch.cat(list(system.decode(request, found[-1])), dim=1)
    assert ours.shape == (2, 5, 3, 80, 16)
    torch.testing.assert_close(ours.transpose(1, 2), video, atol=2e-3, rtol=0)
    rgb, depth = video[:, :, :, :32].transpose(1, 2), video[:, :, :, 48:]
    code = 0.299 * depth[:, 0] + 0.587 * depth[:, 1] + 0.114 * depth[:, 2]
    parted, coded = system.config.packing.part(ours)
    torch.testing.assert_close((parted, coded), (rgb, code), atol=3e-3, rtol=0)


def test_the_text_encoder_sees_the_picture_over_its_depth(system: Voyager, path: AlongPath) -> None:
    shown = system.first_picture(path)
    assert shown is not None and shown.shape == (2, 3, 80, 16) and shown.dtype == torch.uint8
    assert (shown[:, :, 32:48] == 255).all() and torch.equal(shown[:, 0, 48:], shown[:, 2, 48:])


def test_frames_come_with_their_depth(system: Voyager, path: AlongPath) -> None:
    """Output frame `i` is that of the path's camera `i + 4`."""
    made = system.sample_rgbd(ClipRequest(("", ""), path, steps=2, guidance=1.0))
    assert made.rgb.shape == (2, 5, 3, *SIDES) and made.depth is not None
    assert made.depth.shape == (2, 5, *SIDES) and made.depth.max() < 0.9 * made.depth_range.far.max()
