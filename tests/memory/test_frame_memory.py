from dataclasses import replace

import pytest
import torch
from wall_walk import SIZE, walk

from dreamwalk.backbones.frame_backbone import Recalled
from dreamwalk.clip import Clip
from dreamwalk.codecs import patch
from dreamwalk.errors import UserError
from dreamwalk.memory import MEMORIES
from dreamwalk.memory.contract import CameraState, Recollection
from dreamwalk.memory.encodings import landing
from dreamwalk.memory.frame_memory import BankConfig, BankMemory, Banks
from dreamwalk.memory.frustum import Cameras
from dreamwalk.memory.points_and_bank import CloudsAndBanks, PointsAndBankConfig
from dreamwalk.memory.units import RecalledUnits, Targets
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems import forcing
from dreamwalk.systems.interactive import Interactive

ENCODINGS = ("projected", "prope", "pluecker")


def small(memory: object) -> Interactive:
    """RGB-D frames of 32x32, 4x4 tokens of 16 channels."""
    torch.manual_seed(0)
    config = replace(forcing.tiny(), memory=memory, window=2)  # type: ignore[arg-type]
    return replace(config, codec=replace(config.codec, image_channels=4)).build()


def learnt(system: Interactive) -> Interactive:
    """With weights that are nowhere zero."""
    for parameter in system.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return system


def units(system: Interactive, clip: Clip) -> tuple[RecalledUnits, Targets]:
    """The first four frames of a clip, recalled for its last."""
    assert clip.world_from_camera is not None and clip.intrinsics is not None
    pose, matrix, times = clip.world_from_camera, clip.intrinsics, clip.times
    latents, depth = system.encode(clip)[:, :4], torch.full((len(pose), 4, 8, 8), 200.0)
    flags = torch.ones(len(pose), 4, dtype=torch.bool)
    kept = RecalledUnits(
        latents, depth, Cameras(pose[:, :4], matrix[:, :4], SIZE), times[:, :4], ~flags, flags
    )
    return kept, Targets(Cameras(pose[:, -1:], matrix[:, -1:], SIZE), times[:, -1:])


def recall(system: Interactive, found: RecalledUnits, wanted: Targets) -> Recalled:
    """What memory blocks are given."""
    return system.memory.to_inputs(Recollection(units=(found, wanted)), system.codec)


