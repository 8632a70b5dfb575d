"""What every world keeps: the game, a recording of it, and whatever else is added to WORLDS."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_game import make_push
from gymnasium.utils.env_checker import check_env
from tiny_oasis import imported
from toy import toy_system

from dreamwalk.clip import Clip
from dreamwalk.systems import nextframe
from dreamwalk.world import ActionSchema, World
from dreamwalk.worlds.doom import DOOM_ACTIONS, Doom
from dreamwalk.worlds.games import Game
from dreamwalk.worlds.recording import Recording


def recording() -> Recording:
    frames = np.random.default_rng(0).integers(0, 256, (30, 24, 32, 3), np.uint8)
    poses = np.tile(np.eye(4, dtype=np.float32), (30, 1, 1))
    poses[:, 0, 3] = np.arange(30)
    clip = Clip(
        video=frames,
        actions=np.zeros((30, DOOM_ACTIONS.size), np.float32),
        world_from_camera=poses,
        intrinsics=np.tile(np.eye(3, dtype=np.float32), (30, 1, 1)),
        depth=np.ones((30, 24, 32), np.float32),
    )
    return Recording(clip, DOOM_ACTIONS)


def imported_dream() -> World:
    with tempfile.TemporaryDirectory() as folder:
        return imported(Path(folder)).world(seed=0)


def dream_of_a_game() -> World:
    """Of one with three choices and a pedal."""
    schema = ActionSchema(("a", "b", "c"), ("gas",), (1.0,), choices=(("a", "b", "c"),), ranges=((0.0, 1.0),))
    system = toy_system(replace(nextframe.tiny(), actions=schema.size))
    system.world_spec = replace(system.world_spec, actions=schema)
    return system.world(seed=0)


WORLDS: dict[str, Callable[[], World]] = {
    "doom": lambda: Doom("home", render_mode="rgb_array"),
    "doom-procedural": lambda: Doom("procedural:3", render_mode="rgb_array"),
    "recording": recording,
    "game": lambda: Game(make_push(), size=(24, 32)),
    "dream": lambda: toy_system().world(seed=0),
    "imported dream": imported_dream,
}


@pytest.fixture(params=list(WORLDS))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = WORLDS[request.param]()
    yield made
    made.close()


def walk(world: World, steps: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    frames = []
    for _ in range(steps):
        vector = random.uniform(-1, 1, world.actions.size)
        frames.append(world.step(world.actions.unpack(vector))[0])
    return frames


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")  # axes here are in degrees, on purpose
def test_gymnasium_finds_nothing_wrong(world: World) -> None:
    check_env(world, skip_render_check=True, skip_close_check=True)


def test_frames_poses_and_depth_have_their_shapes(world: World) -> None:
    frame, info = world.reset(seed=1)
    height, width, _ = frame.shape
    assert frame.dtype == np.uint8
    assert world.observation_space.contains(frame)
    if "world_from_camera" in info:
        assert info["world_from_camera"].shape == (4, 4)
        assert info["intrinsics"].shape == (3, 3)
        assert np.allclose(np.linalg.det(info["world_from_camera"][:3, :3]), 1, atol=1e-5)
    if "depth" in info:
        assert info["depth"].shape == (height, width)
        assert info["depth"].dtype == np.float32
        assert (info["depth"] >= 0).all()


def test_a_seed_is_a_walk(world: World) -> None:
    world.reset(seed=5)
    first = walk(world, 6, seed=0)
    world.reset(seed=5)
    assert all(np.array_equal(a, b) for a, b in zip(first, walk(world, 6, seed=0), strict=True))


def test_restore_goes_on_as_if_nothing_had_happened(world: World) -> None:
    _, first = world.reset(seed=2)
    frames = walk(world, 8, seed=1)
    state = world.state()
    future = walk(world, 8, seed=2)
    frame, info = world.restore(state)
    assert np.array_equal(frame, frames[-1])
    assert info.keys() == first.keys()
    assert all(np.array_equal(a, b) for a, b in zip(future, walk(world, 8, seed=2), strict=True))


def test_frames_belong_to_the_caller(world: World) -> None:
    frame, _ = world.reset(seed=0)
    kept = frame.copy()
    walk(world, 2, seed=0)
    assert np.array_equal(frame, kept)


def test_every_action_of_the_space_is_one_of_the_world(world: World) -> None:
    world.action_space.seed(0)
    for _ in range(5):
        action = world.action_space.sample()
        vector = world.actions.pack(action)
        assert np.array_equal(vector, world.actions.canonical(vector))
        back = world.actions.unpack(vector)
        assert world.action_space.contains(back)
        assert np.allclose(world.actions.pack(back), vector, atol=1e-6)
        assert all(np.allclose(back[name], action[name]) for name in back if name == "axes")


def test_a_world_of_axes_alone_has_no_button_in_its_frames() -> None:
    schema = ActionSchema((), ("gas",), (2.0,))
    assert schema.named(np.array([0.25], np.float32)) == ((), (0.5,))
    assert (schema.words(np.array([0.25])), schema.words(np.zeros(1))) == ("gas +0.5", "stay")
