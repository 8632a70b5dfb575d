"""By which names a server is reached, whose pages may use it, proxies, and floods of what costs much."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rooms import Imagined
from starlette.testclient import TestClient
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from dreamwalk.errors import UserError
from dreamwalk.serve import AppConfig, build_app
from dreamwalk.serve.access import Access, root_path

Make = Callable[..., AppConfig]
MACHINE = socket.gethostname().lower()


@pytest.mark.parametrize(
    ("listens", "allowed", "host", "welcome"),
    [
        ("127.0.0.1", (), "127.0.0.1:8000", True),
        ("127.0.0.1", (), "localhost:8000", True),
        ("127.0.0.1", (), "LOCALHOST", True),
        ("127.0.0.1", (), "[::1]:8000", True),
        ("127.0.0.1", (), "evil.example:8000", False),
        ("0.0.0.0", (), "192.168.1.5:8000", True),
        ("0.0.0.0", (), "10.0.0.7", True),
        ("0.0.0.0", (), "[fe80::1]:8000", True),
        ("0.0.0.0", (), f"{MACHINE}:8000", True),
        ("0.0.0.0", (), f"{MACHINE.partition('.')[0]}.local:8000", True),
        ("0.0.0.0", (), "evil.example:8000", False),
        ("0.0.0.0", (), "127.0.0.1.evil.example", False),
        ("0.0.0.0", (), "localhost.evil.example:8000", False),
        ("0.0.0.0", (), "127.0.0.1@evil.example", False),
        ("0.0.0.0", (), "2130706433", False),
        ("0.0.0.0", (), "", False),
        ("0.0.0.0", (), "[", False),
        ("0.0.0.0", ("dreams.example",), "Dreams.Example:443", True),
        ("0.0.0.0", ("dreams.example",), "other.example", False),
        ("0.0.0.0", ("*",), "other.example", True),
        ("dreams.lan", (), "dreams.lan:8000", True),
    ],
)
def test_names_of_a_server(listens: str, allowed: tuple[str, ...], host: str, welcome: bool) -> None:
    access = Access.of(listens, allowed)
    if welcome:
        access.check_host(host)
    else:
        with pytest.raises(UserError, match="start it with `--allow-host"):
            access.check_host(host)


def test_what_is_no_name_is_not_allowed() -> None:
    for name in ("", "https://dreams.example", "dreams.example:8000", "dreams.example/walk", "a b", "["):
        with pytest.raises(UserError, match="is not the name of a host"):
            Access.of("127.0.0.1", [name])
    for path in ("dream", "/dream?x", "https://x/dream", "//dream"):
        with pytest.raises(UserError, match="a root path begins with a slash"):
            root_path(path)
    assert (root_path(""), root_path("/"), root_path("/a/b/")) == ("", "", "/a/b")


def ask(address: str, path: str = "/", *, host: str = "localhost") -> tuple[int, str, bytes]:
    """A GET as a proxy would pass it on: its status, where it leads, and what comes."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port_of(address), timeout=60)) as line:
        line.request("GET", path, headers={"Host": host})
        answer = line.getresponse()
        return answer.status, answer.headers.get("location", ""), answer.read()


def walks(address: str, path: str = "/walk", *, host: str, origin: str) -> str:
    """What a page hears first that a proxy has passed on with this Host: a type of message, or why not."""
    where = f"ws://{host}{path}"
    try:
        with (
            socket.create_connection(("127.0.0.1", port_of(address))) as line,
            connect(where, sock=line, origin=Origin(origin), proxy=None) as page,
        ):
            return json.loads(page.recv(timeout=60))["type"]
    except ConnectionClosed as closed:
        assert closed.rcvd
        return f"{closed.rcvd.code}: {closed.rcvd.reason}"
    except InvalidStatus as refused:
        return f"{refused.response.status_code}: {refused.response.body.decode()}"


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2].strip("/"))


SITE = "https://dreams.example"


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "dreams.example"], ids=["Host rewritten", "Host kept"])
def test_behind_a_proxy(make_config: Make, serve_config: Callable[..., str], host: str) -> None:
    plain = serve_config(make_config(), access=Access.of("127.0.0.1"))
    refused = walks(plain, host=host, origin=SITE)
    assert refused.startswith(("403", "1008: pages of other sites"))
    known = serve_config(make_config(), access=Access.of("127.0.0.1", ["dreams.example"]))
    assert ask(known, host=host)[0] == 200
    assert walks(known, host=host, origin=SITE) == "status"
    assert "pages of other sites" in walks(known, host=host, origin="https://evil.example")
    rebound = walks(known, host="evil.example", origin="http://evil.example")
    assert rebound.startswith("403")
    assert ask(known, host="evil.example")[0] == 400


