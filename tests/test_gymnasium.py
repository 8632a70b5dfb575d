"""The worlds by gymnasium's own doors: registration, checkers, copies, other processes."""

import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from toy import toy_system

import dreamwalk  # noqa: F401  (it registers the worlds)
from dreamwalk.errors import UserError
from dreamwalk.rollout.dream import Dream

ROOT = Path(__file__).parent.parent
IDS = [f"dreamwalk/{world}{form}-v0" for world in ("Doom", "Dream") for form in ("", "Discrete")]


def made(name: str, **options: object) -> gymnasium.Env:
    options |= {"system": toy_system()} if "Dream" in name else {}
    return gymnasium.make(name, **options)


def python(code: str, *, timeout: int = 200) -> str:
    """What a process prints that runs `code`; it and its children end within the time."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, err
    return out


@pytest.fixture
def dream() -> Iterator[Dream]:
    world = made("dreamwalk/Dream-v0", render_mode="rgb_array").unwrapped
    assert isinstance(world, Dream)
    world.reset(seed=0)
    yield world
    world.close()


def test_importing_the_package_registers_its_worlds_and_nothing_heavy() -> None:
    ids = python(
        "import sys, dreamwalk, gymnasium\n"
        "assert not {'torch', 'vizdoom', 'dreamwalk.data', 'dreamwalk.systems'} & set(sys.modules)\n"
        "print(*[name for name in gymnasium.registry if name.startswith('dreamwalk/')])"
    )
    assert ids.split() == IDS
    code = "import gymnasium; print(gymnasium.make('dreamwalk:dreamwalk/Doom-v0').spec.id)"
    assert python(code).split() == IDS[:1]


@pytest.mark.filterwarnings("ignore:.*(normalized space|different from the unwrapped version)")
@pytest.mark.parametrize("name", IDS)
def test_the_checkers_find_nothing_wrong(name: str) -> None:
    env = made(name, render_mode="rgb_array")
    check_env(env if "Discrete" in name else env.unwrapped)
    env.close()


@pytest.mark.filterwarnings("ignore:.*(not based off a numpy array|minimal resolution)")
@pytest.mark.parametrize("name", IDS)
def test_the_checker_of_stable_baselines_finds_nothing_wrong(name: str) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = made(name)
    checker.check_env(env)
    env.close()


@pytest.mark.parametrize("name", IDS)
def test_modes_and_rates_of_rendering(name: str) -> None:
    env = made(name)
    env.reset(seed=0)
    assert env.unwrapped.render() is None
    rate = 12 if "Doom" in name else 10
    assert env.metadata == {"render_modes": ["rgb_array"], "render_fps": rate}
    env.close()
    env = made(name, render_mode="rgb_array")
    assert np.array_equal(env.reset(seed=0)[0], env.render())
    env.close()
    with warnings.catch_warnings(), pytest.raises(UserError, match="a world has no render_mode 'ansi'"):
        warnings.simplefilter("ignore")  # gymnasium warns of it too
        made(name, render_mode="ansi")


def test_an_episode_ends_where_it_was_registered_to_end() -> None:
    assert {gymnasium.spec(name).max_episode_steps for name in IDS} == {2100}
    env = made("dreamwalk/DreamDiscrete-v0", max_episode_steps=2)
    env.reset(seed=0)
    assert [env.step(1)[3] for _ in range(2)] == [False, True]


def test_numbered_actions() -> None:
    env = made("dreamwalk/DreamDiscrete-v0", max_episode_steps=-1)
    meanings = env.get_action_meanings()
    assert meanings == [
        "stay",
        "forward",
        "back",
        "left",
        "right",
        "place",
        "yaw -7.5",
        "yaw +7.5",
        "pitch -3.75",
        "pitch +3.75",
    ]
    world = env.unwrapped
    env.reset(seed=0)
    numbered = env.step(meanings.index("yaw +7.5"))[0]
    env.reset(seed=0)
    assert np.array_equal(numbered, world.step(world.actions.action(yaw=7.5))[0])
    for wrong in (10, -1, 1.5, None, {"buttons": np.zeros(5)}):
        with pytest.raises(UserError, match="a whole number from 0 to 9, got"):
            env.action(wrong)


def test_actions_of_the_wrong_kind_get_one_sentence(dream: Dream) -> None:
    right = dream.actions.action()
    wrong = [
        3,
        None,
        "forward",
        np.zeros(7),
        [0] * 7,
        {},
        {"buttons": right["buttons"]},
        {**right, "buttons": np.zeros(4)},
        {**right, "axes": np.zeros(3)},
        {**right, "axes": ["a", "b"]},
        {**right, "buttons": np.full(5, 2)},
        {**right, "axes": np.array([0, np.nan])},
    ]
    for action in wrong:
        with pytest.raises(UserError, match=r"^an action here is a dict with .*: got [^\n]*$"):
            dream.step(action)  # type: ignore[arg-type]
    dream.step({"buttons": [True, False, 0, 1, 0], "axes": [500, -2]})  # lists do, and limits are kept


@pytest.mark.parametrize("twin_of", [deepcopy, lambda world: pickle.loads(pickle.dumps(world))])
def test_a_copy_goes_on_as_the_dream_would(dream: Dream, twin_of) -> None:
    ahead = dream.actions.action(["forward"], yaw=5)
    dream.step(ahead)
    twin = twin_of(dream)
    first = [dream.step(ahead)[0] for _ in range(3)]
    assert all(np.array_equal(a, twin.step(ahead)[0]) for a in first)
    assert (twin.system is dream.system) == (twin_of is deepcopy)
    assert np.array_equal(dream.reset()[0], twin.reset()[0])  # so does chance


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_dreams_walk_in_processes_of_their_own(context: str) -> None:
    same = python(f"""
import gymnasium, numpy, dreamwalk, torch
from toy import toy_system
torch.rand(1000, 1000) @ torch.rand(1000, 1000)  # its threads are running
options = dict(num_envs=2, system=toy_system())
settings = dict(context={context!r}, daemon=True)
name = "dreamwalk/Dream-v0"
several = gymnasium.make_vec(name, vectorization_mode="async", vector_kwargs=settings, **options)
one = gymnasium.make_vec(name, vectorization_mode="sync", **options)
walks = []
for envs in (several, one):
    frames = [envs.reset(seed=[1, 2])[0]]
    envs.action_space.seed(0)
    frames += [envs.step(envs.action_space.sample())[0] for _ in range(3)]
    walks.append(numpy.stack(frames).astype(int))
several.close()
print(abs(walks[0] - walks[1]).max() <= 2, walks[0].shape)
""")
    assert same.split("\n")[0] == "True (4, 2, 32, 32, 3)"
