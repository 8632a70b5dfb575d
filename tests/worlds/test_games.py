from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from fake_game import Push, make_push
from gymnasium import spaces

from dreamwalk.data.game_walks import GameWalks
from dreamwalk.data.shards import Shards
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.images import Fit
from dreamwalk.worlds.games import Game


def collect_game(game: Any, *, out: Path, workers: int = 1, **flags: Any) -> Path:
    walks = GameWalks(**{"id" if isinstance(game, str) else "make": game}, **flags)
    return write_clips(walks, len(walks), out, workers=workers)


def test_discrete_choices_are_buttons() -> None:
    env = Push(spaces.Discrete(4, start=1))
    game = Game(env, size=(20, 30))
    assert game.actions.buttons == ("choice_0", "choice_1", "choice_2", "choice_3")
    assert game.actions.choices == (game.actions.buttons,)
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
        jump=spaces.Discrete(2),
        gear=spaces.Discrete(3),
        gas=spaces.Box(0, 1),
    )
    env = Push(space, pixels=True)
    game = Game(env, repeat=2)
    assert set(game.actions.buttons) == {"keys_0", "keys_1", "jump", "gear_0", "gear_1", "gear_2"}
    assert dict(zip(game.actions.axes, game.actions.limits, strict=True)) == {
        "turn_0": 10,
        "turn_1": 2,
        "gas": 1,
    }
    assert game.actions.choices == (("gear_0", "gear_1", "gear_2"),)
    assert game.fps == 10
    game.reset(seed=0)
    game.step(game.actions.action(["keys_1", "gear_1", "jump"], turn_0=-5, turn_1=-2))
    assert len(env.seen) == 2
    assert space.contains(env.seen[0])
    assert env.seen[0]["keys"].tolist() == [0, 1]
    assert (env.seen[0]["gear"], env.seen[0]["jump"]) == (1, 1)
    assert env.seen[0]["turn"].tolist() == [-5, -1]


def test_games_that_cannot_be_wrapped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not known here"):
        Game(Push(spaces.Text(3)))
    blind = Push(spaces.Discrete(2))
    blind.render_mode = None
    with pytest.raises(UserError, match="render_mode='rgb_array'"):
        Game(blind)
    with pytest.raises(UserError, match=r"a game is a gymnasium.Env, and this is a object"):
        collect_game(object, out=tmp_path / "data")
    with pytest.raises(UserError, match="or a function that makes it"):
        collect_game(blind, out=tmp_path / "data")
    with pytest.raises(UserError, match="got 0 actions"):
        Game(Push(spaces.Dict({})))
    assert not (tmp_path / "data").exists()


SHOWN = {
    "grey": (np.full((40, 60), 7, np.uint8), None),
    "grey with an axis": (np.full((40, 60, 1), 7, np.uint8), None),
    "with alpha": (np.full((40, 60, 4), 7, np.uint8), None),
    "one pixel": (np.full((1, 1, 3), 7, np.uint8), None),
    "huge": (np.full((2000, 3000, 3), 7, np.uint8), None),
    "a list": (np.full((4, 4, 3), 7, np.uint8).tolist(), "int64 of shape \\(4, 4, 3\\)"),
    "float": (np.zeros((40, 60, 3), np.float32), "float32 of shape \\(40, 60, 3\\)"),
    "channels first": (np.zeros((3, 40, 60), np.uint8), "uint8 of shape \\(3, 40, 60\\)"),
    "stacked": (np.zeros((4, 40, 60, 3), np.uint8), "shape \\(4, 40, 60, 3\\)"),
    "empty": (np.zeros((0, 60, 3), np.uint8), "shape \\(0, 60, 3\\)"),
    "nothing": (None, "object of shape"),
}


@pytest.mark.parametrize("kind", SHOWN)
def test_frames_of_every_kind(kind: str, tmp_path: Path) -> None:
    shown, refusal = SHOWN[kind]
    env = Push(spaces.Discrete(3))
    env.render = lambda: shown  # type: ignore[method-assign]
    if refusal:
        with pytest.raises(UserError, match=refusal):
            collect_game(lambda: env, out=tmp_path / "data")
        assert not (tmp_path / "data").exists()
    else:
        frame, _ = Game(env, size=(20, 30)).reset(seed=0)
        assert frame.shape == (20, 30, 3)
        assert set(np.unique(frame)) <= {0, 7} and (frame[10, 15] == 7).all()  # between bars, or not


@pytest.mark.parametrize(
    ("space", "seen"),
    [
        (spaces.Box(0, 255, (40, 60, 3), np.uint8), True),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), False),  # a table of symbols
        (spaces.Box(0, 255, (84, 84), np.uint8), False),  # rendered in colour
        (spaces.Box(0, 1, (40, 60, 3), np.float32), False),
        (spaces.Dict(image=spaces.Box(0, 255, (40, 60, 3), np.uint8)), False),
    ],
)
def test_what_is_seen_is_the_observation_or_rendered(space: spaces.Space, seen: bool) -> None:
    env = Push(spaces.Discrete(3))
    env.observation_space, env._see = space, lambda: np.full((40, 60, 3), 99, np.uint8)  # type: ignore
    frame, _ = Game(env, size=(40, 60)).reset(seed=0)
    assert (np.unique(frame).tolist() == [99]) == seen


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
    assert (actions.reshape(40, 4, 3)[:, 1:].sum(-1) == 1).all()


