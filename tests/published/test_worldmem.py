"""Against an independent computation of the published network: tests/tiny_worldmem.py."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tiny_oasis
import tiny_worldmem
import torch
from damage import Hostile
from tiny_worldmem import Frames, State, checkpoints, write_checkpoints
from torch import Tensor, nn

from dreamwalk.backbones.memory_stdit import MemorySTDiT, MemorySTDiTConfig, MemoryView
from dreamwalk.cli import main
from dreamwalk.codecs.vit import vit_tiny
from dreamwalk.data.minedojo import SCHEMA, cameras_of, poses_of
from dreamwalk.errors import UserError
from dreamwalk.layers import vp
from dreamwalk.memory.posed_bank import PosedBankMemory
from dreamwalk.published import worldmem
from dreamwalk.published.oasis import ACTIONS
from dreamwalk.published.worldmem import ImportWorldMem, WorldMemSizes, public_actions, public_parts_of
from dreamwalk.rollout.realtime import EagerPass, Session, denoise_frame
from dreamwalk.schedules.ddim import ddim_sigmas
from dreamwalk.systems.forcing import Forcing
from dreamwalk.systems.open import load
from dreamwalk.weights import files

SIZES = WorldMemSizes(
    MemorySTDiTConfig(channels=4, grid=(4, 6), width=16, depth=2, heads=2, token_pixels=8), vit_tiny()
)
WINDOW, STEPS = 4, 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoints(tmp_path)


def order(folder: Path, **asked: Any) -> ImportWorldMem:
    return ImportWorldMem(folder, folder / "ours.safetensors", **{"unsafe_pickle": True, **asked})


@pytest.fixture
def parts(folder: Path) -> Iterator[nn.ModuleDict]:
    filled = worldmem.worldmem_modules(SIZES).eval()
    files.fill(filled, worldmem.read_worldmem(order(folder), SIZES), source="worldmem")
    with torch.inference_mode(), tiny_oasis.precision(torch.float64):
        yield filled.double()


def walk(frames: int, *, memory: bool, seed: int = 0) -> Frames:
    """Published inputs: noisy or clean frames with poses on the grid of the game's walks."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randn(2, frames, 4, 4, 6, generator=draw, dtype=torch.float64)
    place = torch.rand(2, frames, 3, generator=draw, dtype=torch.float64) * 4
    pitch, yaw = (15.0 * torch.randint(-span, span, (2, frames, 1), generator=draw) for span in (3, 12))
    actions = torch.randint(-1, 2, (2, frames, 25), generator=draw).double() * (not memory)
    first = 300 if not memory else 0
    times = first + torch.arange(frames).expand(2, -1)
    levels = torch.full((2, frames), tiny_worldmem.CLEAN)
    return Frames(y, levels, actions, torch.cat([place, pitch, yaw], -1), times)


def camera(frames: Frames) -> Tensor:
    """Their poses as our cameras; theirs have yaw to the left."""
    flipped = frames.poses.numpy() * np.array([1, 1, 1, 1, -1])
    return torch.from_numpy(cameras_of(flipped))


def seen(parts: nn.ModuleDict, memory: Frames, frames: Frames) -> MemoryView:
    return MemoryView.of(
        memory.y,
        parts["actions"](memory.actions),
        cameras=camera(memory),
        times=memory.times,
        poses=camera(frames),
        now=frames.times,
    )


def joined(*many: Frames) -> Frames:
    return Frames(*(torch.cat(pair, 1) for pair in zip(*many, strict=True)))


@pytest.mark.parametrize("m", [1, 3, 8])
def test_a_pass_of_the_network(parts: nn.ModuleDict, m: int) -> None:
    backbone, state = parts["backbone"], checkpoints()["diffusion_only"]
    assert isinstance(backbone, MemorySTDiT)
    frames, memory = walk(4, memory=False), walk(m, memory=True, seed=1)
    frames.levels[:] = torch.tensor([[14, 14, 14, 999], [999, 300, 14, 50]])
    sigma = vp.sigma_of(frames.levels)
    y = joined(frames, memory._replace(y=tiny_worldmem.shown(memory.y)))
    theirs = tiny_worldmem.network(state, y, m)
    assert theirs.std() > 0.1
    ours = backbone(
        vp.to_flow(frames.y, sigma[:, :, None, None, None]),
        sigma,
        parts["actions"](frames.actions),
        times=frames.times[0],
        view=seen(parts, memory, frames),
    )
    expected = vp.flow_velocity(frames.y, theirs, sigma[:, :, None, None, None])
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@dataclass
class Given(Session):
    """A session whose noise is that of their loop."""

    drawn: tuple[Tensor, ...] = ()

    def noise(self, frame: int, use: int) -> Tensor:
        return self.drawn[self.cache.frames]


