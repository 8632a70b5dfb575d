"""Scenes over HTTP, each with a name that cannot be guessed, which whoever began it keeps until it is ended.

    POST scenes                {image | start | level, instead} begins one, and ends the one that it is begun
                               instead of; answers as `GET scenes/NAME` does
    GET  scenes/NAME           its name, frames, poses and focal of its cameras, points, still (JPEG)
    POST scenes/NAME/path      {path}: poses and focal of the cameras of these moves from the last one on; or
                               wrong: a sentence, since whoever is still writing makes no mistake
    POST scenes/NAME/walk      {path, prompt, seed, steps}: lines of JSON as of `clip_queue`: queued, progress
                               (with the number of points so far), done (seconds, seed) or error
    GET  scenes/NAME/points    ?since=FRAME: what frames from there on have shown (`ScenePoints.packed`)
    GET  scenes/NAME/film      mp4 of the newest path
    GET  scenes/NAME/scene.zip all of it, as `dreamwalk sample --out` writes it
    POST scenes/NAME/end       lets go of it

Poses are the upper three rows of `world_from_camera`, focal lengths are in heights of the picture. What makes
no sense is answered 400 with one sentence; a scene that is not kept any more, 404.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dreamwalk.camera_paths import CameraPath
from dreamwalk.errors import UserError
from dreamwalk.serve.access import Access
from dreamwalk.serve.clip_queue import (
    ClipQueue,
    Event,
    checked_text,
    data_url,
    film_of,
    progress_event,
    read_body,
)
from dreamwalk.serve.connection import IDLE, STOPPING
from dreamwalk.serve.frames import encode_picture
from dreamwalk.serve.scene_config import GrowingScene, Scenes, WebPathRequest, WebSceneStart
from dreamwalk.temporary import TemporaryFolder
from dreamwalk.validation import decode_json

GONE = "this scene is not kept any more: begin again"
PATIENCE = 60.0
"""Seconds for which whoever asks for a scene waits for the step that is under way."""
SceneAnswer = Callable[["KeptScene", Request], Coroutine[Any, Any, Response]]


class KeptScene:
    """A scene of one page. What must not happen beside anything else holds `lock`."""

    def __init__(self, name: str, scene: GrowingScene) -> None:
        self.name, self.scene, self.lock = name, scene, threading.Lock()
        self.touched = time.monotonic()

    def about(self) -> dict[str, Any]:
        """What the page has to know of it, once nothing is under way any more."""
        if not self.lock.acquire(timeout=PATIENCE):
            raise UserError("this scene is being dreamed on: stop that, or wait for its end")
        try:
            scene = self.scene
            still = data_url("image/jpeg", encode_picture(scene.film[-1]))
            told = {"scene": self.name, "frames": len(scene.cameras), "points": len(scene.points.frames)}
            return told | {"still": still} | _described(scene.cameras, len(scene.film[0]))
        finally:
            self.lock.release()

    def planned(self, path: str) -> dict[str, Any]:
        """The cameras of a path that is not walked yet."""
        return _described(self.scene.plan(path), len(self.scene.film[0]))

    def events(self, asked: WebPathRequest) -> Generator[Event]:
        """What happens while a path is walked."""
        if not self.lock.acquire(blocking=False):
            raise UserError("this scene is being dreamed on already: stop that, or wait for its end")
        try:
            began = time.monotonic()
            with closing(self.scene.walk(asked)) as walk:
                for step, steps in walk:
                    points = {"points": len(self.scene.points.frames)}
                    yield progress_event(step, steps, began=began) | points
            yield {"type": "done", "seconds": round(time.monotonic() - began, 1), "seed": asked.seed}
        finally:
            self.touched = time.monotonic()
            self.lock.release()

    def zipped(self) -> tuple[TemporaryFolder, Path]:
        """All of it in one file, and the folder that has to be removed."""
        if not self.lock.acquire(blocking=False):
            raise UserError("this scene is being dreamed on: download it when that has come to its end")
        try:
            folder = TemporaryFolder()
            self.scene.write(Path(folder.name) / "scene")
            return folder, Path(shutil.make_archive(f"{folder.name}/scene", "zip", folder.name, "scene"))
        finally:
            self.lock.release()

    def end(self, patience: float = PATIENCE) -> None:
        """Let go of it, when what is under way has come to its end, or after so many seconds."""
        self.lock.acquire(timeout=patience)
        self.scene.close()


class SceneStore:
    """The scenes of one server, `most` at a time: of more, one that nobody touches gives way."""

    def __init__(self, scenes: Scenes, *, most: int) -> None:
        self.scenes, self._most = scenes, most
        self._kept: dict[str, KeptScene] = {}
        self._lock = threading.Lock()
        # whoever mounts the application does not run its lifespan: at the latest Python closes it at its exit
        self.close = weakref.finalize(self, _end_all, self._kept)
        """Let go of all scenes."""

    def open(self, start: WebSceneStart) -> KeptScene:
        """Begin one; UserError when there is no room, or no such start."""
        with self._lock:  # for as long as it takes, so that there are never more
            if len(self._kept) >= self._most and start.instead not in self._kept:
                self._give_way()
            kept = KeptScene(secrets.token_urlsafe(12), self.scenes.open(start))
            self._kept[kept.name] = kept
        self.end(start.instead)
        return kept

    def _give_way(self) -> None:
        """Let go of the scene that nobody has touched for longest; UserError when all are in use."""
        since = time.monotonic() - IDLE
        idle = [kept for kept in self._kept.values() if kept.touched < since and not kept.lock.locked()]
        if not idle:
            reason = f"{self._most} scenes are open, and there is no room for more"
            raise UserError(f"{reason}: try again in {IDLE / 60:.0f} minutes")
        self._kept.pop(min(idle, key=lambda kept: kept.touched).name).end()

    def find(self, name: str) -> KeptScene:
        """The scene of that name; HTTPException 404 when it is not kept."""
        kept = self._kept.get(name)
        if kept is None:
            raise HTTPException(404, GONE)
        kept.touched = time.monotonic()
        return kept

    def end(self, name: str) -> None:
        """Let go of the scene of that name, if it is kept."""
        with self._lock:
            kept = self._kept.pop(name, None)
        if kept is not None:
            kept.end()


def _end_all(kept: dict[str, KeptScene]) -> None:
    while kept:
        kept.popitem()[1].end(STOPPING)


def scene_routes(store: SceneStore, access: Access) -> list[Route]:
    """The routes of the table above."""
    scenes, queue = store.scenes, ClipQueue()

    async def begin(request: Request) -> Response:
        access.check_page(request)
        start = decode_json(WebSceneStart, await read_body(request), "that request")
        kept = await asyncio.to_thread(store.open, start)
        return JSONResponse(await asyncio.to_thread(kept.about))

    async def about(kept: KeptScene, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(kept.about))

    async def plan(kept: KeptScene, request: Request) -> Response:
        asked = decode_json(WebPathRequest, await read_body(request), "that request")
        try:
            return JSONResponse(await asyncio.to_thread(kept.planned, asked.path))
        except UserError as wrong:
            return JSONResponse({"wrong": str(wrong)})

    async def walk(kept: KeptScene, request: Request) -> Response:
        asked = decode_json(WebPathRequest, await read_body(request), "that request")
        prompt = checked_text(asked.prompt, "prompt", scenes)
        await asyncio.to_thread(kept.planned, asked.path)  # what makes no path does not wait for its turn
        asked = msgspec.structs.replace(asked, prompt=prompt, steps=asked.steps or scenes.steps)
        return StreamingResponse(queue.events(kept.events(asked)), media_type="application/x-ndjson")

    async def points(kept: KeptScene, request: Request) -> Response:
        since = request.query_params.get("since", "0")
        if not (since.isascii() and since.isdigit() and len(since) < 10):
            raise UserError("since must be the number of a frame")
        packed = await asyncio.to_thread(kept.scene.points.packed, int(since))
        return Response(packed, media_type="application/octet-stream")

    async def film(kept: KeptScene, request: Request) -> Response:
        made = await asyncio.to_thread(film_of, kept.scene.film, scenes.fps)
        return Response(made, media_type="video/mp4")

    async def archive(kept: KeptScene, request: Request) -> Response:
        folder, path = await asyncio.to_thread(kept.zipped)
        return FileResponse(path, filename="scene.zip", background=BackgroundTask(folder.cleanup))

    async def end(kept: KeptScene, request: Request) -> Response:
        await asyncio.to_thread(store.end, kept.name)
        return Response(status_code=204)

    async def of_scene(answer: SceneAnswer, request: Request) -> Response:
        access.check_page(request)
        return await answer(store.find(request.path_params["name"]), request)

    posts: dict[str, SceneAnswer] = {"/path": plan, "/walk": walk, "/end": end}
    gets: dict[str, SceneAnswer] = {"": about, "/points": points, "/film": film, "/scene.zip": archive}
    routes = [Route("/scenes", begin, methods=["POST"])]
    for method, answers in {"POST": posts, "GET": gets}.items():
        routes += [
            Route(f"/scenes/{{name}}{path}", partial(of_scene, answer), methods=[method])
            for path, answer in answers.items()
        ]
    return routes


def _described(path: CameraPath, height: int) -> dict[str, Any]:
    """Cameras as a page takes them."""
    poses = path.world_from_camera[:, :3].reshape(-1, 12)
    return {
        "poses": np.round(poses, 5).tolist(),
        "focal": np.round(path.intrinsics[:, 1, 1] / height, 5).tolist(),
    }
