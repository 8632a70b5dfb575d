"""Scenes along paths: what may be asked, what comes back, who has room, and the page."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import av
import numpy as np
import pytest
from PIL import Image
from rooms import some_picture, thumbnails
from starlette.testclient import TestClient
from tabs import Tab

from dreamwalk.camera_moves import parse_path
from dreamwalk.camera_paths import CameraPath, camera_path
from dreamwalk.errors import UserError
from dreamwalk.serve import AppConfig, ScenePoints, Scenes, WebPathRequest, WebSceneStart, build_app
from dreamwalk.serve.protocol import Picture
from dreamwalk.serve.scene_config import MOST_POINTS
from dreamwalk.serve.scene_store import SceneStore

LENS = np.array([[16.0, 0, 16], [0, 16, 16], [0, 0, 1]])


class Drawn:
    """A scene without a network: each step adds a frame and a point; `go` lets it happen."""

    def __init__(self, start: WebSceneStart) -> None:
        if start.start == 3:
            raise UserError("no depth was found in that picture: choose another one")
        self.go = threading.Event()
        self.go.set()
        self.cameras = CameraPath(np.eye(4)[None], LENS)
        self.film = np.zeros((1, 32, 64, 3), np.uint8)
        self.points, self.closed, self.steps = points_of(1), False, 0

    def plan(self, path: str) -> CameraPath:
        last = self.cameras.world_from_camera[-1]
        return camera_path(path, intrinsics=LENS, frames=5, depth=4.0, first=last)

    def walk(self, request: WebPathRequest) -> Generator[tuple[int, int]]:
        assert request.steps is not None
        yield 0, request.steps
        for step in range(1, request.steps + 1):
            assert self.go.wait(10)
            self.steps += 1
            self.points = points_of(len(self.points.frames) + 1)
            yield step, request.steps
        path = self.plan(request.path)
        poses = np.concatenate([self.cameras.world_from_camera, path.world_from_camera[1:]])
        self.cameras, self.film = CameraPath(poses, LENS), np.zeros((5, 32, 64, 3), np.uint8)

    def write(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "scene.json").write_text("{}")

    def close(self) -> None:
        self.closed = True


def points_of(n: int) -> ScenePoints:
    """A point for each frame."""
    place = np.arange(3 * n, dtype=np.float32).reshape(n, 3) + 1
    return ScenePoints(place, np.full((n, 3), 200, np.uint8), np.full(n, 0.5, np.float32), np.arange(n))


def unpacked(data: bytes) -> tuple[np.ndarray, np.ndarray, int]:
    count, following = np.frombuffer(data, "<u4", 2)
    place = np.frombuffer(data, "<f4", 3 * count, 8).reshape(-1, 3)
    return place, np.frombuffer(data, np.uint8, 4 * count, 8 + 12 * count).reshape(-1, 4), int(following)


def walked(client: TestClient, name: str, **request: Any) -> list[dict[str, Any]]:
    answer = client.post(f"/scenes/{name}/walk", json=request)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture
def made() -> list[Drawn]:
    return []


@pytest.fixture
def config(made: list[Drawn]) -> AppConfig:
    return drawn_scenes(made)


def drawn_scenes(made: list[Drawn]) -> AppConfig:
    """A page of scenes, all of which come into a list."""

    def begin(start: WebSceneStart) -> Drawn:
        made.append(Drawn(start))
        return made[-1]

    scenes = Scenes(begin, (32, 32), fps=10.0, steps=3, levels=9, longest=20)
    return AppConfig("scenes.test", starts=thumbnails(), scenes=scenes)


@pytest.fixture
def client(config: AppConfig) -> Iterator[TestClient]:
    with TestClient(build_app(config, max_sessions=2)) as client:
        yield client


@pytest.fixture(scope="module")
def tiny_app(tmp_path_factory: pytest.TempPathFactory) -> AppConfig:
    """The page of a real system, as small as there is."""
    import torch

    from dreamwalk.commands.play import open_app
    from dreamwalk.memory.pixel_filter import PixelFilterConfig
    from dreamwalk.systems.voyager import tiny
    from dreamwalk.weights import files
    from dreamwalk.weights.config import to_json

    torch.manual_seed(0)
    config = replace(tiny(), estimator=PixelFilterConfig(width=8), steps=2)
    folder = tmp_path_factory.mktemp("tiny")
    metadata = {"system": "voyager", "config": to_json(config)}
    files.save(folder / "weights.safetensors", config.build().state_dict(), metadata=metadata)
    return open_app(str(folder), "cpu")


def test_a_real_system_dreams_on_from_where_it_is(tiny_app: AppConfig) -> None:
    assert tiny_app.scenes is not None and tiny_app.clips is None and tiny_app.dream is None
    with TestClient(build_app(tiny_app)) as client:
        scene = client.post("/scenes", json={"image": some_picture()}).json()
        name = scene["scene"]
        assert scene["frames"] == 1 and scene["points"] > 0 and scene["still"].startswith("data:image/jpeg")
        plan = client.post(f"/scenes/{name}/path", json={"path": "forward:2, orbit:30"}).json()
        assert len(plan["poses"]) % 4 == 1 and plan["poses"][0] == scene["poses"][-1]
        events = walked(client, name, path="forward:2, orbit:30", seed=3)
        assert [e["type"] for e in events] == ["progress"] * (len(events) - 1) + ["done"]
        grown = client.get(f"/scenes/{name}").json()
        assert grown["poses"] == scene["poses"] + plan["poses"][1:] and grown["points"] > scene["points"]
        walked(client, name, path="pan:20@4")
        turned = client.get(f"/scenes/{name}").json()
        assert turned["frames"] == grown["frames"] + 4
        assert turned["poses"][: grown["frames"]] == grown["poses"]
        place, _, following = unpacked(client.get(f"/scenes/{name}/points?since=0").content)
        assert len(place) == turned["points"] and np.isfinite(place).all() and following <= turned["frames"]
        with av.open(io.BytesIO(client.get(f"/scenes/{name}/film").content), "r") as film:
            assert len(list(film.decode(film.streams.video[0]))) == 5, "that of the newest path"
        with zipfile.ZipFile(io.BytesIO(client.get(f"/scenes/{name}/scene.zip").content)) as archive:
            told = json.loads(archive.read("scene/scene.json"))
            assert {"scene/video.mp4", "scene/points.ply"} <= set(archive.namelist())
        assert len(told["matrices"]) == turned["frames"]
        paths = told["metadata"]["paths"]
        assert [(part["path"], part["seed"]) for part in paths] == [
            ("forward:2, orbit:30", 3),
            ("pan:20@4", 0),
        ]
        assert client.post(f"/scenes/{name}/end").status_code == 204
        assert client.get(f"/scenes/{name}").status_code == 404


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("", "one move at least"),
        ("fly:3", "no move of a camera"),
        ("forward:nan", "needs an amount"),
        ("zoom:0", "above 0"),
        ("forward:1e300", "160 are dreamed at once: make it shorter"),
        ("forward:1e300@3", "leads farther than"),
        ("forward:1@900000000", "160 are dreamed at once"),
        ("forward:1," * 300, "shorten it"),
    ],
)
def test_a_path_that_makes_no_sense_is_one_sentence(tiny_app: AppConfig, path: str, sentence: str) -> None:
    with TestClient(build_app(tiny_app)) as client:
        name = client.post("/scenes", json={"image": some_picture()}).json()["scene"]
        assert sentence in client.post(f"/scenes/{name}/path", json={"path": path}).json()["wrong"]
        answer = client.post(f"/scenes/{name}/walk", json={"path": path})
        assert answer.status_code == 400 and sentence in answer.text and "\n" not in answer.text
        assert client.get(f"/scenes/{name}").json()["frames"] == 1


def test_what_clips_are_finished_stays_when_a_path_is_stopped(tiny_app: AppConfig) -> None:
    assert tiny_app.scenes is not None
    picture = np.full((32, 32, 3), 90, np.uint8).view(Picture)
    scene = tiny_app.scenes.open(WebSceneStart(image=picture))
    request = WebPathRequest("forward:1@12", steps=2)
    walk = scene.walk(request)
    before = scene.points
    for _ in walk:
        if scene.points is not before:  # the first of three clips is finished
            break
    walk.close()
    assert len(scene.cameras) == 5 and len(scene.film) == 5
    steps = [step for step, _ in scene.walk(request)]
    assert steps == list(range(len(steps))) and len(scene.cameras) == 17
    scene.close()


def test_moves_take_frames_by_their_length_and_fill_clips() -> None:
    from dreamwalk.commands.path_scene import paced

    def frames(path: str) -> list[int | None]:
        return [move.frames for move in paced(parse_path(path), frames=17, stride=9)]

    assert frames("forward:1") == [16] and frames("forward:0.01,pan:1") == [8, 8]
    assert frames("forward:4,pan:20") == [20, 5] and frames("forward:1@3,pan:5@2") == [3, 2]
    assert frames("forward:1@3,pan:5") == [3, 13]
    assert all(part and part >= 1 for part in frames("forward:9,pan:0.1,look-at,spiral:1"))


def test_starts_levels_and_nonsense(client: TestClient, made: list[Drawn]) -> None:
    assert client.get("/api/stage").json()["levels"] == 9
    for body, sentence in [
        (b"", "not valid JSON"),
        (b'{"image": "QUJD"}', "cannot be read"),
        (b'{"start": -1}', "start must be"),
        (b'{"start": 3}', "no depth was found"),
        (b" " * (5 * 2**20), "too long"),
    ]:
        answer = client.post("/scenes", content=body)
        assert answer.status_code == 400 and sentence in answer.text
    name = client.post("/scenes", json={"start": 1}).json()["scene"]
    for more, sentence in [({"prompt": "x" * 21}, "at most 20"), ({"steps": 0}, "from 1 to 64")]:
        answer = client.post(f"/scenes/{name}/walk", json={"path": "forward:1"} | more)
        assert answer.status_code == 400 and sentence in answer.text
    assert client.get(f"/scenes/{name}/points?since=-1").status_code == 400
    assert client.get("/scenes/other").text == "this scene is not kept any more: begin again"
    answer = client.post("/scenes", json={"start": 0}, headers={"origin": "http://evil.example"})
    assert answer.status_code == 400 and "other sites" in answer.text


def test_points_come_frame_by_frame_and_never_too_many(client: TestClient, made: list[Drawn]) -> None:
    name = client.post("/scenes", json={"start": 0}).json()["scene"]
    events = walked(client, name, path="forward:1")
    assert [event.get("points") for event in events] == [1, 2, 3, 4, None]
    place, paint, following = unpacked(client.get(f"/scenes/{name}/points?since=2").content)
    assert place.tolist() == [[7, 8, 9], [10, 11, 12]] and following == 4
    assert paint.tolist() == [[200, 200, 200, 120]] * 2, "half a world unit is an octave below 128"
    made[0].points = points_of(MOST_POINTS + 10)
    assert len(unpacked(client.get(f"/scenes/{name}/points").content)[0]) == MOST_POINTS


def test_there_is_room_for_a_few_scenes(client: TestClient, made: list[Drawn], config: AppConfig) -> None:
    names = [client.post("/scenes", json={"start": 0}).json()["scene"] for _ in range(2)]
    answer = client.post("/scenes", json={"start": 0})
    assert answer.status_code == 400 and "2 scenes are open" in answer.text
    assert client.post("/scenes", json={"start": 3, "instead": names[0]}).status_code == 400
    assert client.get(f"/scenes/{names[0]}").status_code == 200, "what cannot be begun ends nothing"
    assert client.post("/scenes", json={"start": 0, "instead": names[0]}).status_code == 200
    assert made[0].closed and client.get(f"/scenes/{names[0]}").status_code == 404
    assert config.scenes is not None
    store = SceneStore(config.scenes, most=2)
    kept = [store.open(WebSceneStart(start=0)) for _ in range(2)]
    kept[1].touched -= 1000
    store.open(WebSceneStart(start=0))
    assert [scene.closed for scene in made[-3:]] == [False, True, False], "whom nobody touches gives way"


def test_one_path_at_a_time_and_who_hangs_up_makes_room(
    serve_config: Callable[..., str], config: AppConfig, made: list[Drawn]
) -> None:
    address = urlsplit(serve_config(config)).netloc

    def asked(where: str, **request: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request("POST", f"/scenes{where}", json.dumps(request))
        return connection, connection.getresponse()

    names = [_read(address, "/scenes", b'{"start": 0}')["scene"] for _ in range(2)]
    made[0].go.clear()
    first, one = asked(f"/{names[0]}/walk", path="forward:1", steps=40)
    assert json.loads(one.readline())["step"] == 0
    second, two = asked(f"/{names[1]}/walk", path="forward:1")
    assert json.loads(two.readline()) == {"type": "queued", "position": 1}
    for part in (one, first):
        part.close()
    time.sleep(0.2)
    made[0].go.set()
    assert json.loads(two.readlines()[-1])["type"] == "done"
    for part in (two, second):
        part.close()
    assert [_read(address, f"/scenes/{name}")["frames"] for name in names] == [1, 5]
    assert made[0].steps < 40, "the path that nobody waits for is not walked to its end"


def _read(address: str, where: str, body: bytes | None = None) -> dict[str, Any]:
    with urlopen(f"http://{address}{where}", body, 10) as answer:
        return json.load(answer)


@pytest.mark.browser
def test_the_page_dreams_along_a_path(
    tab: Callable[..., Tab],
    serve_config: Callable[..., str],
    config: AppConfig,
    made: list[Drawn],
    tmp_path: Path,
) -> None:
    page = tab(address=serve_config(config), viewport={"width": 1000, "height": 700})
    keys, scenes, state = (
        page.page.keyboard,
        "dreamwalk.scenes",
        "document.querySelector('#scene').dataset.state",
    )
    assert page.page.locator("h1").inner_text() == "Step into a picture"
    Image.new("RGB", (400, 300), (250, 10, 10)).save(tmp_path / "red.png")
    page.page.set_input_files("#pick-picture", tmp_path / "red.png")
    page.until(f"{scenes}.name && {state} === 'idle'")
    assert page.look(f"{scenes}.space.count") == 1 and page.page.locator("#go").is_disabled()
    for key in ("w", "w", "ArrowUp", "e", "ArrowLeft"):
        keys.press(key)
    assert page.page.input_value("#path") == "forward:1.5, orbit-right:15, pan-left:15"
    keys.press("Backspace")
    page.until(f"{scenes}.planned?.poses.length === 5 && {scenes}.space.paths.planned")
    page.page.click("#moves [data-move=up]")
    assert page.page.input_value("#path") == "forward:1.5, orbit-right:15, up:0.25"
    page.type("#path", "forward:1, fly:3")
    page.until(f"{scenes}.wrong")
    assert "'fly:3' is no move" in page.page.locator("#path-said").inner_text()
    page.type("#path", "forward:1, orbit:20")
    page.until(f"{scenes}.planned && !{scenes}.wrong")
    made[0].go.clear()
    keys.press("Enter")
    page.until(f"{scenes}.under && {state} === 'dreaming'")
    made[0].go.set()
    page.until(f"{state} === 'idle' && document.querySelector('#scene-film').videoWidth > 0")
    assert page.look(f"[{scenes}.space.count, {scenes}.state.frames, {scenes}.path]") == [4, 5, ""]
    page.page.locator("#space").click()
    keys.press("c")
    page.until(f"{scenes}.space.through && document.querySelector('#space').dataset.look === 'through'")
    with page.page.expect_download() as download:
        page.page.click("#scene-save")
    assert download.value.suggested_filename == "scene.zip"
    keys.press("s")
    keys.press("Enter")  # and on from there
    page.until(f"{scenes}.state.frames === 9 && {state} === 'idle'")
    page.page.close(run_before_unload=True)
    end = time.monotonic() + 8
    while not made[0].closed:
        assert time.monotonic() < end, "a closed tab ends its scene"
        time.sleep(0.02)
