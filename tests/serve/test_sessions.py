"""Walks over a WebSocket: what is shown, the toggle, recording and replaying."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable

import av
import numpy as np
import pytest
from PIL import Image
from rooms import HEIGHT, WIDTH, Imagined, Room, Visitor, pixels, shift

from dreamwalk.data.walks import parse_walk
from dreamwalk.serve import Stage
from dreamwalk.serve.frames import encode_picture

Make = Callable[..., Stage]
Visit = Callable[..., Visitor]


def test_a_world_is_warm_before_the_page_hears_hello(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage(), query="?start=1&seed=5")
    hello = visitor.until("hello")
    assert {content["message"] for kind, content in visitor.heard if kind == "status"} <= {
        "Opening the world",
        "Warming up",
    }
    assert hello["buttons"] == ["forward", "back", "left", "right", "place"]
    assert (hello["axes"], hello["limits"]) == (["yaw", "pitch"], [30.0, 15.0])
    assert (hello["width"], hello["height"], hello["fps"]) == (WIDTH, HEIGHT, 30.0)
    assert (hello["views"], hello["steps"]) == (["dream", "game", "both"], 4)
    note, (jpeg,) = visitor.frame(0)
    expected, _ = Imagined().reset(seed=5, options={"start": 1})
    assert jpeg == encode_picture(expected) and note.view == "dream"
    status = visitor.until("status")
    assert (status["state"], status["view"], status["seed"], status["start"]) == ("ready", "dream", 5, 1)


def test_turning_right_moves_the_picture_left(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage(only="game"))
    _, (before,) = visitor.asleep()
    visitor.send("input", seq=3, held=[], yaw=8.0)
    note, (after,) = visitor.step()
    assert shift(pixels(before), pixels(after)) in range(-13, -6)
    assert (note.seq, note.axes) == (3, (8.0, 0.0))
    visitor.send("input", seq=4, held=["forward"], turn=-8.0)
    note, (back,) = visitor.step(2)
    assert shift(pixels(after), pixels(back)) > 6
    assert (note.held, note.axes, note.seq) == (1, (-8.0, 0.0), 4)


def test_frames_wait_for_acknowledgement(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage(fps=1000))
    while visitor.next(ack=False)[0] != "frame":
        pass
    time.sleep(0.2)
    visitor.send("ping", t=1)
    visitor.until("pong")
    assert [kind for kind, _ in visitor.heard].count("frame") == 2, "two frames may be on their way, no more"
    visitor.send("ack", serial=2)
    assert visitor.frame()[0].serial == 3


def test_the_world_keeps_its_own_pace_unless_it_is_unlocked(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage(only="game", fps=20))
    visitor.frame(2)
    began = time.perf_counter()
    visitor.frame(10)
    assert 0.36 < time.perf_counter() - began < 0.8
    visitor.send("pace", unlocked=True)
    visitor.until("status", unlocked=True)
    first = visitor.frame()[0].frame
    began = time.perf_counter()
    visitor.frame(first + 20)
    assert time.perf_counter() - began < 0.7


def test_pause_and_single_steps(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage())
    visitor.asleep()
    assert [visitor.step()[0].frame for _ in range(3)] == [1, 2, 3]
    visitor.send("ping", t=0)
    visitor.until("pong")
    assert visitor.heard[-1][0] == "pong", "a paused walk makes no frames"
    visitor.send("pause", paused=False)
    assert visitor.frame(6)


def test_a_seed_gives_the_same_walk(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage())
    visitor.send("reset", seed=3)
    visitor.until("status", seed=3)
    first = visitor.asleep()[1]
    visitor.send("reset", seed=4)
    assert visitor.frame(0)[1] != first
    visitor.send("reset", seed=3, start=0)
    assert visitor.frame(0)[1] == first
    visitor.send("reset", start=2)
    assert visitor.frame(0)[1] != first
    assert visitor.until("status")["start"] == 2
    visitor.send("reset", start=99)
    assert visitor.until("error")["message"] == "there is no start 99: the gallery has 4"


def after_steps(world: Room, count: int, *, seed: int = 0) -> np.ndarray:
    frame, _ = world.reset(seed=seed, options={"start": 0})
    for _ in range(count):
        frame = world.step(world.actions.action(["forward"], yaw=8.0))[0]
    return frame


def test_the_game_goes_on_where_the_same_actions_led(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage())
    visitor.asleep()
    visitor.send("input", seq=1, held=["forward"], turn=8.0)
    _, (dreamt,) = visitor.step(5)
    assert dreamt == encode_picture(after_steps(Imagined(), 5))
    visitor.send("view", view="game")
    note, (seen,) = visitor.frame()
    assert (note.view, note.frame) == ("game", 5)
    assert seen == encode_picture(after_steps(Room(), 5))
    _, (seen,) = visitor.step(2)
    game = after_steps(Room(), 7)
    assert seen == encode_picture(game)
    visitor.send("view", view="dream")
    note, (dreamt,) = visitor.frame()
    assert note.view == "dream" and dreamt == seen, "the dream goes on from the game's picture"
    visitor.send("input", seq=2, held=[])
    visitor.send("input", seq=3, held=[], yaw=9.0)
    dream = Imagined()
    dream.reset(seed=0, options={"image": game})
    expected = dream.step(dream.actions.action(yaw=9.0))[0]
    assert visitor.step()[1] == [encode_picture(expected)]


def test_side_by_side(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage())
    visitor.asleep()
    visitor.send("input", seq=1, held=["forward"], turn=8.0)
    visitor.send("view", view="both")
    assert len(visitor.frame()[1]) == 2
    note, pictures = visitor.step(4)
    assert note.view == "both" and set(note.stages) == {"denoise", "commit", "decode", "game"}
    assert pictures == [encode_picture(after_steps(kind(), 4)) for kind in (Imagined, Room)]


@pytest.mark.parametrize("only", ["dream", "game"])
def test_a_stage_of_one_world(make_stage: Make, visit: Visit, only: str) -> None:
    visitor = visit(make_stage(only=only))
    hello = visitor.until("hello")
    assert hello["views"] == [only] and hello["steps"] == (4 if only == "dream" else None)
    assert visitor.frame(3)[0].view == only
    visitor.send("view", view="both")
    assert visitor.until("error")["message"] == f"this stage has no view 'both': it has {only}"
    visitor.send("steps", steps=2)
    if only == "game":
        assert visitor.until("error")["message"] == "this world has no denoising steps to set"
    else:
        assert visitor.until("status", steps=2)


def test_steps_are_set_while_walking(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage())
    visitor.asleep()
    assert visitor.step()[0].stages["denoise"] == 12.0
    visitor.send("steps", steps=1)
    visitor.until("status", steps=1)
    assert visitor.step()[0].stages["denoise"] == 3.0
    visitor.send("steps", steps=9)
    assert visitor.until("error")["message"] == "steps must be from 1 to 8, got 9"


def some_picture(size: tuple[int, int] = (300, 100)) -> str:
    gradient = np.linspace(0, 255, size[0])[None, :, None] * np.ones((size[1], 1, 3))
    buffer = io.BytesIO()
    Image.fromarray(gradient.astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_dream_begins_from_any_picture(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage())
    visitor.asleep()
    visitor.send("view", view="game")
    visitor.frame()
    visitor.send("reset", image=some_picture())
    note, (jpeg,) = visitor.frame(0)
    grey = pixels(jpeg)
    assert note.view == "dream" and grey.shape == (HEIGHT, WIDTH)
    assert grey[:, -8:].mean() - grey[:, :8].mean() > 80, "the picture's middle, in the world's shape"
    status = visitor.until("status")
    assert status["start"] is None and status["aligned"] is False


def test_a_game_does_not_begin_from_a_picture(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage(only="game"))
    visitor.send("reset", image=some_picture())
    assert "only a dream can begin from a picture" in visitor.until("error")["message"]
    assert visitor.frame()


def walked(visitor: Visitor, count: int) -> list[list[bytes]]:
    shown = []
    for k in range(count):
        visitor.send(
            "input", seq=k, held=["forward"] if k % 3 else ["left"], yaw=3.7 * k, pitch=-1.3, place=k % 2
        )
        shown.append(visitor.step()[1])
    return shown


@pytest.mark.parametrize("start", ["gallery", "picture"])
def test_a_recorded_walk_replays_to_the_same_frames(make_stage: Make, visit: Visit, start: str) -> None:
    stage = make_stage()
    visitor = visit(stage)
    visitor.asleep()
    visitor.send("steps", steps=2)
    visitor.send("reset", seed=11, **({"start": 2} if start == "gallery" else {"image": some_picture()}))
    shown = [visitor.frame(0)[1], *walked(visitor, 3)]
    visitor.send("record", on=True)
    visitor.until("status", recording=True)
    shown += walked(visitor, 9)
    visitor.send("record", on=False)
    film = visitor.until("recorded")
    assert (film["exact"], film["steps"], film["frames"]) == (True, 12, 10)

    content = visitor.client.get("/" + film["walk"]).json()
    names = "format system seed start steps fps buttons axes actions"
    assert list(content) == names.split()
    assert (content["format"], content["system"], content["seed"]) == ("dreamwalk.walk/1", "room.test", 11)
    assert (content["steps"], content["fps"], len(content["actions"])) == (2, 30.0, 12)
    assert parse_walk(content).actions.shape == (12, 7)

    other = visit(stage)
    other.send("pace", unlocked=True)
    other.until("status", unlocked=True)
    other.send("replay", walk=content)
    replayed = [other.frame(0)[1], *(other.frame()[1] for _ in range(12))]
    assert replayed == shown
    assert other.until("status", replay=None)["message"] == "The walk is over. From here on it is yours."


def test_films_are_mp4_at_the_worlds_pace(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage())
    visitor.asleep()
    visitor.send("record", on=True)
    visitor.step(3)
    visitor.send("view", view="both")
    visitor.frame()
    visitor.step(3)
    visitor.send("record", on=False)
    film = visitor.until("recorded")
    answer = visitor.client.get("/" + film["mp4"])
    assert (
        answer.headers["content-type"] == "video/mp4"
        and "attachment" in answer.headers["content-disposition"]
    )
    with av.open(io.BytesIO(answer.content)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 640, 480)
        assert float(stream.average_rate or 0) == 30.0
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == film["frames"] == 7
    assert visitor.client.get("/recordings/none.mp4").status_code == 404
    assert visitor.client.get("/recordings/..%2f..%2fsecrets.json").status_code == 404


def test_a_change_of_steps_on_the_way_is_confessed(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage())
    visitor.asleep()
    visitor.step(2)
    visitor.send("steps", steps=1)
    visitor.send("record", on=True)
    visitor.step(2)
    visitor.send("record", on=False)
    assert visitor.until("recorded")["exact"] is False


def test_taking_over_a_replay(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage())
    visitor.until("hello")
    content = {
        "format": "dreamwalk.walk/1", "system": "x", "seed": 1, "start": {"start": 1}, "steps": 3, "fps": 30,
        "buttons": list(Room.actions.buttons), "axes": list(Room.actions.axes),
        "actions": [[1, 0, 0, 0, 0, 0.1, 0]] * 500,
    }  # fmt: skip
    visitor.send("replay", walk=content)
    assert visitor.until("status", replay=500)["start"] == 1
    assert visitor.frame(4)[0].flags & 2
    visitor.send("replay", walk=None)
    visitor.until("status", replay=None)
    assert not visitor.frame()[0].flags & 2
    visitor.send("replay", walk=content | {"buttons": ["fly", "back", "left", "right", "place"]})
    assert "replay it where it was recorded (x)" in visitor.until("error")["message"]


def test_the_start_screen_knows_what_is_shown(make_stage: Make, visit: Visit) -> None:
    visitor = visit(make_stage())
    visitor.until("hello")
    about = visitor.client.get("/api/stage").json()
    assert about["starts"] == ["Terracotta", "The blue wall", "Amber", "Moss"]
    assert (about["dream"], about["game"], about["sessions"], about["seats"]) == (True, True, 1, 8)
    thumbnail = visitor.client.get("/starts/1.jpg")
    assert pixels(thumbnail.content).shape == (HEIGHT, WIDTH)
    assert visitor.client.get("/starts/4.jpg").status_code == 404
    page = visitor.client.get("/")
    assert "dreamwalk" in page.text and "default-src 'self'" in page.headers["content-security-policy"]
    assert json.dumps(about)
