"""A dream and the real game, stepped by the same actions.

The game is the dream's shadow: whatever is shown, it takes the same actions, so that changing from the dream
to the game goes on at the pose that the game reached; changing back begins the dream anew from the game's
picture. Its engine is started when somebody first looks at it, and then takes all the actions so far.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dreamwalk.data.walks import MAX_ACTIONS, Walk
from dreamwalk.errors import UserError
from dreamwalk.images import fit_image
from dreamwalk.serve.app_config import AppConfig
from dreamwalk.validation import Steps, conform
from dreamwalk.world import ActionSchema, World

WARM_STEPS = 2
TOGETHER = 500
"""Steps that a shadow takes before it is asked again whether anyone still waits for it."""


@dataclass(frozen=True)
class Frame:
    """What is shown after one step."""

    pictures: list[np.ndarray]
    """uint8 `(h, w, 3)`: one, or the dream's and the game's."""
    stages: dict[str, float] = field(default_factory=dict)
    """Milliseconds per stage of making it."""
    ended: bool = False
    """The world that is shown says that its episode is over."""


class _TrackedWorld:
    """One world, its newest frame, and its actions since the reset."""

    def __init__(self, name: str, world: World) -> None:
        self.name, self.world = name, world
        self.frame = np.zeros((1, 1, 3), np.uint8)
        self.pose: np.ndarray | None = None
        self.stages: dict[str, float] = {}
        self.live = False
        self.start: dict[str, Any] = {}
        self.steps = 0
        self.whole = True
        self._log = array("f")

    def reset(self, seed: int, start: dict[str, Any]) -> None:
        self.live = False
        frame, info = self.world.reset(seed=seed, options=dict(start))
        self.frame, self.pose = np.array(frame, np.uint8), info.get("world_from_camera")
        self.start, self.steps, self.whole = start, getattr(self.world, "steps", 0), True
        self._log, self.stages, self.live = array("f"), {}, True

    def step(self, vector: np.ndarray) -> bool:
        """Take one step; whether the episode is over. A world that raises is not live any more."""
        began = time.perf_counter()
        if not self.live:
            raise UserError(f"the {self.name} is over: press R to begin again")
        self.follow(vector[None])
        whole = (time.perf_counter() - began) * 1e3
        self.stages = dict(getattr(self.world, "timings", {})) or {self.name: whole}
        return not self.live

    def follow(self, vectors: np.ndarray) -> None:
        """Take steps of which only the last is seen. A world that raises is not live any more."""
        self.live = False
        frame, _, terminated, truncated, info = self.world.follow(vectors)
        self.frame, self.pose = np.array(frame, np.uint8), info.get("world_from_camera")
        self.live = not (terminated or truncated)
        if len(self._log) < MAX_ACTIONS * vectors.shape[-1]:
            self._log.extend(vectors.ravel().tolist())
        else:
            self.whole = False

    def set_steps(self, steps: int) -> None:
        """Denoise in so many steps; a walk with a change on its way does not replay exactly."""
        if steps != self.world.steps:  # type: ignore[attr-defined]
            self.world.steps = steps  # type: ignore[attr-defined]
            self.whole = self.whole and not self._log
            self.steps = self.steps if self._log else steps

    def actions(self, size: int) -> np.ndarray:
        return np.asarray(self._log, np.float32).reshape(-1, size)


class WorldPair:
    """The worlds of one session. Not thread-safe: it belongs to the session's worker."""

    def __init__(self, config: AppConfig, *, gone: Callable[[], bool] = lambda: False) -> None:
        """Open the dream, or the game where there is none; long work is left undone when `gone` says that
        nobody waits for it any more."""
        self._config, self._open_game, self._gone = config, config.game, gone
        self._dream = _TrackedWorld("dream", config.dream()) if config.dream else None
        self._game = _TrackedWorld("game", config.game()) if config.game and not config.dream else None
        self._main: _TrackedWorld = self._dream or self._game  # type: ignore[assignment]
        self.view = self._main.name
        self.views = (*(["dream"] if config.dream else []), *(["game"] if config.game else []))
        self.views += ("both",) if len(self.views) == 2 else ()
        self.seed = 0
        self.aligned = True
        """Whether the game stands where the dream does: not after a dream began from someone's picture."""
        self._start: dict[str, Any] = {}
        self._owed: list[np.ndarray] = []
        """Actions that the game has still to take."""

    @property
    def title(self) -> str:
        """Name of what is shown: the dream's, or the real game's where that is seen alone."""
        alone = self._dream is not None and self.view == "game"
        return self._config.game_title if alone else self._config.title

    @property
    def schema(self) -> ActionSchema:
        """What can be done in one step, in the dream and in the game."""
        return self._main.world.actions

    @property
    def fps(self) -> float:
        """Frames per second that the worlds were made for."""
        return float(self._main.world.fps)

    @property
    def live(self) -> bool:
        """Whether what is shown can take a step."""
        return all(tracked.live for tracked in self._shown())

    @property
    def pictures(self) -> list[np.ndarray]:
        """The newest frames of what is shown, uint8 `(h, w, 3)`."""
        return [tracked.frame for tracked in self._shown()]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the main world's newest frame, in pixels."""
        return self._main.frame.shape[0], self._main.frame.shape[1]

    @property
    def steps(self) -> int | None:
        """Denoising steps per frame, or None where there is no such thing."""
        return getattr(self._dream.world, "steps", None) if self._dream else None

    @steps.setter
    def steps(self, value: int) -> None:
        """UserError for a number that cannot be, and where there is no such thing."""
        if self._dream is None or self.steps is None:
            raise UserError("this world has no denoising steps to set")
        self._dream.set_steps(conform(Steps, value, "steps"))

    def warm(self, seed: int, start: dict[str, Any]) -> None:
        """Walk a few steps that nobody sees, so that the first one that somebody sees is not slow."""
        still = np.zeros(self.schema.size, np.float32)
        self._main.reset(seed, start)
        for _ in range(WARM_STEPS):
            if not self._gone():
                self._main.step(still)

    def begin(self, seed: int, start: dict[str, Any]) -> Frame:
        """Reset both worlds. A start from a picture is for the dream alone; the game draws its own."""
        self._owed.clear()
        self.seed, self._start, self.aligned = seed, start, "image" not in start
        if "image" in start:
            if self._dream is None:
                raise UserError("only a dream can begin from a picture, and this page has none")
            start = {**start, "image": fit_image(start["image"], self.size)}
            self.view = "dream" if self.view == "game" else self.view
        if self._dream:
            self._dream.reset(seed, start)
        if self._game:
            self._reset_game(self._game)
        return self._newest_frame()

    def _reset_game(self, game: _TrackedWorld) -> None:
        game.reset(self.seed, {name: value for name, value in self._start.items() if name != "image"})

    def advance(self, vector: np.ndarray) -> Frame:
        """Step what is shown; the shadow's step is owed until `settle`."""
        self.settle()
        ended = False
        for tracked in self._shown():
            ended = tracked.step(vector) or ended
        if self._open_game and self.view == "dream" and len(self._owed) < MAX_ACTIONS:
            self._owed.append(vector)
        return self._newest_frame(ended)

    def settle(self) -> None:
        """Let the shadow catch up, if it was ever looked at. It is left behind when it raises or its episode
        ends."""
        game = self._game
        while game and self._owed and not self._gone():
            owed, self._owed = self._owed[:TOGETHER], self._owed[TOGETHER:]
            if game.live:
                game.follow(np.stack(owed))

    def look(self, view: str) -> Frame:
        """Show another view; UserError when the page does not have it or its game has stopped."""
        if view not in self.views:
            raise UserError(f"this page has no view '{view}': it has {', '.join(self.views)}")
        if view != "dream":
            self._look_at_game()
        self.settle()
        if self._game and view != "dream" and not self._game.live:
            raise UserError("the real game is over: press R to begin again")
        if self.view == "game" and view != "game":
            assert self._dream and self._game
            seen = {"image": fit_image(self._game.frame, self._dream.frame.shape[:2])}
            pose = {} if self._game.pose is None else {"world_from_camera": self._game.pose.tolist()}
            self._dream.reset(self.seed, seen | pose)
            self.aligned = True
        self.view = view
        return self._newest_frame()

    def sleeps(self, view: str) -> bool:
        """Whether showing this view starts the game, which takes a moment."""
        return self._game is None and view in self.views and view != "dream"

    def _look_at_game(self) -> None:
        """Start the game if need be. UserError when it does not share its actions with the dream, and when so
        many were taken that not all are known any more."""
        if self._game or not self._open_game:
            return
        if len(self._owed) >= MAX_ACTIONS:
            raise UserError("this walk is too long for the real game to follow: press R to begin again")
        game = _TrackedWorld("game", self._open_game())
        try:
            if game.world.actions != self.schema:
                raise UserError("the dream and the real game of this page know different actions")
            self._reset_game(game)
        except BaseException:
            game.world.close()
            raise
        self._game = game

    def walk(self) -> tuple[Walk, bool]:
        """The walk since the reset of what is shown, and whether it replays exactly."""
        tracked = self._shown()[0]
        schema = self.schema
        names: dict[str, Any] = {"system": self.title, "buttons": schema.buttons, "axes": schema.axes}
        begun: dict[str, Any] = {"seed": self.seed, "start": tracked.start, "fps": round(self.fps, 4)}
        actions = tracked.actions(schema.size)
        return Walk(**names, **begun, steps=tracked.steps, actions=actions), tracked.whole

    def close(self) -> None:
        """Close the worlds."""
        for tracked in (self._dream, self._game):
            if tracked:
                tracked.world.close()

    def _shown(self) -> list[_TrackedWorld]:
        shown = {"dream": [self._dream], "game": [self._game], "both": [self._dream, self._game]}[self.view]
        return [tracked for tracked in shown if tracked]

    def _newest_frame(self, ended: bool = False) -> Frame:
        stages = {name: ms for tracked in self._shown() for name, ms in tracked.stages.items()}
        return Frame(self.pictures, stages, ended)
