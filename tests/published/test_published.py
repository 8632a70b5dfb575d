"""Imported weights as a system: it says and shows the same as the public loop, trains, and is walked in."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_oasis
import torch
from PIL import Image
from tiny_oasis import PROMPT, WINDOW, Given, imported, write_files
from torch import Tensor

from dreamwalk.cli import main
from dreamwalk.clip import Clip
from dreamwalk.images import fit_image, read_picture
from dreamwalk.published import oasis as published
from dreamwalk.published.oasis import ACTIONS, PLAYED, SCHEMA
from dreamwalk.rollout.execute import KeyedNoise, execute
from dreamwalk.rollout.frame_predictor import CachedFramePredictor, FramePredictor
from dreamwalk.rollout.realtime import FramePass
from dreamwalk.rollout.streaming import StreamConditions
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.staircase import staircase
from dreamwalk.systems.forcing import Forcing


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Forcing:
    return imported(tmp_path_factory.mktemp("oasis"))


@pytest.fixture(scope="module")
def clip() -> Clip:
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (2, 5, 3, 16, 24), generator=generator, dtype=torch.uint8)
    return Clip(video=video, actions=torch.rand(2, 5, 25, generator=generator))


def copied(system: Forcing, dtype: torch.dtype) -> Forcing:
    """The same weights in a system of another precision."""
    copy = Forcing(system.config).eval()
    copy.load_state_dict(system.state_dict())
    return copy.to(dtype)


def ours(actions: Tensor) -> Tensor:
    """Their action vectors as ours."""
    signs = torch.tensor([-1.0 if name == "pitch" else 1.0 for name in PLAYED])
    return actions[..., [ACTIONS.index(name) for name in PLAYED.values()]] * signs


@pytest.mark.parametrize(
    ("held", "axes", "place", "value"),
    [
        ("forward", {}, 11, 1),
        ("place", {}, 22, 1),
        ("jump", {}, 17, 1),
        ("escape", {}, 1, 1),
        ("hotbar.3", {}, 4, 1),
        ("", {"yaw": 5.0}, 16, 0.25),
        ("", {"pitch": 10.0}, 15, -0.5),
        ("", {"yaw": -90.0}, 16, -1),
    ],
)
@torch.inference_mode()
def test_an_action_means_the_same(
    system: Forcing, held: str, axes: dict[str, float], place: int, value: float
) -> None:
    """Places and signs as in the public list of actions; looking up is negative there."""
    theirs, golden = torch.zeros(1, 1, 25), tiny_oasis.golden()
    theirs[..., place] = value
    expected = theirs @ golden["dit.external_cond.weight"].T + golden["dit.external_cond.bias"]
    action = SCHEMA.pack(SCHEMA.action([held] if held else [], **axes))
    torch.testing.assert_close(system.actions(torch.from_numpy(action)[None, None]), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_dreams_in_the_precision_of_its_file(system: Forcing, dtype: torch.dtype, tmp_path: Path) -> None:
    """Latents stay float32 between passes, and lie near those of the same weights in float32."""
    (tmp_path / "exact").mkdir()
    half = imported(tmp_path, stored=dtype)
    exact = imported(tmp_path / "exact", stored=dtype, dtype="float32")
    cast = copy.deepcopy(exact).to(torch.bfloat16)  # its codec too
    assert {half.backbone.embed.weight.dtype, half.actions.mlp[0].weight.dtype} == {dtype}
    assert half.codec.head.weight.dtype == exact.backbone.embed.weight.dtype == torch.float32
    action, walks = torch.rand(1, SCHEMA.size), []
    for each in (half, exact, cast):
        session = each.begin(Clip(torch.zeros(1, 1, 3, 16, 24), torch.zeros(1, 1, SCHEMA.size)), seed=1)
        assert session.cache.keys.dtype == each.backbone.embed.weight.dtype
        latents = torch.cat([each.advance(session, action) for _ in range(WINDOW + 1)], 1)
        assert latents.dtype == torch.float32
        walks.append(each.codec.decode(latents).float())
    spread = walks[1].std()
    assert 0 < (walks[0] - walks[1]).square().mean().sqrt() < spread / 10
    assert 0 < (walks[2] - walks[1]).square().mean().sqrt() < spread / 5


@pytest.mark.parametrize(
    ("engine", "dtype", "tolerance"),
    [("eager", torch.float64, 1e-6), ("eager", torch.float32, 5e-4), ("as in the page", torch.float32, 1e-2)],
)
@torch.inference_mode()
def test_their_loop(
    system: Forcing, monkeypatch: pytest.MonkeyPatch, engine: str, dtype: torch.dtype, tolerance: float
) -> None:
    """Up to the window the same latents; ONNX Runtime, the page's engine where there is no card, rounds the
    sinusoids of labels near 1000 its own way."""
    golden = {name: tensor.to(dtype) for name, tensor in tiny_oasis.golden().items()}
    system = copied(system, dtype)
    # Their frames are no bytes.
    monkeypatch.setattr(system, "encode", lambda clip: system.codec.encode(clip.video))
    with tiny_oasis.precision(dtype):
        step: FramePass = system.frame_pass() if engine == "eager" else system.engine()[0]
        actions = ours(golden["loop.actions"])
        start = Clip(video=golden["codec.video"], actions=actions[:, :PROMPT])
        session = Given(**vars(system.begin(start, frame_pass=step)), drawn=tuple(golden["loop.noise"]))
        for t in range(PROMPT, WINDOW):
            latents = system.advance(session, actions[:, t], frame_pass=step)
            theirs = golden["loop.latents"][:, t : t + 1]
            torch.testing.assert_close(latents, theirs, atol=tolerance, rtol=tolerance)


def test_it_is_walked_in(system: Forcing) -> None:
    world = system.world(seed=0)
    assert world.fps == 20 and world.steps == 4 and world.actions == SCHEMA
    frames = [world.step(SCHEMA.action(["forward"], yaw=3.0))[0] for _ in range(WINDOW + 2)]
    assert {frame.shape for frame in frames} == {(16, 24, 3)}
    assert len({frame.tobytes() for frame in frames}) == len(frames)
    world.steps = 7
    world.step(SCHEMA.action())


@pytest.mark.parametrize(("lag", "chunk"), [(4, 1), (2, 1), (3, 2), (1, 1)])
@torch.inference_mode()
def test_kept_frames_need_no_second_look(system: Forcing, clip: Clip, lag: int, chunk: int) -> None:
    system = copied(system, torch.float64)
    clip = replace(clip, actions=clip.actions.double())
    history = system.codec.encode(clip.video[:, :2].double() / 127.5 - 1)
    plan = staircase(list(reversed(system.sigmas(4))), 6, lag=lag, chunk=chunk, history=2)
    drawn, actions = KeyedNoise((1, 2), (4, 4, 6)), torch.full((2, 6, 25), 0.3, dtype=torch.float64)
    readers = []
    for kind in (FramePredictor, CachedFramePredictor):
        parts = system.actions, system.memory, system.codec
        reader = kind(system.backbone, StreamConditions(*parts, clip.first(2), actions))
        readers.append(execute(plan, reader, lambda *key: drawn(*key).double(), given=history))
    torch.testing.assert_close(*readers, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(
    ("training", "mask"),
    [
        ("independent", "causal"),
        ("independent", "bidirectional"),
        ("teacher_forcing", "causal"),
        ("full_sequence", "causal"),
    ],
)
def test_it_trains_on(system: Forcing, clip: Clip, training: str, mask: str) -> None:
    torch.manual_seed(0)
    kind = {"training": training, "mask": mask, "cond_dropout": 0.0}
    fresh = Forcing(replace(system.config, **kind))  # type: ignore[arg-type]
    fresh.load_state_dict(system.state_dict())
    learned = [p for p in fresh.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(learned, lr=3e-3), []
    for _ in range(8):
        loss = fresh.loss(clip, KeyedGenerator([(0, 0, row) for row in range(2)]))["loss"]
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_starts_are_kept_whole_in_a_frame(tmp_path: Path) -> None:
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 40:56] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    fitted = fit_image(read_picture(tmp_path / "wide.png"), (16, 24))
    assert fitted.shape == (16, 24, 3) and fitted[5:11, 11:13].min() > 250
    assert not fitted[:4].any() and not fitted[12:].any() and not fitted[:, 0].any()
    assert published.horizon((16, 24)).shape == (16, 24, 3)


def test_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sizes are the published ones; here they are replaced."""
    monkeypatch.setattr(published, "OasisSizes", lambda: tiny_oasis.SIZES)
    Image.new("RGB", (50, 40), "green").save(tmp_path / "hill.jpg")
    out = tmp_path / "oasis.safetensors"
    main(["import", "oasis", str(write_files(tmp_path)), "--out", str(out)])
    assert "drop one onto the page" in capsys.readouterr().out
    main(["import", "oasis", str(tmp_path), "--out", str(out), "--start", *[str(tmp_path / "hill.jpg")] * 2])
    assert f"`dreamwalk play {out}`" in capsys.readouterr().out
    system = tiny_oasis.load(out)
    assert system.world_spec.starts.shape == (2, 16, 24, 3)  # type: ignore[union-attr]
    assert (system.config.window, system.config.steps) == (31, 10)  # type: ignore[union-attr]