def test_their_loop_with_the_window_read_once_a_frame(parts: nn.ModuleDict) -> None:
    """Three frames; theirs reads all frames anew in every step."""
    backbone, state = parts["backbone"], checkpoints()["diffusion_only"]
    frames, pool, kept = walk(6, memory=False), walk(9, memory=True, seed=1), 3
    noise, grid = frames.y.clone(), tuple(ddim_sigmas(STEPS).flip(0).tolist())
    first = torch.tensor(grid[-1])
    flow = tuple(vp.to_flow(noise[:, i], first) / first for i in range(kept, 6))  # a plan multiplies by it
    sizes = {"history_sigma": 0.0, "shape": (4, 4, 6)}
    cache = backbone.cache(WINDOW - 1, batch=2)
    session = Given(cache=cache, seed=0, steps=STEPS, **sizes, drawn=flow)
    ours, theirs = frames.y[:, :kept], frames.y[:, :kept]
    for i in range(kept, 6):
        memory = Frames(*(part[:, [i % 4, 8, i]] for part in pool))
        window, new = (Frames(*(part[:, s] for part in frames)) for s in (slice(i - 3, i), slice(i, i + 1)))
        following = tiny_worldmem.ddim(state, window._replace(y=theirs[:, -3:]), new, memory, STEPS)
        theirs = torch.cat([theirs, following], 1)
        cache = backbone.window_cache(
            ours[:, -3:],
            parts["actions"](window.actions),
            seen(parts, memory, joined(window, new)),
            times=window.times[0],
        )
        step = EagerPass(parts["actions"], backbone)
        x = denoise_frame(step, session, new.actions, sigmas=grid, cache=cache)
        ours = torch.cat([ours, x], 1)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_full_size_names_and_shapes() -> None:
    """On the meta device: all that the description lists, and nothing else."""
    with torch.device("meta"):
        ours = worldmem.worldmem_modules(WorldMemSizes()).state_dict()
    theirs = {}
    for name, tensor in ours.items():
        (part,), shape = public_parts_of(name), list(tensor.shape)
        if name == "backbone.embed.weight":
            shape = [1024, 16, 2, 2]
        if not name.startswith("codec."):
            theirs[part.name] = shape
    expected = {}
    for name, shape in tiny_worldmem.diffusion_shapes(1024, 16, channels=16).items():
        if "temporal_pose_cond_mlp" not in name:
            expected[f"model.{name}.weight"] = [*shape]
            if not name.endswith("to_qkv"):
                expected[f"model.{name}.bias"] = [shape[0]]
    assert theirs == expected
    learned = sum(tensor.numel() for name, tensor in ours.items() if not name.startswith("codec."))
    unused = 16 * (1024 * 1024 + 1024)
    assert round((learned + unused) / 1e6) == 945


def opened(path: Path) -> Forcing:
    system = load(path)
    assert isinstance(system, Forcing)
    return system


@torch.inference_mode()
def test_the_imported_system_is_walked_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worldmem, "WorldMemSizes", lambda: SIZES)
    monkeypatch.setattr("dreamwalk.systems.interactive.fits", lambda part: False)  # plain PyTorch
    out = folder / "ours.safetensors"
    flags = ["--retrieval", "per-part", "--no-reread", "--budget", "40"]
    main(["import", "worldmem", str(folder), "--out", str(out), "--unsafe-pickle", *flags])
    system = opened(out)
    assert isinstance(system.memory, PosedBankMemory) and system.config.steps == 20
    asked = system.memory.config
    assert (asked.retrieval.mode, asked.reread, asked.budget.frames) == ("per-part", False, 40)
    world = system.world(seed=3)
    assert world.actions == SCHEMA and world.fps == 10
    frame, _, _, _, info = world.step(world.actions.action(["forward"], yaw=15))
    assert frame.shape == (16, 24, 3) and not np.allclose(info["world_from_camera"], np.eye(4))
    snapshot = world.state()
    following = world.step(world.actions.action(["place"]))[0]
    world.restore(snapshot)
    assert np.array_equal(world.step(world.actions.action(["place"]))[0], following)


