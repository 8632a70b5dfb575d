"""The web application: the page, the gallery, the films, one WebSocket per walk, and clips."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from starlette.websockets import WebSocket

from dreamwalk.errors import UserError
from dreamwalk.serve.access import Access, Doorkeeper, root_path
from dreamwalk.serve.app_config import AppConfig, Clips
from dreamwalk.serve.clip_queue import ClipQueue, parse_clip_request
from dreamwalk.serve.connection import Connection, ServerState
from dreamwalk.serve.frames import encode_picture
from dreamwalk.serve.protocol import MAX_MESSAGE, MAX_SEED, MAX_START
from dreamwalk.serve.recording_store import RecordingStore
from dreamwalk.serve.schedule_stream import BOUNDARY, WATCHED, watched
from dreamwalk.serve.session_queue import SessionQueue
from dreamwalk.validation import MOST_STEPS

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


def build_app(
    config: AppConfig,
    *,
    max_sessions: int = 8,
    max_waiting: int = 32,
    access: Access | None = None,
    root: str = "",
) -> Starlette:
    """The ASGI application that shows a stage; it may be mounted in another, which need not run its lifespan.

    `max_sessions` pages walk at once, and `max_waiting` further ones wait for their turn. `access` says by
    which names the server may be reached and whose pages may use it (any name, and its own pages). `root` is
    the path under which a proxy shows it. UserError when a number or the path makes no sense.
    """
    if max_sessions < 1:
        raise UserError(f"max_sessions must be at least 1, got {max_sessions}")
    if max_waiting < 0:
        raise UserError(f"max_waiting must be at least 0, got {max_waiting}")
    access, root = access or Access(), root_path(root)
    server = ServerState(config, SessionQueue(max_sessions, queue=max_waiting), RecordingStore())
    thumbnails = [encode_picture(start.thumbnail) for start in config.starts]

    async def about(request: Request) -> Response:
        return JSONResponse(_about(config, server.queue))

    async def walk(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            access.check_page(websocket)
            if config.dream is None and config.game is None:
                raise UserError("there is nothing to walk in here: ask for a clip")
            start, seed = _query(websocket, "start", MAX_START), _query(websocket, "seed", MAX_SEED)
        except UserError as error:
            await websocket.close(1008, str(error)[:120])
            return
        await Connection(websocket, server).run(start=start, seed=seed or 0)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.close)

    routes = [
        Route("/api/stage", about),
        Route("/starts/{index:int}.jpg", partial(_thumbnail, thumbnails)),
        Route("/recordings/{name}", partial(_recording, server.store)),
        Route("/schedules/{name}", partial(_schedule, config, SessionQueue(WATCHED), access)),
        *_clip_routes(config, access),
        WebSocketRoute("/walk", walk),
        Mount("/", _Page(directory=PAGE, html=True)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Doorkeeper, access, root)], lifespan=lifespan)


def _clip_routes(config: AppConfig, access: Access) -> list[Route]:
    if config.clips is None:
        return []
    return [Route("/clips", partial(_clip, ClipQueue(config.clips), access), methods=["POST"])]


async def _thumbnail(thumbnails: list[bytes], request: Request) -> Response:
    index = request.path_params["index"]
    if index >= len(thumbnails):
        return PlainTextResponse("there is no such start", 404)
    return Response(thumbnails[index], media_type="image/jpeg", headers={"Cache-Control": "no-cache"})


async def _recording(store: RecordingStore, request: Request) -> Response:
    path = store.find(request.path_params["name"])
    if path is None:
        return PlainTextResponse("this film is not kept any more", 404)
    kind = "video/mp4" if path.suffix == ".mp4" else "application/json"
    return FileResponse(path, media_type=kind, filename=path.name)


async def _schedule(config: AppConfig, queue: SessionQueue, access: Access, request: Request) -> Response:
    """Pictures of a stroll on a schedule, row after row, for as long as they are watched."""
    unfold = config.schedules.get(request.path_params["name"])
    if unfold is None:
        return PlainTextResponse("there is no such schedule", 404)
    try:
        access.check_page(request)
        start, seed = _query(request, "start", len(config.starts) - 1), _query(request, "seed", MAX_SEED)
    except UserError as error:
        return PlainTextResponse(str(error), 400)
    if queue.full:
        return PlainTextResponse("many others watch a schedule: try again later", 503)
    pictures = watched(partial(unfold, start or 0, seed or 0), queue)
    return StreamingResponse(pictures, media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")


async def _clip(clip_queue: ClipQueue, access: Access, request: Request) -> Response:
    """A clip under way, a line of JSON for whatever happens."""
    body = b""
    try:
        access.check_page(request)
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_MESSAGE:
                break
        clip = await asyncio.to_thread(parse_clip_request, body, clip_queue.clips)
    except UserError as error:
        return PlainTextResponse(str(error), 400)
    return StreamingResponse(clip_queue.events(clip), media_type="application/x-ndjson")


def _about(config: AppConfig, queue: SessionQueue) -> dict[str, object]:
    """What the start screen shows."""
    return {
        "title": config.title,
        "dream": config.dream is not None,
        "game": config.game is not None,
        "clips": config.clips and _offer(config.clips),
        "schedules": list(config.schedules),
        "starts": [start.name for start in config.starts],
        "notes": config.notes,
        "picture": config.picture,
        "unlearnt": config.unlearnt,
        "actions": config.actions and asdict(config.actions),
        "sessions": queue.taken,
        "waiting": queue.waiting,
        "seats": queue.seats,
    }


def _offer(clips: Clips) -> dict[str, object]:
    """What the form of a clip request needs to know."""
    (height, width), examples = clips.size, list(clips.examples)
    return {
        "height": height,
        "width": width,
        "fps": clips.fps,
        "steps": clips.steps,
        "most_steps": MOST_STEPS,
        "longest": clips.longest,
        "examples": examples,
        "vocabulary": clips.vocabulary,
    }


def _query(websocket: HTTPConnection, name: str, high: int) -> int | None:
    text = websocket.query_params.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > high:
        raise UserError(f"{name} must be a whole number from 0 to {high}")
    return int(text)
