"""Walkable systems: what worlds and the examination ask of those that dream frame after frame.

`Interactive` systems denoise latent frames; `artokens` predicts tokens. A `Dream` (`rollout/dream.py`) walks
in either, and both are asked the same questions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dreamwalk.clip import Clip
from dreamwalk.errors import UserError
from dreamwalk.rollout.dream import Dream, WalkableSystem, WorldSpec
from dreamwalk.rollout.realtime import WalkState
from dreamwalk.systems.system import System
from dreamwalk.weights import files


class Walkable(System, WalkableSystem):
    """A system that goes on frame after frame, and is walked in."""

    generates = "frames"

    @property
    def action_size(self) -> int:
        """Length of the action vector."""
        raise NotImplementedError

    @property
    def passes(self) -> float:
        """Passes of the network for a frame."""
        raise NotImplementedError

    @property
    def timed_steps(self) -> tuple[int, ...]:
        """Numbers of denoising steps at which its speed is measured."""
        return (1,)

    def restored(self, clip: Clip) -> Tensor:
        """A batched clip encoded and decoded, `(b, t, c, h, w)` in [-1, 1]: the best that can be dreamed."""
        raise NotImplementedError

    def measured(self, clip: Clip) -> dict[str, float]:
        """Numbers of a batched held-out clip that only systems of this kind have, for the examination."""
        return {}

    def world(self, *, seed: int | None = None, render_mode: str | None = None) -> Dream:
        """A dream to walk in, a `gymnasium.Env`; on a CPU through ONNX Runtime where that can hold it.

        UserError without starts.
        """
        if self.world_spec is None:
            raise UserError(
                "this system has random weights: open some with `dreamwalk.load` to walk in its dream"
            )
        device = next(self.parameters()).device
        world = Dream(self, self.world_spec, device=device, render_mode=render_mode)
        world.reset(seed=seed)
        return world

    @torch.inference_mode()
    def continued(
        self, clip: Clip, *, history: int, seed: int = 0, advance: Callable[[], None] = lambda: None
    ) -> Tensor:
        """The dream of a batched clip from its first `history` frames on, under its actions: video in [-1, 1]
        `(b, t - history, c, h, w)`; `advance` after each frame."""
        session, frames = self.begin(clip.first(history), seed=seed), []
        for step in range(history, len(clip)):
            frames.append(self._shown(self.advance(session, clip.actions[:, step]), session))
            advance()
        return torch.stack(frames, 1)

    def _shown(self, predicted: Tensor, session: WalkState) -> Tensor:
        """The frame `(b, c, h, w)` of what `advance` gave."""
        assert session.shown is not None
        return session.shown


def check_starts(spec: WorldSpec, source: str, *, actions: int, size: tuple[int, int]) -> None:
    """UserError unless starts and actions of a weight file are what its network takes."""
    if (spec.actions.size, spec.starts.shape[1:3]) != (actions, size):
        sizes = [f"{rows}x{columns}" for rows, columns in (spec.starts.shape[1:3], size)]
        raise UserError(
            f"{source} has {spec.actions.size} actions and starts of {sizes[0]}, and its network takes "
            f"{actions} and {sizes[1]}: {files.MEND}"
        )
