"""Scenes along paths of several clips: the plan, the cache between clips, and what comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from box_room import walk
from carrying_voyager import carrying_voyager
from PIL import Image

from dreamwalk.cli import main
from dreamwalk.clip import Clip
from dreamwalk.errors import UserError
from dreamwalk.memory.point_tiles import TileBudget
from dreamwalk.memory.world_cache import WorldCache, WorldCacheConfig
from dreamwalk.schedules.plans import Fuse, Renoise
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.path_sampling import ClipJoint, PathRequest, PathSampling
from dreamwalk.systems.voyager import Voyager
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A turn with steps, of eleven frames: three clips of five that share two."""
    return replace(walk([(-60.0 + 5 * i, 10.0, 9.0 * i) for i in range(11)]), caption=["a room"])


@pytest.fixture(scope="module")
def system(clip: Clip) -> Voyager:
    return carrying_voyager(clip)


def request_of(clip: Clip, frames: int = 11, joint: ClipJoint | None = None) -> PathRequest:
    assert clip.depth is not None and clip.world_from_camera is not None and clip.intrinsics is not None
    picture, cameras = clip.video[0, 0].float() / 127.5 - 1, (clip.world_from_camera[0], clip.intrinsics[0])
    poses, lenses = (part[:frames] for part in cameras)
    return PathRequest(
        picture, clip.depth[0, 0], poses, lenses, ClipRequest(("a room",)), joint or ClipJoint()
    )


def cache(folder: Path | None = None) -> WorldCache:
    return WorldCache(WorldCacheConfig(budget=TileBudget(points=None)), folder=folder)


def sampled(system: Voyager, request: PathRequest, kept: WorldCache) -> PathSampling:
    sampling = PathSampling(system, request, kept)
    assert [step.step for step in sampling.steps()] == list(range(1, len(sampling.plan.rows) + 1))
    return sampling


def test_clips_share_frames_and_the_cache_grows(system: Voyager, clip: Clip) -> None:
    kept = cache()
    sampling = PathSampling(system, request_of(clip), kept)
    assert (sampling.clips, sampling.stride, sampling.shared) == (3, 3, 2)
    rows = sampling.plan.rows
    assert (
        sum(isinstance(row, Renoise) for row in rows) == 2 and sum(isinstance(row, Fuse) for row in rows) == 4
    )
    sizes = {}
    for step in sampling.steps():
        sizes[step.finished] = len(kept)
    assert sizes[0] <= sizes[1] <= sizes[2] <= sizes[3] and sizes[0] < sizes[3]
    rgb, depth = sampling.frames()
    assert rgb.shape == (11, 3, 32, 32) and depth.shape == (11, 32, 32)
    assert torch.equal(rgb[0], request_of(clip).picture)
    assert rgb.isfinite().all() and depth.isfinite().all()


def test_what_is_known_comes_back(system: Voyager, clip: Clip) -> None:
    """An untrained network that carries over what it is told: the first frames, mostly known, are right."""
    rgb, depth = sampled(system, request_of(clip), cache()).frames()
    assert clip.depth is not None
    truth = clip.video[0].float() / 127.5 - 1
    assert (depth[1] / clip.depth[0, 1]).log().abs().median() < (
        depth[1] / clip.depth[0, 8]
    ).log().abs().median()
    assert (rgb[1] - truth[1]).abs().median() < (rgb[1] - truth[8]).abs().median()


def test_the_same_seed_is_the_same_scene(system: Voyager, clip: Clip) -> None:
    one, other = (sampled(system, request_of(clip, 8), cache()) for _ in range(2))
    assert torch.equal(one.frames()[0], other.frames()[0])
    assert len(one.cache) == len(other.cache) and one.fits == other.fits


def test_the_end_of_a_path_may_lie_within_a_clip(system: Voyager, clip: Clip) -> None:
    sampling = sampled(system, request_of(clip, 7, ClipJoint(smooth=0.4)), cache())
    assert sampling.clips == 2 and len(sampling.frames()[0]) == 7


