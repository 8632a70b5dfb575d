"""Any gymnasium game as a World.

The game shows pixels, either as its observation (uint8, height x width x 3) or by `render()` with
`render_mode="rgb_array"`. `worlds/game_actions.py` says what becomes of its actions. Games know no poses:
their clips train the systems that need none.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env, spaces

from dreamwalk.errors import UserError
from dreamwalk.images import Fit, fit_image
from dreamwalk.world import Action, ActionSchema, Info, Seen, Stepped, World
from dreamwalk.worlds.game_actions import meanings, translate


class Game(World):
    """A gymnasium game as a World: frames of `size` (h, w), actions by the schema in `actions`.

    One step here is `repeat` steps of the game with the same action. `state`/`restore` replay the episode
    from its seed, which is exact for games that are. UserError when the game shows no pixels or its actions
    are of another kind.
    """

    def __init__(
        self, env: Env | str, *, size: tuple[int, int] = (96, 128), repeat: int = 1, fit: Fit = "letterbox"
    ) -> None:
        self.env = open_game(env) if isinstance(env, str) else env
        if not isinstance(self.env, Env):
            raise UserError(f"a game is a gymnasium.Env, and this is a {type(self.env).__name__}")
        seen, rendered = self.env.observation_space, self.env.render_mode == "rgb_array"
        self._pixels = _is_picture(seen, 3) or (not rendered and _is_picture(seen, 1))
        if not self._pixels and not rendered:
            raise UserError("this game shows no pixels: make it with render_mode='rgb_array'")
        self._translation = translate(self.env.action_space, meanings(self.env))
        self.actions = self._translation.schema
        if repeat < 1 or min(size) < 1 or not self.actions.size:
            given = f"{self.actions.size} actions, size={size} and repeat={repeat}"
            need = "actions, frames of at least 1x1 and steps of at least one of its own"
            raise UserError(f"a game has {need}, got {given}")
        self.size, self.repeat, self.fit = size, repeat, fit
        self.fps = float(self.env.metadata.get("render_fps") or 10) / repeat
        self._declare(size, "rgb_array")
        self._seed: int | None = None
        self._history: list[np.ndarray] = []
        self._frame = np.zeros((*size, 3), np.uint8)
        self._info: Info = {}

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Seen:
        super().reset(seed=seed)
        self._seed = seed if seed is not None else int(self.np_random.integers(1 << 31))
        self._history = []
        observation, self._info = self.env.reset(seed=self._seed, options=options)
        return self._show(observation)

    def step(self, action: Action) -> Stepped:
        return self._act(self.actions.pack(action))

    def _act(self, vector: np.ndarray) -> Stepped:
        self._history.append(vector)
        native = self._translation.native(vector)
        total = 0.0
        for _ in range(self.repeat):
            observation, reward, terminated, truncated, self._info = self.env.step(native)
            total += float(reward)
            if terminated or truncated:
                break
        frame, info = self._show(observation)
        return frame, total, bool(terminated), bool(truncated), info

    def render(self) -> np.ndarray:
        return self._frame.copy()

    def state(self) -> dict[str, Any]:
        random = self.np_random.bit_generator.state
        return {"seed": self._seed, "history": list(self._history), "random": random}

    def restore(self, state: dict[str, Any]) -> Seen:
        frame, info = self.reset(seed=state["seed"])
        for vector in state["history"]:
            frame, _, _, _, info = self._act(vector)
        self.np_random.bit_generator.state = state["random"]
        return frame, info

    def close(self) -> None:
        self.env.close()

    def _show(self, observation: Any) -> Seen:
        picture = observation if self._pixels else self.env.render()
        self._frame = fit_image(as_frame(picture), self.size, self.fit)
        return self._frame.copy(), dict(self._info)


def open_game(name: str) -> Env:
    """`gymnasium.make`, with pixels; UserError with its advice for a name that it does not know."""
    errors = gymnasium.error
    try:
        try:
            return gymnasium.make(name, render_mode="rgb_array")
        except TypeError:  # it may take no render_mode, and say what is wrong otherwise
            return gymnasium.make(name)
    except (errors.NameNotFound, errors.NamespaceNotFound, errors.VersionNotFound) as error:
        advice = "" if ":" in name else " (write the package that registers it before a colon, as in "
        advice += advice and "ale_py:ALE/Pong-v5 or minigrid:MiniGrid-FourRooms-v0)"
        raise UserError(f"there is no game called '{name}': {error}{advice}") from None
    except (errors.Error, ModuleNotFoundError) as error:
        raise UserError(f"the game '{name}' cannot be made: {error}") from None


def as_frame(picture: Any) -> np.ndarray:
    """uint8 `(h, w, 3)` of what a game shows: that, grey `(h, w)` or `(h, w, 1)`, or with an alpha channel.

    UserError for everything else.
    """
    array = np.asarray(picture)
    array = array[..., None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        mend = "wrap it so that a frame is uint8 (h, w, 3)"
        raise UserError(f"this game shows {array.dtype} of shape {array.shape}: {mend}")
    return np.broadcast_to(array[..., :3], (*array.shape[:2], 3))


def _is_picture(space: spaces.Space, *channels: int) -> bool:
    """Whether observations are pictures; what is tiny is a table of symbols (MiniGrid's is 7x7x3)."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return False
    return min(space.shape[:2]) >= 16 and (*space.shape, 1)[2] in channels


class RandomKeys:
    """The policy of a child at the keyboard: random keys and turns, held for some steps.

    Of each group of choices one is drawn, all equally often; the other keys are held half of the time, and
    now and then nothing is.
    """

    STILL = 1 / 8

    def __init__(self, schema: ActionSchema) -> None:
        self.schema, self.left = schema, 0
        self.vector = np.zeros(schema.size, np.float32)

    def __call__(self, frame: np.ndarray, info: dict[str, Any], random: np.random.Generator) -> np.ndarray:
        return self.hold(random)

    def hold(self, random: np.random.Generator) -> np.ndarray:
        """The next action vector, whatever is seen."""
        if self.left == 0:
            self.left = int(random.integers(1, 9))
            self.vector = self._draw(random)
        self.left -= 1
        return self.vector

    def _draw(self, random: np.random.Generator) -> np.ndarray:
        schema, still = self.schema, random.random() < self.STILL
        chosen = {group: group[random.integers(len(group))] for group in schema.choices}
        grouped = {name for group in chosen for name in group}
        tossed = dict(zip(schema.buttons, random.random(len(schema.buttons)) < 0.5, strict=True))
        free = lambda name: tossed[name] and not still
        held = [name in chosen.values() if name in grouped else free(name) for name in schema.buttons]
        moved = (random.random(len(schema.axes)) < 0.5) & (not still)
        turns = random.uniform(*schema.bounds) / np.asarray(schema.limits) * moved
        return schema.canonical(np.concatenate([held, turns]))


def wander(schema: ActionSchema, frames: int, *, seed: int) -> np.ndarray:
    """Action vectors `(frames, a)`: ahead, in curves, and turns on the spot now and then.

    In a world without `forward` and `yaw`, random keys.
    """
    random, vectors = np.random.default_rng(seed), np.zeros((frames, schema.size), np.float32)
    if not {"forward", "yaw"} & {*schema.buttons, *schema.axes}:
        keys = RandomKeys(schema)
        return np.stack([keys.hold(random) for _ in range(frames)]) if frames else vectors
    at = 0
    while at < frames:
        length, side = int(random.integers(5, 14)), float(random.choice([-1, 1]))
        ahead, turn = [(1, 0.0), (1, 0.2), (0, 0.5)][random.choice(3, p=[0.4, 0.25, 0.35])]
        if "forward" in schema.buttons:
            vectors[at : at + length, schema.buttons.index("forward")] = ahead
        if "yaw" in schema.axes:
            vectors[at : at + length, len(schema.buttons) + schema.axes.index("yaw")] = side * turn
        at += length
    return schema.canonical(vectors)