def collected(space: spaces.Space, out: Path, frames: int = 2500) -> tuple[Shards, np.ndarray]:
    """Rows of a game that a child plays, without the first of each clip, into which nothing leads."""
    data = Shards(collect_game(lambda: Push(space, pixels=True), out=out, frames=frames, size=(16, 16)))
    return data, np.concatenate([data.clip(k).actions[1:] for k in range(len(data))])


def test_every_choice_is_drawn_about_equally_often(tmp_path: Path) -> None:
    for n in (2, 5):
        _, rows = collected(spaces.Discrete(n), tmp_path / str(n))
        assert (rows.sum(1) == 1).all()
        assert rows.mean(0) * n == pytest.approx(1, abs=0.3)


def test_standing_still_is_drawn_where_nothing_need_be_held(tmp_path: Path) -> None:
    mine = {key: spaces.Discrete(2) for key in ("attack", "forward", "jump")}
    data, rows = collected(spaces.Dict(camera=spaces.Box(-180, 180, (2,)), **mine), tmp_path)
    assert data.schema.buttons == ("attack", "forward", "jump")
    assert rows[:, :3].mean(0) * 2 == pytest.approx(1, abs=0.3)
    assert (rows == 0).all(1).mean() > 0.05
    assert abs(rows[:, 3:]).mean() > 0.1


def test_axes_alone_are_played_and_bounded_on_each_side(tmp_path: Path) -> None:
    car = spaces.Box(np.array([-1, 0, 0], np.float32), np.array([1, 1, 0.5], np.float32))
    data, rows = collected(car, tmp_path, frames=1000)
    assert (data.schema.buttons, data.schema.axes) == ((), ("axis_0", "axis_1", "axis_2"))
    assert rows.min(0).tolist()[1:] == [0, 0]
    assert rows.min() < -0.5
    assert (rows[:, 1:] > 0).mean() > 0.3
    assert data.schema.space.contains(data.schema.unpack(rows[0]))
    assert data.schema.action(axis_1=-1)["axes"].tolist() == [0, 0, 0]


def test_a_game_of_gymnasium_that_has_axes_alone(tmp_path: Path) -> None:
    data = Shards(collect_game("Pendulum-v1", out=tmp_path, frames=32, clip_frames=16, size=(32, 32)))
    assert (data.schema.buttons, data.schema.limits, data.schema.ranges) == ((), (2.0,), ((-2.0, 2.0),))
    assert len(np.unique(data.clip(0).video[:, 16])) > 10


def test_numbers_that_make_no_clips(tmp_path: Path) -> None:
    for wrong in ({"frames": 0}, {"workers": 0}, {"clip_frames": 1}, {"skip": -1}, {"repeat": 0}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))}"):
            collect_game(make_push, out=tmp_path / "data", **wrong)
    assert not (tmp_path / "data").exists()


def test_a_game_of_another_package_says_which_prefix_it_needs() -> None:
    with pytest.raises(UserError, match=r"no game called 'ALE/Pong-v5'.*as in ale_py:ALE/Pong-v5"):
        Game("ALE/Pong-v5")
    with pytest.raises(UserError, match="no_such_package"):
        Game("no_such_package:Game-v0")


def test_episodes_that_are_too_short(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ended before 10 frames: add `--clip-frames 6`"):
        collect_game(lambda: Push(spaces.Discrete(2), lasts=5), out=tmp_path, frames=10, clip_frames=10)


class Tall(gymnasium.Env):
    """A court of 210x160 that is white at its top and bottom, as Pong's score and walls are."""

    observation_space = spaces.Box(0, 255, (210, 160, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._court(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self._court(), 0.0, False, False, {}

    def _court(self) -> np.ndarray:
        court = np.full((210, 160, 3), 100, np.uint8)
        court[:30] = court[-30:] = 255
        return court


@pytest.mark.parametrize(
    ("fit", "top", "side"), [("letterbox", 255, 0), ("stretch", 255, 100), ("cut", 100, 100)]
)
def test_the_whole_court_is_kept_unless_asked(fit: Fit, top: int, side: int, tmp_path: Path) -> None:
    out = collect_game(Tall, out=tmp_path, frames=8, clip_frames=4, fit=fit)
    frame = Shards(out).clip(0).video[0].astype(int)
    assert frame.shape == (96, 128, 3)
    assert abs(frame[2, 64] - top).max() < 12 and abs(frame[-3, 64] - top).max() < 12
    assert abs(frame[48, 2] - side).max() < 12 and abs(frame[48, 64] - 100).max() < 12
    with pytest.raises(UserError, match="holds clips of another"):
        collect_game(
            Tall, out=tmp_path, frames=8, clip_frames=4, fit="cut" if fit == "stretch" else "stretch"
        )
