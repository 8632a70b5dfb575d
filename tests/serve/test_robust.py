"""What goes wrong: nonsense, floods, crowds, broken worlds, other sites, ports in use."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rooms import Imagined, Room, Visitor
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from dreamwalk.errors import UserError
from dreamwalk.serve import AppConfig, GalleryStart, ServerConfig, build_app, serve
from dreamwalk.serve import connection as connections
from dreamwalk.serve.server import address, bind, make_server

Make = Callable[..., AppConfig]
Visit = Callable[..., Visitor]


def reason(visitor: Visitor) -> tuple[int, str]:
    """Read on to the end of the connection: its code and reason."""
    with pytest.raises(WebSocketDisconnect) as closed:
        for _ in range(2000):
            visitor.next(ack=False)
    return closed.value.code, closed.value.reason


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "that message is not valid JSON"),
        ('{"type": "fly"}', "type must be one of input, ack, ping"),
        ('{"type": "input", "moved": {"yaw": NaN}}', "moved.yaw must be a number"),
        ('{"type": "input", "held": ["jump"]}', "this world has no button 'jump': it knows forward, back"),
        ('{"type": "ack", "serial": 4000000000}', "frame 4000000000 was never sent"),
        (
            '{"type": "input", "pad": "' + "x" * (5 * 2**20) + '"}',
            "that message is too long: at most 4 MB are read",
        ),
        (b"\x00\x01", "messages to the server are JSON text, not binary"),
    ],
    ids=["json", "type", "nan", "button", "ack", "huge", "binary"],
)
def test_nonsense_is_answered_and_life_goes_on(
    make_config: Make, visit: Visit, text: Any, sentence: str
) -> None:
    visitor = visit(make_config())
    visitor.frame(1)
    if isinstance(text, bytes):
        visitor.socket.send_bytes(text)
    else:
        visitor.socket.send_text(text)
    assert visitor.until("error")["message"].startswith(sentence)
    now = visitor.frame()[0].frame
    assert visitor.frame(now + 3)


def test_a_flood_is_stopped_with_a_reason(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config())
    visitor.frame(0)
    for k in range(1500):
        try:
            visitor.send("input", seq=k, held=["forward"] if k % 2 else [])
        except Exception:
            break
    assert reason(visitor) == (1008, "too many messages: at most 200 a second are taken")


def test_a_burst_is_not_a_flood(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config(fps=1000))
    visitor.frame(0)
    for k in range(150):
        visitor.send("input", seq=k)
    visitor.send("pace", unlocked=True)
    visitor.until("status", unlocked=True)
    assert visitor.frame(600), "acknowledging every frame is no flood, however many there are"


def test_commands_do_not_pile_up(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config(cost=0.3))
    visitor.frame(0)
    for _ in range(150):
        visitor.send("step")
    assert visitor.until("error")["message"] == "too many commands are waiting: this one was dropped"


def test_a_world_that_breaks_stops_only_its_own_walk(make_config: Make, visit: Visit) -> None:
    config = make_config(game={}, breaks_after=6)
    broken, other = visit(config), visit(make_config())
    message = broken.until("error")["message"]
    assert message == "the world failed with RuntimeError: the room has collapsed"
    status = broken.until("status", state="stopped")
    assert status["paused"]
    assert other.frame(8)
    broken.send("step")
    assert broken.until("error")["message"] == "the dream is over: press R to begin again"
    broken.send("reset")
    assert broken.until("status", state="ready")["paused"] is False
    assert broken.frame(3)


def test_a_shadow_that_breaks_leaves_the_dream_alone(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config(game={"breaks_after": 4}))
    visitor.asleep()
    for view in ("both", "dream"):
        visitor.send("view", view=view)
        visitor.until("status", view=view)
    visitor.send("pause", paused=False)
    assert "the room has collapsed" in visitor.until("error")["message"]
    now = visitor.frame()[0].frame
    assert visitor.frame(now + 4)
    visitor.send("view", view="game")
    assert visitor.until("error")["message"] == "the real game is over: press R to begin again"


def test_an_episode_that_ends_waits_for_a_reset(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config(only="game", ends_after=5))
    status = visitor.until("status", state="ended")
    assert status["paused"] and "Press R" in status["message"]
    visitor.send("reset")
    assert visitor.until("status", state="ready")
    assert visitor.frame(2)


def test_a_world_that_does_not_open_says_why(starts: list[GalleryStart], visit: Visit) -> None:
    def closed() -> Any:
        raise UserError("the level 'attic' is not there")

    visitor = visit(AppConfig(title="attic", game=closed, starts=starts))
    assert visitor.until("error")["message"] == "the level 'attic' is not there"
    assert reason(visitor) == (1011, "the level 'attic' is not there")


def settled(condition: Callable[[], bool]) -> bool:
    for _ in range(100):
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_each_page_walks_in_its_own_worlds_and_leaves_them(
    make_config: Make, visit: Visit, opened: list[Room]
) -> None:
    config = make_config()
    first, second = visit(config), visit(config)
    first.asleep()
    second.asleep()
    first.send("input", seq=1, held=["forward"])
    second.send("input", seq=1, held=[], moved={"yaw": 20})
    assert first.step()[1] != second.step()[1]
    assert [type(world) for world in opened] == [Imagined, Imagined], "nobody has looked at a game yet"
    for visitor in (first, second):
        visitor.send("view", view="both")
        visitor.until("status", view="both")
    assert len(opened) == 4 and len(set(map(id, opened))) == 4
    about_now = lambda: first.client.get("/api/stage").json()
    assert about_now()["sessions"] == 2
    first.socket.close()
    assert settled(lambda: about_now()["sessions"] == 1)
    assert settled(lambda: sum(world.closed for world in opened) == 2)
    assert second.step()


def test_whoever_comes_when_all_walk_waits_in_line(make_config: Make, visit: Visit) -> None:
    config = make_config()
    first = visit(config, max_sessions=1)
    first.frame(0)
    second, third = visit(config), visit(config)
    assert second.until("queue") == {"position": 1, "seats": 1}
    assert third.until("queue")["position"] == 2
    second.send("ping", t=3)
    assert second.until("pong")["t"] == 3
    first.socket.close()
    assert second.frame(0)
    assert third.until("queue")["position"] == 1
    third.socket.close()
    assert settled(lambda: first.client.get("/api/stage").json()["waiting"] == 0)


def test_a_queue_has_an_end(make_config: Make, visit: Visit) -> None:
    config = make_config()
    visitors = [visit(config, max_sessions=1) for _ in range(33)]
    visitors[-1].until("queue", position=32)
    code, why = reason(visit(config))
    assert code == 1013 and "try again in a few minutes" in why


def test_whoever_sleeps_makes_room(make_config: Make, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE", 0.1)
    config = make_config()
    sleeper = visit(config, max_sessions=1)
    sleeper.frame(0)
    second = visit(config)
    assert second.until("queue")
    assert reason(sleeper)[0] == 4001
    assert second.frame(0)


def test_pages_that_fall_silent_are_let_go(
    make_config: Make, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SILENCE", 0.1)
    assert reason(visit(make_config()))[0] == 4002


@pytest.mark.parametrize(
    ("headers", "welcome"),
    [
        ({"origin": "http://testserver"}, True),
        ({}, True),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://testserver.evil.example"}, False),
        ({"origin": "null"}, False),
    ],
)
def test_only_its_own_page_may_walk(
    make_config: Make, visit: Visit, headers: dict[str, str], welcome: bool
) -> None:
    visitor = visit(make_config(), headers=headers)
    if welcome:
        assert visitor.frame(0)
    else:
        code, why = reason(visitor)
        assert code == 1008 and why.startswith("pages of other sites may not walk here: open this server's")


@pytest.mark.parametrize("query", ["?start=x", "?seed=-1", "?seed=99999999999", "?start=%C2%B2"])
def test_wrong_addresses_are_refused(make_config: Make, visit: Visit, query: str) -> None:
    assert "must be a whole number" in reason(visit(make_config(), query=query))[1]


def test_stages_without_anything_are_refused(make_config: Make) -> None:
    with pytest.raises(ValueError, match="a page needs a dream, a game, clips or scenes"):
        AppConfig(title="nothing")
    with pytest.raises(ValueError, match="max_sessions must be at least 1"):
        build_app(make_config(), max_sessions=0)


def test_a_port_in_use_is_named_with_its_mend(make_config: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ValueError, match=f"port {port} is in use on 127.0.0.1: choose another with --port"
        ):
            serve(make_config(), ServerConfig(port=port))
    with pytest.raises(ValueError, match="a port is a number from 0 to 65535"):
        serve(make_config(), ServerConfig(port=70_000))
    with pytest.raises(ValueError, match=r"cannot listen on 203\.0\.113\.1|is not an address"):
        serve(make_config(), ServerConfig(host="203.0.113.1"))


def test_a_server_says_where_it_is_and_stops_clean(make_config: Make, opened: list[Room]) -> None:
    listener = bind("127.0.0.1", 0)
    assert address("0.0.0.0", 80) == "http://127.0.0.1:80/" and address("::1", 80) == "http://[::1]:80/"
    said = threading.Event()
    server = make_server(build_app(make_config()), ready=said.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert said.wait(10)
    websockets = pytest.importorskip("websockets.sync.client")
    where = address("127.0.0.1", listener.getsockname()[1]).replace("http", "ws") + "walk"
    with websockets.connect(where) as socket_:
        while isinstance(message := socket_.recv(timeout=10), str):
            assert json.loads(message)["type"] in ("status", "hello")
        server.should_exit = True
        thread.join(10)
    assert not thread.is_alive() and all(world.closed for world in opened)


def test_a_schedule_is_watched_picture_by_picture(make_config: Make) -> None:
    def unfold(start: int, seed: int) -> Iterator[np.ndarray]:
        yield from (np.full((8, 16, 3), 40 * k + start + seed, np.uint8) for k in range(3))

    config = replace(make_config(), schedules={"pyramid": unfold})
    with TestClient(build_app(config)) as client:
        assert client.get("/api/stage").json()["schedules"] == ["pyramid"]
        answer = client.get("/schedules/pyramid?start=1&seed=2")
        assert answer.headers["content-type"].startswith("multipart/x-mixed-replace; boundary=")
        assert answer.content.count(b"Content-Type: image/jpeg") == 3
        assert client.get("/schedules/spiral").status_code == 404
        assert client.get("/schedules/pyramid?start=99").status_code == 400
