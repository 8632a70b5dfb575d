from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rooms import Imagined, Room, Visitor, thumbnails
from starlette.testclient import TestClient

from dreamwalk.serve import Stage, Start, build_app


@pytest.fixture(scope="session")
def starts() -> list[Start]:
    return thumbnails()


@pytest.fixture
def opened() -> list[Room]:
    """Every world that the stage of a test has opened."""
    return []


@pytest.fixture
def make_stage(starts: list[Start], opened: list[Room]) -> Callable[..., Stage]:
    """A stage of a dream and a game, both made with the given settings; `only` leaves the other one out."""

    def make(only: str = "", game: dict[str, Any] | None = None, **settings: Any) -> Stage:
        def open_world(kind: type[Room], options: dict[str, Any]) -> Room:
            opened.append(kind(**options))
            return opened[-1]

        return Stage(
            title="room.test",
            dream=None if only == "game" else lambda: open_world(Imagined, settings),
            game=None if only == "dream" else lambda: open_world(Room, settings if game is None else game),
            starts=starts,
            notes={"What": "A room that is cast ray by ray.", "Trained for": "0 minutes"},
        )

    return make


@pytest.fixture
def visit() -> Iterator[Callable[..., Visitor]]:
    """`visit(stage)` opens the page of a stage; later calls with the same stage come to the same server."""
    with contextlib.ExitStack() as stack:
        clients: dict[int, TestClient] = {}

        def connect(stage: Stage, *, query: str = "", max_sessions: int = 8, headers: Any = None) -> Visitor:
            if id(stage) not in clients:
                app = build_app(stage, max_sessions=max_sessions)
                clients[id(stage)] = stack.enter_context(TestClient(app))
            client = clients[id(stage)]
            socket = stack.enter_context(
                client.websocket_connect(f"/walk{query}", headers=dict(headers or {}))
            )
            return Visitor(socket, client)

        yield connect
