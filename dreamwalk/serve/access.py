"""Access control: host names of the server, and sites whose pages may use it.

A browser lets any site's page send requests to any address, and a site can let its own name lead to a server
on your machine or in your network (DNS rebinding). So a request must come by a name that is known to be this
server's, and from a page of this server. Addresses in numbers are always taken, for no site has such a name
of its own: a phone in your network finds the page by them, and so does whoever forwards a port. Headers that
a proxy adds (`X-Forwarded-...`) are not believed, and not needed.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from dreamwalk.errors import UserError

ANY = "*"


@dataclass(frozen=True)
class Access:
    """The names of a server."""

    own: frozenset[str] | None = None
    """Names by which it may be reached, besides addresses in numbers; None: any."""
    sites: frozenset[str] = frozenset()
    """Names of other sites whose pages are this server's too, since a proxy shows it there."""

    @classmethod
    def of(cls, host: str, allowed: Sequence[str] = ()) -> Access:
        """Of a server that listens on `host`: localhost, this machine's name, and those that are `allowed`.

        UserError for what is not a name.
        """
        for name in allowed:
            if name != ANY and not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name):
                raise UserError(f"'{name}' is not the name of a host: allow one like dreams.example.org")
        sites = frozenset(name.lower() for name in allowed) - {ANY}
        machine = socket.gethostname().lower()
        own = sites | {"localhost", host.lower(), machine, f"{machine.partition('.')[0]}.local"}
        return cls(None if ANY in allowed else frozenset(own), sites)

    def check_host(self, host: str) -> None:
        """UserError unless the server may be reached as `host`, which is a header with or without a port."""
        name = _name(host)
        if self.own is None or name in self.own or _is_address(name):
            return
        shown = name[:80] or "such a name"
        raise UserError(f"this server is not known as {shown}: start it with `--allow-host {shown}`")

    def check_page(self, connection: HTTPConnection) -> None:
        """UserError when a browser asks for another site's page. Other clients send nothing to tell."""
        headers = connection.headers
        page = headers.get("origin", headers.get("referer"))  # pictures come without an origin
        if page is None and headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return
        site = urlsplit(page or "").netloc.lower()
        if site and (site == headers.get("host", "").lower() or _name(site) in self.sites):
            return
        mend = "open this server's own page, or start it with `--allow-host`"
        raise UserError(f"pages of other sites may not walk here: {mend}")


class HostGuard:
    """Middleware that refuses requests for unknown host names, and tells the application its path behind a
    proxy, whether the proxy leaves that in the paths of its requests or not."""

    def __init__(self, app: ASGIApp, access: Access, root: str = "") -> None:
        self._app, self._access, self._root = app, access, root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        try:
            self._access.check_host(Headers(scope=scope).get("host", ""))
        except UserError as error:
            plain = scope["type"] == "http"
            refusal = PlainTextResponse(str(error), 400) if plain else WebSocketClose(1008)
            return await refusal(scope, receive, send)
        if self._root and not scope.get("root_path"):
            scope = {**scope, "root_path": self._root}
        await self._app(scope, receive, send)


def root_path(path: str) -> str:
    """A path as `/one/two`, without a slash at its end; UserError for what is none."""
    parts = urlsplit(path)
    if path and (parts.path != path or not path.startswith("/") or "//" in path):
        raise UserError(f"a root path begins with a slash, as /dream does, got '{path}'")
    return path.rstrip("/")


def _name(host: str) -> str:
    """The name in a Host header, in lower case; empty for what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False
