"""Videos as phones, cameras and screen recorders write them; `tests/cases/README.md` says what they show."""

import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dreamwalk.data.decoding import VideoFacts, probe, read_frames
from dreamwalk.data.folders import Bucket, open_captioned
from dreamwalk.data.h264 import REPEATABLE, VideoWriter
from dreamwalk.data.videos import VideoFolder
from dreamwalk.errors import UserError

CASES = Path(__file__).parents[1] / "cases" / "videos"
RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 220), (235, 235, 235)
CORNERS = np.array([[RED, GREEN], [BLUE, WHITE]])


def frames_of(video: Path, picks: list[int] | None = None) -> np.ndarray:
    facts = probe(video)
    return np.stack(list(read_frames(video, picks or facts.picks().tolist(), size=facts.size)))


def corners(frame: np.ndarray) -> np.ndarray:
    return frame[10:-9:, 10:-9][:: len(frame) - 20, :: frame.shape[1] - 20].astype(int)


def bars(frames: np.ndarray) -> np.ndarray:
    height, width = frames.shape[1:3]
    return frames[:, height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4].mean((1, 2, 3))


@pytest.mark.parametrize(
    ("name", "count", "size", "first"),
    [
        ("bframes.mp4", 100, (360, 640), 0),
        ("cover_first.mp4", 100, (360, 640), 0),
        ("damaged.mkv", 38, (360, 640), 0),
        ("editlist.mp4", 55, (360, 640), 45),
        ("hevc10.mp4", 100, (360, 640), 0),
        ("m4v.m4v", 100, (360, 640), 0),
        ("obs.flv", 100, (360, 640), 0),
        ("odd853.mp4", 100, (480, 853), 0),
        ("rot90.mp4", 100, (640, 360), 0),
        ("ts.ts", 100, (360, 640), 0),
    ],
)
def test_what_a_player_shows(name: str, count: int, size: tuple[int, int], first: int) -> None:
    facts = probe(CASES / name)
    assert (len(facts.times), facts.size, facts.rate, facts.steady) == (count, size, 30, True)
    assert facts.damage.startswith("damaged after 1.3 s") == (name == "damaged.mkv")
    frames = frames_of(CASES / name)
    assert abs(bars(frames) - 2 * np.arange(first, first + count)).max() < 7
    turned = np.rot90(CORNERS) if name == "rot90.mp4" else CORNERS
    assert abs(corners(frames[0]) - turned).max() < 8


@pytest.mark.parametrize("a", [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)])
@pytest.mark.parametrize("swapped", [False, True])
def test_every_display_matrix(tmp_path: Path, a: tuple[int, ...], swapped: bool) -> None:
    """x' = a x + c y, y' = b x + d y, and then moved to where all is seen."""
    data = (CASES / "rot90.mp4").read_bytes()
    at = data.index(struct.pack(">5i", 0, -(2**16), 0, 2**16, 0))
    x, y = a[0], a[3]
    matrix = (0, y, 0, x, 0) if swapped else (x, 0, 0, 0, y)
    turned = struct.pack(">5i", *(2**16 * value for value in matrix))
    (tmp_path / "a.mp4").write_bytes(data[:at] + turned + data[at + 20 :])
    expected = CORNERS.transpose(1, 0, 2) if swapped else CORNERS
    seen = corners(frames_of(tmp_path / "a.mp4", [0])[0])
    assert abs(seen - expected[::y, ::x]).max() < 8


