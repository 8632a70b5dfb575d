"""Moves of cameras, strings of them, and paths through keyframes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwalk.camera_moves import MOVES, OPPOSITES, CameraMove, parse_path
from dreamwalk.camera_paths import CameraPath, camera_path, from_first, interpolate
from dreamwalk.cameras import (
    angle_between,
    invert,
    project,
    quaternion_from_rotation,
    rotation_from_quaternion,
    slerp,
)
from dreamwalk.errors import UserError

K = np.array([[100.0, 0, 64], [0, 110, 48], [0, 0, 1]])
SUBJECT = np.array([[0.0, 0, 4]])


def end(text: str, frames: int = 9) -> np.ndarray:
    return camera_path(text, intrinsics=K, frames=frames, depth=4).world_from_camera[-1]


def random_pose(seed: int) -> np.ndarray:
    draw, pose = np.random.default_rng(seed), np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation_from_quaternion(draw.normal(size=4)), draw.normal(size=3) * 5
    return pose


@pytest.mark.parametrize(
    ("text", "place", "ahead"),
    [
        ("forward:2", (0, 0, 2), (0, 0, 1)),
        ("back:2", (0, 0, -2), (0, 0, 1)),
        ("left:2", (-2, 0, 0), (0, 0, 1)),
        ("right:2", (2, 0, 0), (0, 0, 1)),
        ("up:2", (0, -2, 0), (0, 0, 1)),
        ("down:2", (0, 2, 0), (0, 0, 1)),
        ("pan:90", (0, 0, 0), (1, 0, 0)),
        ("pan-left:90", (0, 0, 0), (-1, 0, 0)),
        ("tilt:90", (0, 0, 0), (0, -1, 0)),
        ("tilt-down:90", (0, 0, 0), (0, 1, 0)),
        ("orbit:90", (4, 0, 4), (-1, 0, 0)),
        ("orbit-left:90", (-4, 0, 4), (1, 0, 0)),
        ("orbit:180", (0, 0, 8), (0, 0, -1)),
        ("arc:90", (0, -4, 4), (0, 1, 0)),
        ("pan:90,forward:3", (3, 0, 0), (1, 0, 0)),
        ("forward:2,orbit:90", (2, 0, 4), (-1, 0, 0)),
        ("look-at:5/0/0", (0, 0, 0), (1, 0, 0)),
        ("right:4,look-at", (4, 0, 0), (-math.sqrt(0.5), 0, math.sqrt(0.5))),
    ],
)
def test_moves_go_where_they_say(text: str, place: tuple[float, ...], ahead: tuple[float, ...]) -> None:
    """The camera looks along z, x is to its right and y down; the subject is 4 ahead."""
    pose = end(text)
    np.testing.assert_allclose(pose[:3, 3], place, atol=1e-12)
    np.testing.assert_allclose(pose[:3, 2], ahead, atol=1e-12)


def test_a_roll_is_clockwise() -> None:
    """The camera's right side goes down."""
    np.testing.assert_allclose(end("roll:90")[:3, 0], [0, 1, 0], atol=1e-12)


@pytest.mark.parametrize("text", ["orbit:70", "arc:40", "spiral:1", "lemniscate:1.5", "forward:1,orbit:-50"])
def test_the_subject_stays_in_the_centre(text: str) -> None:
    path = camera_path(text, intrinsics=K, frames=25, depth=4)
    pixels, _ = project(SUBJECT, intrinsics=path.intrinsics, world_from_camera=path.world_from_camera)
    np.testing.assert_allclose(pixels[:, 0], [[64, 48]] * 25, atol=1e-9)


@pytest.mark.parametrize("text", ["spiral:1", "lemniscate:1.5"])
def test_closed_paths_close(text: str) -> None:
    path = camera_path(text, intrinsics=K, frames=41, depth=4)
    np.testing.assert_allclose(path.world_from_camera[-1], np.eye(4), atol=1e-12)
    reach = np.linalg.norm(path.world_from_camera[:, :3, 3], axis=1).max()
    assert reach == pytest.approx(float(text.split(":")[1]), rel=0.05)


