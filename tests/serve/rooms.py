"""A small deterministic world to serve: a room seen by casting a ray per column; and someone to visit it."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium import spaces
from PIL import Image
from starlette.websockets import WebSocketDisconnect

from dreamwalk.errors import UserError
from dreamwalk.serve import GalleryStart, cloud_stream
from dreamwalk.serve.frames import HEADER, VERSION, VIEWS, FrameNote
from dreamwalk.world import Action, ActionSchema, World

ACTIONS = ActionSchema(
    buttons=("forward", "back", "left", "right", "place"), axes=("yaw", "pitch"), limits=(30.0, 15.0)
)
HEIGHT, WIDTH = 96, 128
SIDE = 8.0
TINTS = np.array([[226, 120, 84], [92, 150, 214], [214, 186, 96], [124, 190, 130]], np.float32)


def _texture(seed: int) -> np.ndarray:
    """Smooth noise with an edge every now and then, `(128, 128)` in [0, 1]."""
    random = np.random.default_rng(seed)
    coarse = np.kron(random.random((16, 16)), np.ones((8, 8)))
    rolled = sum(np.roll(coarse, (dy, dx), (0, 1)) for dy in (0, 2, 4) for dx in (0, 2, 4))
    bricks = ((np.arange(128)[None] // 2 + np.arange(128)[:, None] // 16 % 2 * 8) % 16 == 0) * 0.5
    return np.clip(np.asarray(rolled) / 9 + 0.2 - bricks, 0, 1).astype(np.float32)


class Room(World):
    """The real game of these tests: yaw turns the view, the buttons walk, `place` darkens the picture."""

    actions = ACTIONS
    action_space = ACTIONS.space
    observation_space = spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)

    def __init__(
        self, *, fps: float = 30.0, cost: float = 0.0, ends_after: int = 10**9, breaks_after: int = 10**9
    ) -> None:
        self.fps, self.cost, self.ends_after, self.breaks_after = fps, cost, ends_after, breaks_after
        self.closed = False
        self.textures = np.stack([_texture(k) for k in range(4)])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        k = (options or {}).get("start", 0)
        self.x, self.y, self.pitch, self.placed, self.count = 4.0, 4.0, 0.0, 0, 0
        self.yaw = 35.0 + 90.0 * k + float(self.np_random.uniform(-5, 5))
        return self._look(), {}

    def step(self, action: Action) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        time.sleep(self.cost)
        if self.count >= self.breaks_after:
            raise RuntimeError("the room has collapsed")
        forward, back, left, right, place = (int(b) for b in action["buttons"])
        yaw, pitch = action["axes"]
        self.yaw += float(yaw)
        self.pitch = float(np.clip(self.pitch + pitch, -30, 30))
        angle = np.deg2rad(self.yaw)
        ahead, aside = 0.2 * (forward - back), 0.2 * (right - left)
        self.x = float(np.clip(self.x + ahead * np.cos(angle) - aside * np.sin(angle), 0.6, SIDE - 0.6))
        self.y = float(np.clip(self.y + ahead * np.sin(angle) + aside * np.cos(angle), 0.6, SIDE - 0.6))
        self.placed += place
        self.count += 1
        return self._look(), 0.0, self.count >= self.ends_after, False, {}

    def _look(self) -> np.ndarray:
        columns = (np.arange(WIDTH) + 0.5 - WIDTH / 2) / (WIDTH / 2)
        angles = np.deg2rad(self.yaw) + np.arctan(columns)
        dx, dy = np.cos(angles), np.sin(angles)
        with np.errstate(divide="ignore"):
            to_x = np.where(dx > 0, (SIDE - self.x) / dx, np.where(dx < 0, -self.x / dx, np.inf))
            to_y = np.where(dy > 0, (SIDE - self.y) / dy, np.where(dy < 0, -self.y / dy, np.inf))
        distance = np.minimum(to_x, to_y)
        wall = np.where(to_x < to_y, np.where(dx > 0, 0, 2), np.where(dy > 0, 1, 3))
        along = np.where(to_x < to_y, self.y + distance * dy, self.x + distance * dx)
        depth = np.maximum(distance * np.cos(np.arctan(columns)), 0.05)
        rows = (np.arange(HEIGHT) + 0.5 - HEIGHT / 2 - self.pitch)[:, None] * depth[None] / (WIDTH / 2)
        u = (along * 24).astype(int) % 128
        v = np.clip(((rows + 1.2) / 2.4 * 128).astype(int), 0, 127)
        light = 1 / (1 + 0.06 * depth**2)
        colour = self.textures[wall[None], v, u[None]][..., None] * TINTS[wall][None] * light[None, :, None]
        plain = np.where(rows > 0, 70.0, 40.0)[..., None] * np.array([1.0, 0.95, 1.1])
        picture = np.where((np.abs(rows) < 1.2)[..., None], colour, plain)
        picture[:6, : 10 * min(self.placed, 12)] = (240, 230, 90)
        return np.clip(picture, 0, 255).astype(np.uint8)

    def state(self) -> Any:
        return (self.x, self.y, self.yaw, self.pitch, self.placed, self.count)

    def restore(self, state: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self.x, self.y, self.yaw, self.pitch, self.placed, self.count = state
        return self._look(), {}

    def close(self) -> None:
        self.closed = True


class Imagined(Room):
    """The dream of these tests: the room in other colours; from a picture, that picture rolled by the yaw."""

    def __init__(
        self, *, fps: float = 30.0, cost: float = 0.0, ends_after: int = 10**9, breaks_after: int = 10**9
    ) -> None:
        super().__init__(fps=fps, cost=cost, ends_after=ends_after, breaks_after=breaks_after)
        self.steps = 4
        self.image: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.image = (options or {}).get("image")
        if self.image is not None and (
            self.image.shape != (HEIGHT, WIDTH, 3) or self.image.dtype != np.uint8
        ):
            raise UserError(f"a picture to begin from is uint8 {(HEIGHT, WIDTH, 3)}")
        _, info = super().reset(seed=seed, options=options)
        self.origin = self.yaw
        return self._look(), info

    def step(self, action: Action) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        frame, reward, terminated, truncated, info = super().step(action)
        self.timings = {"denoise": 3.0 * self.steps, "commit": 3.0, "decode": 2.0}
        return frame, reward, terminated, truncated, info

    def _look(self) -> np.ndarray:
        if self.image is not None and hasattr(self, "origin"):
            return np.roll(self.image, -round((self.yaw - self.origin) * WIDTH / 90), axis=1)
        noise = np.random.default_rng(self.count * 8 + self.steps).integers(0, 6, (HEIGHT, WIDTH, 1))
        return np.clip(super()._look()[..., [2, 0, 1]].astype(int) + noise, 0, 255).astype(np.uint8)


def thumbnails() -> list[GalleryStart]:
    room = Room()
    names = ["Terracotta", "The blue wall", "Amber", "Moss"]
    return [
        GalleryStart(name, room.reset(seed=0, options={"start": k})[0], {"start": k})
        for k, name in enumerate(names)
    ]


def unpack_frame(message: bytes) -> tuple[FrameNote, list[bytes]]:
    """The inverse of `pack_frame`. UserError when it is no frame of this
    version."""
    if len(message) < HEADER.size or message[0] != VERSION:
        raise UserError(f"this is not a frame message of version {VERSION}")
    values = HEADER.unpack_from(message)
    count, view, flags, serial, frame, seq, model, encode, period, text, *lengths = values[1:]
    body = message[HEADER.size :]
    extra = json.loads(body[:text])
    cuts = [text, text + lengths[0], text + lengths[0] + lengths[1]]
    pictures = [body[a:b] for a, b in pairwise(cuts)][:count]
    lists = tuple(extra["held"]), extra["stages"], tuple(extra["axes"]), tuple(extra["pose"])
    return FrameNote(serial, frame, VIEWS[view], seq, flags, model, encode, period, *lists), pictures


class Visitor:
    """What a page does, over a test's WebSocket: reads messages, acknowledges frames, sends commands."""

    def __init__(self, socket: Any, client: Any) -> None:
        self.socket, self.client = socket, client
        self.heard: list[tuple[str, Any]] = []

    def send(self, kind: str, **content: Any) -> None:
        self.socket.send_text(json.dumps({"type": kind, **content}))

    def next(self, *, ack: bool = True) -> tuple[str, Any]:
        """The next message: its type, and its content, for a frame its note and JPEGs, for points bytes."""
        event = self.socket.receive()
        if event["type"] == "websocket.close":
            raise WebSocketDisconnect(event.get("code", 1000), event.get("reason"))
        if event.get("bytes") is None:
            content = json.loads(event["text"])
            message = (content.pop("type"), content)
        elif event["bytes"][0] == cloud_stream.VERSION:
            message = ("cloud", event["bytes"])
        else:
            note, pictures = unpack_frame(event["bytes"])
            if ack:
                self.send("ack", serial=note.serial)
            message = ("frame", (note, pictures))
        self.heard.append(message)
        return message

    def until(self, kind: str, limit: int = 300, **wanted: Any) -> Any:
        """Read on to the first message of a type, and for JSON with these values."""
        for _ in range(limit):
            found, content = self.next()
            if found == kind and all(content.get(key) == value for key, value in wanted.items()):
                return content
        raise AssertionError(f"no {kind} {wanted} came")

    def frame(self, number: int | None = None) -> tuple[FrameNote, list[bytes]]:
        """The next frame, or the next one with this number."""
        while True:
            note, pictures = self.until("frame")
            if number is None or note.frame == number:
                return note, pictures

    def seldom(self, kind: str, made: Callable[[], int]) -> list[Any]:
        """The next three messages of a type, of which fewer than three a second are made."""
        began, before = time.monotonic(), made()
        told = [self.until(kind) for _ in range(3)]
        assert (made() - before) / (time.monotonic() - began) < 3
        return told

    def look_away(self, kind: str, made: Callable[[], int]) -> None:
        """Hide a part of the memory: none of it is made any more."""
        self.send(kind, shown=False)
        self.until("status")
        before = made()
        self.frame()
        self.frame()
        assert made() == before

    def asleep(self) -> tuple[FrameNote, list[bytes]]:
        """Begin anew and paused, so that every further frame is asked for with `step`."""
        self.send("pause", paused=True)
        self.until("status", paused=True)
        self.send("reset")
        return self.frame(0)

    def step(self, count: int = 1) -> tuple[FrameNote, list[bytes]]:
        """Frames one by one, of a paused walk."""
        for _ in range(count):
            self.send("step")
            shown = self.frame()
        return shown


def pixels(jpeg: bytes) -> np.ndarray:
    """A JPEG as float32 grey `(h, w)`."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), np.float32)


def shift(before: np.ndarray, after: np.ndarray, most: int = 24) -> int:
    """How many pixels a grey picture moved to the right (negative: left), by its best overlap."""
    rows = slice(before.shape[0] // 4, 3 * before.shape[0] // 4)
    a, b = before[rows] - before[rows].mean(), after[rows] - after[rows].mean()
    width = a.shape[1]

    def error(move: int) -> float:
        return float(np.abs(b[:, most + move : width - most + move] - a[:, most : width - most]).mean())

    return min(range(-most, most + 1), key=error)


def some_picture(size: tuple[int, int] = (300, 100)) -> str:
    """The base64 of a PNG that grows lighter to the right; size is (width, height)."""
    gradient = np.linspace(0, 255, size[0])[None, :, None] * np.ones((size[1], 1, 3))
    buffer = io.BytesIO()
    Image.fromarray(gradient.astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
