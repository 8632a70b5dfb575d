from pathlib import Path

import gymnasium
import numpy as np
import pytest
from fake_game import Push, make_push
from gymnasium import spaces

from dreamwalk.data.games import Game, collect_game
from dreamwalk.data.shards import Shards


def test_discrete_choices_are_buttons() -> None:
    env = Push(spaces.Discrete(4, start=1))
    game = Game(env, size=(20, 30))
    assert game.actions.buttons == ("choice_0", "choice_1", "choice_2", "choice_3")
    frame, _ = game.reset(seed=0)
    assert frame.shape == (20, 30, 3)
    game.step(game.actions.action(["choice_2"]))
    game.step(game.actions.action())
    game.step(game.actions.action(["choice_3", "choice_1"]))
    assert env.seen == [3, 1, 2]


def test_a_dict_of_everything() -> None:
    space = spaces.Dict(
        turn=spaces.Box(np.array([-10, -1], np.float32), np.array([10, 2], np.float32)),
        keys=spaces.MultiBinary(2),
        gear=spaces.Discrete(2),
    )
    env = Push(space, pixels=True)
    game = Game(env, repeat=2)
    assert set(game.actions.buttons) == {"keys_0", "keys_1", "gear_0", "gear_1"}
    assert game.actions.axes == ("turn_0", "turn_1")
    assert game.actions.limits == (10, 2)
    assert game.fps == 10
    game.reset(seed=0)
    game.step(game.actions.action(["keys_1", "gear_1"], turn_0=-5, turn_1=-2))
    assert len(env.seen) == 2
    assert space.contains(env.seen[0])
    assert env.seen[0]["keys"].tolist() == [0, 1]
    assert env.seen[0]["gear"] == 1
    assert env.seen[0]["turn"].tolist() == [-5, -1]


def test_games_that_cannot_be_wrapped() -> None:
    with pytest.raises(ValueError, match="not known here"):
        Game(Push(spaces.Text(3)))
    blind = Push(spaces.Discrete(2))
    blind.render_mode = None
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        Game(blind)


def test_collected_by_a_policy(tmp_path: Path) -> None:
    def right(frame: np.ndarray, info: dict, random: np.random.Generator) -> np.ndarray:
        return np.array([0, 0, 1], np.float32)

    out = collect_game(make_push, out=tmp_path, frames=30, policy=right, size=(40, 60), clip_frames=10)
    data = Shards(out)
    clip = data.clip(2)
    assert (len(data), data.fps, data.schema.buttons) == (3, 20, ("choice_0", "choice_1", "choice_2"))
    assert clip.world_from_camera is None
    assert clip.actions.tolist() == [[0, 0, 0]] + [[0, 0, 1]] * 9
    columns = [frame.mean((0, 2)).argmax() for frame in clip.video.astype(int)]
    assert np.median(np.diff(columns)) == 2


def test_collected_at_random_by_id_in_two_processes(tmp_path: Path) -> None:
    gymnasium.register("fake/Push-v0", entry_point="fake_game:make_push")
    one = collect_game(make_push, out=tmp_path / "one", frames=160, size=(40, 60), clip_frames=4, skip=5)
    two = collect_game(
        make_push, out=tmp_path / "two", frames=160, size=(40, 60), clip_frames=4, skip=5, workers=2
    )
    assert [f.read_bytes() for f in sorted(one.iterdir())] == [f.read_bytes() for f in sorted(two.iterdir())]
    named = collect_game(
        "fake/Push-v0", out=tmp_path / "named", frames=160, size=(40, 60), clip_frames=4, skip=5
    )
    assert (named / "000001.tar").read_bytes() == (one / "000001.tar").read_bytes()
    actions = np.concatenate([Shards(one).clip(k).actions for k in range(40)])
    assert 0.2 < actions.mean() < 0.8


def test_episodes_that_are_too_short(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ended before 10 frames: choose a smaller clip_frames"):
        collect_game(lambda: Push(spaces.Discrete(2), lasts=5), out=tmp_path, frames=10, clip_frames=10)