def test_a_dolly_zoom_keeps_the_size_of_the_subject() -> None:
    path = camera_path("dolly-zoom:3", intrinsics=K, frames=9, depth=4)
    points = np.array([[0.5, -0.5, 4.0], [0, 0, 9]])
    pixels, _ = project(points, intrinsics=path.intrinsics, world_from_camera=path.world_from_camera)
    np.testing.assert_allclose(pixels[:, 0], [[64 + 12.5, 48 - 13.75]] * 9, atol=1e-9)
    assert path.intrinsics[-1, 0, 0] == pytest.approx(25)


def test_a_zoom_multiplies_the_focal_length() -> None:
    path = camera_path("zoom:2@4,zoom:0.5@4", intrinsics=K)
    np.testing.assert_allclose(path.intrinsics[[4, 8], 0, 0], [200, 100])
    np.testing.assert_allclose(path.intrinsics[:, 2], [[0, 0, 1]] * 9)
    assert (path.world_from_camera == np.eye(4)).all()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([*MOVES, *OPPOSITES]), min_size=1, max_size=4),
    st.floats(0.1, 0.9),
    st.integers(0, 1000),
)
def test_every_path_begins_at_its_first_camera_and_is_rigid(
    names: list[str], amount: float, seed: int
) -> None:
    first, text = random_pose(seed), ",".join(f"{name}:{amount:.3f}" for name in names)
    path = camera_path(text, intrinsics=K, frames=21, first=first, depth=9, easing="in-out")
    assert (path.world_from_camera[0] == first).all() and (path.intrinsics[0] == K).all()
    assert len(path) == 21
    turns = path.world_from_camera[:, :3, :3]
    np.testing.assert_allclose(turns @ np.swapaxes(turns, 1, 2), [np.eye(3)] * 21, atol=1e-12)
    here = camera_path(text, intrinsics=K, frames=21, depth=9, easing="in-out")
    np.testing.assert_allclose(invert(first) @ path.world_from_camera, here.world_from_camera, atol=1e-9)
    assert (from_first(path, random_pose(3)).world_from_camera[0] == random_pose(3)).all()


def test_frames_are_split_over_the_moves() -> None:
    path = camera_path("forward:1@2,right:3,up:3", intrinsics=K, frames=9)
    steps = np.diff(path.world_from_camera[:, :3, 3], axis=0)
    np.testing.assert_allclose(steps, [[0, 0, 0.5]] * 2 + [[1, 0, 0]] * 3 + [[0, -1, 0]] * 3, atol=1e-12)
    assert len(camera_path("forward:2@24", intrinsics=K)) == 25


def test_easing_begins_and_ends_slowly() -> None:
    z = camera_path("forward:1", intrinsics=K, frames=5, easing="in-out").world_from_camera[:, 2, 3]
    np.testing.assert_allclose(z, [0, 0.15625, 0.5, 0.84375, 1])


