"""Clips from the command line: what is asked becomes an order, and what is impossible a sentence."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from dreamwalk.cli import main
from dreamwalk.commands.sample import SampleClip, write_clip
from dreamwalk.data.h264 import VideoWriter
from dreamwalk.errors import UserError
from dreamwalk.systems import moviegen
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.conditionings import (
    Conditioning,
    Continuation,
    FirstFrame,
    FirstLast,
    Redo,
    TextOnly,
    Upscale,
)
from dreamwalk.systems.moviegen import Moviegen
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

ASKED = SampleClip(Path("o.mp4"), ClipRequest(steps=2), prompt="walk ahead")


def with_request(asked: SampleClip, **changes: Any) -> SampleClip:
    return replace(asked, request=replace(asked.request, **changes))


@pytest.fixture(scope="module")
def system() -> Moviegen:
    torch.manual_seed(0)
    return Moviegen(replace(moviegen.tiny(), fps=10.0)).eval()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pictures of two sizes and a video of 20 frames a second."""
    monkeypatch.chdir(tmp_path)
    for name, size in (("small", (32, 32)), ("large", (80, 60))):
        Image.new("RGB", size, "red").save(f"{name}.png")
    writer = VideoWriter(tmp_path / "v.mp4", size=(32, 32), fps=20, options={})
    for level in range(0, 240, 20):
        writer.add(np.full((32, 32, 3), level, np.uint8))
    writer.finish()
    (tmp_path / "letter.txt").write_text("dear reader")
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "kind", "frames"),
    [
        (ASKED, TextOnly, 0),
        (replace(ASKED, image=(Path("small.png"),)), FirstFrame, 1),
        (replace(ASKED, image=(Path("small.png"),) * 2), FirstLast, 2),
        (with_request(replace(ASKED, video=Path("v.mp4")), frames=9), Continuation, 5),
        (replace(ASKED, video=Path("v.mp4")), Continuation, 1),
        (with_request(replace(ASKED, video=Path("v.mp4"), use="redo"), frames=9), Redo, 6),
        (replace(ASKED, image=(Path("large.png"),), fit="cut"), FirstFrame, 1),
    ],
)
def test_what_is_given_says_what_it_is_for(
    system: Moviegen, folder: Path, asked: SampleClip, kind: type[Conditioning], frames: int
) -> None:
    request = asked.opened(system).request
    video = request.conditioning.video
    assert type(request.conditioning) is kind and request.prompts == ("walk ahead",)
    assert (0 if video is None else video.shape[1]) == frames
    assert video is None or video.shape[2:] == (3, 32, 32)


def test_a_video_keeps_its_end_to_go_on_from_and_its_pace(system: Moviegen, folder: Path) -> None:
    asked = with_request(replace(ASKED, video=Path("v.mp4")), frames=9)
    video = asked.opened(system).request.conditioning.video
    assert video is not None
    assert (video.float().mean((0, 2, 3, 4)) - torch.arange(1, 6) * 40).abs().max() < 6


@pytest.mark.parametrize(
    ("change", "size", "frames"),
    [
        ({"video": Path("v.mp4")}, (32, 32), 6),
        ({"video": Path("v.mp4"), "request": ClipRequest(frames=3)}, (32, 32), 3),
        ({"image": (Path("small.png"),)}, (32, 32), 1),
        ({"video": Path("v.mp4"), "request": ClipRequest(size=(32, 64)), "fit": "cut"}, (16, 32), 6),
    ],
)
def test_an_upsampler_takes_what_it_is_given(
    system: Moviegen, folder: Path, change: dict[str, Any], size: tuple[int, int], frames: int
) -> None:
    larger = Moviegen(moviegen.upsampler(system.config)).eval()
    asked = with_request(replace(ASKED, **change), steps=1, area=(32, 32)).opened(larger)
    conditioning = asked.request.conditioning
    assert conditioning.video is not None and conditioning.video.shape == (1, frames, 3, *size)
    assert isinstance(conditioning, Upscale) and larger.settings(asked.request).frames == frames
    assert write_clip(asked, larger) == frames
    with av.open("o.mp4") as container:
        shown = container.streams.video[0]
        assert (shown.height, shown.width) == (2 * size[0], 2 * size[1])