@pytest.mark.parametrize("path", ["/dream", ""], ids=["path kept", "path cut"])
def test_under_a_path_of_a_proxy(make_config: Make, serve_config: Callable[..., str], path: str) -> None:
    address = serve_config(make_config(), root="/dream/", access=Access.of("127.0.0.1"))
    assert b"<!doctype html>" in ask(address, f"{path}/")[2].lower()
    assert ask(address, f"{path}/main.js")[0] == 200
    assert json.loads(ask(address, f"{path}/api/stage")[2])["title"] == "room.test"
    assert walks(address, f"{path}/walk", host="localhost", origin="http://localhost") == "status"
    if path:
        status, where, _ = ask(address, path)
        assert status == 307 and where.endswith("/dream/"), "else the page would ask for its parts elsewhere"


def test_a_mounted_application_leaves_nothing(tmp_path: Path) -> None:
    """Neither sessions nor films, although nobody runs its lifespan."""
    script = """
import sys
from rooms import Imagined, Visitor
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from dreamwalk.serve import AppConfig, build_app
class Told(Imagined):
    def close(self):
        print("closed", flush=True)
outer = Starlette(routes=[Mount("/dream", build_app(AppConfig("room.test", dream=Told)))])
client = TestClient(outer)
assert client.get("/dream/api/stage").json()["title"] == "room.test"
with client.websocket_connect("/dream/walk") as socket:
    visitor = Visitor(socket, client)
    visitor.asleep()
    visitor.send("record", on=True)
    visitor.step(2)
    visitor.send("record", on=False)
    print(client.get("/dream/" + visitor.until("recorded")["mp4"]).status_code, flush=True)
    sys.exit()
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": paths}
    ran = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
    assert ran.stdout.split() == ["200", "closed"], ran.stderr
    assert not list(tmp_path.glob("dreamwalk-*"))


WATCH = b"GET /schedules/full HTTP/1.1\r\nHost: localhost\r\n\r\n"


def scheduled(config: AppConfig, pause: Callable[[], object]) -> tuple[AppConfig, list[int]]:
    """The stage with a schedule that pauses before every picture, and the pictures that were begun."""
    begun: list[int] = []

    def unfold(start: int, seed: int) -> Iterator[np.ndarray]:
        for k in range(100):
            begun.append(k)
            pause()
            yield np.full((8, 16, 3), k, np.uint8)

    return replace(config, schedules={"full": unfold}), begun


def test_schedules_that_nobody_watches_any_more_keep_nobody_waiting(
    make_config: Make, serve_config: Callable[..., str]
) -> None:
    go = threading.Event()
    config, begun = scheduled(make_config(), lambda: go.wait(60))
    address = serve_config(config)
    port = port_of(address)
    with contextlib.ExitStack() as stack:
        for _ in range(45):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            one.sendall(WATCH)
        time.sleep(0.5)
        assert ask(address)[0] == 200, "forty-five watch, and the page still comes"
        assert len(begun) <= 2, "two are made at once"
        assert ask(address, "/schedules/full")[0] == 503
    time.sleep(0.5)
    go.set()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as again:
        again.sendall(WATCH)
        heard = b""
        while b"--picture" not in heard:
            heard += again.recv(4096)
        assert len(begun) <= 2 + 3, "what nobody watches is not gone on with"


@pytest.mark.parametrize(
    ("headers", "welcome"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin", "referer": "http://testserver/"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site", "referer": "http://testserver:3000/"}, False),
        ({"referer": "http://evil.example/page"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
    ],
)
def test_only_its_own_page_shows_schedules(make_config: Make, headers: dict[str, str], welcome: bool) -> None:
    config = replace(
        make_config(), schedules={"one": lambda start, seed: iter([np.zeros((8, 16, 3), np.uint8)])}
    )
    answer = TestClient(build_app(config)).get("/schedules/one", headers=headers)
    assert answer.status_code == (200 if welcome else 400)
    assert welcome or "pages of other sites" in answer.text


def test_a_seat_is_free_when_its_work_has_ended(make_config: Make, serve_config: Callable[..., str]) -> None:
    go, opened = threading.Event(), []

    def open_dream() -> Imagined:
        opened.append(go.wait(60))
        return Imagined()

    address = serve_config(replace(make_config(), dream=open_dream, game=None), max_sessions=3)
    seats = lambda: json.loads(ask(address, "/api/stage")[2])["sessions"]
    where = address.replace("http", "ws") + "walk"
    with connect(where), connect(where), connect(where):
        while seats() < 3:
            time.sleep(0.02)
    time.sleep(0.5)
    assert seats() == 1, "who waited for a world has left; the one that is being opened holds a seat"
    go.set()
    end = time.monotonic() + 30
    while seats() and time.monotonic() < end:
        time.sleep(0.02)
    assert (seats(), len(opened)) == (0, 1), "no world is opened for a page that has left"
