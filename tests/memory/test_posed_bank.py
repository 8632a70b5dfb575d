"""The published WorldMem with its memory in play: tiny random weights in its layout, imported."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from switched_memory import assert_on_the_map, assert_switched
from tiny_worldmem import write_checkpoints
from torch import Tensor

from dreamwalk.backbones.frame_backbone import NOTHING, Recalled
from dreamwalk.backbones.memory_stdit import MemorySTDiT, MemorySTDiTConfig, MemoryView
from dreamwalk.clip import Clip
from dreamwalk.codecs.vit import vit_tiny
from dreamwalk.commands.play import _dream_app
from dreamwalk.data.minedojo import SCHEMA, cameras_of, poses_of
from dreamwalk.errors import UserError
from dreamwalk.layers.attention import KeyValues
from dreamwalk.layers.cache import Cache
from dreamwalk.memory.latent_pose import reckoned_pose
from dreamwalk.memory.posed_bank import PosedBankMemory, PosedBanks
from dreamwalk.memory.retrieval import RetrievalMode
from dreamwalk.published.worldmem import POSE_PART, ImportWorldMem, WorldMemSizes, worldmem_system
from dreamwalk.rollout.realtime import EagerPass, Session
from dreamwalk.serve.world_pair import WorldPair
from dreamwalk.systems.forcing import Forcing
from dreamwalk.systems.open import load
from dreamwalk.systems.saved_sessions import open_session, save_session
from dreamwalk.weights import files

SIZES = WorldMemSizes(
    MemorySTDiTConfig(channels=4, grid=(4, 6), width=16, depth=2, heads=2, token_pixels=8), vit_tiny()
)
WINDOW = 7


def imported(folder: Path, *, network: bool = True, **asked: Any) -> Forcing:
    """With 2 steps a frame; `network` is that of poses."""
    write_checkpoints(folder)
    if not network:
        (folder / f"{POSE_PART}.ckpt").unlink()
    out = folder / "ours.safetensors"
    order = ImportWorldMem(folder, out, unsafe_pickle=True, **asked)
    tensors, metadata = worldmem_system(order, SIZES)
    files.save(out, tensors, metadata=metadata)
    system = load(out)
    assert isinstance(system, Forcing) and isinstance(system.memory, PosedBankMemory)
    system.config = replace(system.config, steps=2)
    return system


def start(rows: int = 1) -> Clip:
    """Still pictures of noise, seen from the origin."""
    draw = torch.Generator().manual_seed(0)
    video = torch.randint(256, (rows, 1, 3, 16, 24), generator=draw, dtype=torch.uint8)
    pose = torch.from_numpy(cameras_of(np.zeros((rows, 1, 5)))).float()
    return Clip(video, torch.zeros(rows, 1, 8), pose, torch.eye(3).expand(rows, 1, 3, 3))


def actions(count: int) -> list[Tensor]:
    """Walk, and look around by whole bins."""
    held = [
        SCHEMA.action(["forward"], yaw=15.0 * ((i % 3) - 1), pitch=15.0 * (i % 5 == 2)) for i in range(count)
    ]
    return [torch.from_numpy(SCHEMA.pack(action))[None] for action in held]


def played(system: Forcing, session: Session, frames: int) -> tuple[list[Tensor], list[tuple[int, ...]]]:
    """Latents, and the times of what was recalled for each."""
    latents, told = [], []
    for action in actions(frames):
        latents.append(system.advance(session, action.expand(session.cache.keys.shape[1], -1)))
        units = banks(session).recalled
        told.append(() if units is None else tuple(units.time[0].tolist()))
    return latents, told


def banks(session: Session) -> PosedBanks:
    assert isinstance(session.memory, PosedBanks)
    return session.memory


@pytest.mark.parametrize("mode", ["greedy", "per-part", "released"])
@torch.inference_mode()
def test_memory_counts_from_the_first_frame_that_it_recalls(tmp_path: Path, mode: RetrievalMode) -> None:
    """Ours recalls what has left the window; the released way recalls from the first frame on."""
    system = imported(tmp_path, retrieval=mode)
    on, off = system.begin(start(), seed=5), system.begin(start(), seed=5)
    off.memory.recalling = False
    (dreamed, told), (without, nothing) = (played(system, each, 2 * WINDOW + 2) for each in (on, off))
    first = 0 if mode == "released" else WINDOW
    assert not any(nothing) and not any(told[:first]) and all(len(times) == 8 for times in told[first:])
    assert all(torch.equal(*pair) for pair in zip(dreamed[:first], without[:first], strict=True))
    assert all(
        not torch.allclose(*pair, atol=1e-4) for pair in list(zip(dreamed, without, strict=True))[first:]
    )
    if mode != "released":
        assert all(max(times) < frame + 1 - WINDOW for frame, times in enumerate(told) if times)
    assert torch.equal(torch.cat(dreamed), torch.cat(played(system, system.begin(start(), seed=5), 16)[0]))


class Anew(EagerPass):
    """A pass that reads the whole window and what is recalled again, all at once, as published."""

    def __init__(self, system: Forcing, session: Session, first: Tensor) -> None:
        super().__init__(system.actions, system.backbone)
        self.session, self.latents, self.acts = session, [first], [torch.zeros(1, 1, 8)]
        assert session.camera is not None
        self.poses = [session.camera.pose]

    def __call__(
        self, x: Tensor, sigma: float, action: Tensor, cache: Cache, recalled: Recalled = NOTHING
    ) -> tuple[Tensor, Sequence[KeyValues]]:
        v, fresh = super().__call__(x, sigma, action, cache, recalled)
        units, camera, backbone = banks(self.session).recalled, self.session.camera, self.backbone
        if units is None or camera is None:
            return v, fresh
        assert isinstance(backbone, MemorySTDiT)
        behind, frame = self.latents[-WINDOW:], len(self.latents)
        times = torch.arange(frame - len(behind), frame + 1)
        view = MemoryView.of(
            units.latents,
            self.conditions(torch.zeros(1, 8, 8)),
            cameras=units.cameras.pose,
            times=units.time,
            poses=torch.stack([*self.poses[-WINDOW:], camera.pose], 1),
            now=times[None],
        )
        whole, levels = torch.cat([*behind, x], 1), torch.zeros(1, len(times))
        levels[:, -1] = sigma
        conditions = self.conditions(torch.cat([*self.acts[-WINDOW:], action], 1))
        return backbone(whole, levels, conditions, times=times, view=view)[:, -1:], fresh


@pytest.mark.parametrize("mode", ["greedy", "released"])
@torch.inference_mode()
def test_it_is_the_whole_clip_at_once(tmp_path: Path, mode: RetrievalMode) -> None:
    system = imported(tmp_path, retrieval=mode)
    played_, plain = system.begin(start(), seed=5), system.begin(start(), seed=5)
    anew = Anew(system, plain, system.encode(start()))
    for action in actions(2 * WINDOW + 2):
        expected = system.advance(plain, action, frame_pass=anew)
        torch.testing.assert_close(system.advance(played_, action), expected, atol=1e-4, rtol=1e-4)
        assert plain.camera is not None
        anew.latents.append(expected)
        anew.acts.append(action[:, None])
        anew.poses.append(plain.camera.pose)
    assert banks(plain).recalled is not None


@torch.inference_mode()
def test_rows_of_a_batch_are_as_alone_and_the_window_may_keep_what_it_saw(tmp_path: Path) -> None:
    system = imported(tmp_path, retrieval="greedy", reread=False)
    both, pair = system.begin(start(2), seed=3), start(2)
    together, told = played(system, both, WINDOW + 4)
    for row in range(2):
        mine = slice(row, row + 1)
        parts = (pair.video[mine], pair.actions[mine], pair.world_from_camera[mine], pair.intrinsics[mine])
        alone, _ = played(system, system.begin(Clip(*parts), seed=3), WINDOW + 4)
        torch.testing.assert_close(torch.cat(alone, 1), torch.cat(together, 1)[mine], atol=1e-4, rtol=1e-4)
    again = imported(tmp_path, retrieval="greedy")
    assert told[-1] and not torch.allclose(
        played(again, again.begin(start(2), seed=3), 11)[0][-1], together[-1]
    )


@pytest.mark.parametrize("network", [True, False])
@torch.inference_mode()
def test_a_saved_session_goes_on_bit_equal(tmp_path: Path, network: bool) -> None:
    """Also with a bank that forgets, and with poses that are reckoned."""
    system = imported(tmp_path, network=network, budget=None if network else 10)
    session = system.begin(start(), seed=2)
    played(system, session, 2 * WINDOW)
    save_session(session, tmp_path / "walk")
    opened = open_session(system, tmp_path / "walk")
    assert len(banks(opened).rows[0]) == (15 if network else 10)
    for action in actions(3):
        assert torch.equal(*(system.advance(each, action) for each in (session, opened)))
        assert session.camera is not None and opened.camera is not None
        assert torch.equal(session.camera.pose, opened.camera.pose)
    turns = poses_of(session.camera.pose.numpy())[0, 3:] / 15
    np.testing.assert_allclose(turns, turns.round(), atol=1e-4)
    (tmp_path / "walk" / "bank-0.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="bank-0"):
        open_session(system, tmp_path / "walk")


def test_a_bank_without_room_for_the_window_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a bank of 7 frames has no room .* allow it 8 or more"):
        imported(tmp_path, budget=7)


def test_poses_are_reckoned_from_keys() -> None:
    """As the game walks: forward is along the view, on flat ground; turns are exact."""
    vectors = {
        (1, 0, 0, 0, 0, 0, 6, 0): [0.0, 90.0, -1.0, 0.0],  # turns to the right, then walks: -x of the game
        (0, 0, 0, 1, 0, 0, 0, 1): [-15.0, 0.0, -1.0, 0.0],  # looks up, steps to the right
        (0, 1, 0, 0, 1, 0, 0, 0): [0.0, 0.0, 0.0, -1.0],
        (0, 0, 0, 0, 0, 0, 0, -9): [90.0, 0.0, 0.0, 0.0],
    }
    camera = torch.from_numpy(cameras_of(np.zeros((len(vectors), 5)))).float()
    found = poses_of(reckoned_pose(camera, torch.tensor(list(vectors)).float(), speed=0.5).numpy())
    expected = [[0.5 * x, 0, 0.5 * z, pitch, yaw] for pitch, yaw, x, z in vectors.values()]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_page_shows_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamwalk.systems.interactive.fits", lambda part: False)  # plain PyTorch
    app = _dream_app("minecraft", imported(tmp_path, retrieval="greedy", budget=12))
    assert app.memory and app.memory.strip and not app.schedules
    pair, step = WorldPair(app), SCHEMA.pack(SCHEMA.action(["forward"], yaw=15.0))
    pair.begin(1, {"start": 0})
    for _ in range(WINDOW + 5):
        pair.advance(step)
    strip, drawn = pair.strip(), pair.draw_map()
    assert strip and drawn and (strip.kept, strip.budget, len(strip.recalled)) == (12, 12, 8)
    told = [one for one in strip.recalled if one]
    assert told and all(one.picture.shape == (16, 24, 3) and one.age >= WINDOW for one in told)
    assert [one is None for one in drawn.recalled] == [one is None for one in strip.recalled]
    assert 2 <= len(drawn.places) <= 12 and drawn.scale < 1, "blocks, not hundredths of one"
    assert_on_the_map(drawn, drawn.places)
    assert_switched(pair, step, slots=8, kept=12)
    pair.close()
