"""Walks over a WebSocket: what is shown, and the toggle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import pytest
from rooms import HEIGHT, WIDTH, Imagined, Room, Visitor, pixels, shift, some_picture

from dreamwalk.serve import AppConfig
from dreamwalk.serve.frames import encode_picture

Make = Callable[..., AppConfig]
Visit = Callable[..., Visitor]


def test_a_world_is_warm_before_the_page_hears_hello(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config(), query="?start=1&seed=5")
    hello = visitor.until("hello")
    assert {content["message"] for kind, content in visitor.heard if kind == "status"} <= {
        "Opening the world",
        "Warming up",
    }
    assert hello["buttons"] == ["forward", "back", "left", "right", "place"]
    assert (hello["axes"], hello["limits"]) == (["yaw", "pitch"], [30.0, 15.0])
    assert (hello["width"], hello["height"], hello["fps"]) == (WIDTH, HEIGHT, 30.0)
    assert (hello["views"], hello["steps"]) == (["dream", "game", "both"], 4) and hello["most_steps"] == 64
    note, (jpeg,) = visitor.frame(0)
    expected, _ = Imagined().reset(seed=5, options={"start": 1})
    assert jpeg == encode_picture(expected) and note.view == "dream"
    status = visitor.until("status")
    assert (status["state"], status["view"], status["seed"], status["start"]) == ("ready", "dream", 5, 1)


def test_turning_right_moves_the_picture_left(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config(only="game"))
    _, (before,) = visitor.asleep()
    visitor.send("input", seq=3, held=[], moved={"yaw": 8.0})
    note, (after,) = visitor.step()
    assert shift(pixels(before), pixels(after)) in range(-13, -6)
    assert (note.seq, note.axes) == (3, (8.0, 0.0))
    visitor.send("input", seq=4, held=["forward"], turning={"yaw": -8.0})
    note, (back,) = visitor.step(2)
    assert shift(pixels(after), pixels(back)) > 6
    assert (note.held, note.axes, note.seq) == (("forward",), (-8.0, 0.0), 4)


def test_frames_wait_for_acknowledgement(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config(fps=1000))
    while visitor.next(ack=False)[0] != "frame":
        pass
    time.sleep(0.2)
    visitor.send("ping", t=1)
    visitor.until("pong")
    assert [kind for kind, _ in visitor.heard].count("frame") == 2, "two frames may be on their way, no more"
    visitor.send("ack", serial=2)
    assert visitor.frame()[0].serial == 3


def test_the_world_keeps_its_own_pace_unless_it_is_unlocked(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config(only="game", fps=20))
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
    visitor.frame(first + 200)
    visitor.send("pace", unlocked=False)
    visitor.until("status", unlocked=False)
    began = time.perf_counter()
    visitor.frame(visitor.frame()[0].frame + 5)
    assert time.perf_counter() - began < 1.0  # it does not wait for the time that it ran ahead


def test_pause_and_single_steps(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config())
    visitor.asleep()
    assert [visitor.step()[0].frame for _ in range(3)] == [1, 2, 3]
    visitor.send("ping", t=0)
    visitor.until("pong")
    assert visitor.heard[-1][0] == "pong", "a paused walk makes no frames"
    visitor.send("pause", paused=False)
    assert visitor.frame(6)


def test_a_seed_gives_the_same_walk(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config())
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


def test_the_game_goes_on_where_the_same_actions_led(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config())
    visitor.asleep()
    visitor.send("input", seq=1, held=["forward"], turning={"yaw": 8.0})
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
    visitor.send("input", seq=3, held=[], moved={"yaw": 9.0})
    dream = Imagined()
    dream.reset(seed=0, options={"image": game})
    expected = dream.step(dream.actions.action(yaw=9.0))[0]
    assert visitor.step()[1] == [encode_picture(expected)]


def test_side_by_side(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config())
    visitor.asleep()
    visitor.send("input", seq=1, held=["forward"], turning={"yaw": 8.0})
    visitor.send("view", view="both")
    assert len(visitor.frame()[1]) == 2
    note, pictures = visitor.step(4)
    assert note.view == "both" and set(note.stages) == {"denoise", "commit", "decode", "game"}
    assert pictures == [encode_picture(after_steps(kind(), 4)) for kind in (Imagined, Room)]


@pytest.mark.parametrize("only", ["dream", "game"])
def test_a_stage_of_one_world(make_config: Make, visit: Visit, only: str) -> None:
    visitor = visit(make_config(only=only))
    hello = visitor.until("hello")
    assert hello["views"] == [only] and hello["steps"] == (4 if only == "dream" else None)
    assert visitor.frame(3)[0].view == only
    visitor.send("view", view="both")
    assert visitor.until("error")["message"] == f"this page has no view 'both': it has {only}"
    visitor.send("steps", steps=2)
    if only == "game":
        assert visitor.until("error")["message"] == "this world has no denoising steps to set"
    else:
        assert visitor.until("status", steps=2)


def test_steps_are_set_while_walking(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config())
    visitor.asleep()
    assert visitor.step()[0].stages["denoise"] == 12.0
    visitor.send("steps", steps=1)
    visitor.until("status", steps=1)
    assert visitor.step()[0].stages["denoise"] == 3.0
    for steps in (0, 65):
        visitor.send("steps", steps=steps)
        assert visitor.until("error")["message"] == f"steps must be a whole number from 1 to 64, got {steps}"
    visitor.send("steps", steps=64)
    visitor.until("status", steps=64)


def test_a_dream_begins_from_any_picture(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config())
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


def test_a_game_does_not_begin_from_a_picture(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config(only="game"))
    visitor.send("reset", image=some_picture())
    assert "only a dream can begin from a picture" in visitor.until("error")["message"]
    assert visitor.frame()


def test_the_start_screen_knows_what_is_shown(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config())
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
