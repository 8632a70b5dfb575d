import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dreamwalk.commands.collect import collect
from dreamwalk.data.shards import Shards
from dreamwalk.data.videos import VideoFolder
from dreamwalk.data.vpt import SCHEMA
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.images import fit_image

SCHEMAS = {
    "{": "is not valid JSON: .* line 1 column 2",
    '{"buttons":\n ["jump",]}': "is not valid JSON: .* line 2",
    "[1]": "the whole must be an object, got a list of 1",
    '{"axes": ["yaw"], "limits": ["x"]}': r"limits\[0\] must be a number from .* got 'x'",
    '{"axes": ["yaw"], "limits": [true]}': r"limits\[0\] .* got True",
    '{"axes": ["yaw"], "limits": [-1]}': r"limits\[0\] .* got -1",
    '{"axes": ["yaw"], "limits": [NaN]}': r"limits\[0\] .* got nan",
    '{"axes": ["yaw"], "limits": [1e999]}': r"limits\[0\] .* got inf",
    '{"axes": ["yaw"], "limits": 30}': "limits must be a list, got 30",
    '{"axes": "yaw", "limits": [30]}': "axes must be a list, got 'yaw'",
    '{"buttons": ["jump", 7]}': r"buttons\[1\] must be a text, got 7",
    '{"buttons": ["jump"], "limit": [3]}': "unknown key 'limit': known are buttons, axes, limits",
    '{"buttons": ["jump"], "axes": ["yaw"]}': "1 axes need as many limits, got 0",
    '{"buttons": ["jump", "jump"]}': "buttons and axes have different names, got jump, jump",
    "{}": "must name one button or axis at least",
    '{"buttons": ["leap"]}': "names leap, the actions of 'a.mp4' jump, yaw",
}


def collected(out: Path, folder: Path, **flags: Any) -> Path:
    source = VideoFolder(folder, **flags)
    return write_clips(source, len(source), out)


def vpt_row(keys: Any = (), buttons: Any = (), *, new: Any = (), **more: Any) -> dict[str, Any]:
    """A line of a recording in VPT's layout; `new` are the buttons that were just pressed."""
    turn = {"dx": more.pop("dx", 0.0), "dy": more.pop("dy", 0.0)}
    mouse = {"x": 640.0, "y": 360.0, **turn, "buttons": [*buttons], "newButtons": [*new]}
    held = {"keys": [f"key.keyboard.{key}" for key in keys], "newKeys": [], "chars": ""}
    return {"mouse": mouse, "keyboard": held, "hotbar": 0, "isGuiOpen": False} | more


