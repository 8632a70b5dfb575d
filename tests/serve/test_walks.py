from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays
from rooms import ACTIONS, Imagined

from dreamwalk.data.walks import Walk, dump_walk, parse_walk, read_walk, write_walk
from dreamwalk.errors import UserError
from dreamwalk.world import ActionSchema


def walk(actions: Any = (), **changes: Any) -> Walk:
    settings = {"system": "room.test", "seed": 7, "start": {"start": 2}, "steps": 4, "fps": 11.67}
    vectors = np.asarray(actions, np.float32).reshape(-1, ACTIONS.size)
    return Walk(buttons=ACTIONS.buttons, axes=ACTIONS.axes, actions=vectors, **settings | changes)


@settings(max_examples=40, deadline=None)
@given(
    buttons=arrays.arrays(np.bool_, (3, 5)),
    axes=arrays.arrays(np.float32, (3, 2), elements=some.floats(-1, 1, width=32)),
    seed=some.integers(0, 2**31 - 1),
)
def test_writing_and_reading_gives_the_same_bits(buttons: np.ndarray, axes: np.ndarray, seed: int) -> None:
    before = walk(np.concatenate([buttons.astype(np.float32), axes], axis=1), seed=seed)
    after = parse_walk(dump_walk(before))
    assert (after.actions == before.actions).all() and after.actions.dtype == np.float32
    assert (after.seed, after.start, after.steps, after.fps) == (seed, {"start": 2}, 4, 11.67)
    assert (after.buttons, after.axes, after.system) == (ACTIONS.buttons, ACTIONS.axes, "room.test")


def test_a_start_picture_survives(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    write_walk(tmp_path / "walk.json", walk(start={"image": image}))
    assert (read_walk(tmp_path / "walk.json").start["image"] == image).all()
    view = {"image": image, "depth": image[..., 0].astype(np.float32)}
    (again,) = parse_walk(dump_walk(walk(start={"image": image, "around": [view]}))).start["around"]
    assert all((again[name] == view[name]).all() for name in view)
    with pytest.raises(ValueError, match="around must be a list of pictures"):
        walk(start={"around": 3})


def test_a_walk_fits_only_its_own_actions() -> None:
    walk().check(ACTIONS)
    with pytest.raises(
        ValueError, match=r"this world knows jump: replay it where it was recorded \(room.test\)"
    ):
        walk().check(ActionSchema(buttons=("jump",)))


GOOD = json.loads(dump_walk(walk([[1, 0, 0, 0, 0, 0.5, 0]])))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": "dreamwalk.walk/9"}, "format must be one of dreamwalk.walk/1, got 'dreamwalk.walk/9'"),
        ({"sed": 7}, "has no field 'sed', known are system, seed, .*format"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": 65}, "steps must be a whole number from 0 to 64, got 65"),
        ({"fps": 0}, "fps must be a number"),
        ({"fps": float("nan")}, "fps must be a number from .* to 1000, got nan"),
        ({"buttons": "forward"}, "buttons must be a list, got 'forward'"),
        ({"axes": ["yaw", "forward"]}, "names a button or an axis twice"),
        ({"start": 3}, "start must be an object, got"),
        ({"start": {"start": "3"}}, "start must be a whole number"),
        ({"start": {"start": [3]}}, "start must be a whole number"),
        ({"start": {"start": None}}, "start must be a whole number"),
        ({"start": {"start": 1.0}}, "start must be a whole number"),
        ({"start": {"pose": 3}}, "pose must be x, y and heading"),
        ({"start": {"pose": [1, 2]}}, "pose must be x, y and heading"),
        ({"start": {"pose": [1, 2, "north"]}}, "pose must be x, y and heading"),
        ({"start": {"pose": [1, 2, float("nan")]}}, "pose must be x, y and heading"),
        ({"start": {"pose": [1, 2, 10**400]}}, "pose must be x, y and heading"),
        ({"start": {"world_from_camera": {}}}, "must be 4x4 numbers"),
        ({"start": {"world_from_camera": [[1, 0, 0, 0]] * 3}}, "must be 4x4 numbers"),
        ({"start": {"world_from_camera": [[1, 0, 0, True]] * 4}}, "must be 4x4 numbers"),
        ({"start": {"image": {"height": 2, "width": 2, "rgb": "AAAA"}}}, "cannot be unpacked"),
        ({"start": {"image": {"height": 2, "width": 10**9, "rgb": ""}}}, "width must be a whole number"),
        ({"system": None}, "system must be a text, got None"),
        ({"actions": None}, "actions must be a list"),
        ({"actions": [[1, 0]]}, "action 0 must be 7 numbers from -1 to 1, got 2"),
        ({"actions": [[1, 0, 0, 0, 0, float("inf"), 0]]}, r"actions\[0\]\[5\] must be a number from -1 to 1"),
        ({"actions": [[1, 0, 0, 0, 0, 10**400, 0]]}, r"actions\[0\]\[5\] must be a number from -1 to 1"),
        ({"actions": [[0] * 7, [0.5, 0, 0, 0, 0, 0, 0]]}, "action 1 has a button that is neither 0 nor 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_walk(json.dumps(GOOD | changes))


@pytest.mark.parametrize("missing", ["format", "seed", "steps", "fps", "buttons", "axes", "actions"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(UserError, match=f"the walk file lacks '{missing}'"):
        parse_walk(json.dumps({key: value for key, value in GOOD.items() if key != missing}))


ANYTHING = [None, True, -1, 3, 2.5, 10**400, float("nan"), "x", [], [1], [[]], {}, {"a": 1}]


@pytest.mark.parametrize("value", ANYTHING, ids=repr)
def test_no_field_of_any_kind_is_more_than_a_sentence(value: Any) -> None:
    """Whatever a field holds, the file is read or refused; what is read is what worlds can begin from."""
    for field in GOOD:
        with suppress(UserError):
            parse_walk(json.dumps(GOOD | {field: value}))
    world = Imagined()
    for option in ("start", "pose", "image", "world_from_camera"):
        with suppress(UserError):
            world.reset(seed=1, options=parse_walk(json.dumps(GOOD | {"start": {option: value}})).start)


def test_files_that_are_no_walks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no walk file at"):
        read_walk(tmp_path / "nowhere.json")
    (tmp_path / "bytes.json").write_bytes(b"{\xff}")
    with pytest.raises(ValueError, match=r"bytes\.json' is not text in UTF-8"):
        read_walk(tmp_path / "bytes.json")
    (tmp_path / "line.json").write_text('{"format":\n "dreamwalk.walk/1",\n seed: 1}')
    with pytest.raises(ValueError, match=r"line\.json': the walk file is not valid JSON: .*line 3 column 2"):
        read_walk(tmp_path / "line.json")
    (tmp_path / "field.json").write_text(json.dumps(GOOD | {"limits": ["x"]}))
    with pytest.raises(ValueError, match=r"field\.json': the walk file .*has no field 'limits', known are"):
        read_walk(tmp_path / "field.json")
    (tmp_path / "field.json").write_text(json.dumps(GOOD | {"seed": "7"}))
    with pytest.raises(ValueError, match=r"field\.json': the walk file's seed must be a whole number"):
        read_walk(tmp_path / "field.json")
    for text in ("{", "[" * 100_000, "[1]", '"walk"'):
        with pytest.raises(ValueError, match=r"not valid JSON|the walk file must be an object"):
            parse_walk(text)
