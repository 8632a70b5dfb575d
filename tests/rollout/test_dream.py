from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import camera, panorama, toy_system, with_map

from dreamwalk.clip import Clip
from dreamwalk.rollout.dream import Dream
from dreamwalk.rollout.onnx import OnnxDecoder, OnnxPass
from dreamwalk.rollout.realtime import EagerPass
from dreamwalk.systems import nextframe
from dreamwalk.systems.nextframe import NextFrame


@pytest.fixture(scope="module")
def system() -> NextFrame:
    return toy_system()


@pytest.fixture
def world(system: NextFrame) -> Dream:
    return system.world(seed=0)


def walk(world: Dream, frames: int, *, yaw: float = 5.0) -> np.ndarray:
    action = world.actions.action(["forward"], yaw=yaw)
    return np.stack([world.step(action)[0] for _ in range(frames)])


def test_onnx_equals_eager(system: NextFrame) -> None:
    fast = OnnxPass(system.actions, system.backbone, actions=7, window=8)
    start = Clip(
        video=torch.from_numpy(panorama(0)).permute(2, 0, 1)[None, None].contiguous(),
        actions=torch.zeros(1, 1, 7),
    )
    dreams = []
    for step in (fast, system.frame_pass()):
        session = system.begin(start, seed=3, frame_pass=step)
        dreams.append(
            torch.cat(
                [system.advance(session, torch.full((1, 7), 0.3), frame_pass=step) for _ in range(12)], 1
            )
        )
    torch.testing.assert_close(dreams[0], dreams[1], atol=2e-5, rtol=1e-4)
    latents = dreams[1][:, :1]
    with torch.inference_mode():
        torch.testing.assert_close(
            OnnxDecoder(system.codec, (16, 4, 4))(latents), system.codec.decode(latents), atol=1e-5, rtol=1e-4
        )


def test_same_seed_same_dream(world: Dream) -> None:
    films = []
    for seed in (7, 7, 8):
        world.reset(seed=seed, options={"start": 1})
        films.append(walk(world, 4))
    assert (films[0] == films[1]).all()
    assert (films[0] != films[2]).any()


def test_restore_goes_on_as_if_nothing_had_happened(world: Dream) -> None:
    world.reset(seed=1)
    walk(world, 10)  # past the window, so that the ring has turned
    state = world.state()
    first = walk(world, 5)
    world.restore(state)
    assert (walk(world, 5) == first).all()
    world.restore(state)
    assert (walk(world, 5) == first).all()


def test_two_dreams_share_weights_but_no_state(system: NextFrame, world: Dream) -> None:
    world.reset(seed=1, options={"start": 0})
    alone = walk(world, 6)
    other = system.world(seed=2)
    world.reset(seed=1, options={"start": 0})
    mixed = []
    for _ in range(6):
        mixed.append(walk(world, 1)[0])
        walk(other, 1, yaw=-20.0)
    assert (np.stack(mixed) == alone).all()


def test_actions_matter(world: Dream) -> None:
    """With the same noise, another action gives another frame."""
    state = world.state()
    left, right = [], []
    for film, yaw in ((left, -20.0), (right, 20.0)):
        world.restore(state)
        film.append(walk(world, 3, yaw=yaw))
    assert (left[0] != right[0]).any()


def test_poses_are_reckoned_from_actions(world: Dream) -> None:
    world.reset(seed=0, options={"start": 0})
    info = {}
    for _ in range(9):
        info = world.step(world.actions.action(yaw=10.0))[4]
    info = world.step(world.actions.action(["forward"]))[4]
    np.testing.assert_allclose(
        info["world_from_camera"][:3, 2], [0, -1, 0], atol=1e-6
    )  # from east ninety degrees to the right
    np.testing.assert_allclose(info["world_from_camera"][:3, 3], [40, 35, 41], atol=1e-5)
    assert set(world.timings) == {"denoise", "commit", "decode"}


def test_any_picture_is_a_start(world: Dream) -> None:
    picture = panorama(33)
    frame, _ = world.reset(seed=0, options={"image": picture})
    assert (frame == picture).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"start": 9}, "no start 9: this dream has 2"),
        ({"image": np.zeros((3, 3, 3), np.uint8)}, r"uint8 of shape \(32, 32, 3\)"),
        (
            {"start": 0, "world_from_camera": [[1, 0], [0, 1]]},
            r"world_from_camera is a finite 4x4 matrix, got one of shape \(2, 2\)",
        ),
        ({"start": 0, "world_from_camera": "north"}, "world_from_camera is a finite 4x4 matrix, got 'north'"),
    ],
)
def test_impossible_starts_are_refused(world: Dream, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        world.reset(options=options)


def test_impossible_steps_are_refused(world: Dream) -> None:
    with pytest.raises(ValueError, match="from 1 to 64, got 0"):
        world.steps = 0
    with pytest.raises(ValueError, match="from 1 to 64, got 65"):
        world.steps = 65
    world.steps = 64
    assert world.steps == 64


def test_random_weights_have_no_world() -> None:
    with pytest.raises(ValueError, match="random weights"):
        NextFrame(nextframe.tiny()).world()


def test_the_pass_is_one_graph_for_all_frames(system: NextFrame) -> None:
    """Captured whole and once: no break, and no new graph when the ring fills and turns."""
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list) -> object:
        graphs.append(graph)
        return graph.forward

    step = EagerPass(system.actions, system.backbone)
    step.predict = torch.compile(system.backbone.predict, backend=count, fullgraph=True)
    start = Clip(
        video=torch.from_numpy(panorama(0)).permute(2, 0, 1)[None, None].contiguous(),
        actions=torch.zeros(1, 1, 7),
    )
    session, plain = system.begin(start, frame_pass=step), system.begin(start)
    for _ in range(12):
        compiled = system.advance(session, torch.zeros(1, 7), frame_pass=step)
        torch.testing.assert_close(compiled, system.advance(plain, torch.zeros(1, 7)))
    assert len(graphs) == 1


