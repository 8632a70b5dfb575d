"""A dream as a world: the page, the recorder and the examination walk in it as they walk in the game."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dreamwalk.clip import Clip
from dreamwalk.errors import UserError
from dreamwalk.memory.contract import MemoryModel
from dreamwalk.rollout.realtime import FramePass, WalkState
from dreamwalk.validation import Rate, Steps, assembled, conform
from dreamwalk.world import Action, ActionSchema, World
from dreamwalk.worlds.games import wander


class WalkableSystem:
    """A system that dreams one frame after another (`systems.walkable`)."""

    memory: MemoryModel

    def engine(self) -> tuple[FramePass | None, Decode | None]:
        """The fastest pass and decoder that there are, where `advance` takes any."""
        return None, None

    def encode(self, clip: Clip) -> Tensor:
        """Latents `(b, t', c, h, w)` of a batched clip, asked for by a memory that keeps pixels."""
        raise NotImplementedError

    def begin(self, start: Clip, *, seed: int = 0, frame_pass: FramePass | None = None) -> WalkState:
        """The state of a dream whose history is the batched clip `start`."""
        raise NotImplementedError

    def advance(
        self,
        session: WalkState,
        action: Tensor,
        *,
        frame_pass: FramePass | None = None,
        decode: Decode | None = None,
        timings: dict[str, float] | None = None,
    ) -> Tensor:
        """What is predicted of the next frame, into which `action` `(b, a)` leads: its latents, or its tokens
        where `session.shown` is the frame; `timings` takes the milliseconds of the stages."""
        raise NotImplementedError


class Decode(Protocol):
    """Latents `(1, 1, c, h, w)` to video `(1, 1, 3, H, W)` in [-1, 1], or with depth to one of 4 channels."""

    def __call__(self, latents: Tensor) -> Tensor: ...


def to_image(frame: Tensor) -> np.ndarray:
    """uint8 `(h, w, 3)` of a frame `(3, h, w)` in [-1, 1]."""
    pixels = frame.permute(1, 2, 0).float().cpu().numpy()
    return np.rint((pixels.clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def from_image(picture: np.ndarray) -> Tensor:
    """The inverse: a frame `(3, h, w)` in [-1, 1] of uint8 `(h, w, 3)`."""
    return torch.tensor(picture).permute(2, 0, 1).float() / 127.5 - 1


def decode_frame(latents: Tensor, decode: Decode) -> np.ndarray:
    """uint8 `(h, w, 3)` of the latents `(1, 1, c, h, w)` of one frame."""
    with torch.inference_mode():
        return to_image(decode(latents)[0, 0, :3])


ARRAYS = ("starts", "poses", "intrinsics", "strolls", "depths")


@dataclass(frozen=True)
class WorldSpec:
    """What a dream needs to know besides its weights."""

    actions: ActionSchema
    fps: Rate
    starts: np.ndarray
    """Pictures to begin from, uint8 `(k, h, w, 3)`."""
    poses: np.ndarray
    """Where the camera stood in them, float32 `(k, 4, 4)`."""
    intrinsics: np.ndarray
    """float32 `(3, 3)` in pixels."""
    walk_speed: float = 0.0
    """World units that a held `forward` covers in a step, for the dead reckoning of poses."""
    world: str = ""
    """The kind of world that it dreams of, as its data name it: `doom`, `videos`, `game`; or empty."""
    level: str = ""
    """Which level, game or folder of that kind."""
    unlearnt: tuple[str, ...] = ()
    """Buttons and axes that the weights have not learnt: in the dream they do nothing."""
    strolls: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    """What somebody did who began there, action vectors float32 `(k, t, a)`; empty where not known."""
    depths: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float16))
    """Planar depth of the starts in world units, float16 `(k, h, w)`, 0 for sky; empty where not known."""

    def learnt(self, vector: np.ndarray) -> np.ndarray:
        """An action vector `(..., a)` without what is not learnt."""
        names = (*self.actions.buttons, *self.actions.axes)
        return vector * np.array([name not in self.unlearnt for name in names], np.float32)

    def stroll(self, start: int, frames: int, *, seed: int) -> np.ndarray:
        """Action vectors `(frames, a)` of nobody's steering: as recorded from a start, then `wander`."""
        known = self.strolls[start][:frames] if start < len(self.strolls) else self.strolls[:0]
        about = wander(self.actions, frames - len(known), seed=seed)
        return np.concatenate([known, about]) if len(known) else about

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-able metadata for a weight file."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        tensors = {
            f"world_spec.{name}": torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()
        }
        plain = {name: getattr(self, name) for name in ("fps", "walk_speed", "world", "level", "unlearnt")}
        return tensors, {"actions": asdict(self.actions), **plain}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], metadata: Any, *, where: str = "world_spec") -> WorldSpec:
        """The inverse of `pack`; UserError for a field or an array that is missing or does not fit."""
        given = {name: tensors.get(f"world_spec.{name}", torch.empty(0)) for name in ARRAYS}
        shape, strolls = given["starts"].shape, given["strolls"].shape
        count = shape[0] if len(shape) == 4 else 0
        wanted = {"starts": (*shape[:3], 3), "poses": (count, 4, 4), "intrinsics": (3, 3)}
        if given["depths"].numel():
            wanted["depths"] = shape[:3]
        else:
            given["depths"] = torch.zeros(0, 0, 0, dtype=torch.float16)
        dtypes = {"starts": torch.uint8, "depths": torch.float16}
        for name, tensor in given.items():
            dtype = dtypes.get(name, torch.float32)
            if tensor.shape != wanted.get(name, tensor.shape) or tensor.dtype != dtype or not count:
                raise UserError(f"{where}: the array '{name}' is missing or of another shape")
        arrays = {name: tensor.numpy() for name, tensor in given.items()}
        made = assembled(cls, metadata, where, others=arrays)
        if len(strolls) != 3 or (strolls[0], strolls[2]) not in ((0, 0), (count, made.actions.size)):
            raise UserError(f"{where}: the array 'strolls' is missing or of another shape")
        return made


