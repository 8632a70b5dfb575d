from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rooms import ACTIONS, Imagined, Room, Visitor, thumbnails
from starlette.testclient import TestClient
from tabs import Tab

from dreamwalk.serve import AppConfig, GalleryStart, build_app
from dreamwalk.serve.server import bind, make_server


@pytest.fixture(scope="session")
def starts() -> list[GalleryStart]:
    return thumbnails()


@pytest.fixture
def opened() -> list[Room]:
    """Every world that the stage of a test has opened."""
    return []


@pytest.fixture
def make_config(starts: list[GalleryStart], opened: list[Room]) -> Callable[..., AppConfig]:
    """A stage of a dream and a game, both made with the given settings; `only` leaves the other one out."""

    def make(only: str = "", game: dict[str, Any] | None = None, **settings: Any) -> AppConfig:
        def open_world(kind: type[Room], options: dict[str, Any]) -> Room:
            opened.append(kind(**options))
            return opened[-1]

        return AppConfig(
            title="room.test",
            dream=None if only == "game" else lambda: open_world(Imagined, settings),
            game=None if only == "dream" else lambda: open_world(Room, settings if game is None else game),
            starts=starts,
            notes={"What": "A room that is cast ray by ray.", "Trained for": "0 minutes"},
        )

    return make


@pytest.fixture
def visit() -> Iterator[Callable[..., Visitor]]:
    """`visit(config)` opens the page of a stage; later calls with the same stage come to the same server."""
    with contextlib.ExitStack() as stack:
        clients: dict[int, TestClient] = {}

        def connect(
            config: AppConfig, *, query: str = "", max_sessions: int = 8, headers: Any = None
        ) -> Visitor:
            if id(config) not in clients:
                app = build_app(config, max_sessions=max_sessions)
                clients[id(config)] = stack.enter_context(TestClient(app))
            client = clients[id(config)]
            socket = stack.enter_context(
                client.websocket_connect(f"/walk{query}", headers=dict(headers or {}))
            )
            return Visitor(socket, client)

        yield connect


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as play:
        if found is None and not Path(play.chromium.executable_path).exists():
            pytest.skip(f"no browser: none of {', '.join(names)} is on the path, nor playwright's own")
        with play.chromium.launch(executable_path=found) as browser:
            yield browser


@pytest.fixture(scope="module")
def serve_config() -> Iterator[Callable[..., str]]:
    """`serve_config(config)` serves it on a free port, in a thread, and gives its address."""
    running = []

    def start(config: AppConfig, **settings: Any) -> str:
        listener, up = bind("127.0.0.1", 0), threading.Event()
        server = make_server(build_app(config, **settings), ready=up.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread))
        assert up.wait(10)
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    for server, _ in running:
        server.should_exit = True
    for _, thread in running:
        thread.join(10)


@pytest.fixture(scope="module")
def address(serve_config: Callable[..., str], starts: list[GalleryStart]) -> str:
    notes, says = {"What": "A room that is cast ray by ray."}, "It melts within seconds."
    worlds = (lambda: Imagined(fps=20), lambda: Room(fps=20))
    config = AppConfig("room.test", *worlds, starts, notes, actions=ACTIONS, picture=says)
    return serve_config(config, max_sessions=4)


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Callable[..., Tab]]:
    """`tab()` opens the page; at the end no script may have failed."""
    tabs: list[Tab] = []

    def opened(**settings: Any) -> Tab:
        where = settings.pop("address", address)
        tabs.append(Tab(browser, where, **settings))
        return tabs[-1]

    yield opened
    for one in tabs:
        one.context.close()
        assert one.complaints == []