def write_video(path: Path, frames: int, *, rate: int = 20, codec: str = "libx264") -> None:
    """Frame i is of grey level 5 * i, with a bright bar on the left and right that a crop to 4:3 cuts off."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for index in range(frames):
            picture = np.full((64, 128, 3), 5 * index % 256, np.uint8)
            picture[:, :16] = picture[:, -16:] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def write_csv(path: Path, frames: int) -> None:
    rows = ["jump,yaw", *(f"{int(i % 4 == 0)},{i}" for i in range(frames))]
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    mine = tmp_path / "mine"
    mine.mkdir()
    write_video(mine / "a.mp4", 25)
    write_csv(mine / "a.actions.csv", 25)
    (mine / "a.txt").write_text("grey and greyer\n")
    write_video(mine / "b.webm", 20, codec="libvpx")
    lines = [json.dumps({"yaw": -i} | ({"jump": True} if i == 3 else {})) for i in range(20)]
    (mine / "b.actions.jsonl").write_text("\n".join(lines))
    return mine


def test_every_frame_has_its_action(folder: Path, tmp_path: Path) -> None:
    data = Shards(collected(tmp_path / "out", folder, size=(24, 32), clip_frames=10, fit="cut"))
    assert (len(data), data.fps) == (4, 20)
    assert data.schema.buttons == ("jump",)
    assert data.schema.axes == ("yaw",)
    assert data.schema.limits == (24,)
    second = data.clip(1)
    assert second.caption == "grey and greyer"
    assert abs(second.video.mean((1, 2, 3)) - 5 * np.arange(10, 20)).max() < 3
    assert np.allclose(second.actions[:, 1] * 24, np.arange(10, 20))
    assert second.actions[:, 0].tolist() == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    third = data.clip(2)
    assert third.actions[0].tolist() == [0, 0]
    assert third.actions[3].tolist() == [1, -3 / 24]
    assert third.depth is None


def test_thinned_frames_add_their_actions_up(folder: Path, tmp_path: Path) -> None:
    data = Shards(collected(tmp_path / "out", folder, size=(24, 32), clip_frames=4, fps=10, fit="cut"))
    assert (data.fps, data.schema.limits) == (10, (48,))
    clip = data.clip(0)
    assert abs(clip.video.mean((1, 2, 3)) - 10 * np.arange(4)).max() < 3
    assert np.allclose(clip.actions[:, 1] * 48, [0, 1 + 2, 3 + 4, 5 + 6])
    assert clip.actions[:, 0].tolist() == [0, 0, 1, 0]


def test_arrays_need_a_schema(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 12)
    np.save(tmp_path / "a.actions.npy", np.stack([np.arange(12) % 2, np.arange(12)], 1))
    with pytest.raises(ValueError, match=r"schema\.json must say which column is what"):
        len(VideoFolder(tmp_path, clip_frames=4))
    (tmp_path / "schema.json").write_text('{"buttons": ["fire"], "axes": ["turn"], "limits": [20]}')
    source = VideoFolder(tmp_path, clip_frames=4, size=(24, 32))
    clips = list(source.clips(range(1, 3)))
    assert clips[1].actions[:, 0].tolist() == [0, 1, 0, 1]
    assert np.allclose(clips[1].actions[:, 1], np.arange(8, 12) / 20)


def test_mistakes_in_the_folder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no videos"):
        len(VideoFolder(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="has 64 frames: choose a smaller clip_frames"):
        len(VideoFolder(folder))
    for fps in (0, -5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="--fps is above 0"):
            len(VideoFolder(folder, fps=fps, clip_frames=5))
    with pytest.raises(ValueError, match="clips have 1 frame and frames 1 pixel at least, got 0"):
        len(VideoFolder(folder, clip_frames=0))


def write_bad(folder: Path, why: str) -> None:
    if why == "no video":
        (folder / "a.mp4").write_bytes(b"not a video")
    elif why == "no actions":
        (folder / "a.actions.csv").unlink()
        (folder / "a.txt").unlink()
    elif why == "two":
        write_csv(folder / "a.actions.tsv", 25)
    elif why == "a word":
        (folder / "a.actions.csv").write_text("jump,yaw\n1,left\n")
    else:
        write_csv(folder / "a.actions.csv", int(why))


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("no video", "cannot be read as a video"),
        ("no actions", "needs one file of actions beside it"),
        ("two", "found a.actions.csv, a.actions.tsv"),
        ("a word", "row 2, column 'yaw' is neither a number nor true or false: 'left'"),
        ("24", "'a.actions.csv' has 24 rows and the video 25 frames"),
        ("30", "'a.actions.csv' has 30 rows and the video 25 frames"),
    ],
)
def test_one_bad_file_is_left_out_and_named(folder: Path, why: str, said: str) -> None:
    write_bad(folder, why)
    source = VideoFolder(folder, clip_frames=10)
    assert list(source.contents.files) == ["b.webm"]
    assert len(list(source.clips(range(len(source))))) == 2
    assert f"left out: a.mp4: {dict(source.contents.left_out)['a.mp4']}" in source.report()
    assert said in dict(source.contents.left_out)["a.mp4"]
    (folder / "b.webm").unlink()
    with pytest.raises(ValueError, match=r"nothing in '.*' can be used: a\.mp4: .*" + re.escape(said)):
        len(VideoFolder(folder, clip_frames=10))


def test_what_is_not_used_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "notes.docx").write_text("?")
    collect(["videos", "--out", str(folder / "out"), "--folder", str(folder), "--clip-frames", "8"])
    told = capsys.readouterr().out
    assert "2 videos, 45 frames at 20 a second: 5 clips" in told
    assert "buttons: jump; axes: yaw (up to 24)" in told
    assert "not used: 5 frames at the end of 2 videos do not fill a clip of 8" in told
    assert "left out: notes.docx: no video by its name" in told


def test_a_schema_says_which_of_its_fields_is_wrong(folder: Path) -> None:
    for text, said in SCHEMAS.items():
        (folder / "schema.json").write_text(text)
        with pytest.raises(UserError, match=r"schema\.json'.*" + said):
            len(VideoFolder(folder, clip_frames=5))
    (folder / "schema.json").write_text('{"buttons": ["jump"], "axes": ["yaw", "pitch"], "limits": [40, 5]}')
    source = VideoFolder(folder, clip_frames=5)
    assert source.schema.limits == (40, 5)
    assert "note: a.mp4, b.webm: its actions have no pitch, which is 0 then" in source.report()


def test_videos_of_several_rates_are_made_one(tmp_path: Path) -> None:
    for name, rate in (("a", 30), ("b", 60)):
        write_video(tmp_path / f"{name}.mp4", 24, rate=rate)
        write_csv(tmp_path / f"{name}.actions.csv", 24)
    with pytest.raises(ValueError, match=r"different frame rates \(a\.mp4 30, b\.mp4 60\): .* --fps 30"):
        len(VideoFolder(tmp_path, clip_frames=6))
    source = VideoFolder(tmp_path, clip_frames=6, fps=15, fit="cut")
    assert (len(source), source.rate) == (3, 15)
    assert source.schema.limits == (23 * 4,)
    clips = list(source.clips(range(3)))
    assert abs(clips[1].video.mean((1, 2, 3)) - 10 * np.arange(6, 12)).max() < 3
    assert abs(clips[2].video.mean((1, 2, 3)) - 20 * np.arange(6)).max() < 3
    assert clips[2].actions[:, 1] * 92 == pytest.approx([0, 1 + 2 + 3 + 4, 26, 42, 58, 74], abs=1e-4)
    assert clips[1].actions[0, 1] * 92 == pytest.approx(11 + 12, abs=1e-4)
    slow = VideoFolder(tmp_path, clip_frames=6, fps=40)
    assert list(slow.contents.files) == ["b.mp4"]
    assert "left out: a.mp4: 30 frames a second are fewer than --fps 40" in slow.report()


def test_a_variable_frame_rate_is_made_even_and_actions_stay_with_their_frames(tmp_path: Path) -> None:
    # half a second at 20 a second, half a second in which nothing changes, half a second again
    shown = [*range(10), *range(20, 30)]
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for tick in shown:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 8 * tick, np.uint8), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "a.actions.csv").write_text("yaw\n" + "\n".join(str(tick) for tick in shown))
    source = VideoFolder(tmp_path, clip_frames=30, size=(64, 64))
    assert "a variable frame rate" in source.report()
    (clip,) = source.clips(range(1))
    ticks = np.array([*range(10), *[9] * 10, *range(20, 30)])
    assert abs(clip.video.mean((1, 2, 3)) - 8 * ticks).max() < 3
    yaw = [tick if tick in shown else 0 for tick in range(30)]
    assert clip.actions[:, 0] * 29 == pytest.approx(yaw, abs=1e-4)
    (half,) = VideoFolder(tmp_path, clip_frames=15, fps=10, size=(64, 64)).clips(range(1))
    assert abs(half.video.mean((1, 2, 3)) - 8 * ticks[::2]).max() < 3
    assert half.actions.sum() * 58 == pytest.approx(sum(shown) - 29, abs=1e-3)


def test_vpt_recordings_are_taken(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 25)
    rows = [vpt_row(["w"] * (k == 3), dx=k, dy=-2) for k in range(27)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "a-options.json").write_text("{}")
    source = VideoFolder(tmp_path, clip_frames=10)
    assert source.schema == SCHEMA
    assert "27 rows of actions and 25 frames: the first 25 are used" in source.report()
    clip = next(source.clips(range(1)))
    assert clip.actions[:, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert clip.actions[1:, -2] * 20 == pytest.approx(0.15 * np.arange(9), abs=1e-4)
    assert clip.actions[1:, -1] * 20 == pytest.approx([0.3] * 9, abs=1e-4)


def test_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    flags = ["--out", out, "--folder", str(folder), "--clip-frames", "5", "--size", "24", "32"]
    collect(["videos", *flags])
    assert "45 frames in 9 clips" in capsys.readouterr().out
    collect(["--check", out])
    assert "all is well: 45 frames in 9 clips" in capsys.readouterr().out
    (tmp_path / "out" / "000000.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="1 broken files"):
        collect(["--check", out])
    with pytest.raises(ValueError, match="say what to collect"):
        collect(["minecraft"])


def test_what_does_not_fit_is_letterboxed_stretched_or_cut() -> None:
    picture = np.full((50, 100, 3), 100, np.uint8)
    picture[:, :20] = 255
    assert fit_image(picture, (25, 25), "cut").shape == (25, 25, 3)
    assert fit_image(picture, (25, 25), "cut").max() == 100
    whole = fit_image(picture, (24, 24))
    assert whole[:6].max() == whole[18:].max() == 0
    assert (whole[6:18, 0] == 255).all() and (whole[6:18, -1] == 100).all()
    assert (fit_image(picture.transpose(1, 0, 2), (24, 24)) == whole.transpose(1, 0, 2)).all()
    stretched = fit_image(picture, (25, 25), "stretch")
    assert (stretched[:, 0] == 255).all() and (stretched[:, -1] == 100).all()
    assert np.array_equal(fit_image(picture, (50, 100)), picture)


def test_videos_are_kept_whole_unless_asked(folder: Path) -> None:
    whole = next(VideoFolder(folder, clip_frames=10, size=(24, 32)).clips(range(1))).video
    assert whole[0, :4].max() == whole[0, 20:].max() == 0
    assert whole[0, 6:18, 0].min() > 240
    stretched = next(VideoFolder(folder, clip_frames=10, size=(24, 32), fit="stretch").clips(range(1))).video
    assert stretched[0, :, 0].min() > 240
