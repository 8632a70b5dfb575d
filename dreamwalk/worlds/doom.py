"""The real game: ViZDoom as a World, with exact turning, poses, depth, and things to put down and take away.

Geometry (measured against a ray caster): the picture is rendered at 640x480 and averaged down, so that
patterns far away do not shimmer. Pitch in Doom is a vertical shift of the picture, so it moves `cy` in
the intrinsics and never tilts the camera. The depth buffer has steps of 7.16 units, of 7.34 on things.
Pixels that agree with a ray through the map get its exact depth, those in front of it that of a landmark
or of something put down which agrees (a sprite faces the camera, so it has one depth). The rest (maps that
are not known) keep the value at the pixel's centre, within 3.7 units. Sky and whatever is farther than 1836
units has depth 0: it is unknown.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import vizdoom
from PIL import Image
from vizdoom import Button, GameVariable

from dreamwalk.cameras import intrinsics_matrix
from dreamwalk.errors import UserError
from dreamwalk.temporary import TemporaryFolder
from dreamwalk.world import Action, ActionSchema, Info, Seen, Stepped, World
from dreamwalk.worlds.levels import level_for, level_named
from dreamwalk.worlds.placing import PLACE, close_ahead, has_room
from dreamwalk.worlds.raycasting import RayCaster
from dreamwalk.worlds.scenery import PLACED_CLASSES, Level

DOOM_ACTIONS = ActionSchema(
    buttons=("forward", "back", "left", "right", "place"), axes=("yaw", "pitch"), limits=(30.0, 15.0)
)
"""`left` and `right` step sideways; `place` puts a pillar in front of the player, or takes away the one that
stands there."""
WIDTH, HEIGHT = 640, 480
DEPTH_STEP, DEPTH_OFFSET = 7.159, 14.5
THING_STEP, THING_OFFSET = 7.34, 6.69
"""Of the depth buffer on sprites, measured on two of them 36 to 1300 units away: all within 3.7 units."""
SKY_STEP = 255
TURN_QUANTUM = 180 / 32768
PITCH_RANGE = (-32.0, 56.0)
EYE_HEIGHT = 41
REACH = 32768
"""The farthest coordinate of Doom's maps."""
SETTLE_TICS = 20
BUTTONS = [Button.MOVE_FORWARD, Button.MOVE_BACKWARD, Button.MOVE_LEFT, Button.MOVE_RIGHT]
BUTTONS += [Button.TURN_LEFT_RIGHT_DELTA, Button.LOOK_UP_DOWN_DELTA]
EYE = (GameVariable.CAMERA_POSITION_X, GameVariable.CAMERA_POSITION_Y, GameVariable.CAMERA_POSITION_Z)
POSE = [*EYE, GameVariable.CAMERA_ANGLE, GameVariable.CAMERA_PITCH]
_STARTING = threading.Lock()
Pose = tuple[float, float, float]