def test_the_pose_network(folder: Path) -> None:
    """Against the same layers by hand, with their 25 actions; turns are whole bins."""
    tensors, metadata = worldmem.worldmem_system(order(folder), SIZES)
    files.save(folder / "ours.safetensors", tensors, metadata=metadata)
    memory, state = opened(folder / "ours.safetensors").memory, checkpoints()["pose_prediction_model_only"]
    assert isinstance(memory, PosedBankMemory) and memory.pose is not None
    latents, vector = torch.randn(1, 4, 4, 6), torch.tensor([[1.0, 0, 0, 0, 1, 0, 1, -1]])
    start = np.array([[1.0, 2.0, 3.0, -15.0, 30.0]])
    cell = nn.functional
    x = latents
    for i in range(3):
        x = cell.conv2d(x, *tiny_worldmem.layer(state, f"cnn.{2 * i}"), stride=2, padding=1).relu()
    x = cell.linear(x.mean((2, 3)), *tiny_worldmem.layer(state, "fc"))
    pose = torch.tensor([[1.0, 2.0, 3.0, 23.0, 22.0]])  # in bins, yaw to the left, none below 0
    m = torch.cat([pose, public_actions(vector)], 1)
    for name in ("motion.0", "motion.2"):
        m = cell.linear(m, *tiny_worldmem.layer(state, name)).relu()
    step = cell.linear(torch.cat([x, m], 1), *tiny_worldmem.layer(state, "out.0")).relu()
    step = cell.linear(step, *tiny_worldmem.layer(state, "out.2"))[0]
    camera = memory.pose.next_pose(latents, torch.from_numpy(cameras_of(start)).float(), vector)
    found = poses_of(camera.numpy())[0]
    np.testing.assert_allclose(found[:3], start[0, :3] + step[:3].detach().numpy(), atol=1e-5)
    turns = 15 * step[3:].round() * torch.tensor([1, -1])
    np.testing.assert_allclose(found[3:], start[0, 3:] + turns.numpy(), atol=1e-3)


def test_actions_become_their_25() -> None:
    vector = torch.tensor([1.0, 0, 0, 1, 1, 1, -1, 1])
    theirs = public_actions(vector)
    assert {ACTIONS[i]: theirs[i].item() for i in theirs.nonzero().flatten()} == {
        "forward": 1, "right": 1, "drop": 1, "hotbar.1": 1, "cameraX": -1, "cameraY": -1
    }  # fmt: skip
    assert theirs.nonzero().flatten().tolist() == [2, 11, 14, 15, 16, 24]


def test_pickles_are_opened_on_request_only(folder: Path) -> None:
    with pytest.raises(UserError, match=r"is a pickle, of a kind that can run code .* `--unsafe-pickle`"):
        worldmem.read_worldmem(order(folder, unsafe_pickle=False), SIZES)
    for name, state in checkpoints().items():
        (folder / f"{name}.ckpt").unlink()
        safetensors.torch.save_file(state, folder / f"{name}.safetensors")
    assert worldmem.read_worldmem(order(folder, unsafe_pickle=False), SIZES)


def test_nothing_in_a_pickle_is_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}, "more": Hostile()}, folder / "vae_only.ckpt")
    with pytest.raises(UserError, match=r"vae_only\.ckpt' is damaged, or holds more than tensors"):
        worldmem.read_worldmem(order(folder), SIZES)
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("diffusion_only", lambda s: s.pop("model.final_layer.linear.bias"), "lacks 'model.final_layer.lin"),
        ("diffusion_only", lambda s: s.update({"model.x": torch.zeros(1)}), "also has 'model.x'"),
        ("diffusion_only", lambda s: s.update({"alphas_cumprod": torch.ones(1000)}), "another noise sched"),
        ("diffusion_only", lambda s: s.update({"model.temporal_rotary_emb.freqs": torch.ones(4)}), "other f"),
        (
            "vae_only",
            lambda s: s.update({"quant_conv.bias": torch.zeros(3)}),
            r"of shape \(3,\), .* of \(8,\)",
        ),
        ("vae_only", lambda s: s.clear(), "holds no state_dict of tensors"),
        ("pose_prediction_model_only", lambda s: s.pop("fc.bias"), "is no pose network as it was described"),
        ("pose_prediction_model_only", lambda s: s.pop("fc.weight"), "is no pose network"),
    ],
)
def test_what_does_not_fit_is_named(
    folder: Path, part: str, change: Callable[[State], object], sentence: str
) -> None:
    states = checkpoints()
    change(states[part])
    write_checkpoints(folder, states)
    with pytest.raises(UserError, match=sentence):
        worldmem.worldmem_system(order(folder), SIZES)


def test_damaged_and_missing_files(folder: Path) -> None:
    (folder / "pose_prediction_model_only.ckpt").unlink()
    assert worldmem.read_pose(order(folder), 4) == ({}, None)
    whole = (folder / "vae_only.ckpt").read_bytes()
    (folder / "vae_only.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged"):
        worldmem.read_worldmem(order(folder), SIZES)
    (folder / "vae_only.ckpt").unlink()
    with pytest.raises(UserError, match=r"lacks vae_only\.ckpt: download it there from huggingface\.co"):
        worldmem.read_worldmem(order(folder), SIZES)
