import json
from pathlib import Path

import av
import numpy as np
import pytest

from dreamwalk.data.collect import run_collect
from dreamwalk.data.pictures import fit
from dreamwalk.data.shards import Shards
from dreamwalk.data.videos import collect_videos, open_folder


def write_video(path: Path, frames: int, *, rate: int = 20, codec: str = "libx264") -> None:
    """Frame i is of grey level 5 * i, with a bright bar on the left and right that a crop to 4:3 cuts off."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for index in range(frames):
            picture = np.full((64, 128, 3), 5 * index, np.uint8)
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
    data = Shards(collect_videos(folder, out=tmp_path / "out", size=(24, 32), clip_frames=10))
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
    data = Shards(collect_videos(folder, out=tmp_path / "out", size=(24, 32), clip_frames=4, fps=10))
    assert (data.fps, data.schema.limits) == (10, (48,))
    clip = data.clip(0)
    assert abs(clip.video.mean((1, 2, 3)) - 10 * np.arange(4)).max() < 3
    assert np.allclose(clip.actions[:, 1] * 48, [0, 1 + 2, 3 + 4, 5 + 6])
    assert clip.actions[:, 0].tolist() == [0, 0, 1, 0]


def test_arrays_need_a_schema(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 12)
    np.save(tmp_path / "a.actions.npy", np.stack([np.arange(12) % 2, np.arange(12)], 1))
    with pytest.raises(ValueError, match=r"schema\.json must say which column is what"):
        open_folder(tmp_path, clip_frames=4)
    (tmp_path / "schema.json").write_text('{"buttons": ["fire"], "axes": ["turn"], "limits": [20]}')
    source = open_folder(tmp_path, clip_frames=4, size=(24, 32))
    clips = list(source.clips(range(1, 3)))
    assert clips[1].actions[:, 0].tolist() == [0, 1, 0, 1]
    assert np.allclose(clips[1].actions[:, 1], np.arange(8, 12) / 20)


def test_mistakes_in_the_folder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no videos"):
        open_folder(tmp_path / "nothing")
    with pytest.raises(ValueError, match="has 64 frames: choose a smaller clip_frames"):
        open_folder(folder)
    write_csv(folder / "a.actions.csv", 30)
    with pytest.raises(ValueError, match="fewer frames than"):
        list(open_folder(folder, clip_frames=10).clips(range(3)))
    (folder / "a.actions.csv").write_text("jump,yaw\n1,left\n")
    with pytest.raises(ValueError, match="should be one row per frame"):
        open_folder(folder)
    (folder / "a.actions.csv").unlink()
    with pytest.raises(ValueError, match=r"a\.mp4' needs one file of actions beside it"):
        open_folder(folder)
    write_csv(folder / "a.actions.csv", 25)
    (folder / "c.mp4").write_bytes(b"not a video")
    with pytest.raises(ValueError, match=r"c\.mp4' cannot be read as a video"):
        open_folder(folder)


def test_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    flags = ["--out", out, "--folder", str(folder), "--clip-frames", "5", "--size", "24", "32"]
    run_collect(["videos", *flags])
    assert "45 frames in 9 clips" in capsys.readouterr().out
    run_collect(["--check", out])
    assert "all is well: 45 frames in 9 clips" in capsys.readouterr().out
    (tmp_path / "out" / "000000.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="1 broken files"):
        run_collect(["--check", out])
    with pytest.raises(ValueError, match="say what to collect"):
        run_collect(["minecraft"])


def test_fit_cuts_about_the_middle() -> None:
    picture = np.zeros((50, 100, 3), np.uint8)
    picture[:, :20] = 255
    assert fit(picture, (25, 25)).shape == (25, 25, 3)
    assert fit(picture, (25, 25)).max() == 0
    assert np.array_equal(fit(picture, (50, 100)), picture)
