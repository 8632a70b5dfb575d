"""A dream and the real game, stepped by the same actions.

The game is the dream's shadow: whatever is shown, it takes the same actions, so that changing from the dream
to the game goes on at the pose that the game reached; changing back begins the dream anew from the game's
picture. Its engine is started when somebody first looks at it, and then takes all the actions so far. Where
seeds make levels, the dream begins at what the game first shows of one, and the game is opened for that.
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
from dreamwalk.serve.app_config import AppConfig, CloudSample, LevelMap, MemoryStrip
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
        self.info: dict[str, Any] = {}
        self.stages: dict[str, float] = {}
        self.live = False
        self.start: dict[str, Any] = {}
        self.steps = 0
        self.whole = True
        self._log = array("f")

    def reset(self, seed: int, start: dict[str, Any]) -> None:
        self.live = False
        frame, self.info = self.world.reset(seed=seed, options=dict(start))
        self.frame = np.array(frame, np.uint8)
        self.start, self.steps, self.whole = start, getattr(self.world, "steps", 0) or 0, True
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
        frame, _, terminated, truncated, self.info = self.world.follow(vectors)
        self.frame = np.array(frame, np.uint8)
        self.live = not (terminated or truncated)
        if len(self._log) < MAX_ACTIONS * vectors.shape[-1]:
            self._log.extend(vectors.ravel().tolist())
        else:
            self.whole = False

    @property
    def pose(self) -> np.ndarray | None:
        """`world_from_camera` `(4, 4)`, where it is known."""
        return self.info.get("world_from_camera")

    def seen(self, size: tuple[int, int]) -> dict[str, Any]:
        """Options from which a dream of frames of `size` (h, w) begins at what is seen here."""
        start: dict[str, Any] = {"image": fit_image(self.frame, size)}
        for name in ("world_from_camera", "intrinsics"):
            if name in self.info:
                start[name] = np.asarray(self.info[name]).tolist()
        depth = np.asarray(self.info.get("depth", ()), np.float32)
        if depth.shape == size:
            start["depth"] = depth
        return start

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
        self._config, self._gone = config, gone
        self._dream = _TrackedWorld("dream", config.dream()) if config.dream else None
        self._game = _TrackedWorld("game", config.game()) if config.game and not config.dream else None
        self._main: _TrackedWorld = self._dream or self._game  # type: ignore[assignment]
        self.view = self._main.name
        games = ["game"] if config.game or config.levels else []
        self.views = (*(["dream"] if config.dream else []), *games)
        self.views += ("both",) if len(self.views) == 2 else ()
        self.seed = 0
        self.aligned = True
        """Whether the game stands where the dream does: not after a dream began from someone's picture."""
        self.level: int | None = None
        """The level of a seed that the dream began in."""
        self.recalling = True
        """Whether the dream is told what its memory has kept."""
        self._start: dict[str, Any] = {}
        self._opened: int | None = None
        """The level that the game is on."""
        self._place: dict[str, Any] = {}
        """Where the game begins in it, as options of its reset."""
        self._around: list[dict[str, Any]] = []
        """What else is seen from there."""
        self._watched = False
        """Whether somebody has looked at the game since the reset."""
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
        """Height and width of the main world's frames, in pixels."""
        height, width, _ = self._main.world.observation_space.shape
        return height, width

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
        """Reset both worlds. A start from a picture is for the dream alone; the game draws its own.

        UserError, and nothing has changed, for a start that there is not.
        """
        levels, level, given = self._config.levels, start.get("level"), "image" in start
        if given and self._dream is None:
            raise UserError("only a dream can begin from a picture, and this page has none")
        if level is not None and not given:
            self._enter(level)
        self._owed.clear()
        self.seed, self._start, self.level = seed, start, level
        self.aligned = level is not None if levels else not given
        alone = not self.aligned and bool(levels or self.view == "game")
        self.view = "dream" if alone else self.view
        self._watched = self.view != "dream"
        if given:
            start = {**start, "image": fit_image(start["image"], self.size)}
        if self._game and levels and self._opened != level:
            self._close_game()
        if self._game:
            self._reset_game(self._game)
        elif self._watched:
            self._look_at_game()
        if self._game and level is not None and not given:
            start = {"level": level} | self._game.seen(self.size)
            start |= {"around": self._around} if self._around else {}
        if self._dream:
            self._reset_dream(start)
        return self._newest_frame()

    def _enter(self, level: int) -> None:
        """Open the game on a level, in the place of another; UserError without levels of seeds."""
        if self._config.levels is None:
            advice = self._config.lacking or "begin at one of its starts"
            raise UserError(f"this page makes no levels of seeds: {advice}")
        if self._game is None or self._opened != level:
            self._open_level(level)

    def _open_level(self, level: int) -> None:
        assert self._config.levels
        world, place = self._config.levels.open(self._config.levels.check(level))
        self._check_actions(world)
        self._close_game()
        self._game, self._opened, self._place = _TrackedWorld("game", world), level, place
        around = self._config.levels.around
        self._around = around(world, place) if around else []

    def _close_game(self) -> None:
        if self._game:
            self._game.world.close()
        self._game = None

    def _check_actions(self, world: World) -> None:
        """UserError, and the world is closed, when it does not share its actions with the dream."""
        if world.actions != self.schema:
            world.close()
            raise UserError("the dream and the real game of this page know different actions")

    def _reset_dream(self, start: dict[str, Any]) -> None:
        assert self._dream
        self._dream.reset(self.seed, start)
        if self._config.memory and not self.recalling:
            self._config.memory.recall(self._dream.world, False)
            self._dream.whole = False

    def _reset_game(self, game: _TrackedWorld) -> None:
        if self._config.levels:
            return game.reset(self.seed, {"level": self.level} | self._place)
        game.reset(self.seed, {name: value for name, value in self._start.items() if name != "image"})

    def recall(self, recalling: bool) -> None:
        """Tell the dream what its memory has kept, or do not, also after the next resets."""
        if not (self._config.memory and self._dream):
            raise UserError("this dream has no memory to switch")
        if recalling != self.recalling:
            self.recalling, self._dream.whole = recalling, False
            self._config.memory.recall(self._dream.world, recalling)

    def draw_map(self) -> LevelMap | None:
        """What the dream knows from above; None where that is not known."""
        memory, dream = self._config.memory, self._dream
        return memory.draw(dream.world) if memory and dream and dream.live else None

    def strip(self) -> MemoryStrip | None:
        """What the dream recalls of a bank of frames; None where it has none."""
        memory, dream = self._config.memory, self._dream
        return memory.strip(dream.world) if memory and memory.strip and dream and dream.live else None

    def cloud(self, every: int) -> CloudSample | None:
        """Every so many-th slot of the points that the dream keeps; None where it keeps none."""
        memory, dream = self._config.memory, self._dream
        return memory.cloud(dream.world, every) if memory and memory.cloud and dream and dream.live else None

    @property
    def pose(self) -> np.ndarray | None:
        """`world_from_camera` `(4, 4)` of who walks in a dream with a memory, where it is known."""
        return self._dream.pose if self._config.memory and self._dream else None

    def advance(self, vector: np.ndarray) -> Frame:
        """Step what is shown; the shadow's step is owed until `settle`."""
        self.settle()
        ended = False
        for tracked in self._shown():
            ended = tracked.step(vector) or ended
        if "game" in self.views and self.view == "dream" and len(self._owed) < MAX_ACTIONS:
            self._owed.append(vector)
        return self._newest_frame(ended)

    def settle(self) -> None:
        """Let the shadow catch up, if it was ever looked at. It is left behind when it raises or its episode
        ends."""
        game = self._game if self._watched else None
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
            self._reset_dream(self._game.seen(self.size))
            self.aligned = True
        self.view = view
        return self._newest_frame()

    def sleeps(self, view: str) -> bool:
        """Whether showing this view starts the game, which takes a moment."""
        known = self.level is not None or not self._config.levels
        return self._game is None and known and view in self.views and view != "dream"

    def _look_at_game(self) -> None:
        """Start the game if need be. UserError when it does not share its actions with the dream, and when so
        many were taken that not all are known any more."""
        config = self._config
        if config.levels and self.level is None:
            mend = "begin in a level of a seed to have it beside the dream"
            raise UserError(f"the real game does not know this place: {mend}")
        if len(self._owed) >= MAX_ACTIONS:
            raise UserError("this walk is too long for the real game to follow: press R to begin again")
        self._watched = True
        if self._game or not (config.game or config.levels):
            return
        if self.level is not None:
            self._open_level(self.level)
        elif config.game:
            world = config.game()
            self._check_actions(world)
            self._game = _TrackedWorld("game", world)
        assert self._game
        try:
            self._reset_game(self._game)
        except BaseException:
            self._close_game()
            raise

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