def test_without_the_cache_a_clip_is_told_its_first_frame_alone(system: Voyager, clip: Clip) -> None:
    alone = sampled(system, replace(request_of(clip), memory="picture"), cache())
    known = [alone._path(2, alone._first).known.float().mean() for _ in range(1)]
    told = replace(alone.request, memory="cache")
    with_cache = PathSampling(system, told, alone.cache)._path(2, alone._first).known.float().mean()
    assert known[0] < with_cache


def test_what_it_cannot_follow_is_named(system: Voyager, clip: Clip) -> None:
    wrong = replace(request_of(clip), depth=torch.zeros(32, 32))
    with pytest.raises(UserError, match="nothing is known of the depth"):
        PathSampling(system, wrong, cache())


@pytest.fixture(scope="module")
def weights(system: Voyager, clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voyager")
    metadata = {"system": "voyager", "config": to_json(system.config)}
    files.save(folder / "v.safetensors", system.state_dict(), metadata=metadata)
    Image.fromarray(clip.video[0, 0].permute(1, 2, 0).numpy()).save(folder / "start.png")
    assert clip.depth is not None
    np.save(folder / "depth.npy", clip.depth[0, 0].numpy())
    return folder


def words(weights: Path, out: Path, *more: str) -> list[str]:
    asked = ["sample", str(weights / "v.safetensors"), "--image", str(weights / "start.png")]
    return [*asked, "--depth", str(weights / "depth.npy"), "--out", str(out), *more]


def code(argv: list[str]) -> int:
    """Of the process that would run them."""
    try:
        main(argv)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_writes_a_scene(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scene"
    assert code(words(weights, out, "--path", "orbit:20,forward:5", "--frames", "9")) == 0
    assert "9 frames" in capsys.readouterr().out
    for name in (
        "scene.json",
        "video.mp4",
        "depth.npy",
        "points.ply",
        "transforms.json",
        "sparse/0/cameras.txt",
    ):
        assert (out / name).is_file()
    assert np.load(out / "depth.npy").shape == (9, 32, 32)
    kept = tmp_path / "cache"
    again = words(
        weights, tmp_path / "b", "--cameras", str(out / "transforms.json"), "--keep-cache", str(kept)
    )
    assert code(again) == 0
    assert len(WorldCache.open(kept)) > 500
    film = tmp_path / "p.mp4"
    assert code(words(weights, tmp_path / "c", "--path", "pan:20", "--preview", str(film))) == 0
    assert film.is_file() and not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "more,said",
    [
        ((), "say where to go"),
        (("--path", "orbit:30", "--cameras", "x.json"), "say where to go"),
        (("--path", "sideways:3"), "sideways"),
        (("--path", "pan:3", "--fov", "200"), "between 0 and 180"),
        (("--path", "pan:3", "--depth-model", "x"), "leave out"),
        (("--cameras", "nowhere.json"), "nowhere.json"),
    ],
)
def test_bad_input_is_one_sentence(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    assert code(words(weights, tmp_path / "scene", *more)) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert not (tmp_path / "scene").exists()


@pytest.mark.parametrize(
    "spoil,said",
    [
        (lambda depth: depth[:-1], "scale it"),
        (lambda depth: depth * np.nan, "no numbers"),
        (lambda depth: -depth, "negative"),
        (lambda depth: depth * 0, "no depth above 0"),
    ],
)
def test_bad_depth_is_one_sentence(weights: Path, tmp_path: Path, capsys, spoil, said: str) -> None:
    np.save(tmp_path / "bad.npy", spoil(np.load(weights / "depth.npy")))
    asked = words(weights, tmp_path / "scene", "--path", "pan:3")
    asked[asked.index("--depth") + 1] = str(tmp_path / "bad.npy")
    assert code(asked) == 2 and said in capsys.readouterr().err
