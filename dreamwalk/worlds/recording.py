"""A recording as a World: it plays back a clip, whatever is done."""

from __future__ import annotations

import numpy as np

from dreamwalk.clip import Clip
from dreamwalk.errors import UserError
from dreamwalk.world import Action, ActionSchema, Info, Seen, Stepped, World


class Recording(World):
    """Frame after frame of a clip; actions are ignored, and the last frame is truncated and then stays.

    `info` has what the clip knows of a frame (`world_from_camera`, `intrinsics`, `depth`) and `recorded`, the
    vector of the action that led into it.
    """

    def __init__(self, clip: Clip, schema: ActionSchema, *, fps: float = 10.0) -> None:
        if clip.video.ndim != 4:
            raise UserError("a Recording plays one clip, not a batch: index the batch first")
        self.clip, self.actions, self.fps = clip, schema, fps
        self._declare(clip.video.shape[1:3], "rgb_array")
        self._index = 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Seen:
        super().reset(seed=seed)
        return self.restore(0)

    def step(self, action: Action) -> Stepped:
        frame, info = self.restore(min(self._index + 1, len(self.clip) - 1))
        return frame, 0.0, False, self._index == len(self.clip) - 1, info

    def render(self) -> np.ndarray:
        return self.clip.video[self._index].copy()

    def state(self) -> int:
        return self._index

    def restore(self, state: int) -> Seen:
        self._index = state
        info: Info = {"recorded": self.clip.actions[state].copy()}
        for name in ("world_from_camera", "intrinsics", "depth"):
            array = getattr(self.clip, name)
            if array is not None:
                info[name] = array[state].copy()
        return self.render(), info