@pytest.mark.parametrize("tile", [0, 24])
def test_the_film_is_the_clip_that_was_dreamt(system: Moviegen, folder: Path, tile: int) -> None:
    asked = replace(ASKED, image=(Path("small.png"),), tile=tile).opened(system)
    assert write_clip(asked, system) == 5
    with av.open("o.mp4") as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    expected = (system.sample_video(asked.request)[0].permute(0, 2, 3, 1).numpy() + 1) * 127.5
    assert np.abs((shown - expected) @ (0.299, 0.587, 0.114)).mean() < 4


REFUSED: dict[str, tuple[Callable[[SampleClip], SampleClip], str]] = {
    "no picture": (lambda a: replace(a, image=(Path("none.png"),)), "there is no picture at 'none.png'"),
    "a letter": (lambda a: replace(a, image=(Path("letter.txt"),)), "not a picture that can be read"),
    "a large one": (
        lambda a: replace(a, image=(Path("large.png"),)),
        "'large.png' is 60x80 and the clip 32x32",
    ),
    "no video": (lambda a: replace(a, video=Path("none.mp4")), "'none.mp4' cannot be read as a video"),
    "a short one": (
        lambda a: with_request(replace(a, video=Path("v.mp4"), use="redo"), frames=9),
        "make them equal",
    ),
    "one to make larger": (lambda a: replace(a, video=Path("v.mp4"), use="upscale"), "enlarges no clips"),
    "an area": (lambda a: with_request(a, area=(32, 30)), "tiles of 32x30 .* the nearest size is 32x32"),
    "a size": (lambda a: with_request(a, size=(32, 30)), "the nearest size is 32x32"),
}


@pytest.mark.parametrize(("change", "sentence"), REFUSED.values(), ids=list(REFUSED))
def test_impossible_orders(
    system: Moviegen, folder: Path, change: Callable[[SampleClip], SampleClip], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        write_clip(change(ASKED).opened(system), system)


def test_a_video_of_a_phone_is_upright(
    system: Moviegen, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = Path(__file__).parents[1] / "cases" / "videos"
    asked = with_request(replace(ASKED, video=cases / "rot90.mp4", use="redo"), frames=5)
    with pytest.raises(UserError, match=r"rot90\.mp4' is 640x360 and the clip 32x32: add `--fit letterbox`"):
        asked.opened(system)
    video = replace(asked, fit="letterbox").opened(system).request.conditioning.video
    assert video is not None and video.shape == (1, 5, 3, 32, 32)
    frames = video[0].permute(0, 2, 3, 1)
    assert frames[0, :, :6].max() == frames[0, :, -6:].max() == 0
    assert frames[0, 2, 9].argmax() == 1, "green, at the top left"
    assert frames[0, -3, 9].argmax() == 0, "red, at the bottom left"
    replace(asked, video=cases / "damaged.mkv", fit="cut").opened(system)
    assert "its first 38 frames are used" in capsys.readouterr().err


def test_the_command(system: Moviegen, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = {"system": "moviegen", "config": to_json(system.config)}
    files.save("m.safetensors", system.state_dict(), metadata=metadata)
    words = ["sample", "m.safetensors", "--out", "o.mp4", "--steps", "1", "--device", "cpu"]
    main([*words, "--prompt", "walk", "--image", "small.png"])
    assert "5 frames: o.mp4" in capsys.readouterr().out
    for flags, sentence in (
        ([], 'say what to dream: `--prompt "walk'),
        (["--prompt", "walk", "--image", *["small.png"] * 3], "got 3: give two at most"),
        (["--prompt", "walk", "--frames", "-1"], "at least one frame, got -1"),
        (["--prompt", "walk", "--frames", "0"], "at least one frame, got 0"),
        (["--prompt", "walk", "--steps", "0"], "steps must be a whole number from 1 to 64, got 0"),
        (["--prompt", "walk", "--steps", "65"], "from 1 to 64, got 65"),
        (["--prompt", "walk", "--guidance", "nan"], "guidance must be a finite number, got nan"),
        (["--prompt", "walk", "--embedded-guidance=-inf"], "embedded_guidance must be a finite number"),
        (["--prompt", "walk", "--shift", "0"], "shift must be above 0, got 0.0"),
        (["--prompt", "walk", "--image", "small.png", "--video", "v.mp4"], "leave out `--image` or"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*words, *flags])
        assert stop.value.code == 2 and sentence in capsys.readouterr().err
