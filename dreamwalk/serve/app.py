"""The web application: page, thumbnails, recordings, one WebSocket per walk, clips, scenes, schedules."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from starlette.websockets import WebSocket

from dreamwalk.errors import UserError
from dreamwalk.serve.access import Access, HostGuard, root_path
from dreamwalk.serve.app_config import AppConfig, Clips, shown_of
from dreamwalk.serve.clip_queue import ClipQueue, clip_events, parse_clip_request, read_body
from dreamwalk.serve.connection import Connection, ServerState
from dreamwalk.serve.frames import encode_picture
from dreamwalk.serve.protocol import MAX_SEED, MAX_START
from dreamwalk.serve.recording_store import RecordingStore
from dreamwalk.serve.scene_store import SceneStore, scene_routes
from dreamwalk.serve.schedule_stream import BOUNDARY, MAX_STREAMS, picture_stream
from dreamwalk.serve.session_queue import SessionQueue
from dreamwalk.validation import MOST_STEPS

ANY = Access()
PAGE = Path(__file__).parent / "page"
_POLICY = "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
_POLICY += "style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:; "
_POLICY += "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"


class _Page(StaticFiles):
    """The page's own files, always checked for newer ones, and allowed to load nothing from elsewhere."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def build_app(
    config: AppConfig, *, max_sessions: int = 8, max_waiting: int = 32, access: Access = ANY, root: str = ""
) -> Starlette:
    """The ASGI application of the page; it may be mounted in another, which need not run its lifespan.

    Args:
        config: what is shown.
        max_sessions: pages that walk at once.
        max_waiting: further ones that wait for their turn.
        access: host names of the server, and sites whose pages may use it; by default any, and its own.
        root: the path under which a proxy shows it.

    UserError when a number or the path makes no sense.
    """
    if max_sessions < 1:
        raise UserError(f"max_sessions must be at least 1, got {max_sessions}")
    if max_waiting < 0:
        raise UserError(f"max_waiting must be at least 0, got {max_waiting}")
    root = root_path(root)
    server = ServerState(config, SessionQueue(max_sessions, max_waiting=max_waiting), RecordingStore())
    store = SceneStore(config.scenes, most=max_sessions) if config.scenes else None
    thumbnails = [encode_picture(start.thumbnail) for start in config.starts]

    async def walk(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            access.check_page(websocket)
            if config.dream is None and config.game is None:
                raise UserError("there is nothing to walk in here: ask for a clip")
            most = config.levels.most if config.levels else MAX_SEED
            start, seed = _query(websocket, "start", MAX_START), _query(websocket, "seed", most)
        except UserError as error:
            await websocket.close(1008, str(error)[:120])
            return
        await Connection(websocket, server).run(start=start, seed=seed or 0)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.close)
        if store is not None:
            await asyncio.to_thread(store.close)

    routes = [
        Route("/api/stage", partial(_about, config, server.queue)),
        Route("/starts/{index:int}.jpg", partial(_thumbnail, thumbnails)),
        Route("/recordings/{name}", partial(_recording, server.store)),
        Route("/schedules/{name}", partial(_schedule, config, SessionQueue(MAX_STREAMS), access)),
        WebSocketRoute("/walk", walk),
        Mount("/", _Page(directory=PAGE, html=True)),
    ]
    if config.clips:
        make = partial(_clip, config.clips, ClipQueue(), access)
        routes.insert(0, Route("/clips", make, methods=["POST"]))
    if store is not None:
        routes = [*scene_routes(store, access), *routes]
    guard, refusals = [Middleware(HostGuard, access, root)], {UserError: _refuse}
    return Starlette(routes=routes, middleware=guard, exception_handlers=refusals, lifespan=lifespan)


async def _refuse(request: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), 400)


async def _thumbnail(thumbnails: list[bytes], request: Request) -> Response:
    index = request.path_params["index"]
    if index >= len(thumbnails):
        raise HTTPException(404, "there is no such start")
    return Response(thumbnails[index], media_type="image/jpeg", headers={"Cache-Control": "no-cache"})


async def _recording(store: RecordingStore, request: Request) -> Response:
    path = store.find(request.path_params["name"])
    if path is None:
        raise HTTPException(404, "this film is not kept any more")
    kind = "video/mp4" if path.suffix == ".mp4" else "application/json"
    return FileResponse(path, media_type=kind, filename=path.name)


async def _schedule(config: AppConfig, queue: SessionQueue, access: Access, request: Request) -> Response:
    """Pictures of a walk on a schedule, row after row, for as long as they are watched."""
    unfold = config.schedules.get(request.path_params["name"])
    if unfold is None:
        raise HTTPException(404, "there is no such schedule")
    access.check_page(request)
    start, seed = _query(request, "start", len(config.starts) - 1), _query(request, "seed", MAX_SEED)
    if queue.full:
        raise HTTPException(503, "many others watch a schedule: try again later")
    pictures = picture_stream(partial(unfold, start or 0, seed or 0), queue)
    return StreamingResponse(pictures, media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")


async def _clip(clips: Clips, queue: ClipQueue, access: Access, request: Request) -> Response:
    """A clip under way, a line of JSON for whatever happens."""
    access.check_page(request)
    clip = await asyncio.to_thread(parse_clip_request, await read_body(request), clips)
    return StreamingResponse(queue.events(clip_events(clips, clip)), media_type="application/x-ndjson")


async def _about(config: AppConfig, queue: SessionQueue, request: Request) -> Response:
    """What the start screen shows."""
    about = {name: getattr(config, name) for name in ("title", "notes", "picture", "unlearnt", "lacking")}
    game, levels = bool(config.game or config.levels), config.levels and config.levels.most
    about |= {"dream": config.dream is not None, "game": game, "levels": levels}
    memory = config.memory
    about |= {"memory": memory is not None} | shown_of(memory)
    about |= {"schedules": list(config.schedules), "starts": [start.name for start in config.starts]}
    about |= {"actions": config.actions and asdict(config.actions), "clips": None}
    about |= {"sessions": queue.taken, "waiting": queue.waiting, "seats": queue.seats}
    if clips := config.clips:
        offer = {name: getattr(clips, name) for name in ("fps", "steps", "longest", "examples", "vocabulary")}
        about["clips"] = offer | dict(zip(("height", "width"), clips.size, strict=True))
        about["clips"] |= {"most_steps": MOST_STEPS}
    about["scenes"] = None
    if scenes := config.scenes:
        offer = {name: getattr(scenes, name) for name in ("fps", "steps", "unit", "longest")}
        about["scenes"] = offer | dict(zip(("height", "width"), scenes.size, strict=True))
        about |= {"levels": scenes.levels}
    return JSONResponse(about)


def _query(websocket: HTTPConnection, name: str, high: int) -> int | None:
    text = websocket.query_params.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > high:
        raise UserError(f"{name} must be a whole number from 0 to {high}")
    return int(text)
