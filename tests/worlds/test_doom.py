import hashlib
import subprocess
import sys
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest

from dreamwalk.cameras import project, unproject
from dreamwalk.errors import UserError
from dreamwalk.worlds.doom import DOOM_ACTIONS, Doom
from dreamwalk.worlds.placing import PLACE, close_ahead, placed_mask
from dreamwalk.worlds.steering import heading

WALK = """
import hashlib
from dreamwalk.worlds.doom import Doom
world = Doom("home")
world.reset(seed=11)
digest = hashlib.sha256()
for step in range(25):
    action = world.actions.action(["forward"] + ["place"] * (step == 4), yaw=7.3)
    frame, _, _, _, info = world.step(action)
    digest.update(frame.tobytes() + info["depth"].tobytes() + info["world_from_camera"].tobytes())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def doom() -> Iterator[Doom]:
    world = Doom("home")
    yield world
    world.close()


def camera(info: dict) -> dict:
    return {name: info[name] for name in ("intrinsics", "world_from_camera")}


def step(world: Doom, *held: str, yaw: float = 0.0, pitch: float = 0.0) -> tuple[np.ndarray, dict]:
    frame, _, _, _, info = world.step(world.actions.action(held, yaw=yaw, pitch=pitch))
    return frame, info


def test_a_pose_is_where_it_was_asked_for(doom: Doom) -> None:
    _, info = doom.reset(options={"pose": (160, 500, 30)})
    assert np.allclose(info["world_from_camera"][:3, 3], [160, 500, 41], atol=0.01)
    assert heading(info) == pytest.approx(30, abs=0.01)
    _, later = step(doom)
    assert np.array_equal(info["world_from_camera"], later["world_from_camera"])


@pytest.mark.parametrize(
    "options",
    [{"start": k} for k in ("x", [1], None, 1.0, True, -1, 99)]
    + [{"pose": pose} for pose in (3, "abc", [1, 2], [1, 2, "x"], [1, 2, float("nan")], [1e300, 0, 0])],
    ids=repr,
)
def test_places_that_are_none_are_refused(doom: Doom, options: dict) -> None:
    with pytest.raises(UserError, match=r"counted from 0|a pose is x, y and heading"):
        doom.reset(options=options)
    assert doom.reset(options={"start": 0})[0].any()


def test_many_steps_at_once_lead_where_they_lead_one_by_one(doom: Doom) -> None:
    random = np.random.default_rng(3)
    vectors = random.uniform(-1, 1, (40, doom.actions.size)).astype(np.float32)
    doom.reset(seed=4)
    for vector in vectors:
        frame, _, _, _, info = doom.step(doom.actions.unpack(vector))
    doom.reset(seed=4)
    again, _, _, _, same = doom.follow(vectors)
    assert np.array_equal(frame, again)
    assert np.array_equal(info["world_from_camera"], same["world_from_camera"])


def test_turns_are_exact(doom: Doom) -> None:
    _, info = doom.reset(options={"pose": (160, 500, 0)})
    random = np.random.default_rng(0)
    before = heading(info)
    for yaw in random.uniform(-30, 30, 40):
        _, info = step(doom, "forward", yaw=yaw)
        after = heading(info)
        assert abs((before - after - yaw + 180) % 360 - 180) < 0.004
        before = after


def test_pitch_moves_the_picture_and_stops_at_the_engine_s_limits(doom: Doom) -> None:
    _, info = doom.reset(options={"start": 1})
    level = info["intrinsics"][1, 2]
    _, up = step(doom, pitch=10)
    assert up["intrinsics"][1, 2] == pytest.approx(level + 76.8 * np.tan(np.radians(10)), abs=0.02)
    assert np.array_equal(up["world_from_camera"], info["world_from_camera"])
    for _ in range(6):
        _, up = step(doom, pitch=15)
    assert up["intrinsics"][1, 2] == pytest.approx(level + 76.8 * np.tan(np.radians(32)), abs=0.1)
    for _ in range(8):
        _, down = step(doom, pitch=-15)
    assert down["intrinsics"][1, 2] == pytest.approx(level - 76.8 * np.tan(np.radians(56)), abs=0.1)


@pytest.mark.parametrize("pitch", [0, 10, -10])
def test_depth_puts_every_pixel_on_a_wall_a_floor_or_a_ceiling(doom: Doom, pitch: float) -> None:
    doom.reset(options={"pose": (260, 512, 90)})
    _, info = step(doom, pitch=pitch)
    points = unproject(info["depth"], **camera(info)).reshape(-1, 3)
    x, y, z = points.T
    assert (info["depth"] > 0).all()
    off_planes = np.minimum.reduce([abs(z - height) for height in (0, 104, 128)])
    off_walls = np.minimum.reduce(
        [abs(y - 672), abs(x), abs(x - 320), abs(x - 352), abs(y - 448), abs(y - 576)]
    )
    assert np.quantile(np.minimum(off_planes, off_walls), 0.97) < 1e-3
    assert (off_planes < 1e-3).mean() > 0.2


def test_points_seen_from_one_pose_are_where_another_sees_them(doom: Doom) -> None:
    _, a = doom.reset(options={"pose": (512, 470, 200)})
    _, b = doom.reset(options={"pose": (490, 540, 215)})
    points = unproject(a["depth"], **camera(a)).reshape(-1, 3)
    pixels, depth = project(points, **camera(b))
    height, width = b["depth"].shape
    seen = (depth > 16) & (pixels > 0).all(1) & (pixels < [width, height]).all(1)
    column, row = np.floor(pixels[seen]).astype(int).T
    error = abs(b["depth"][row, column] - depth[seen])
    assert seen.mean() > 0.4
    assert np.median(error) < 3.6
    assert np.quantile(error, 0.75) < 7.2


def test_the_sky_has_no_depth(doom: Doom) -> None:
    frame, info = doom.reset(options={"pose": (780, 336, 0)})
    sky = info["depth"] == 0
    assert 0.05 < sky.mean() < 0.5
    assert frame[sky].mean(0).argmax() == 2


def test_what_is_placed_stays(doom: Doom) -> None:
    _, before = doom.reset(options={"pose": (160, 420, 60)})
    step(doom, "place")
    put, after = step(doom, "place")
    gone = before["depth"] - after["depth"]
    assert (gone > 20).mean() > 0.05
    assert after["depth"][48, 64] == pytest.approx(64, abs=8)  # the engine counts sprites a step too far
    for _ in range(6):
        away, _ = step(doom, yaw=20)
    for _ in range(6):
        back, _ = step(doom, yaw=-20)
    assert np.array_equal(put, back)
    assert not np.array_equal(put, away)


def test_a_press_acts_once_puts_down_or_takes_away_and_needs_room(doom: Doom) -> None:
    empty, _ = doom.reset(options={"pose": (160, 512, 180)})
    for _ in range(5):
        held, info = step(doom, "place")
    released, _ = step(doom)
    assert np.array_equal(held, released) and len(info["placed"]) == 1
    taken, info = step(doom, "place")
    later, _ = step(doom, "place")
    assert np.array_equal(taken, empty) and np.array_equal(later, empty) and not len(info["placed"])
    wall, _ = doom.reset(options={"pose": (70, 512, 180)})
    step(doom, "place")
    assert np.array_equal(wall, step(doom)[0])


def test_what_is_placed_is_where_it_is_said_to_be(doom: Doom) -> None:
    """Its pixels are those that change, but for the floor at its foot, which the engine gives its depth."""
    _, info = doom.reset(options={"pose": (160, 420, 60)})
    pose = info["world_from_camera"]
    step(doom, "place")
    for back in range(5):
        frame, info = step(doom, *["back"] * (back > 0))
        mask = placed_mask(info["placed"][0], info)
        state = doom.state()
        changed = frame.astype(int) - without_pillars(doom)
        doom.restore(state)
        differs = abs(changed).max(-1) > 8
        assert (mask & differs).sum() > 0.8 * differs.sum() > 200
        assert (mask & ~differs).sum() <= 0.04 * mask.sum()
    assert np.allclose(info["placed"], [pose[:3, 3] + 64 * pose[:3, 2] - [0, 0, 41]], atol=0.1)


def without_pillars(doom: Doom) -> np.ndarray:
    """The same episode without a press."""
    state = doom.state()
    state["history"][:, PLACE] = 0
    return doom.restore(state)[0].astype(int)


def test_several_stand_and_one_is_taken_and_replays_know(doom: Doom) -> None:
    doom.reset(options={"pose": (512, 150, 0)})
    places = []
    for _ in range(3):
        _, info = step(doom, "place")
        places.append(info["placed"])
        for _ in range(2):
            step(doom, yaw=-30)
    assert [len(there) for there in places] == [1, 2, 3]
    for _ in range(4):
        _, info = step(doom, yaw=30)
    assert close_ahead(info) == 1
    frame, info = step(doom, "place")
    assert np.array_equal(info["placed"][:, :2], places[2][[0, 2], :2])
    again, same = doom.restore(doom.state())
    assert np.array_equal(frame, again) and np.array_equal(info["placed"], same["placed"])
    history = doom.state()["history"]
    doom.reset(options={"pose": (512, 150, 0)})
    followed = doom.follow(history)
    assert np.array_equal(followed[0], frame) and np.array_equal(followed[-1]["placed"], info["placed"])


def test_what_is_placed_is_solid_and_so_are_walls(doom: Doom) -> None:
    doom.reset(options={"pose": (160, 420, 90)})
    step(doom, "place")
    for _ in range(12):
        _, info = step(doom, "forward")
    assert info["world_from_camera"][1, 3] < 470
    doom.reset(options={"pose": (240, 600, 0)})
    for _ in range(20):
        _, info = step(doom, "forward", "left")
    assert np.allclose(info["world_from_camera"][:2, 3], [304, 656], atol=0.5)


def test_restore_brings_back_what_was_placed(doom: Doom) -> None:
    doom.reset(seed=4)
    step(doom, "forward")
    step(doom, "place", yaw=3)
    frame, _ = step(doom, "back", "place")
    state = doom.state()
    step(doom, "forward", yaw=30)
    assert np.array_equal(doom.restore(state)[0], frame)


def test_another_process_sees_the_same() -> None:
    runs = [subprocess.run([sys.executable, "-c", WALK], capture_output=True, text=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout, runs[0].stderr
    assert len(runs[0].stdout) == 2 * hashlib.sha256().digest_size + 1


def test_starts_are_many_and_different(doom: Doom) -> None:
    assert len(doom.level.starts) >= 12
    frames = [doom.reset(options={"start": k})[0].astype(int) for k in range(len(doom.level.starts))]
    assert min(abs(a - b).mean() for i, a in enumerate(frames) for b in frames[:i]) > 5


def test_mistakes_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="unknown level 'hme'"):
        Doom("hme")
    with pytest.raises(ValueError, match="does not divide 480x640"):
        Doom("home", size=(100, 100))
    world = Doom("home")
    with pytest.raises(ValueError, match="starts with reset"):
        world.step(world.actions.action())
    with pytest.raises(ValueError, match="15 starts"):
        world.reset(options={"start": 15})
    world.close()
    world.close()
    with pytest.raises(ValueError, match="closed"):
        world.reset()


def test_gymnasium_makes_it_and_shipped_maps_open() -> None:
    world = gymnasium.make("dreamwalk/Doom-v0", level="map:MAP01", size=(120, 160))
    frame, _ = world.reset(seed=0)
    assert frame.shape == (120, 160, 3)
    assert frame.std() > 5
    world.close()


def test_the_button_that_puts_things_down_is_where_it_is_said_to_be() -> None:
    assert DOOM_ACTIONS.buttons[PLACE] == "place"
