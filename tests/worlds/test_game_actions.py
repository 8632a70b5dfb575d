"""Action spaces of every kind: taken, or refused with one sentence."""

from enum import IntEnum

import gymnasium
import numpy as np
import pytest
from fake_game import Push
from gymnasium import spaces

from dreamwalk.errors import UserError
from dreamwalk.worlds.game_actions import meanings, translate


def box(low: object, high: object, kind: type = np.float32) -> spaces.Box:
    return spaces.Box(np.array(low, kind), np.array(high, kind), dtype=kind)


# a space, and how many buttons, groups of choices and axes it becomes
TAKEN: dict[str, tuple[spaces.Space, tuple[int, int, int]]] = {
    "one choice": (spaces.Discrete(1), (1, 1, 0)),
    "two choices": (spaces.Discrete(2), (2, 1, 0)),
    "choices from -3 on": (spaces.Discrete(5, start=-3), (5, 1, 0)),
    "many choices": (spaces.Discrete(1000), (1000, 1, 0)),
    "groups of choices": (spaces.MultiDiscrete([3, 2, 4]), (8, 2, 0)),
    "groups in a table": (spaces.MultiDiscrete([[3, 3], [2, 2]], start=[[1, 0], [5, 0]]), (8, 2, 0)),
    "a table of bits": (spaces.MultiBinary([2, 3]), (6, 0, 0)),
    "one number": (spaces.Box(-2, 2, ()), (0, 0, 1)),
    "a table of numbers": (spaces.Box(-1, 1, (2, 3)), (0, 0, 6)),
    "uneven sides": (box([-1, 0, 0], [1, 1, 1]), (0, 0, 3)),
    "without zero": (box([1, -5], [2, -3]), (0, 0, 2)),
    "low is high": (box([0, 3], [0, 3]), (0, 0, 2)),
    "whole numbers": (box([0, -4], [255, 4], np.int32), (0, 0, 2)),
    "bits as numbers": (spaces.Box(0, 1, (4,), np.int8), (4, 0, 0)),
    "MineRL": (
        spaces.Dict(camera=spaces.Box(-180, 180, (2,)), jump=spaces.Discrete(2), craft=spaces.Discrete(4)),
        (5, 1, 2),
    ),
    "Dicts in Dicts": (
        spaces.Dict(
            arm=spaces.Dict(grip=spaces.Discrete(2), turn=spaces.Box(-1, 1)), legs=spaces.MultiBinary(2)
        ),
        (3, 0, 1),
    ),
    "a Tuple": (spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1), spaces.Discrete(2)]), (4, 1, 1)),
}
REFUSED: dict[str, tuple[spaces.Space | None, str]] = {
    "words": (spaces.Text(5), "Text.* not known here"),
    "a sequence": (spaces.Sequence(spaces.Discrete(2)), "Sequence.* not known here"),
    "a graph": (spaces.Graph(spaces.Box(-1, 1), spaces.Discrete(2)), "Graph.* not known here"),
    "one of several": (spaces.OneOf([spaces.Discrete(2), spaces.Box(-1, 1)]), "OneOf.* not known here"),
    "none": (None, "None are not known here"),
    "without bounds": (spaces.Box(-np.inf, np.inf, (2,)), "a bounded Box"),
    "bounded below": (spaces.Box(0, np.inf, (2,)), "a bounded Box"),
    "bounds of the number format": (spaces.Box(-3.4e38, 3.4e38), r"up to 3.4e\+38, which no key can mean"),
    "a text in a Dict": (spaces.Dict(say=spaces.Text(3), go=spaces.Discrete(2)), "not known here"),
    "too many choices": (spaces.Discrete(2**40), "1099511627776 choices or numbers .* are too many"),
    "too many numbers": (spaces.Box(-1, 1, (64, 64)), "4096 .* too many"),
    "names that meet": (
        spaces.Dict(a=spaces.MultiBinary(2), a_1=spaces.Discrete(2)),
        "different names, got a_0, a_1, a_1",
    ),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_spaces_that_are_taken(kind: str) -> None:
    space, (buttons, groups, axes) = TAKEN[kind]
    made = translate(space)
    schema = made.schema
    assert (len(schema.buttons), len(schema.choices), len(schema.axes)) == (buttons, groups, axes)
    random = np.random.default_rng(0)
    for _ in range(20):
        vector = schema.pack(schema.unpack(random.uniform(-1, 1, schema.size)))
        assert space.contains(made.native(vector))
        assert np.allclose(vector, schema.canonical(vector))
        grouped = [[schema.buttons.index(name) for name in group] for group in schema.choices]
        assert all(vector[group].sum() == 1 for group in grouped)
    still = schema.canonical(np.zeros(schema.size))
    assert space.contains(made.native(still))


@pytest.mark.parametrize("kind", REFUSED)
def test_spaces_that_are_refused(kind: str) -> None:
    space, sentence = REFUSED[kind]
    with pytest.raises(UserError, match=sentence):
        translate(space)  # type: ignore[arg-type]


def test_what_acts_is_what_is_meant() -> None:
    groups = translate(spaces.MultiDiscrete([3, 2, 4], start=[1, 0, 0]))
    vector = groups.schema.pack(groups.schema.action(["choice_0_2", "choice_1", "choice_2_3"]))
    assert groups.native(vector).tolist() == [3, 1, 3]
    whole = translate(box([0, -4], [255, 4], np.int32))
    assert whole.native(np.array([0.5, -0.3])).tolist() == [128, -1]
    away = translate(box([1, -5], [2, -3]))
    assert away.native(away.schema.canonical(np.zeros(2))).tolist() == [1, -3]
    table = translate(spaces.MultiBinary([2, 3]))
    assert table.native(np.array([0, 0, 0, 1, 0, 0])).tolist() == [[0, 0, 0], [1, 0, 0]]


def test_choices_have_the_names_that_the_game_gives() -> None:
    class Moves(IntEnum):
        left = 0
        right = 1
        done = 2

    env = Push(spaces.Discrete(3))
    env.actions = Moves  # as MiniGrid has it  # type: ignore[attr-defined]
    grid = translate(env.action_space, meanings(env))
    assert grid.schema.buttons == ("left", "right", "done")
    assert grid.native(grid.schema.canonical(np.zeros(3))) == 2  # no key held: the choice that does nothing

    env = Push(spaces.Discrete(3))
    env.get_action_meanings = lambda: ["NOOP", "UP", "FIRE"]  # as Atari has it  # type: ignore[attr-defined]
    assert translate(env.action_space, meanings(env)).schema.buttons == ("noop", "up", "fire")

    fewer = gymnasium.wrappers.TransformAction(env, lambda action: action, spaces.Discrete(2))
    assert translate(fewer.action_space, meanings(fewer)).schema.buttons == ("choice_0", "choice_1")
