"""What is asked on the command line becomes an order, or one sentence."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamwalk.cli import main
from dreamwalk.data.h264 import decode_video
from dreamwalk.rollout.ordering import SampleClips, ordered, write_clip
from dreamwalk.rollout.record import write_film
from dreamwalk.systems import moviegen
from dreamwalk.systems.moviegen import Moviegen
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json


@pytest.fixture(scope="module")
def system() -> Moviegen:
    torch.manual_seed(0)
    return Moviegen(moviegen.tiny()).eval()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (32, 32), "green").save(tmp_path / "green.png")
    return tmp_path / "green.png"


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 32), "green").save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def test_the_command_makes_a_film(
    system: Moviegen, tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = tmp_path / "m.safetensors", tmp_path / "v.mp4"
    metadata = {"system": "moviegen", "config": to_json(system.config)}
    files.save(weights, system.state_dict(), metadata=metadata)
    asked = ["sample", str(weights), "--prompt", "walk ahead", "--out", str(out), "--image", str(picture)]
    main(asked)
    assert capsys.readouterr().out == f"5 frames: {out}\n"
    assert decode_video(out.read_bytes()).shape == (5, 32, 32, 3)
    with pytest.raises(SystemExit) as ended:
        main([*asked[:2], *asked[4:]])
    assert ended.value.code == 2
    assert "--prompt" in capsys.readouterr().err


def test_pictures_and_videos_say_what_they_are_for(system: Moviegen, tmp_path: Path, picture: Path) -> None:
    film = tmp_path / "film.mp4"
    write_film(film, np.zeros((9, 32, 32, 3), np.uint8), fps=10)
    asked = SampleClips(Path("v.mp4"), "walk")
    for changes, use, frames in (
        ({"image": (picture,)}, "first", 1), ({"image": (picture, picture)}, "ends", 2),
        ({"video": film}, "before", 1), ({"video": film, "use": "anew", "strength": 0.5}, "anew", 5),
    ):  # fmt: skip
        order, video = ordered(replace(asked, **changes), system)  # type: ignore[arg-type]
        assert order.use == use and video is not None and video.shape == (1, frames, 3, 32, 32)
    order, video = ordered(asked, system)
    assert video is None and order.frames == 0 and order.size is None


def test_no_size_is_changed_in_silence(system: Moviegen, wide: Path) -> None:
    asked = SampleClips(Path("v.mp4"), "walk", image=(wide,))
    with pytest.raises(ValueError, match=r"wide.png' is 32x64 and the clip 32x32: add `--fit`"):
        ordered(asked, system)
    video = ordered(replace(asked, fit=True), system)[1]
    assert video is not None and video.shape[-2:] == (32, 32)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": ""}, "`--prompt "),
        ({"out": Path("v.gif")}, "written as .mp4"),
        ({"image": (Path("nowhere.png"),)}, "there is no picture at 'nowhere.png'"),
        ({"image": (Path(__file__),)}, "is not a picture"),
        ({"video": Path(__file__)}, "video"),
        ({"video": Path("nowhere.mp4")}, "video"),
        ({"image": (Path("a"), Path("b"), Path("c"))}, "got 3"),
        ({"image": (Path("a"),), "video": Path("b")}, "leave out `--image` or `--video`"),
        ({"size": (30, 40)}, "nearest size is 32x"),
    ],
)
def test_bad_input_gets_one_sentence(system: Moviegen, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        asked = replace(SampleClips(Path("v.mp4"), "walk"), **changes)  # type: ignore[arg-type]
        asked.check()
        write_clip(asked, system)