@pytest.mark.parametrize("memory", ["bank", "points-and-bank", "recurrent"])
def test_a_trunk_with_new_memory_blocks_is_bit_equal_to_itself(memory: str) -> None:
    plain, system = small(MEMORIES["window"]()), small(MEMORIES[memory]())
    missing = system.backbone.load_state_dict(plain.backbone.state_dict(), strict=False)
    assert all(name.startswith("memory.") for name in missing.missing_keys)
    for trunk in (plain.backbone, system.backbone):
        torch.manual_seed(1)
        for parameter in (p for name, p in trunk.named_parameters() if not name.startswith("memory.")):
            torch.nn.init.normal_(parameter, std=0.2)
    start, actions = walk(6), torch.zeros(1, 7)
    sessions = [one.begin(start) for one in (plain, system)]
    if memory == "points-and-bank":  # its cloud may say something at once
        assert system.memory.memory_blocks is not None
        return
    for _ in range(3):
        camera = CameraState.of_clip(walk(9), 6)
        pairs = zip((plain, system), sessions, strict=True)
        films = [one.advance(session, actions, camera=camera) for one, session in pairs]
        assert torch.equal(*films)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_order_of_recalled_frames_means_nothing(encoding: str) -> None:
    system = learnt(small(BankConfig(encoding=encoding)))  # type: ignore[arg-type]
    kept, wanted = units(system, walk())
    order = torch.tensor([[2, 0, 3, 1]])
    x = system.encode(walk())[:, -1:]
    films = []
    for found in (kept, kept.pick(order)):
        recalled = recall(system, found, wanted)
        films.append(system.backbone(x, torch.ones(1, 1), torch.zeros(1, 1, 64), recalled=recalled))
    torch.testing.assert_close(*films, atol=1e-5, rtol=1e-5)
    hidden = kept._replace(valid=torch.zeros_like(kept.valid))
    recalled = recall(system, hidden, wanted)
    nothing = system.backbone(x, torch.ones(1, 1), torch.zeros(1, 1, 64), recalled=recalled)
    assert not torch.allclose(films[0], nothing, atol=1e-3)
    assert nothing.isfinite().all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_rows_of_a_batch_and_moved_worlds_recall_alike(encoding: str) -> None:
    system = learnt(small(BankConfig(encoding=encoding)))  # type: ignore[arg-type]
    clip, turn = walk(rows=2), torch.eye(4)
    turn[:3, :3] = torch.tensor([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    turn[:3, 3] = torch.tensor([500.0, -300, 20])
    poses = clip.world_from_camera.clone()
    poses[1] = turn @ poses[1]
    clip = replace(clip, video=clip.video[:1].expand(2, -1, -1, -1, -1), world_from_camera=poses)
    recalled = recall(system, *units(system, clip))
    for part in (recalled.keys, recalled.values):
        torch.testing.assert_close(part[0], part[1], atol=2e-3, rtol=1e-3)
    alone = recall(system, *units(system, walk()))
    torch.testing.assert_close(alone.keys[0], recalled.keys[0], atol=1e-4, rtol=1e-4)


def test_a_point_lands_where_the_camera_sees_it_and_hides_what_is_behind() -> None:
    clip = walk()
    targets = Cameras(clip.world_from_camera[:, :1], clip.intrinsics[:, :1], SIZE)
    points = torch.tensor([[[0.0, 200, 40], [0, 400, 40], [0, -100, 40], [150.0, 200, 40], [0, 300, 90]]])
    found = landing(points, torch.ones(1, 5, dtype=torch.bool), targets, (4, 4), finer=2)
    torch.testing.assert_close(found.place[0, 0, 0], torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(found.place[0, 0, 3], torch.tensor([2.0, 3.5]))
    assert found.visible[0, 0].tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("memory", ["bank", "points-and-bank", "recurrent"])
def test_every_memory_trains_and_learns_from_what_it_recalls(memory: str) -> None:
    system = small(MEMORIES[memory]())
    losses = system.loss(walk(8, past=True, rows=2), KeyedGenerator([(0, 0, 0), (0, 0, 1)]))
    losses["loss"].backward()
    with pytest.raises(UserError, match="--past"):
        system.loss(walk(8), KeyedGenerator([(0, 0, 0)]))
    system = learnt(system)
    losses = system.loss(walk(8, past=True, rows=2), KeyedGenerator([(0, 0, 0), (0, 0, 1)]))
    losses["loss"].backward()
    blank = [name for name, p in system.named_parameters() if p.requires_grad and p.grad is None]
    assert not blank


@torch.inference_mode()
def test_frames_in_the_window_are_not_recalled_and_a_session_is_copied_whole() -> None:
    system = learnt(small(BankConfig()))
    session = system.begin(walk(6))
    camera = CameraState.of_clip(walk(7), 6)
    found = session.memory.recall(camera, 6)
    assert found.units is not None
    kept = found.units[0]
    assert sorted(kept.time[kept.valid].tolist()) == [0, 1, 2, 3], "4 and 5 are in the window of 2"
    twin, action = session.clone(), torch.zeros(1, 7)
    first = [system.advance(session, action, camera=camera) for _ in range(3)]
    second = [system.advance(twin, action, camera=camera) for _ in range(3)]
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert isinstance(session.memory, Banks)
    session.memory.recalling = False
    silent = session.memory.recall(camera, 9).units
    assert silent is not None and not silent[0].valid.any()


def test_recollections_of_frames_lie_side_by_side() -> None:
    system = learnt(small(BankConfig()))
    recalled = recall(system, *units(system, walk()))
    both = Recalled.cat([recalled, Recalled(), recalled])
    assert both.keys is not None and both.visible is not None
    assert both.keys.shape[1] == 3 and not both.visible[:, 1].any()


@torch.inference_mode()
def test_no_bit_depends_on_which_keys_and_values_a_session_has_kept() -> None:
    system = learnt(small(BankConfig(frames=2)))
    session = system.begin(walk(6))
    latents = torch.randn(1, 3, *session.shape)
    assert isinstance(session.memory, Banks)
    made: list[torch.Tensor] = []

    def make(one: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        made.append(one)
        return system.memory.tokens.plain(system.codec.decode(one))

    kept = session.memory.kept
    first = kept.of(latents[:, :2], make)
    count = len(made)
    second = kept.of(latents[:, [1, 2]], make)
    assert len(made) == count + 1, "one of them was kept"
    assert torch.equal(first[0][:, 1], second[0][:, 0]) and torch.equal(first[1][:, 1], second[1][:, 0])
    for camera in (CameraState.of_clip(walk(8), i) for i in (6, 3, 7)):
        parts = []
        for memory in (session.memory, session.memory.clone()):  # a copy keeps nothing of it
            found = memory.recall(camera, 6)
            parts.append(system.memory.to_inputs(found, system.codec))
        assert torch.equal(parts[0].keys, parts[1].keys) and torch.equal(parts[0].values, parts[1].values)
        at_once = system.memory.to_inputs(replace(found, kept=None), system.codec)
        torch.testing.assert_close(at_once.keys, parts[0].keys, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(at_once.values, parts[0].values, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_guidance_over_memory_goes_beyond_what_is_recalled() -> None:
    films = []
    for guidance in (1.0, 2.0):
        system = learnt(small(BankConfig(guidance=guidance)))
        session, camera = system.begin(walk(6)), CameraState.of_clip(walk(7), 6)
        films.append(system.advance(session, torch.zeros(1, 7), camera=camera))
        session = system.begin(walk(6))
        session.memory.recalling = False
        films.append(system.advance(session, torch.zeros(1, 7), camera=camera))
    plain, silent, guided, guided_silent = films
    assert torch.equal(silent, guided_silent), "without recalled frames there is nothing to go beyond"
    assert not torch.allclose(plain, guided, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "channels", "says"),
    [
        (BankConfig(), 3, "has none: take one of RGB-D"),
        (BankConfig(split=3), 4, "does not divide into 3 parts"),
        (BankConfig(frames=20), 4, "of 16 candidates 20 frames cannot be recalled"),
        (BankConfig(every=9), 4, "memory blocks follow every 1st to 2th block"),
    ],
)
def test_sizes_that_do_not_go_together_are_one_sentence(config: BankConfig, channels: int, says: str) -> None:
    codec = replace(patch.tiny(), image_channels=channels)
    with pytest.raises(UserError, match=says):
        replace(forcing.tiny(), memory=config, codec=codec).build()


def test_dreamed_frames_count_only_where_no_true_one_shows_anything() -> None:
    system = small(BankConfig(frames=2))
    kept, wanted = units(system, walk())
    assert isinstance(system.memory, BankMemory)
    nearest = int(system.memory.covering(kept, wanted, 1)[0])
    dreamed = kept._replace(dreamed=torch.arange(4)[None] == nearest)
    assert int(system.memory.covering(dreamed, wanted, 1)[0]) != nearest
    first, share = system.memory.covering(kept._replace(valid=torch.arange(4)[None] == 2), wanted, 2)
    assert first[0, 0] == 2 and first[0, 1] != 2, "what is not there fills the rest"
    assert 0 < share[0, 0] <= 1 and 0 <= share[0, 1] <= 1 - share[0, 0]


@torch.inference_mode()
def test_a_copy_of_both_memories_knows_when_something_was_changed() -> None:
    session = small(PointsAndBankConfig(changing=4)).begin(walk(3))
    assert isinstance(session.memory, CloudsAndBanks) and session.memory.changed is not None
    twin = session.memory.clone()
    assert isinstance(twin, CloudsAndBanks) and twin.changed is not None
    assert torch.equal(twin.changed, session.memory.changed)
