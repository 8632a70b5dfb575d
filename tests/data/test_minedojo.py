"""Walks of WorldMem's data set, and pointers in VPT's, in files that are written here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_videos import vpt_row, write_video

from dreamwalk.cameras import angle_between, project
from dreamwalk.commands.collect import collect
from dreamwalk.data import minedojo
from dreamwalk.data.minedojo import LOADING, SCHEMA, cameras_of, poses_of, read_minedojo, values_of
from dreamwalk.data.shards import Shards
from dreamwalk.data.videos import VideoFolder
from dreamwalk.data.vpt import draw_pointer
from dreamwalk.errors import UserError
from dreamwalk.images import fit_image, fit_intrinsics
from dreamwalk.published.worldmem import public_actions

STILL = [0, 0, 0, 12, 12, 0, 0, 0]


def walk(frames: int) -> dict[str, np.ndarray]:
    """Ahead a tenth of a block a frame, and now and then a turn to the right."""
    actions = np.tile(STILL, (frames, 1))
    actions[1:, 0] = 1
    actions[10::10, 4] = 13
    yaw = 15.0 * np.cumsum(actions[:, 4] - 12)
    steps = 0.1 * np.stack([-np.sin(np.deg2rad(yaw)), 0 * yaw, np.cos(np.deg2rad(yaw))], 1)
    place = np.array([100.0, 64.0, -30.0]) + np.cumsum(steps, 0)
    return {"actions": actions, "poses": np.concatenate([place, 0 * yaw[:, None], yaw[:, None]], 1)}


def recording(folder: Path, frames: int = 125) -> Path:
    folder.mkdir()
    write_video(folder / "a.mp4", frames, rate=10)
    np.savez(folder / "a.npz", **walk(frames))
    return folder


def test_walks_are_collected_with_their_cameras(tmp_path: Path) -> None:
    folder, out = recording(tmp_path / "walks"), tmp_path / "out"
    source = VideoFolder(folder, clip_frames=8, size=(24, 32))
    assert source.schema == SCHEMA and source.rate == 10 and len(source) == 3
    assert "its first 100 frames are left out: the game is loading there" in source.report()
    flags = ["--folder", str(folder), "--out", str(out), "--clip-frames", "8", "--size", "24", "32"]
    collect(["videos", *flags])
    data = Shards(out)
    first, second = data.clip(0), data.clip(1)
    poses = first.world_from_camera
    np.testing.assert_allclose(poses[0, :3, 3], 0, atol=1e-6)
    # it turns at frame 100 + 10 n; one step to where it looks, and its yaw grew to the right
    moved = np.diff(poses[:, :3, 3], axis=0)
    np.testing.assert_allclose(moved, 0.1 * poses[1:, :3, 2], atol=1e-5)
    np.testing.assert_allclose(poses[:, 2, 3], 0, atol=1e-6)
    assert first.actions[1:, 0].all() and not first.actions[0].any()
    turn = second.actions[:, -2].nonzero()[0].tolist()
    assert turn == [2] and second.actions[2, -2] == 1
    after, before = second.world_from_camera[2], second.world_from_camera[1]
    assert angle_between(before, after) == pytest.approx(15, abs=1e-3)
    assert before[:3, 0] @ after[:3, 2] == pytest.approx(np.sin(np.deg2rad(15)), abs=1e-4)
    # 64x128 pictures between bars in 24x32
    focal = 16 * 0.5 / np.tan(np.deg2rad(35))
    expected = [[focal, 0, 16], [0, focal, 12], [0, 0, 1]]
    np.testing.assert_allclose(first.intrinsics, [expected] * 8, atol=1e-4)


def test_pitch_and_yaw_have_their_signs() -> None:
    """Theirs: yaw 0 looks along z, 90 along -x; pitch is positive downwards. Ours: X is z, Y is x, Z is y."""
    ahead = cameras_of(np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 90], [0, 0, 0, 90, 0], [5, 6, 7, -30, 0]]))
    np.testing.assert_allclose(ahead[:3, :3, 2], [[1, 0, 0], [0, -1, 0], [0, 0, -1]], atol=1e-12)
    assert ahead[3, 2, 2] == pytest.approx(0.5)
    np.testing.assert_allclose(ahead[3, :3, 3], [7, 5, 6])
    assert (ahead[:, 2, 1] <= 1e-12).all(), "y of a camera points down"
    draw = np.random.default_rng(0)
    spans = [9, 9, 9, 89, 179]
    poses = draw.uniform(-1, 1, (50, 5)) * spans
    np.testing.assert_allclose(poses_of(cameras_of(poses)), poses, atol=1e-9)


def test_an_action_that_turns_agrees_with_the_pose_after_it() -> None:
    """A bin to the right is more yaw at theirs, and a positive one here; a bin of pitch looks down."""
    actions = np.array([STILL, [2, 2, 1, 13, 11, 6, 3, 1], [0, 1, 0, 11, 13, 1, 0, 0]])
    values = values_of(actions)
    held = [{name for name, v in zip(SCHEMA.buttons, row, strict=False) if v} for row in values]
    assert held == [set(), {"back", "right", "place", "hotbar.1"}, {"left", "place"}]
    assert values[:, -2:].tolist() == [[0, 0], [-15, -15], [15, 15]]
    theirs = public_actions(torch.from_numpy(values[1:] / [1, 1, 1, 1, 1, 1, 15, 15]))
    assert theirs.nonzero().tolist() == [
        *([0, column] for column in (2, 12, 14, 15, 16, 24)),
        *([1, column] for column in (13, 15, 16, 24)),
    ]
    assert theirs[:, [15, 16]].tolist() == [[1, -1], [-1, 1]]


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no poses": ({"actions": np.zeros((9, 8))}, "is no recording with actions and poses"),
    "columns": (
        {"poses": np.zeros((9, 4))},
        r"must have poses of numbers \(frames, 5\), got float64 \(9, 4\)",
    ),
    "nan": ({"poses": np.full((9, 5), np.nan)}, "has poses that are no finite numbers"),
    "text": ({"actions": np.full((9, 8), "a")}, "must have actions of numbers"),
    "objects": ({"actions": np.full((9, 8), None)}, "is no recording with actions and poses"),
    "rows": ({"poses": np.zeros((7, 5))}, "has 9 rows of actions and 7 of poses"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_what_is_no_recording_is_left_out(tmp_path: Path, name: str) -> None:
    given, sentence = BROKEN[name]
    file = tmp_path / "a.npz"
    whole = {"actions": np.zeros((9, 8)), "poses": np.zeros((9, 5))} if name != "no poses" else {}
    np.savez(file, **(whole | given))
    with pytest.raises(UserError, match=sentence):
        read_minedojo(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="is no recording"):
        read_minedojo(file)


def test_a_short_recording_has_nothing_to_use(tmp_path: Path) -> None:
    folder = recording(tmp_path / "walks", LOADING + 3)
    with pytest.raises(UserError, match=r"no video in '.*' has 8 frames"):
        len(VideoFolder(folder, clip_frames=8))
    assert minedojo.SCHEMA.size == 8


@pytest.mark.parametrize("how", ["letterbox", "stretch", "cut"])
def test_intrinsics_follow_the_picture(how: Any) -> None:
    """A bright spot lands where the fitted camera sees its direction."""
    picture, whole = np.zeros((90, 160, 3), np.uint8), np.array([[64.0, 0, 80], [0, 64.0, 45], [0, 0, 1]])
    picture[55:65, 90:100] = 255
    fitted = fit_image(picture, (48, 48), how)
    rows, columns = np.nonzero(fitted[..., 0] > 100)
    middle = np.array([[(95 - 80) / 64, (60 - 45) / 64, 1.0]])
    matrix = fit_intrinsics(whole, (90, 160), (48, 48), how)
    place, _ = project(middle, intrinsics=matrix, world_from_camera=np.eye(4))
    np.testing.assert_allclose(place[0], [columns.mean() + 0.5, rows.mean() + 0.5], atol=0.5)


def test_an_open_window_has_its_pointer(tmp_path: Path) -> None:
    """Drawn at 1280x720 coordinates into a picture of any size; standing still is kept."""
    write_video(tmp_path / "a.mp4", 12)
    rows = [vpt_row(isGuiOpen=k > 5) for k in range(12)]
    rows[8]["mouse"] |= {"x": 400.0, "y": 200.0}
    rows[9]["mouse"] |= {"x": 1e30, "y": 200.0}
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = VideoFolder(tmp_path, clip_frames=12, size=(64, 128))
    video = next(source.clips(range(1))).video.astype(int)
    changed = [np.argwhere(abs(frame[:, 24:-24] - np.median(frame)).max(-1) > 60) for frame in video]
    assert [len(at) > 0 for at in changed] == [k in (6, 7, 8, 10, 11) for k in range(12)]
    top, left = changed[8].min(0)
    assert abs(top - 200 / 720 * 64) < 3 and abs(left + 24 - 400 / 720 * 64) < 3
    assert len(source) == 1


def test_a_pointer_at_the_edge_is_cut() -> None:
    picture = np.full((40, 60, 3), 128, np.uint8)
    drawn = draw_pointer(picture, np.array([1.45, 0.9], np.float32))
    assert (drawn != picture).any() and (drawn[:36] == 128).all() and (picture == 128).all()
    assert draw_pointer(picture, np.array([np.nan, 0.5], np.float32)) is picture