def test_keys_of_worldplay() -> None:
    """Steps of 0.08 and of 3 degrees, four frames each."""
    moves = parse_path("w-8, right-4,up-1,a-2")
    assert moves == (
        CameraMove("forward", 0.64, 32),
        CameraMove("pan", 12, 16),
        CameraMove("tilt", 3, 4),
        CameraMove("left", 0.16, 8),
    )
    path = camera_path("w-8, right-4", intrinsics=K)
    assert len(path) == 49
    assert path.world_from_camera[32, 2, 3] == pytest.approx(0.64)
    assert angle_between(path.world_from_camera[32], path.world_from_camera[-1]) == pytest.approx(12)


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("", {}, "one move at least, such as orbit:30"),
        ("fly:3", {}, "'fly:3' is no move of a camera: .* known are forward"),
        ("forward", {}, "'forward' needs an amount: write forward:2"),
        ("forward:nan", {}, "needs an amount"),
        ("look-at:1/2", {}, "needs a point: write look-at:x/y/z"),
        ("forward:2@0", {}, "must take 1 frame at least"),
        ("orbit:30", {"depth": None}, r"orbit is about the subject: say how far it is \(depth\)"),
        ("look-at", {"depth": None}, "say how far it is"),
        ("orbit:30", {"depth": -1}, "above 0, got -1"),
        ("look-at:0/-3/0", {}, "straight above or below"),
        ("zoom:0", {}, "factor above 0, got 0"),
        ("dolly-zoom:4", {}, "reaches the subject, which is 4 ahead"),
        ("forward:1", {"frames": None}, "say how many frames the path has"),
        ("forward:1,back:1", {"frames": 2}, "ask for 3 or more"),
        ("forward:1@4", {"frames": 9}, "ask for 5"),
        ("forward:1@999999", {"frames": None}, "100000 frames at most"),
        ("forward:1", {"easing": "bounce"}, "unknown easing 'bounce': known are linear"),
        ("forward:1", {"first": np.zeros((4, 4))}, "the first camera: matrix 0"),
        ("forward:1", {"intrinsics": np.zeros((3, 3))}, "focal lengths above 0"),
        ("forward:1", {"intrinsics": np.eye(4)}, r"got \(4, 4\)"),
    ],
)
def test_what_is_no_path_is_said(text: str, options: dict[str, object], sentence: str) -> None:
    given: dict[str, object] = {"intrinsics": K, "frames": 9, "depth": 4}
    with pytest.raises(UserError, match=sentence):
        camera_path(text, **(given | options))  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from([*MOVES, "look-at", ":", "@", ",", "1", "-", "1e9", "/", "w-3", " "]), max_size=8
    )
)
def test_any_string_is_a_path_or_one_sentence(pieces: list[str]) -> None:
    try:
        path = camera_path("".join(pieces), intrinsics=K, frames=9, depth=4)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(path.world_from_camera).all()


def keyframes(count: int, times: list[float] | None = None) -> CameraPath:
    poses = np.stack([random_pose(k) for k in range(count)])
    return CameraPath(poses, K, None if times is None else np.array(times))


def test_interpolation_goes_through_its_keyframes() -> None:
    keys = keyframes(4)
    path = interpolate(keys, 31)
    np.testing.assert_allclose(path.world_from_camera[::10], keys.world_from_camera, atol=1e-9)
    assert (path.world_from_camera[[0, -1]] == keys.world_from_camera[[0, -1]]).all()
    # a constant speed of turning between keyframes
    turned = angle_between(path.world_from_camera[:10], path.world_from_camera[1:11])
    np.testing.assert_allclose(turned, turned[0], rtol=1e-6)
    # smooth: over a keyframe the step changes by little
    fine = interpolate(keys, 3001).world_from_camera[:, :3, 3]
    assert np.abs(np.diff(fine, n=2, axis=0)).max() < 1e-3


def test_keyframes_on_a_line_stay_on_it_at_their_times() -> None:
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 2, 3] = [0, 1, 4, 5]
    path = interpolate(CameraPath(poses, K, np.array([0.0, 1, 4, 5])), 11)
    np.testing.assert_allclose(path.world_from_camera[:, 2, 3], path.times, atol=1e-12)


@pytest.mark.parametrize(
    ("keys", "frames", "sentence"),
    [
        (keyframes(1), 9, "got 1 and 9"),
        (keyframes(3), 1, "got 3 and 1"),
        (keyframes(3, [0, 2, 2]), 9, "must rise"),
    ],
)
def test_what_cannot_be_interpolated(keys: CameraPath, frames: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        interpolate(keys, frames)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 1e-3))
def test_quaternions_and_rotations(quaternion: list[float]) -> None:
    turn = rotation_from_quaternion(np.array(quaternion))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    back = quaternion_from_rotation(turn)
    unit = np.array(quaternion) / np.linalg.norm(quaternion)
    assert abs(back @ unit) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(rotation_from_quaternion(back), turn, atol=1e-12)
    np.testing.assert_allclose(slerp(np.eye(3), turn, 1.0), turn, atol=1e-12)
    half = slerp(np.eye(3), turn, 0.5)
    np.testing.assert_allclose(half @ half, turn, atol=1e-9)