def test_the_square_pixels_of_an_anamorphic_camera(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 72, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 72, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    assert probe(tmp_path / "a.mp4").size == (64, 96)
    assert frames_of(tmp_path / "a.mp4").shape == (3, 64, 96, 3)


def test_animations(tmp_path: Path) -> None:
    levels = [Image.new("L", (32, 24), 12 * k) for k in range(20)]
    levels[0].save(tmp_path / "a.gif", save_all=True, append_images=levels[1:], duration=100)
    assert probe(tmp_path / "a.gif").rate == 10
    assert abs(frames_of(tmp_path / "a.gif").mean((1, 2, 3)) - 12 * np.arange(20)).max() < 3


def test_what_has_no_picture_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sound\.mp4' has no picture \(sound only\)"):
        probe(CASES / "sound.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.mp4' cannot be read as a video"):
        probe(tmp_path / "empty.mp4")
    with pytest.raises(UserError, match=r"none\.mp4' cannot be read as a video"):
        probe(tmp_path / "none.mp4")


def grey(path: Path, frames: int = 120) -> None:
    """Noise over a level that rises by one a frame."""
    random = np.random.default_rng(0)
    options = {"crf": "10", "g": "24", **REPEATABLE}
    codec, layout = ("libvpx", "webm") if path.suffix == ".webm" else ("libx264", None)
    with av.open(str(path), "w", format=layout) as container:
        stream = container.add_stream(codec, rate=24, options={} if layout else options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for k in range(frames):
            noise = random.integers(-20, 20, (64, 96, 1)) + 40 + k
            frame = np.broadcast_to(noise, (64, 96, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "flv", "avi", "webm"])
@pytest.mark.parametrize("how", ["zeros", "cut short"])
def test_frames_before_damage_are_kept(tmp_path: Path, ending: str, how: str) -> None:
    video = tmp_path / f"a.{ending}"
    grey(video)
    data = video.read_bytes()
    half = len(data) // 2
    video.write_bytes(data[:half] if how == "cut short" else data[:half] + bytes(4000) + data[half + 4000 :])
    if (ending, how) == ("mp4", "cut short"):  # its index, at its end, is gone
        with pytest.raises(UserError, match="cannot be read as a video"):
            probe(video)
        return
    facts = probe(video)
    assert facts.damage.startswith("damaged after") or (ending, how) == ("ts", "cut short")
    assert 30 < len(facts.times) < 80
    assert facts.steady
    frames = frames_of(video)
    assert len(frames) == len(facts.times)
    assert abs(frames.mean((1, 2, 3)) - 40 - np.arange(len(frames))).max() < 8


def test_a_stream_that_was_joined_in_the_middle_begins_at_its_first_whole_frame(tmp_path: Path) -> None:
    grey(tmp_path / "a.ts")
    data = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "a.ts").write_bytes(data[188 * (len(data) // 188 // 3) + 77 :])
    facts = probe(tmp_path / "a.ts")
    assert facts.damage == ""
    levels = frames_of(tmp_path / "a.ts").mean((1, 2, 3))
    assert 60 < len(levels) < 100
    assert abs(levels - 40 - np.arange(120 - len(levels), 120)).max() < 8


def test_frames_are_chosen_by_their_time() -> None:
    even = VideoFacts(np.arange(100) / 30, (8, 8), 30.0)
    assert even.picks().tolist() == list(range(100))
    assert even.picks(29.97).tolist() == list(range(100))
    assert even.picks(15).tolist() == list(range(0, 100, 2))
    assert even.picks(12)[:6].tolist() == [0, 2, 5, 7, 10, 12]
    random = np.random.default_rng(0)
    shaken = VideoFacts(np.arange(100) / 30 + random.uniform(-0.004, 0.004, 100), (8, 8), 30.0)
    assert shaken.picks(15).tolist() == list(range(0, 100, 2))
    held = VideoFacts(np.array([0, 1, 2, 10, 11]) / 10, (8, 8), 10.0)
    assert not held.steady
    assert held.picks(10).tolist() == [0, 1, *[2] * 8, 3, 4]
    assert held.picks(5).tolist() == [0, 2, 2, 2, 2, 3]


def test_a_folder_of_all_of_them(tmp_path: Path) -> None:
    for file in CASES.iterdir():
        shutil.copy(file, tmp_path)
        (tmp_path / f"{file.stem}.txt").write_text(f"what {file.stem} shows")
    source = VideoFolder(tmp_path, clip_frames=8, size=(180, 320))
    odd = {name: len(picks) for name, picks in source.contents.files.items() if len(picks) != 100}
    assert odd == {"damaged.mkv": 38, "editlist.mp4": 55}
    report = source.report()
    assert "left out: sound.mp4: has no picture (sound only): take it away" in report
    assert "note: damaged.mkv: damaged after 1.3 s (it is 3.3 s long), its first 38 frames are used" in report
    assert "not used: 45 frames at the end of 10 videos do not fill a clip of 8" in report
    names = list(source.contents.files)
    first = sum(len(source.contents.files[name]) // 8 for name in names[: names.index("editlist.mp4")])
    clips = list(source.clips(range(first, first + 6)))
    assert [clip.caption for clip in clips] == ["what editlist shows"] * 6
    levels = np.concatenate([bars(clip.video) for clip in clips])
    assert abs(levels - 2 * np.arange(45, 93)).max() < 7
    captioned = open_captioned(tmp_path, [Bucket(8, 320, 180), Bucket(8, 180, 320)])
    assert {piece.file for piece in captioned.pieces if piece.bucket.height == 320} == {"rot90.mp4"}
    (clip,) = captioned.clips([piece for piece in captioned.pieces if piece.file == "editlist.mp4"][-1:])
    assert abs(bars(clip.video) - 2 * np.arange(85, 93)).max() < 7
    assert "left out: sound.mp4: has no picture (sound only): take it away" in captioned.report()
    assert "its first 38 frames are used" in captioned.report()


def test_our_own_videos_are_read_back_exactly_in_time(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", size=(32, 32), fps=35 / 3, options={"crf": "4"})
    for k in range(30):
        writer.add(np.full((32, 32, 3), 8 * k, np.uint8))
    writer.finish()
    facts = probe(tmp_path / "a.mp4")
    assert facts.rate == pytest.approx(35 / 3, rel=1e-6) and facts.steady
    assert abs(frames_of(tmp_path / "a.mp4").mean((1, 2, 3)) - 8 * np.arange(30)).max() < 3