class Doom(World):
    """Doom (Freedoom) without monsters, HUD or weapon, at `35 / tics` steps per second.

    `level` is "home", "procedural:<seed>", a shipped map such as "map:MAP01", or a `Level`. `size` (h, w)
    divides 480x640 evenly, at 4:3. `reset` takes `options={"start": k}` (a gallery of poses) or
    `{"pose": (x, y, heading)}` in map units and degrees (0 east, 90 north); otherwise the seed draws a pose
    inside the rooms. World axes are X east, Y north, Z up. `place` acts once
    per press: it takes away the golden pillar that stands within 96 units straight ahead, else it puts one 64
    units ahead if there is room for it; `info["placed"]` `(k, 3)` says where they stand, by the order of the
    presses, at most 64. UserError for an unknown level or start, or a size that does not fit.
    """

    actions = DOOM_ACTIONS

    def __init__(
        self,
        level: str | Level = "home",
        *,
        size: tuple[int, int] = (96, 128),
        tics: int = 3,
        render_mode: str | None = None,
    ) -> None:
        height, width = size
        if HEIGHT % height or width * 3 != height * 4:
            advice = "try 96x128, 120x160 or 240x320"
            raise UserError(f"size {height}x{width} does not divide 480x640 evenly: {advice}")
        if tics < 1:
            raise UserError(f"a step lasts at least 1 tic of 1/35 second, got tics={tics}")
        self.level = level_named(level) if isinstance(level, str) else level
        self.size, self.tics, self._rays = size, tics, RayCaster(self.level.cells)
        self._landmarks = np.array([mark[:2] for mark in self.level.landmarks], np.float32).reshape(-1, 2)
        self.fps = 35 / tics
        self._declare(size, render_mode)
        self._folder = TemporaryFolder("dreamwalk-doom-")
        self._game: vizdoom.DoomGame | None = _open_game(self.level, Path(self._folder.name))
        self._episode: tuple[int, Pose | None] = (0, None)
        self._history: list[np.ndarray] = []
        self._placing = False
        self._standing: list[str] = []
        """Classes of the pillars that stand, in the order in which they were put down."""
        self._pitch = 0.0  # the engine's own is as old as its last drawn tic
        self._frame = np.zeros((height, width, 3), np.uint8)
        self._info: Info = {}

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Seen:
        super().reset(seed=seed)
        options = options or {}
        if "pose" in options:
            pose: Pose | None = _pose(options["pose"])
        elif "start" in options:
            pose = self._gallery(options["start"])
        else:
            pose = draw_pose(self.level, self.np_random)
        self._begin(int(self.np_random.integers(1 << 31)), pose)
        return self._look()

    def step(self, action: Action) -> Stepped:
        if not self._info:
            raise UserError("a world starts with reset(): call it once before the first step()")
        self._act(self.actions.pack(action))
        frame, info = self._look()
        return frame, 0.0, False, False, info

    def render(self) -> np.ndarray | None:
        return self._frame.copy() if self.render_mode else None

    def state(self) -> dict[str, Any]:
        history = np.asarray(self._history, np.float32).reshape(-1, self.actions.size)
        return {"episode": self._episode, "history": history, "random": self.np_random.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> Seen:
        """Replays the episode: the engine's own save games are not exact. About 0.2 ms per step gone by."""
        self._begin(*state["episode"])
        self._replay(state["history"])
        self.np_random.bit_generator.state = state["random"]
        return self._look()

    def follow(self, vectors: np.ndarray) -> Stepped:
        """See `World.follow`; about 0.2 ms per step."""
        self._replay(np.stack([self.actions.pack(self.actions.unpack(vector)) for vector in vectors]))
        frame, info = self._look()
        return frame, 0.0, False, False, info

    def _replay(self, vectors: np.ndarray) -> None:
        """Take steps without drawing those that nothing is looked up in."""
        for step, vector in enumerate(vectors, 1):
            self._act(vector, draw=step == len(vectors) or vectors[step][PLACE] > 0.5)

    def close(self) -> None:
        if self._game is not None:
            self._game.close()
            self._game = None
            self._folder.cleanup()

    @property
    def game(self) -> vizdoom.DoomGame:
        """The engine; UserError after `close()`."""
        if self._game is None:
            raise UserError("this Doom is closed: make a new one")
        return self._game

    def _gallery(self, start: Any) -> Pose:
        count = len(self.level.starts)
        if not isinstance(start, int | np.integer) or isinstance(start, bool) or not 0 <= start < count:
            have = f"{count} starts, counted from 0"
            raise UserError(f"level '{self.level.name}' has {have}: not {start!r:.40}")
        return self.level.starts[start]

    def _begin(self, seed: int, pose: Pose | None) -> None:
        """A new episode of the engine that stands still at a pose."""
        game = self.game
        game.set_seed(seed)
        game.new_episode()
        self._episode, self._history, self._placing, self._pitch = (seed, pose), [], False, 0.0
        self._standing = []
        self._advance(np.zeros(6), 10, update=False)
        if pose is not None:
            x, y, heading = pose
            game.send_game_command(f"warp {x:.3f} {y:.3f}")
            self._advance(np.zeros(6), 2, update=True)
            turn = (game.get_game_variable(GameVariable.CAMERA_ANGLE) - heading + 180) % 360 - 180
            self._advance(np.array([0, 0, 0, 0, round(turn / TURN_QUANTUM), 0]), 1, update=False)
        self._advance(np.zeros(6), SETTLE_TICS, update=True)

    def _act(self, vector: np.ndarray, *, draw: bool = True) -> None:
        """One step of `tics` tics; turns are spread over them in whole quanta of the engine."""
        self._history.append(np.asarray(vector, np.float32))
        placing = vector[PLACE] > 0.5
        if placing and not self._placing:
            self._place_or_take()
        self._placing = placing
        axes = vector[PLACE + 1 :].astype(np.float64) * self.actions.limits
        up = self._pitch - np.clip(self._pitch - axes[1], *PITCH_RANGE)
        turns = np.round(np.array([axes[0], up]) / TURN_QUANTUM).astype(int)
        self._pitch -= float(turns[1]) * TURN_QUANTUM
        base, extra = np.divmod(turns, self.tics)
        for tic in range(self.tics):
            step = np.concatenate([vector[:PLACE] > 0.5, base + (tic < extra)])
            self._advance(step, 1, update=draw and tic == self.tics - 1)

    def _advance(self, held: np.ndarray, tics: int, *, update: bool) -> None:
        """Run the engine; `held` is four buttons and two turns in quanta."""
        turns = [(k + 1e-3) * TURN_QUANTUM if k else 0.0 for k in held[4:].tolist()]
        self.game.set_action([*held[:4].tolist(), *turns])
        self.game.advance_action(tics, update)

    def _place_or_take(self) -> None:
        """What a press of `place` does, decided by what is seen: the engine's last tic must be drawn."""
        _, info = self._look()
        taken = close_ahead(info)
        if taken is not None:
            self.game.send_game_command(f"remove {self._standing.pop(taken)}")
        elif has_room(info) and len(self._standing) < len(PLACED_CLASSES):
            free = next(name for name in PLACED_CLASSES if name not in self._standing)
            self._standing.append(free)
            self.game.send_game_command(f"summon {free}")

    def _look(self) -> Seen:
        """The frame and info of the engine's present state."""
        state = self.game.get_state()
        x, y, z, heading, pitch = state.game_variables
        factor = HEIGHT // self.size[0]
        self._frame = np.asarray(Image.fromarray(state.screen_buffer).reduce(factor))
        height, width = self.size
        fx = width / 2
        fy = 1.2 * fx
        cy = height / 2 - fy * math.tan(math.radians(pitch))
        intrinsics = intrinsics_matrix(fx, fy, cx=width / 2, cy=cy)
        assert state.depth_buffer is not None
        steps = state.depth_buffer[factor // 2 :: factor, factor // 2 :: factor]
        pose = pose_matrix((x, y, z), heading)
        places = {o.name: (o.position_x, o.position_y, o.position_z) for o in state.objects}
        placed = np.array([places[name] for name in self._standing], np.float32).reshape(-1, 3)
        things = (np.concatenate([self._landmarks, placed[:, :2]]) - pose[:2, 3]) @ pose[:2, 2]
        depth = exact_depth(steps, self._rays.depth(pose, intrinsics, self.size), things)
        self._info = {"world_from_camera": pose, "intrinsics": intrinsics}
        self._info |= {"depth": depth, "level": self.level.name, "placed": placed}
        return self._frame.copy(), dict(self._info)


def _pose(value: Any) -> Pose:
    """A pose from a caller's option; UserError when it is none."""
    try:
        x, y, heading = map(float, value)
    except (TypeError, ValueError):
        x = y = heading = math.nan
    if not all(abs(number) <= REACH for number in (x, y, heading)):
        raise UserError(f"a pose is x, y and heading, three numbers up to {REACH}, got {value!r:.40}")
    return x, y, heading


def pose_matrix(eye: tuple[float, float, float], heading: float) -> np.ndarray:
    """`world_from_camera` (4, 4) float32 of an eye that looks level towards `heading` degrees."""
    x, y, z = eye
    c, s = math.cos(math.radians(heading)), math.sin(math.radians(heading))
    return np.array([[s, 0, c, x], [-c, 0, s, y], [0, -1, 0, z], [0, 0, 0, 1]], np.float32)


def exact_depth(steps: np.ndarray, cast: np.ndarray, things: np.ndarray) -> np.ndarray:
    """Planar depth (h, w) float32 from the engine's 8-bit steps.

    Where these agree with the depth of the map (h, w), or in front of it with that of a thing (n,), theirs is
    taken.
    """
    depth = (DEPTH_STEP * steps + DEPTH_OFFSET).astype(np.float32)
    on_map = abs(cast - depth) < DEPTH_STEP + 0.02 * depth
    in_front = ~on_map & (depth < cast)
    depth[on_map] = cast[on_map]
    depth[in_front] = THING_STEP * steps[in_front] + THING_OFFSET
    if len(things):
        nearest = things[abs(depth[in_front][:, None] - things).argmin(1)]
        close = abs(depth[in_front] - nearest) < 0.6 * THING_STEP
        depth[in_front] = np.where(close, nearest, depth[in_front])
    depth[steps == SKY_STEP] = 0
    return depth


def draw_pose(level: Level, random: np.random.Generator) -> Pose | None:
    """A pose in the rooms, rooms by area, at least 48 units from walls, looking at nothing nearer than 96."""
    if not level.rooms:
        return None
    areas = np.array([(room.x1 - room.x0) * (room.y1 - room.y0) for room in level.rooms], np.float64)
    while True:
        room = level.rooms[random.choice(len(areas), p=areas / areas.sum())]
        x, y = random.uniform(room.x0 + 48, room.x1 - 48), random.uniform(room.y0 + 48, room.y1 - 48)
        heading = random.uniform(-180, 180)
        ahead = x + 96 * math.cos(math.radians(heading)), y + 96 * math.sin(math.radians(heading))
        looks_out = not (room.x0 < ahead[0] < room.x1 and room.y0 < ahead[1] < room.y1)
        points = [(x, y), ahead, ((x + ahead[0]) / 2, (y + ahead[1]) / 2)]
        blocked = any(math.dist(p, (a, b)) < radius + 32 for p in points for a, b, radius in level.obstacles)
        if not looks_out and not blocked and level.holds_body(x, y):
            return round(x, 1), round(y, 1), round(heading, 1)


def start_of(split: str, *, number: int) -> tuple[Level, Pose]:
    """Procedural level `number` of a split, as in collections with seed 0, and a pose in it to start from.

    The pose is the one of 16 that sees farthest. 0.05 to 0.3 s on one core. UserError for
    an unknown split, or a number that is out of range.
    """
    level = level_for("procedural", split=split, seed=0, number=number)
    rays, random = RayCaster(level.cells), np.random.default_rng(number)
    drawn = (draw_pose(level, random) for _ in range(16))
    return level, max((pose for pose in drawn if pose), key=lambda pose: _view(rays, level, pose))


def _view(rays: RayCaster, level: Level, pose: Pose) -> float:
    """The median depth that one sees standing at a pose."""
    x, y, heading = pose
    floor = next((cell.floor for cell in level.cells if cell.holds(x, y)), 0)
    camera = intrinsics_matrix(8, 9.6, cx=8, cy=6)
    depth = rays.depth(pose_matrix((x, y, floor + EYE_HEIGHT), heading), camera, (12, 16))
    return float(np.median(depth))


def _open_game(level: Level, folder: Path) -> vizdoom.DoomGame:
    """The engine with a level loaded; its files live in `folder`."""
    game = vizdoom.DoomGame()
    (folder / "level.wad").write_bytes(level.wad)
    settings: dict[str, Any] = {"doom_game_path": str(Path(vizdoom.__file__).parent / level.game)}
    settings |= {"doom_scenario_path": str(folder / "level.wad"), "doom_config_path": os.devnull}
    settings |= {"doom_map": level.map, "mode": vizdoom.Mode.PLAYER, "episode_timeout": 0}
    settings |= {"screen_resolution": vizdoom.ScreenResolution.RES_640X480, "window_visible": False}
    settings |= {"screen_format": vizdoom.ScreenFormat.RGB24, "depth_buffer_enabled": True}
    settings |= {"objects_info_enabled": True}
    settings |= {"available_buttons": BUTTONS, "available_game_variables": POSE}
    hidden = ("hud", "weapon", "crosshair", "decals", "particles", "effects_sprites", "messages", "corpses")
    settings |= {f"render_{part}": False for part in (*hidden, "screen_flashes")}
    for name, value in settings.items():
        getattr(game, f"set_{name}")(value)
    game.add_game_args("-nomonsters +movebob 0 +stillbob 0")
    with _STARTING, contextlib.chdir(folder):  # the engine makes a folder of its own wherever it is started
        game.init()
    return game
