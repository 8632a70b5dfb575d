"""One WebSocket: what comes in is checked and rationed, what goes out is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from dreamwalk.errors import UserError
from dreamwalk.serve.app_config import AppConfig
from dreamwalk.serve.protocol import MAX_MESSAGE, Ack, Message, Ping, parse
from dreamwalk.serve.recording_store import RecordingStore
from dreamwalk.serve.session import WalkSession
from dreamwalk.serve.session_queue import Full, SessionQueue

MESSAGES_PER_SECOND = 200
BURST = 400
"""Messages that a page may send at once after a quiet while; every 16 KB count as one more."""
LARGE = 16 * 1024
"""Longer messages are parsed in a thread, so that nobody else waits for it."""
MOST_WAITING = {"status": 1, "queue": 1, "pong": 1, "map": 1, "strip": 1, "frame": 4}
"""How many messages of a kind wait to be sent at most; of the others 16."""
SILENCE = 180.0
"""A page that says nothing at all for so long is gone, in seconds; it pings every two."""
IDLE = 120.0
"""Whoever touches nothing for so long gives up the seat if someone waits for it, in seconds."""
STOPPING = 2.0
"""Seconds that sessions have to end when the server does."""


log = logging.getLogger(__name__)


class ServerState:
    """What the connections of one server share: config, seats, recordings, and the sessions under way."""

    def __init__(self, config: AppConfig, queue: SessionQueue, store: RecordingStore) -> None:
        self.config, self.queue, self.store = config, queue, store
        self._walks: dict[WalkSession, threading.Thread] = {}
        # whoever mounts the application does not run its lifespan: at the latest Python closes it at its exit
        self.close = weakref.finalize(self, _close, self._walks, store)
        """End all sessions, wait a moment for their threads, and delete the films."""

    def begin(self, session: WalkSession) -> None:
        """Let a session run in a thread that holds a seat until its worlds are closed."""
        for ended in [walk for walk, thread in self._walks.items() if not thread.is_alive()]:
            del self._walks[ended]
        self._walks[session] = self.queue.work(session.run, name="dreamwalk-session")


def _close(walks: dict[WalkSession, threading.Thread], store: RecordingStore) -> None:
    for session in list(walks):
        session.stop()
    end = time.monotonic() + STOPPING
    for thread in list(walks.values()):
        thread.join(max(0.0, end - time.monotonic()))
    store.close()


class CloseConnection(Exception):
    """Close the connection with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Outbox:
    """What is still to be sent, in order, and never much of it.

    `post` may be called from any thread and never waits. Of statuses, queue positions, pongs, maps and strips
    only the newest is kept. Acknowledgements keep the frames few; should anything pile up all the same, the
    oldest go.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._some = asyncio.Event()
        self._waiting: list[tuple[str, Any]] = []
        self.over: asyncio.Future[str] = self._loop.create_future()
        """Done, with the reason, when the session says "over"."""

    def post(self, kind: str, content: Any) -> None:
        """Queue a binary message (bytes) or a JSON message (dict)."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._put, kind, content)

    def _put(self, kind: str, content: Any) -> None:
        if kind == "over":
            if not self.over.done():
                self.over.set_result(content["message"])
            return
        same = [item for item in self._waiting if item[0] == kind]
        for item in same[: max(0, len(same) + 1 - MOST_WAITING.get(kind, 16))]:
            self._waiting.remove(item)
        self._waiting.append((kind, content))
        self._some.set()

    async def next(self) -> str | bytes:
        """The next message to send."""
        while not self._waiting:
            self._some.clear()
            await self._some.wait()
        kind, content = self._waiting.pop(0)
        return content if isinstance(content, bytes) else json.dumps({"type": kind, **content})


class Connection:
    """One page, from its first message to its last."""

    def __init__(self, websocket: WebSocket, server: ServerState) -> None:
        self._socket, self._server, self._queue = websocket, server, server.queue
        self._outbox = Outbox()
        self._session: WalkSession | None = None
        self._heard = time.monotonic()
        self._allowance, self._counted = float(BURST), time.monotonic()

    async def run(self, *, start: int | None, seed: int) -> None:
        """Serve the page until it leaves or is closed; its seat is free again when its worlds are closed."""
        closings: list[CloseConnection] = []

        async def work(job: Callable[[], Awaitable[None]]) -> None:
            try:
                await job()
            except CloseConnection as closing:
                closings.append(closing)
            except (WebSocketDisconnect, RuntimeError, OSError):
                log.debug("a page has left", exc_info=True)
            finally:
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for job in (self._read, self._write, partial(self._walk, start, seed)):
                group.start_soon(work, job)
        for closing in closings[:1]:
            await self._close(closing.code, closing.reason)

    async def _read(self) -> None:
        while True:
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(event.get("code") or 1005)
            self._heard = time.monotonic()
            text = event.get("text")
            self._ration(len(text or event.get("bytes") or ""))
            try:
                if text is None:
                    raise UserError("messages to the server are JSON text, not binary")
                small = len(text) <= LARGE or len(text) > MAX_MESSAGE
                self._take(parse(text) if small else await asyncio.to_thread(parse, text))
            except UserError as error:
                self._outbox.post("error", {"message": str(error)})

    def _ration(self, size: int) -> None:
        now = time.monotonic()
        earned = (now - self._counted) * MESSAGES_PER_SECOND
        self._allowance = min(self._allowance + earned, float(BURST)) - 1.0 - min(size / LARGE, 128.0)
        self._counted = now
        if self._allowance < 0:
            reason = f"too many messages: at most {MESSAGES_PER_SECOND} a second are taken"
            raise CloseConnection(1008, reason)

    def _take(self, message: Message) -> None:
        if isinstance(message, Ping):
            self._outbox.post("pong", {"t": message.t})
        elif isinstance(message, Ack) and self._session:
            if self._session.acknowledge(message.serial):
                self._allowance += 1.0  # one per frame is as it should be, however many frames there are
        elif self._session and not isinstance(message, Ack):
            self._session.take(message)

    async def _write(self) -> None:
        while True:
            message = await self._outbox.next()
            if isinstance(message, bytes):
                await self._socket.send_bytes(message)
            else:
                await self._socket.send_text(message)

    async def _walk(self, start: int | None, seed: int) -> None:
        """Wait for a seat, walk, and watch over who is asleep."""
        server = self._server
        session = WalkSession(server.config, self._outbox.post, server.store, start=start, seed=seed)
        try:
            await self._queue.enter(self._in_queue)
            server.begin(session)
            self._session = session
            while not self._outbox.over.done():
                await asyncio.wait([self._outbox.over], timeout=1.0)
                self._watch(session)
            raise CloseConnection(1011, self._outbox.over.result())
        except Full:
            reason = "everyone is walking and the queue is full: try again in a few minutes"
            raise CloseConnection(1013, reason) from None
        finally:
            session.stop()

    def _watch(self, session: WalkSession) -> None:
        now = time.monotonic()
        if now - self._heard > SILENCE:
            raise CloseConnection(4002, "the page fell silent")
        if self._queue.waiting and now - session.touched > IDLE:
            raise CloseConnection(4001, "you were away and someone was waiting to walk: come back any time")

    def _in_queue(self, position: int) -> None:
        self._outbox.post("queue", {"position": position, "seats": self._queue.seats})

    async def _close(self, code: int, reason: str) -> None:
        if self._socket.application_state is not WebSocketState.CONNECTED:
            return
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self._socket.send_text(json.dumps({"type": "error", "message": reason}))
                await self._socket.close(code, reason.encode()[:120].decode(errors="ignore"))
