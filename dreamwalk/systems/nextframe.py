"""Next-Frame Diffusion: an action-conditioned world model that dreams one frame at a time, in real time.

Cheng et al., "Playing with Transformer at 30+ FPS via Next-Frame Diffusion" (arXiv 2506.01380). Frames x_1 ..
x_i with actions a_1 .. a_i; a flow-matching transformer learns p(x_i | x_<i, a_<=i), all tokens of a frame in
parallel:

    x_sigma = (1 - sigma) x + sigma eps        minimise |v(x_sigma, sigma, a, history) - (eps - x)|^2

    paper's word                     our word
    timestep t of a frame            sigma, an independent level per frame
    context frames                   history
    noise on context at inference    history_level
    block-causal attention           the default of `FrameDiT`
    KV cache                         `RingCache`

Training levels are drawn in one of two ways. `independent`: every frame has its own level, and frames see
their noisy past, as in the paper (Diffusion Forcing, arXiv 2407.01392). `teacher`: every frame appears twice,
once as history at a small level and once as a target at any level, and targets see only the history of frames
before them; twice the tokens, but every target sees what it will see when played. With `self_history`, part
of that history is replaced by the model's own one-step dreams of it, so that it learns to mend its own errors
(parallel scheduled sampling, arXiv 1906.04331; the self-rollout of LIVE pursues the same end).

A level that is to be known by heart has a `map` (our addition, `dreamwalk.memory.neural_map`): the paper's
model forgets what its window does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dreamwalk.backbones.framedit import FrameDiTConfig, next_frame
from dreamwalk.backbones.teacher_forcing import Known, teacher_pass
from dreamwalk.codecs.kl_autoencoder import kl16
from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.memory.neural_map import NeuralMapConfig
from dreamwalk.schedules import flow
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.interactive import Interactive, InteractiveConfig


@dataclass(frozen=True)
class NextFrameConfig(InteractiveConfig):
    """The parts of the system, how it is played, and how it is trained."""

    levels: Literal["independent", "teacher"] = "independent"
    """How training levels are drawn."""
    pure: float = 0.0
    """Share of targets at pure noise, where every frame starts when played."""
    history_max: float = 0.1
    """Largest level at which history is shown (`teacher`)."""
    dim_history: float = 0.0
    """Share of clips whose history is shown at any level up to pure noise (`teacher`)."""
    self_history: float = 0.0
    """Share of history frames replaced by the model's own dreams of them (`teacher`)."""
    self_rounds: int = 1
    """How often these dreams are dreamt on the history of the round before: the depth of errors seen."""
    weight_floor: float = 0.3
    """Below this level a target's weight stops growing."""


