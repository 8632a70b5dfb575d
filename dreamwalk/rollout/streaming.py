"""Dreams of any length at constant memory, on any staircase.

Stride after stride the same small plan is executed: finished frames leave, a new chunk enters, and frames
under way are handed on as they are, with the state of their solver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dreamwalk.backbones.frame_backbone import FrameInputs, Recalled
from dreamwalk.clip import Clip
from dreamwalk.codecs.codec import Codec
from dreamwalk.conditions.actions import ActionEmbedding
from dreamwalk.memory.contract import CameraState, FinishedFrame, MemoryModel, RecalledFrames
from dreamwalk.rollout.execute import Noise, Predictor, State, Update, begin, euler, run
from dreamwalk.rollout.frame_predictor import CachedFramePredictor
from dreamwalk.schedules.clip_plans import recalled
from dreamwalk.schedules.guidance import Guide, guided, unguided
from dreamwalk.schedules.plans import Pass, Plan
from dreamwalk.schedules.staircase import HistorySigma, Schedule, stride


@dataclass(frozen=True)
class StreamStep:
    """What is in hand after a row: `levels` `(p,)` and latents `(b, p, c, h, w)` of `frames`."""

    frames: tuple[int, ...]
    levels: tuple[int, ...]
    x: Tensor
    finished: int
    """How many of the first frames are new and finished; each is handed out once."""


class StreamMemory(Protocol):
    """What a stream asks of a memory."""

    def frames_for(self, newest: int, *, before: int) -> RecalledFrames | None:
        """Frames of before `before` that are recalled while frame `newest` enters."""

    def finish(self, frame: int, latents: Tensor) -> None:
        """Remember latents `(b, c, h, w)`."""


def stream(
    schedule: Schedule,
    sigmas: Sequence[float],
    history: Tensor,
    predictor: Predictor,
    noise: Noise,
    *,
    history_sigma: HistorySigma = 0.0,
    update: Update = euler,
    guide: Guide = unguided,
    memory: StreamMemory | None = None,
) -> Iterator[StreamStep]:
    """Continue `history` `(b, k, c, h, w)`, frames 0 .. k-1, for as long as steps are asked for; a step a
    row.

    `sigmas` fall from 1 to 0. Frames that the window loses live on in the cache of a `CachedFramePredictor`
    only by what later frames saw of them, and in `memory`; a `FramePredictor` knows nothing of them.
    """
    keep, total = schedule.window - schedule.under_way * schedule.chunk, history.shape[1]
    x, known, committed = history[:, -keep:], min(keep, total), set[int]()
    moved: dict[int, tuple[Tensor, float]] = {}
    if memory:
        for frame in range(total):
            memory.finish(frame, history[:, frame])
    while True:
        under_way = (x.shape[1] - known) // schedule.chunk
        first = total - known
        fresh = sum(frame not in committed for frame in range(first, total))
        plan = stride(
            schedule, sigmas, history=known, under_way=under_way, fresh=fresh, history_sigma=history_sigma
        )
        plan = replace(guided(plan, guide), frames=tuple(first + frame for frame in plan.frames))
        frames = memory.frames_for(plan.frames[-1], before=first) if memory else None
        if frames:
            plan = recalled(plan, frames.times, at=0, sigma=frames.sigma)
            x = torch.cat([frames.latents, x], dim=1)
        old = (len(frames.times) if frames else 0) + known
        state = begin(plan, noise, x)
        state.last_step = {plan.frames.index(frame): last for frame, last in moved.items()}
        for row in run(plan, state, predictor, noise, update=update):
            yield _step(plan, state, row, old)
        moved = {plan.frames[p]: last for p, last in state.last_step.items() if plan.levels[-1][p]}
        committed = {frame for frame in committed if frame >= first} | _committed(plan)
        new = sum(level == 0 for level in plan.levels[-1][old:])
        if memory:
            for p in range(old, old + new):
                memory.finish(plan.frames[p], state.x[:, p])
        total += new
        known, x = min(keep, known + new), state.x[:, old - known + max(0, known + new - keep) :]
        if isinstance(predictor, CachedFramePredictor):
            predictor.forget(total - known)


def _step(plan: Plan, state: State, row: int, old: int) -> StreamStep:
    """Finished frames count in the last row of a stride, when they leave it."""
    levels = plan.levels[row + 1]
    last = row + 1 == len(plan.rows)
    finished = sum(level == 0 for level in levels[old:]) if last else 0
    return StreamStep(plan.frames[old:], levels[old:], state.x[:, old:], finished)


def _committed(plan: Plan) -> set[int]:
    return {plan.frames[p] for row in plan.rows if isinstance(row, Pass) for p in row.commit}


def finished_frames(steps: Iterator[StreamStep], count: int) -> Iterator[Tensor]:
    """The first `count` finished frames of a stream, as they come, `(b, k, c, h, w)`."""
    for step in steps:
        if step.finished:
            yield step.x[:, : min(step.finished, count)]
            count -= step.finished
        if count <= 0:
            return


class StreamConditions:
    """`FrameConditions` and `StreamMemory` of a stream: the conditions of actions, and what memory recalls
    along the way that they lead."""

    KEPT = 64
    """Frames back of which what was recalled can still be asked for."""

    def __init__(
        self, embedding: ActionEmbedding, model: MemoryModel, codec: Codec, start: Clip, actions: Tensor
    ) -> None:
        """`start` `(b, k)` has a camera for every latent frame, `actions` `(b, n, a)` lead on from it."""
        self.embedding, self.model, self.memory, self.start = embedding, model, model.begin(), start
        self.codec = codec
        self.actions, stride = torch.cat([start.actions, actions], dim=1), embedding.stride
        self.first = (start.actions.shape[1] - 1) % stride + 1
        self.given = (start.actions.shape[1] - self.first) // stride + 1
        self.conditions: dict[int, Tensor] = {}
        self.recalled: dict[int, Recalled] = {}
        self.cameras: dict[int, CameraState | None] = {}
        self.frames: RecalledFrames | None = None
        self.reached = -1

    def __call__(self, frames: Sequence[int]) -> FrameInputs:
        self._reach(max(frames))
        conditions = torch.cat([self._condition(frame) for frame in frames], 1)
        return FrameInputs(conditions, Recalled.cat([self.recalled.get(f, Recalled()) for f in frames]))

    def frames_for(self, newest: int, *, before: int) -> RecalledFrames | None:
        self._reach(newest)
        return self.frames and self.frames.before(before)

    def finish(self, frame: int, latents: Tensor) -> None:
        self._reach(frame)
        camera, action = self.cameras.get(frame), self._actions(frame)[:, -1]
        rgbd = self.codec.decode(latents[:, None])[:, 0] if self.model.keeps_pixels else None
        dreamed = frame >= self.given
        self.memory.write(FinishedFrame(latents, action, camera, frame, rgbd, dreamed))

    def _condition(self, frame: int) -> Tensor:
        """Of a latent frame, `(b, 1, d)`; recalled ones may lie too far back to be kept."""
        known = self.conditions.get(frame)
        return self.embedding(self._actions(frame)) if known is None else known

    def _actions(self, frame: int) -> Tensor:
        """Of the frames of a latent frame, `(b, frames, a)`; after the end the last one is held."""
        stride, last = self.embedding.stride, self.actions.shape[1] - 1
        end = self.first + frame * stride
        return self.actions[:, [min(index, last) for index in range(max(0, end - stride), end)]]

    def _reach(self, newest: int) -> None:
        """Take the camera from frame to frame up to the newest, and recall for each."""
        while self.reached < newest:
            self.reached = frame = self.reached + 1
            if frame < self.given:
                camera = CameraState.of_clip(self.start, frame)
            else:
                action = self._actions(frame)[:, -1]
                camera = self.model.next_camera(self.cameras[frame - 1], action, self.memory)
            found = self.memory.recall(camera, frame)
            self.cameras[frame], self.frames = camera, found.frames
            self.recalled[frame] = self.model.to_inputs(found, self.codec)
            self.conditions[frame] = self._condition(frame)
            for kept in (self.cameras, self.recalled, self.conditions):
                kept.pop(frame - self.KEPT, None)