@dataclass(frozen=True)
class DreamState:
    """A snapshot of a dream: its session, what it shows, and where it stands."""

    session: WalkState
    frame: np.ndarray
    pose: np.ndarray


class Dream(World):
    """A dream under way.

    Poses in `info` are where the system believes to be, if it knows a map; else they are reckoned from the
    actions: exact in yaw, nominal in position. A dream is pickled with its weights, and its deep copies share
    them.
    """

    def __init__(
        self,
        system: WalkableSystem,
        world_spec: WorldSpec,
        *,
        device: torch.device | str = "cpu",
        render_mode: str | None = None,
    ) -> None:
        self.system, self.world_spec, self.device = system, world_spec, device
        self.frame_pass, self.decode_latents = system.engine()
        self.actions, self.fps = world_spec.actions, world_spec.fps
        self._declare(world_spec.starts.shape[1:3], render_mode)
        self.timings: dict[str, float] = {}
        self._steps: int | None = None
        self._now: DreamState | None = None

    @property
    def steps(self) -> int | None:
        """Denoising passes a frame; may be set at any time, 1 to `MOST_STEPS`; None where none is."""
        return self._steps or (self._now.session.steps if self._now else 1) or None

    @steps.setter
    def steps(self, steps: int) -> None:
        conform(Steps, steps, "steps")
        if self.steps is None:
            raise UserError("this dream has no denoising steps to set: it predicts tokens")
        self._steps = steps

    @property
    def session(self) -> WalkState:
        """The session under way; UserError before the first reset."""
        return self._awake().session

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin from `options={"start": k}`, any picture `{"image": uint8 (h, w, 3)}`, or a drawn start.

        With a picture may come `world_from_camera` `(4, 4)`, from where it was seen, the `intrinsics`
        `(3, 3)` of that camera, and its `depth` `(h, w)` in world units, 0 for sky. Unless the memory knows
        one level by heart, a picture without a pose is taken for one from where the first start was seen.
        `around` is a list of such options: what else was seen before, for a memory that keeps pixels.
        """
        super().reset(seed=seed)
        session_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        clip = self._opening(options or {})
        views = (options or {}).get("around", ()) if self.system.memory.keeps_pixels else ()
        around = [self._opening(view) for view in views]
        session = self.system.begin(clip, seed=session_seed, frame_pass=self.frame_pass)
        for view in around:
            self.system.memory.show(session.memory, view, self.system.encode(view))
        frame = clip.video[0, 0].permute(1, 2, 0).cpu().numpy()
        known = clip.world_from_camera
        nominal = self.world_spec.poses[0] if known is None else known[0, 0].cpu().numpy()
        self._now = DreamState(session, frame, np.asarray(nominal, np.float64))
        return frame.copy(), self._info()

    def opening(self, options: dict[str, Any], *, seed: int) -> Clip:
        """The batched clip of one frame that `reset` with these options begins from."""
        super().reset(seed=seed)
        return self._opening(options)

    def _opening(self, options: dict[str, Any]) -> Clip:
        index = int(options.get("start", self.np_random.integers(len(self.world_spec.starts))))
        if not 0 <= index < len(self.world_spec.starts):
            raise UserError(f"there is no start {index}: this dream has {len(self.world_spec.starts)}")
        frame = np.asarray(options.get("image", self.world_spec.starts[index]))
        if frame.shape != self.observation_space.shape or frame.dtype != np.uint8:
            raise UserError(
                f"a picture to begin from is uint8 of shape {self.observation_space.shape}, got {frame.shape}"
            )
        clip = Clip(
            video=torch.from_numpy(frame.copy()).permute(2, 0, 1)[None, None].to(self.device),
            actions=torch.zeros(1, 1, self.actions.size, device=self.device),
        )
        known = (
            None if "image" in options or not len(self.world_spec.depths) else self.world_spec.depths[index]
        )
        if (depth := options.get("depth", known)) is not None:
            clip = replace(clip, depth=_depth(depth, frame.shape[:2])[None, None].to(self.device))
        seen_from, spec = self.world_spec.poses[index], self.world_spec
        if "world_from_camera" in options:
            seen_from = _matrix(options, "world_from_camera", side=4)
        elif "image" in options:
            if self.system.memory.one_level:
                return clip
            seen_from = spec.poses[0]
        known_lens = "intrinsics" in options
        cameras = (seen_from, _matrix(options, "intrinsics", side=3) if known_lens else spec.intrinsics)
        pose, intrinsics = (torch.from_numpy(array)[None, None].to(self.device) for array in cameras)
        return replace(clip, world_from_camera=pose, intrinsics=intrinsics)

    def step(self, action: Action) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Dream the next frame; `timings` then tells the milliseconds of each stage."""
        now, timings = self._awake(), self.timings
        vector = self.world_spec.learnt(self.actions.pack(action))
        session = replace(now.session, steps=self.steps or 0)
        held = torch.from_numpy(vector)[None].to(self.device)
        engine: dict[str, Any] = {"frame_pass": self.frame_pass, "decode": self.decode_latents}
        latents = self.system.advance(session, held, timings=timings, **engine)
        if session.shown is None:
            assert self.decode_latents is not None
            began = perf_counter()
            frame = decode_frame(latents, self.decode_latents)
            timings["decode"] = 1000 * (perf_counter() - began)
        else:
            frame = to_image(session.shown[0, :3])
        camera = session.camera
        pose = self._reckon(now.pose, action) if camera is None else camera.pose[0].double().cpu().numpy()
        self._now = DreamState(session, frame, pose)
        return frame.copy(), 0.0, False, False, self._info()

    def render(self) -> np.ndarray | None:
        return self._awake().frame.copy() if self.render_mode else None

    def state(self) -> DreamState:
        now = self._awake()
        return replace(now, session=now.session.clone())

    def restore(self, state: DreamState) -> tuple[np.ndarray, dict[str, Any]]:
        self._now = replace(state, session=state.session.clone())
        return state.frame.copy(), self._info()

    def __getstate__(self) -> dict[str, Any]:
        engine = ("frame_pass", "decode_latents")
        return {name: value for name, value in self.__dict__.items() if name not in engine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.frame_pass, self.decode_latents = self.system.engine()

    def __deepcopy__(self, memo: dict[int, Any]) -> Dream:
        twin = object.__new__(type(self))
        shared = (self.system, self.world_spec, self.frame_pass, self.decode_latents)
        memo |= {id(self): twin} | {id(part): part for part in shared}
        with torch.inference_mode():
            twin.__dict__ = deepcopy(self.__dict__, memo)
        return twin

    def _awake(self) -> DreamState:
        if self._now is None:
            raise UserError("the dream has not begun: call reset() first")
        return self._now

    def _info(self) -> dict[str, Any]:
        pose = self._awake().pose.astype(np.float32)
        return {"world_from_camera": pose, "intrinsics": self.world_spec.intrinsics.copy()}

    def _reckon(self, pose: np.ndarray, action: Action) -> np.ndarray:
        """Turn about the camera's vertical, then step by the walking speed; pitch moves the picture, not the
        pose."""
        held = dict(zip(self.actions.buttons, action.get("buttons", ()), strict=True))
        axes = dict(zip(self.actions.axes, action.get("axes", ()), strict=True))
        yaw = np.deg2rad(float(axes.get("yaw", 0.0)))
        turn = np.eye(4)
        turn[0, 0], turn[0, 2], turn[2, 0], turn[2, 2] = np.cos(yaw), np.sin(yaw), -np.sin(yaw), np.cos(yaw)
        move = np.eye(4)
        move[2, 3] = self.world_spec.walk_speed * (float(held.get("forward", 0)) - float(held.get("back", 0)))
        move[0, 3] = self.world_spec.walk_speed * (float(held.get("right", 0)) - float(held.get("left", 0)))
        return pose @ turn @ move


def _depth(value: Any, size: tuple[int, ...]) -> Tensor:
    """Depth from a caller's option; UserError when it is none."""
    depth = np.array(value, np.float32)
    if depth.shape != size or not (np.isfinite(depth).all() and (depth >= 0).all()):
        raise UserError(f"depth is finite, not below 0, and of the picture's size {size}, got {depth.shape}")
    return torch.from_numpy(depth)


def _matrix(options: dict[str, Any], name: str, *, side: int) -> np.ndarray:
    """A matrix from a caller's option; UserError when it is none."""
    value, what = options[name], f"{name} is a finite {side}x{side} matrix"
    try:
        matrix = np.asarray(value, np.float32)
    except (ValueError, TypeError):
        raise UserError(f"{what}, got {value!r:.40}") from None
    if matrix.shape != (side, side) or not np.isfinite(matrix).all():
        raise UserError(f"{what}, got one of shape {matrix.shape}")
    return matrix
