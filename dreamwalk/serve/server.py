"""Running the page on this machine."""

from __future__ import annotations

import errno
import os
import socket
import sys
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from dreamwalk.errors import UserError
from dreamwalk.serve.access import Access
from dreamwalk.serve.app import build_app
from dreamwalk.serve.app_config import AppConfig

MAX_FRAME = 6 * 2**20
"""The longest WebSocket message that is let in at all, in bytes; it ends the connection."""


class Server(uvicorn.Server):
    """A uvicorn server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop clean, however often Ctrl-C is pressed: it takes two seconds at most."""
        if not self.should_exit:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


@dataclass(frozen=True)
class ServerConfig:
    """Where a page is served, and to how many."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets others on your network in."""
    port: int = 8000
    """0 takes any free port."""
    allow_host: tuple[str, ...] = ()
    """Names by which others reach the page, as behind a proxy (docs/serving.md); addresses in numbers,
    localhost and this machine's own name are always taken, and * takes any."""
    root_path: str = ""
    """Path under which a proxy shows the page, such as /dream."""
    max_sessions: int = 8
    """How many walk at once."""
    max_waiting: int = 32
    """How many more wait for their turn."""
    browser: bool = True
    """Open the page in your browser."""


def serve(page: AppConfig, config: ServerConfig | None = None) -> None:
    """Serve the page until Ctrl-C.

    Prints one line with the address, and opens it in a browser if there is a display. UserError when the port
    is in use or the host is not this machine's.
    """
    config = config or ServerConfig()
    seats, waiting, root = config.max_sessions, config.max_waiting, config.root_path
    access = Access.of(config.host, config.allow_host)
    app = build_app(page, max_sessions=seats, max_waiting=waiting, access=access, root=root)
    listener = bind(config.host, config.port)
    url = address(config.host, listener.getsockname()[1])

    def ready() -> None:
        print(f"{page.title} is at {url}  (Ctrl-C ends it)", flush=True)
        if config.browser and _has_display():
            webbrowser.open(url)

    server = make_server(app, ready=ready)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        print()
    finally:
        listener.close()


def make_server(app: Starlette, *, ready: Callable[[], None] = lambda: None) -> Server:
    """A quiet server for what `build_app` gives, to be run with `run(sockets=[bind(host, port)])`; it calls
    `ready`."""
    quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "timeout_graceful_shutdown": 2}
    quiet |= {"proxy_headers": False, "ws_max_size": MAX_FRAME, "ws_per_message_deflate": False}
    return Server(uvicorn.Config(app, **quiet), ready)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; UserError with the mend when it cannot."""
    if not 0 <= port <= 65535:
        raise UserError(f"a port is a number from 0 to 65535, got {port}: choose another with --port")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise UserError(f"'{host}' is not an address of this machine: choose another with --host") from None
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UserError(_why(error, host, port)) from None
    return listener


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use on {host}: choose another with --port, such as --port {port + 1}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs rights that you do not have: choose one above 1023 with --port"
    return f"cannot listen on {host} port {port} ({error.strerror}): choose another with --host or --port"


def address(host: str, port: int) -> str:
    """The URL at which a browser on this machine finds the page."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


def _has_display() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
