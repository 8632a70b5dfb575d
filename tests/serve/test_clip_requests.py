"""Clips from words: what may be asked, what comes back, who waits, and the page."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
from PIL import Image
from rooms import some_picture, thumbnails
from starlette.testclient import TestClient
from tabs import Tab

from dreamwalk.errors import UserError
from dreamwalk.serve import AppConfig, Clips, Progress, WebClipRequest, build_app

SIZE = (48, 64)


class Maker:
    """Clips of one grey, the seed: five frames that begin with the picture; `go` lets each step happen."""

    def __init__(self, pause: float = 0.0) -> None:
        self.requests: list[WebClipRequest] = []
        self.pause, self.steps_done, self.ended = pause, 0, 0
        self.go = threading.Event()
        self.go.set()

    def __call__(self, request: WebClipRequest) -> Iterator[Progress]:
        self.requests.append(request)
        try:
            if request.prompt == "refuse":
                raise UserError("there is no such dream")
            if request.prompt == "break":
                raise RuntimeError("out of paint")
            for step in range(1, request.steps + 1):
                assert self.go.wait(10)
                time.sleep(self.pause)
                self.steps_done += 1
                count = 5 if step == request.steps else 2
                frames = np.full((count, *SIZE, 3), request.seed % 256, np.uint8)
                if request.image is not None:
                    frames[0] = request.image
                yield Progress(
                    step, request.steps, frames if step % 2 == 0 or step == request.steps else None
                )
        finally:
            self.ended += 1


def config_of(maker: Maker) -> AppConfig:
    words = {"Walls": ("red", "green metal", "hall"), "Between them": ("a", "and", "put down")}
    said = {"longest": 40, "check": few, "examples": ("a red hall", "a green hall"), "vocabulary": words}
    clips = Clips(maker, size=SIZE, fps=10.0, steps=4, **said)
    return AppConfig("clips.test", starts=thumbnails(), clips=clips)


def ask(client: TestClient, **request: Any) -> list[dict[str, Any]]:
    answer = client.post("/clips", json=request)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def data_of(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


def few(text: str) -> None:
    """What an encoder that counts words says of a text."""
    if len(text.split()) > 12:
        raise UserError(f"{len(text.split())} words are too many")


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def client(maker: Maker) -> Iterator[TestClient]:
    with TestClient(build_app(config_of(maker))) as client:
        yield client


def test_a_request_becomes_a_film(client: TestClient, maker: Maker) -> None:
    events = ask(client, prompt="  a red\n hall ", seed=90, steps=3)
    assert [event["type"] for event in events] == ["progress"] * 4 + ["done"]
    assert [(event["step"], len(event["pictures"])) for event in events[:-1]] == [
        (0, 0),
        (1, 0),
        (2, 2),
        (3, 0),
    ]
    assert events[0]["left"] is None and events[3]["left"] == 0
    shown = Image.open(io.BytesIO(data_of(events[2]["pictures"][0])))
    assert (shown.format, shown.size) == ("JPEG", SIZE[::-1])
    assert maker.requests == [WebClipRequest("a red hall", seed=90, steps=3)]
    done = events[-1]
    with av.open(io.BytesIO(data_of(done["film"])), "r") as film:
        assert float(film.streams.video[0].average_rate or 0) == 10.0
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(film.streams.video[0])]
    assert len(frames) == done["frames"] == 5 and abs(frames[0].mean() - 90) < 3
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data_of(done["last"])))), np.full((*SIZE, 3), 90))


def test_defaults_and_a_first_picture_cut_to_size(client: TestClient, maker: Maker) -> None:
    ask(client, prompt="walk", image=some_picture((300, 100)))
    request = maker.requests[0]
    assert (request.steps, request.seed, request.negative) == (4, 0, "")
    assert request.image is not None and request.image.shape == (*SIZE, 3)
    offer = client.get("/api/stage").json()["clips"]
    assert (offer["height"], offer["width"], offer["longest"], offer["steps"]) == (*SIZE, 40, 4)
    assert offer["examples"] == ["a red hall", "a green hall"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "must be an object"),
        (b"{}", "prompt is empty"),
        (b'{"prompt": " \\n"}', "prompt is empty"),
        (b'{"prompt": 3}', "prompt must be a text"),
        (b'{"prompt": "\\ud800"}', "not valid JSON"),
        (json.dumps({"prompt": "ä" * 21}).encode(), "prompt has 42 bytes and at most 40"),
        (b'{"prompt": "a", "negative": ["b"]}', "negative must be a text"),
        (b'{"prompt": "a", "negative": "a b c d e f g h i j k l m"}', "negative: 13 words are too many"),
        (b'{"prompt": "a", "steps": 0}', "steps must be a whole number from 1 to 64"),
        (b'{"prompt": "a", "steps": 65}', "steps must be a whole number from 1 to 64"),
        (b'{"prompt": "a", "steps": true}', "steps must be a whole number"),
        (b'{"prompt": "a", "seed": -1}', "seed must be a whole number"),
        (b'{"prompt": "a", "seed": 1.5}', "seed must be a whole number"),
        (b'{"prompt": "a", "image": 7}', "image must be the base64"),
        (b'{"prompt": "a", "image": "QUJD"}', "cannot be read"),
        (b" " * (5 * 2**20), "too long"),
    ],
)
def test_what_makes_no_sense_gets_one_sentence(
    client: TestClient, maker: Maker, body: bytes, sentence: str
) -> None:
    answer = client.post("/clips", content=body)
    assert answer.status_code == 400 and sentence in answer.text and "\n" not in answer.text
    assert not maker.requests


def test_other_sites_and_other_stages_are_refused(client: TestClient, make_config: Callable) -> None:
    answer = client.post("/clips", json={"prompt": "a"}, headers={"origin": "http://evil.example"})
    assert answer.status_code == 400 and "other sites" in answer.text
    with TestClient(build_app(make_config())) as walks:
        assert walks.post("/clips", json={"prompt": "a"}).status_code in (404, 405)
        assert walks.get("/api/stage").json()["clips"] is None
    with pytest.raises(ValueError, match="nothing to show"):
        AppConfig("empty")


def test_what_fails_is_said_and_the_next_one_is_made(client: TestClient) -> None:
    assert ask(client, prompt="refuse")[-1] == {"type": "error", "message": "there is no such dream"}
    assert "out of paint" in ask(client, prompt="break")[-1]["message"]
    assert ask(client, prompt="a")[-1]["type"] == "done"


def opened(address: str, **request: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    connection.request("POST", "/clips", json.dumps({"prompt": "a"} | request))
    return connection, connection.getresponse()


def event_of(answer: http.client.HTTPResponse) -> dict[str, Any]:
    return json.loads(answer.readline())


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 8
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_one_clip_at_a_time_and_who_leaves_makes_room(serve_config: Callable[..., str]) -> None:
    maker = Maker(pause=0.01)
    maker.go.clear()
    address = serve_config(config_of(maker))
    first, one = opened(address, steps=64, seed=1)
    assert event_of(one)["step"] == 0
    second, two = opened(address, seed=2)
    assert event_of(two) == {"type": "queued", "position": 1}
    third, three = opened(address, seed=3)
    assert event_of(three) == {"type": "queued", "position": 2}
    for part in (two, second):  # the next in line hangs up
        part.close()
    assert event_of(three) == {"type": "queued", "position": 1}
    for part in (one, first):  # and then whoever is being served
        part.close()
    time.sleep(0.3)
    maker.go.set()
    events = [event_of(three)]
    while events[-1]["type"] != "done":
        events.append(event_of(three))
    third.close()
    assert [request.seed for request in maker.requests] == [1, 3]
    wait_for(lambda: maker.ended == 2)
    assert maker.steps_done < 50, "the clip that nobody waits for is not made to its end"


def test_a_real_system_makes_clips(tmp_path: Path) -> None:
    import torch

    from dreamwalk.commands.play import open_app
    from dreamwalk.systems.clip_request import ClipRequest
    from dreamwalk.systems.conditionings import FirstFrame
    from dreamwalk.systems.moviegen import tiny
    from dreamwalk.systems.open import load
    from dreamwalk.weights import files
    from dreamwalk.weights.config import to_json

    torch.manual_seed(0)
    system, config = tiny().build(), tiny()
    metadata = {"system": "moviegen", "config": to_json(config)}
    files.save(tmp_path / "weights.safetensors", system.state_dict(), metadata=metadata)
    page = open_app(str(tmp_path), "cpu")
    assert page.dream is None and page.clips is not None and page.clips.size == config.size
    picture = np.full((*config.size, 3), 200, np.uint8)
    request = WebClipRequest("turn left", seed=3, steps=5, image=picture)
    seen = list(page.clips.make(request))
    assert [(moment.step, moment.steps) for moment in seen] == [(k, 5) for k in range(1, 6)]
    assert all(moment.frames is not None and moment.frames.shape[0] == 5 for moment in seen)
    first = FirstFrame(torch.full((1, 1, 3, 32, 32), 200).byte())
    film = load(tmp_path).sample("turn left", request=ClipRequest(conditioning=first, seed=3))
    whole = [m.frames for m in page.clips.make(WebClipRequest("turn left", seed=3, steps=3, image=picture))]
    assert np.abs(film[0].numpy().astype(int) - whole[-1]).max() <= 1


@pytest.mark.browser
def test_the_page_dreams_a_clip(
    tab: Callable[..., Tab], serve_config: Callable[..., str], tmp_path: Path
) -> None:
    maker = Maker(pause=0.03)
    page = tab(address=serve_config(config_of(maker)), ready="#prompt")
    done, state = "Number(document.querySelector('#clip-bar').ariaValueNow)", "dreamwalk.clipForm.film"
    assert page.page.locator("h1:visible").inner_text() == "Say a dream"
    assert page.page.locator("#dream").is_disabled()
    page.page.click("#examples button:has-text('a green hall')")
    page.type("#request-seed", "120")
    page.type("#request-steps", "20")
    page.page.keyboard.press("Enter")
    page.until(f"{done} > 20 && {done} < 90")
    assert "step" in page.page.locator("#clip-step").inner_text()
    page.until(f"{state} && document.querySelector('#clip-video').videoWidth > 0")
    assert page.page.locator("#clip-video").is_visible() and page.page.locator("#clip-after").is_visible()
    assert "Your clip is here" in page.page.locator("#clip-said").inner_text()
    with page.page.expect_download() as download:
        page.page.click("#clip-save")
    assert download.value.suggested_filename == "a-green-hall-seed120.mp4"
    page.page.click("#go-on")
    page.until("dreamwalk.clipForm.under !== null")
    page.page.keyboard.press("Escape")
    page.until("dreamwalk.clipForm.under === null")
    wait_for(lambda: maker.ended == 2)
    follow = maker.requests[-1].image
    assert follow is not None and (follow == 120).all(), "it goes on from the last frame, to the pixel"
    Image.new("RGB", (400, 100), (250, 10, 10)).save(tmp_path / "red.png")
    page.page.set_input_files("#pick-picture", tmp_path / "red.png")
    page.until("dreamwalk.clipForm.image?.startsWith('data:image/png')")
    page.type("#prompt", "x" * 41)
    assert page.page.locator("#dream").is_disabled()


@pytest.mark.browser
def test_words_that_the_model_never_saw_are_marked(
    tab: Callable[..., Tab], serve_config: Callable[..., str]
) -> None:
    page = tab(address=serve_config(config_of(Maker())), ready="#prompt")
    page.page.keyboard.type("A red pizza, and a Hall. Put a cat")
    assert page.page.locator("#marks mark").all_inner_texts() == ["pizza", "cat"]
    assert page.page.locator("#strange").inner_text().startswith("It was never shown pizza and cat,")
    fonts = page.page.locator("#prompt, #marks").evaluate_all(
        "all => all.map(one => getComputedStyle(one).font)"
    )
    assert len(fonts) == 2 and fonts[0] == fonts[1], "the marks lie under their words"
    assert page.page.locator("#dream").is_enabled(), "one may ask for anything"
    page.type("#prompt", "a red hall")
    assert page.page.locator("#strange").is_hidden() and page.page.locator("#marks mark").count() == 0
    page.page.focus("#vocabulary summary")
    page.page.keyboard.press("Enter")
    words = page.page.locator("#vocabulary button").all_inner_texts()
    assert words == ["red", "green metal", "hall", "a", "and", "put down"]
    page.page.locator("#vocabulary button:has-text('and')").focus()
    page.page.keyboard.press("Space")
    assert page.page.input_value("#prompt") == "a red hall and"


@pytest.mark.browser
def test_a_model_of_any_words_has_no_strange_ones(
    tab: Callable[..., Tab], serve_config: Callable[..., str]
) -> None:
    clips = replace(config_of(Maker()).clips, vocabulary={})  # type: ignore[type-var]
    page = tab(address=serve_config(AppConfig("any.words", clips=clips)), ready="#prompt")
    page.page.keyboard.type("a cat surfing on a pizza")
    assert page.page.locator("#marks mark").count() == 0 and page.page.locator("#strange").is_hidden()
    assert page.page.locator("#vocabulary").is_hidden()


def test_the_shipped_clips_tell_their_words() -> None:
    from dreamwalk.commands.play import open_app

    clips = open_app("moviegen.doom", "cpu").clips
    assert clips is not None
    known = {word for phrases in clips.vocabulary.values() for phrase in phrases for word in phrase.split()}
    assert {"walk", "marble", "torch", "brick", "backwards"} <= known
    assert not known & {"cat", "pizza", "surfing", "cobble"}
    assert {word for prompt in clips.examples for word in prompt.replace(",", "").split()} <= known