@pytest.fixture
def mapped() -> Dream:
    return toy_system(with_map(nextframe.tiny())).world(seed=0)


def test_with_a_map_the_place_decides_what_is_seen(mapped: Dream) -> None:
    """The same picture at another pose goes on otherwise, and unknown poses are possible."""
    films = []
    for options in ({}, {"world_from_camera": camera(90)[0].tolist()}, {"world_from_camera": camera(0)[0]}):
        mapped.reset(seed=5, options={"image": panorama(0), **options})
        films.append(walk(mapped, 3))
    mapped.reset(seed=5, options={"start": 0})
    assert (films[2] == walk(mapped, 3)).all()
    assert (films[0] != films[2]).any() and (films[1] != films[2]).any()


def test_with_a_map_poses_are_those_of_the_pose_model(mapped: Dream) -> None:
    mapped.reset(seed=5, options={"start": 0})
    state = mapped.state()
    action = mapped.actions.action(["forward"], yaw=9.0)
    poses = [mapped.step(action)[4]["world_from_camera"] for _ in range(3)]
    session = state.session
    assert session.camera is not None
    held = torch.from_numpy(mapped.actions.pack(action))[None]
    with torch.inference_mode():
        pose_model = mapped.system.memory.pose_model  # type: ignore[attr-defined]
        expected = pose_model(session.camera.pose, session.camera.displacement, session.camera.action, held)[
            0
        ]
    np.testing.assert_allclose(poses[0], expected[0].numpy(), atol=1e-5)
    mapped.restore(state)
    again = [mapped.step(action)[4]["world_from_camera"] for _ in range(3)]
    assert np.array_equal(poses, again)


def test_onnx_equals_eager_with_a_map() -> None:
    system = toy_system(with_map(nextframe.tiny()))
    start = Clip(
        video=torch.from_numpy(panorama(0)).permute(2, 0, 1)[None, None].contiguous(),
        actions=torch.zeros(1, 1, 7),
        world_from_camera=torch.from_numpy(camera(0)[0])[None, None],
        intrinsics=torch.from_numpy(camera(0)[1])[None, None],
    )
    dreams = []
    for step in (OnnxPass(system.actions, system.backbone, actions=7, window=8), system.frame_pass()):
        session = system.begin(start, seed=3, frame_pass=step)
        frames = [system.advance(session, torch.full((1, 7), 0.3), frame_pass=step) for _ in range(4)]
        dreams.append(torch.cat(frames, 1))
    torch.testing.assert_close(dreams[0], dreams[1], atol=2e-5, rtol=1e-4)


def test_who_stands_still_keeps_its_noise(mapped: Dream) -> None:
    """And its place: nothing flickers. Each row of a batch by itself."""
    frame, info = mapped.reset(seed=5, options={"start": 0})
    session = mapped.state().session
    start = Clip(
        video=torch.from_numpy(np.stack([frame, frame])).permute(0, 3, 1, 2)[:, None].contiguous(),
        actions=torch.zeros(2, 1, 7),
        world_from_camera=torch.from_numpy(info["world_from_camera"]).expand(2, 1, 4, 4),
        intrinsics=torch.from_numpy(info["intrinsics"]).expand(2, 1, 3, 3),
    )
    session = mapped.system.begin(start, seed=3)  # type: ignore[attr-defined]
    actions, noises = torch.zeros(2, 7), []
    actions[1, 5] = 0.3
    for _ in range(3):
        mapped.system.advance(session, actions)
        noises.append(session.noise(0, 0))
    assert torch.equal(noises[0][0], noises[2][0]) and session.still_frames == (3, 0)
    assert (noises[0][1] != noises[2][1]).any() and (noises[2][0] != noises[2][1]).any()
    assert torch.equal(session.camera.pose[0], start.world_from_camera[0, 0])
    mapped.system.advance(session, actions.flip(0))
    assert session.still_frames[0] == 0


def test_what_is_not_learnt_does_nothing(system: NextFrame) -> None:
    films = []
    for unlearnt, yaw in (((), 9.0), (("yaw", "place"), 9.0), ((), 0.0)):
        system.world_spec = replace(system.world_spec, unlearnt=unlearnt)  # type: ignore[type-var]
        world = system.world(seed=1)
        films.append(walk(world, 3, yaw=yaw))
    assert (films[0] != films[1]).any() and (films[1] == films[2]).all()
    assert type(system.world_spec).unpack(*system.world_spec.pack()).unlearnt == ()