class NextFrame(Interactive):
    """How a dreaming system learns to go on."""

    name = "nextframe"
    config: NextFrameConfig

    def dream_loss(
        self, x: Tensor, conditions: Tensor, views: Tensor | None, generator: KeyedGenerator
    ) -> dict[str, Tensor]:
        levels = self.independent if self.config.levels == "independent" else self.teacher
        return levels(x, conditions, views, generator)

    def independent(
        self, x: Tensor, conditions: Tensor, views: Tensor | None, generator: KeyedGenerator
    ) -> dict[str, Tensor]:
        """All frames noisy, each at its own level, each seeing the noisy past."""
        sigma = self.draw_levels(x.shape[1], generator)
        noisy = flow.add_noise(x, generator.normal(*x.shape[1:]), sigma)
        return self.compare(x, noisy, self.backbone(noisy, sigma, conditions, views=views), sigma)

    def teacher(
        self, x: Tensor, conditions: Tensor, views: Tensor | None, generator: KeyedGenerator
    ) -> dict[str, Tensor]:
        """Frames 0 .. t-2 as history, frames 1 .. t-1 as targets, in one pass."""
        history, targets, frames = x[:, :-1], x[:, 1:], x.shape[1] - 1
        most = torch.where(generator.uniform(1) < self.config.dim_history, 1.0, self.config.history_max)
        shown_at = (most * generator.uniform(1)).expand(-1, frames)
        sigma = self.draw_levels(frames, generator)
        eps_history, eps = generator.normal(*history.shape[1:]), generator.normal(*targets.shape[1:])
        if self.config.self_history:
            own = flow.spread(generator.uniform(frames) < self.config.self_history, history)
            history = self.dreamt_history(history, own, eps, shown_at, Known(conditions, views), generator)
        noisy, shown = flow.add_noise(targets, eps, sigma), flow.add_noise(history, eps_history, shown_at)
        v = teacher_pass(self.backbone, shown, noisy, shown_at, sigma, Known(conditions, views))
        return self.compare(targets, noisy, v, sigma)

    @torch.no_grad()
    def dreamt_history(
        self,
        history: Tensor,
        own: Tensor,
        eps: Tensor,
        shown_at: Tensor,
        known: Known,
        generator: KeyedGenerator,
    ) -> Tensor:
        """History whose `own` frames are one-step dreams, all frames at once, round after round."""
        pure, mixed = torch.ones_like(shown_at), history
        for _ in range(self.config.self_rounds):
            shown = flow.add_noise(mixed, generator.normal(*history.shape[1:]), shown_at)
            v = teacher_pass(self.backbone, shown, eps, shown_at, pure, known)
            dreamt = torch.cat([history[:, :1], flow.clean(eps, v, pure)[:, :-1]], dim=1)
            mixed = torch.where(own, dreamt, history)
        return mixed

    def draw_levels(self, frames: int, generator: KeyedGenerator) -> Tensor:
        """Independent levels `(b, frames)`: logit-normal, shifted towards noise, a share pure noise."""
        sigma = flow.shift(flow.logit_normal(generator.normal(frames)), self.config.shift)
        return torch.where(generator.uniform(frames) < self.config.pure, torch.ones_like(sigma), sigma)

    def compare(self, x: Tensor, noisy: Tensor, v: Tensor, sigma: Tensor) -> dict[str, Tensor]:
        error = self.error(x, flow.clean(noisy, v, sigma))
        weight = flow.snr_weight(sigma, floor=self.config.weight_floor)
        return {"loss": (weight * error).mean(), "error": error.mean().detach()}


def tiny() -> NextFrameConfig:
    """For tests: 32x32 frames, learns a clip by heart in seconds."""
    codec = PatchCodecConfig(channels=16, patch=8, widths=(16, 16))
    backbone = FrameDiTConfig(
        channels=16,
        grid=(4, 4),
        width=64,
        depth=2,
        heads=2,
        feedforward_multiple=32,
        qk_norm=True,
        predicts="clean",
    )
    return NextFrameConfig(
        codec=codec, backbone=backbone, actions=7, levels="teacher", pure=0.3, steps=2, window=8
    )


def game() -> NextFrameConfig:
    """A dream of any game: 96x128 frames, 48 tokens a frame, real time on two CPU cores."""
    backbone = FrameDiTConfig(
        channels=64,
        grid=(6, 8),
        width=256,
        depth=6,
        heads=4,
        feedforward_multiple=64,
        qk_norm=True,
        predicts="clean",
    )
    return NextFrameConfig(
        codec=PatchCodecConfig(channels=64),
        backbone=backbone,
        actions=7,
        levels="teacher",
        pure=0.75,
        self_history=0.6,
        steps=1,
        window=7,
    )


def doom() -> NextFrameConfig:
    """The shipped dream: the same, with a map of the level `home`."""
    return replace(game(), map=NeuralMapConfig(origin=(-32, -32), extent=(1152, 736)), dim_history=0.25)


def released(size: Literal["130M", "310M", "774M"]) -> NextFrameConfig:
    """The paper's three sizes on 224x384 frames through KL-16: 25 actions, 18 steps, 32 frames of history."""
    return NextFrameConfig(codec=kl16(), backbone=next_frame(size), actions=25, steps=18, window=32)
