"""The web application: the page, the gallery, the films, one WebSocket per walk, and clips."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from starlette.websockets import WebSocket

from dreamwalk.errors import UserError
from dreamwalk.serve.clips import Studio, parse_wish
from dreamwalk.serve.connection import Connection, Hall
from dreamwalk.serve.film import Shelf
from dreamwalk.serve.frames import encode_picture
from dreamwalk.serve.lobby import Lobby
from dreamwalk.serve.protocol import MAX_MESSAGE, MAX_SEED
from dreamwalk.serve.stage import Clips, Stage
from dreamwalk.serve.watching import BOUNDARY, watched

PAGE = Path(__file__).parent / "page"
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


class _Page(StaticFiles):
    """The page's own files, always checked for newer ones, and allowed to load nothing from elsewhere."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def build_app(stage: Stage, *, max_sessions: int = 8, hosts: Sequence[str] | None = None) -> Starlette:
    """The ASGI application that shows a stage.

    `max_sessions` pages walk at once, further ones wait in a queue. `hosts` are the host names that the page
    may be reached by (none: any); it keeps other web sites from reaching a server on the loopback by a name
    of theirs. UserError when `max_sessions` is below 1.
    """
    if max_sessions < 1:
        raise UserError(f"max_sessions must be at least 1, got {max_sessions}")
    hall = Hall(stage, Lobby(max_sessions), Shelf())
    thumbnails = [encode_picture(start.thumbnail) for start in stage.starts]

    async def about(request: Request) -> Response:
        return JSONResponse(_about(stage, hall.lobby))

    async def thumbnail(request: Request) -> Response:
        index = request.path_params["index"]
        if index >= len(thumbnails):
            return PlainTextResponse("there is no such start", 404)
        return Response(thumbnails[index], media_type="image/jpeg", headers={"Cache-Control": "no-cache"})

    async def recording(request: Request) -> Response:
        path = hall.shelf.find(request.path_params["name"])
        if path is None:
            return PlainTextResponse("this film is not kept any more", 404)
        kind = "video/mp4" if path.suffix == ".mp4" else "application/json"
        return FileResponse(path, media_type=kind, filename=path.name)

    async def walk(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            _same_origin(websocket)
            if stage.dream is None and stage.game is None:
                raise UserError("there is nothing to walk in here: ask for a clip")
            start, seed = _query(websocket, "start", 10_000), _query(websocket, "seed", MAX_SEED)
        except UserError as error:
            await websocket.close(1008, str(error)[:120])
            return
        await Connection(websocket, hall).run(start=start, seed=seed or 0)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(hall.close)

    routes = [
        Route("/api/stage", about),
        Route("/starts/{index:int}.jpg", thumbnail),
        Route("/recordings/{name}", recording),
        Route("/schedules/{name}", partial(_schedule, stage)),
        *([Route("/clips", partial(_clip, Studio(stage.clips)), methods=["POST"])] if stage.clips else []),
        WebSocketRoute("/walk", walk),
        Mount("/", _Page(directory=PAGE, html=True)),
    ]
    guard = (
        [Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)] if hosts else []
    )
    return Starlette(routes=routes, middleware=guard, lifespan=lifespan)


async def _schedule(stage: Stage, request: Request) -> Response:
    """Pictures of a stroll on a schedule, row after row, for as long as they are watched."""
    unfold = stage.schedules.get(request.path_params["name"])
    if unfold is None:
        return PlainTextResponse("there is no such schedule", 404)
    try:
        start, seed = _query(request, "start", len(stage.starts) - 1), _query(request, "seed", MAX_SEED)
    except UserError as error:
        return PlainTextResponse(str(error), 400)
    pictures = watched(unfold(start or 0, seed or 0))
    return StreamingResponse(pictures, media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")


async def _clip(studio: Studio, request: Request) -> Response:
    """A clip under way, a line of JSON for whatever happens."""
    body = b""
    try:
        _same_origin(request)
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_MESSAGE:
                break
        wish = await asyncio.to_thread(parse_wish, body, studio.clips)
    except UserError as error:
        return PlainTextResponse(str(error), 400)
    return StreamingResponse(studio.events(wish), media_type="application/x-ndjson")


def _about(stage: Stage, lobby: Lobby) -> dict[str, object]:
    """What the start screen shows."""
    return {
        "title": stage.title,
        "dream": stage.dream is not None,
        "game": stage.game is not None,
        "clips": stage.clips and _offer(stage.clips),
        "schedules": list(stage.schedules),
        "starts": [start.name for start in stage.starts],
        "notes": stage.notes,
        "picture": stage.picture,
        "unlearnt": stage.unlearnt,
        "sessions": lobby.taken,
        "waiting": lobby.waiting,
        "seats": lobby.seats,
    }


def _offer(clips: Clips) -> dict[str, object]:
    """What the form of a wish needs to know."""
    (height, width), examples = clips.size, list(clips.examples)
    return {
        "height": height, "width": width, "fps": clips.fps, "steps": clips.steps,
        "most_steps": clips.most_steps, "longest": clips.longest, "examples": examples,
    }  # fmt: skip


def _same_origin(websocket: HTTPConnection) -> None:
    """UserError when a browser comes from another site's page. Clients other than browsers send none."""
    origin, host = websocket.headers.get("origin"), websocket.headers.get("host", "")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise UserError("pages of other sites may not walk here: open this server's own page")


def _query(websocket: HTTPConnection, name: str, high: int) -> int | None:
    text = websocket.query_params.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > high:
        raise UserError(f"{name} must be a whole number from 0 to {high}")
    return int(text)
