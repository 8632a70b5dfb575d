"""A clip: frames and what is known about them. The unit of training, recording and examination."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dreamwalk.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Clip:
    """Frames in order, with what led into each of them.

    On disk and in worlds the arrays are numpy, without a batch axis; `batch` stacks clips into torch tensors
    with a leading `b`. `actions[t]` is the action that *leads into* frame `t`; the first frame of an episode
    has zeros.
    """

    video: Any = None
    """uint8 `(t, h, w, 3)`; batched: uint8 tensor `(b, t, 3, h, w)`."""
    actions: Any = None
    """float32 `(t, a)`, the vector form of an `ActionSchema`."""
    world_from_camera: Any = None
    """float32 `(t, 4, 4)` or None."""
    intrinsics: Any = None
    """float32 `(t, 3, 3)` in pixels, or None."""
    depth: Any = None
    """float32 `(t, h, w)` planar depth in world units, 0 where unknown, or None."""
    caption: str | list[str] = ""
    past: Clip | None = None
    """Earlier frames of the same episode, in order, for training a memory; they need not be neighbours."""
    times: Any = None
    """int64 `(t,)`: which frames of their episode these are, or None where they are the first."""
    latents: Any = None
    """What a video codec made of the video, `(t', c, h', w')`, or None; with it the rest may be left out."""
    placed: Any = None
    """float32 `(t, k, 3)`: where the feet of what was put down stand in the world, NaN for none, or None;
    not batched."""

    def __len__(self) -> int:
        """Frames in the clip (of each clip, when batched)."""
        return self.video.shape[0] if self.video.ndim == 4 else self.video.shape[1]

    def window(self, start: int, frames: int) -> Clip:
        """Frames `start .. start + frames` of an unbatched clip; UserError when it does not have them."""
        if start < 0 or start + frames > len(self):
            raise UserError(f"frames {start}..{start + frames} asked of a clip of {len(self)} frames")
        return self._each(lambda array: array[start : start + frames])

    def pick(self, frames: np.ndarray) -> Clip:
        """Frames of an unbatched clip by their indices."""
        return self._each(lambda array: array[frames])

    def first(self, frames: int) -> Clip:
        """The first frames of a batched clip."""
        return self._each(lambda array: array[:, :frames])

    def to(self, device: torch.device | str) -> Clip:
        """A batched clip moved to a device."""
        moved = self._each(lambda array: array.to(device, non_blocking=True))
        return moved if self.past is None else replace(moved, past=self.past.to(device))

    def _each(self, change: Callable[[Any], Any]) -> Clip:
        """The clip with every array that it knows changed."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("caption", "past")}
        return replace(self, **{name: change(array) for name, array in arrays.items() if array is not None})


class FittingData(Protocol):
    """Data as asked by what is fitted to them before training, not learnt along: codes, pose models."""

    def large_batch(self) -> Clip:
        """A batch much larger than one step's."""

    def paths(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Poses `(k, t, 4, 4)`, intrinsics `(k, t, 3, 3)` and actions `(k, t, a)` of whole clips; UserError
        for data without poses."""


def require_past(clip: Clip) -> Clip:
    """Earlier frames of a clip; UserError where it comes without."""
    if clip.past is None:
        raise UserError("a memory learns from what came before a clip: give `--past`, for example 8")
    return clip.past


def batch(clips: Sequence[Clip]) -> Clip:
    """Stack unbatched clips of equal length into one batched clip of torch tensors.

    What some of the clips do not know (depth, poses) is left out.
    """
    import torch

    def stack(name: str) -> torch.Tensor | None:
        arrays = [getattr(clip, name) for clip in clips]
        if any(a is None for a in arrays):
            return None
        stacked = torch.from_numpy(np.stack(arrays))
        # in torch's memory, which is aligned: matrix products round by how their inputs lie
        return stacked if name == "video" else stacked.clone()

    video = stack("video")
    captions = [clip.caption if isinstance(clip.caption, str) else "" for clip in clips]
    rest = {name: stack(name) for name in ("actions", "world_from_camera", "intrinsics", "depth", "times")}
    past = [clip.past for clip in clips if clip.past is not None]
    earlier = batch(past) if len(past) == len(clips) else None
    video = None if video is None else video.permute(0, 1, 4, 2, 3).contiguous()
    return Clip(video=video, caption=captions, past=earlier, **rest)
