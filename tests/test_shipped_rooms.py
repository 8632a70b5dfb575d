"""The shipped dream of any level: what was left is found again, in levels that no network was trained on."""

import numpy as np
import pytest
import torch

import dreamwalk
from dreamwalk.evaluation.fidelity import psnr
from dreamwalk.rollout.dream import Dream
from dreamwalk.systems.interactive import Interactive
from dreamwalk.worlds.doom import Doom, start_of


@pytest.fixture(scope="module")
def world() -> Dream:
    system = dreamwalk.load("forcing.rooms")
    assert isinstance(system, Interactive) and not system.memory.one_level
    return system.world(seed=0)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    pair = (torch.from_numpy(frame.copy()).permute(2, 0, 1)[None, None] for frame in (first, second))
    return float(psnr(*pair)[0, 0])


def turned_around(world: Dream, start: int, *, recalling: bool) -> list[float]:
    """How like the first frame those of a whole turn on the spot are."""
    first, _ = world.reset(seed=1, options={"start": start})
    world.session.memory.recalling = recalling
    turn = world.actions.action(yaw=30.0)
    return [likeness(first, world.step(turn)[0]) for _ in range(12)]


def test_a_whole_turn_comes_back_to_what_was_seen(world: Dream) -> None:
    starts = range(3)
    kept = np.array([turned_around(world, start, recalling=True) for start in starts])
    forgot = np.array([turned_around(world, start, recalling=False) for start in starts])
    assert kept[:, -1].mean() > 22, "found again"
    assert kept[:, 4:7].mean() < 18, "and it had been left"
    assert kept[:, -1].mean() > forgot[:, -1].mean() + 4, "it is the memory that does it"


def test_who_stands_still_stays(world: Dream) -> None:
    world.reset(seed=2, options={"start": 1})
    frames = [world.step(world.actions.action())[0] for _ in range(12)]
    poses = world.session.camera
    assert poses is not None and np.allclose(poses.pose[0], world.world_spec.poses[1], atol=1e-3)
    assert likeness(frames[-1], frames[-2]) > 30


def test_it_walks_through_a_level_as_the_game_does(world: Dream) -> None:
    level, pose = start_of("test", number=4)
    game = Doom(level)
    frame, info = game.reset(seed=0, options={"pose": pose})
    names = ("depth", "world_from_camera", "intrinsics")
    world.reset(seed=0, options={"image": frame, **{name: info[name] for name in names}})
    for _ in range(6):
        action = world.actions.action(["forward"], yaw=4.0)
        dreamt, *_, told = world.step(action)
        shown, *_, info = game.step(action)
    game.close()
    places = [each["world_from_camera"][:3, 3] for each in (told, info)]
    assert np.linalg.norm(places[0] - places[1]) < 16
    assert likeness(dreamt, shown) > 15
