"""Next-Frame Diffusion: an action-conditioned world model that dreams one frame at a time, in real time.

Cheng et al., "Playing with Transformer at 30+ FPS via Next-Frame Diffusion" (arXiv 2506.01380). Frames x_1 ..
x_i with actions a_1 .. a_i; a flow-matching transformer learns p(x_i | x_<i, a_<=i), all tokens of a frame in
parallel:

    x_sigma = (1 - sigma) x + sigma eps        minimise |v(x_sigma, sigma, a, history) - (eps - x)|^2

    paper's word                     our word
    timestep t of a frame            sigma, an independent noise level per frame
    context frames                   history
    noise on context at inference    history_sigma
    block-causal attention           the default of `FrameDiT`
    KV cache                         `RingCache`

`independent` training is the paper's (after Diffusion Forcing, arXiv 2407.01392): every frame has its own
noise level and sees the noisy past. `teacher_forcing` shows every frame twice, as history at a small noise
level and as a target at any, and targets see only the history before them: twice the tokens, but each target
sees what it will see when sampled. Part of that history is then replaced by the model's own one-step
predictions, so that it learns to correct its own errors (parallel scheduled sampling, arXiv 1906.04331; the
self-rollout of LIVE pursues the same end).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dreamwalk.backbones import framedit
from dreamwalk.backbones.teacher_forcing import FrameInputs, teacher_forcing
from dreamwalk.codecs import patch
from dreamwalk.codecs.kl_autoencoder import kl16
from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.memory.neural_map import home_map
from dreamwalk.schedules import flow
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.training import draw_sigmas, snr_weight, weighted_loss
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.interactive_config import InteractiveConfig
from dreamwalk.validation import Count, Positive, Share


@dataclass(frozen=True)
class NextFrameConfig(InteractiveConfig):
    """The parts of the system, how it is sampled, and how it is trained."""

    training: Literal["independent", "teacher_forcing"] = "independent"
    """What a frame sees in training: the noisy past, or nearly clean history."""
    pure_noise_prob: Share = 0.0
    """Probability of training a target at pure noise, where every frame starts when sampled."""
    history_sigma_max: Share = 0.1
    """Largest noise level of history (`teacher_forcing`)."""
    noisy_history_prob: Share = 0.0
    """Probability of a clip whose history has any noise level up to pure noise (`teacher_forcing`)."""
    self_generated_prob: Share = 0.0
    """Probability that a frame of history is the model's own prediction (`teacher_forcing`)."""
    self_generated_rounds: Count = 1
    """How often these are predicted from those of the round before: the depth of errors that are seen."""
    weight_floor: Positive = 0.3
    """Sigma below which the loss weight of a target stops growing."""

    def build(self) -> NextFrame:
        return NextFrame(self)


class NextFrame(Interactive):
    """The loss of Next-Frame Diffusion."""

    name = "nextframe"
    config: NextFrameConfig

    def loss_of_latents(self, x: Tensor, inputs: FrameInputs, generator: KeyedGenerator) -> dict[str, Tensor]:
        if self.config.training == "teacher_forcing":
            return self.teacher_forcing(x, inputs, generator)
        sigma = self.draw_sigmas(x.shape[1], generator)
        noisy = flow.add_noise(x, generator.normal(*x.shape[1:]), sigma)
        v = self.backbone(noisy, sigma, inputs.conditions, recalled=inputs.recalled)
        return self.weighted_loss(x, noisy, v, sigma)

    def teacher_forcing(self, x: Tensor, inputs: FrameInputs, generator: KeyedGenerator) -> dict[str, Tensor]:
        """Frames 0 .. t-2 as history, frames 1 .. t-1 as targets, in one pass."""
        config, history, targets = self.config, x[:, :-1], x[:, 1:]
        frames, shape = targets.shape[1], targets.shape[1:]
        most = torch.where(generator.uniform(1) < config.noisy_history_prob, 1.0, config.history_sigma_max)
        history_sigma = (most * generator.uniform(1)).expand(-1, frames)
        sigma = self.draw_sigmas(frames, generator)
        eps_history, eps = generator.normal(*shape), generator.normal(*shape)
        if config.self_generated_prob:
            own = flow.expand_like(generator.uniform(frames) < config.self_generated_prob, history)
            history = self.self_generated(history, own, eps, history_sigma, inputs, generator)
        shown = flow.add_noise(history, eps_history, history_sigma)
        noisy = flow.add_noise(targets, eps, sigma)
        v = teacher_forcing(self.backbone, (shown, history_sigma), (noisy, sigma), inputs)
        return self.weighted_loss(targets, noisy, v, sigma)

    @torch.no_grad()
    def self_generated(
        self,
        history: Tensor,
        own: Tensor,
        eps: Tensor,
        sigma: Tensor,
        inputs: FrameInputs,
        generator: KeyedGenerator,
    ) -> Tensor:
        """History whose `own` frames are one-step predictions from `eps`, all frames at once, round after
        round."""
        pure, mixed = torch.ones_like(sigma), history
        for _ in range(self.config.self_generated_rounds):
            shown = flow.add_noise(mixed, generator.normal(*history.shape[1:]), sigma)
            v = teacher_forcing(self.backbone, (shown, sigma), (eps, pure), inputs)
            predicted = torch.cat([history[:, :1], flow.denoised(eps, v, pure)[:, :-1]], dim=1)
            mixed = torch.where(own, predicted, history)
        return mixed

    def draw_sigmas(self, frames: int, generator: KeyedGenerator) -> Tensor:
        """Independent noise levels `(b, frames)`: logit-normal, shifted, some pure noise."""
        pure = self.config.pure_noise_prob
        return draw_sigmas(generator, frames, self.config.shift, pure_noise_prob=pure)

    def weighted_loss(self, x: Tensor, noisy: Tensor, v: Tensor, sigma: Tensor) -> dict[str, Tensor]:
        """The unweighted loss of the velocity, as a loss of the clean prediction, bounded near clean."""
        weight = snr_weight(sigma, floor=self.config.weight_floor)
        return weighted_loss(self.error(x, flow.denoised(noisy, v, sigma)), weight)


def tiny() -> NextFrameConfig:
    """For tests: 32x32 frames, learns a clip by heart in seconds."""
    config = NextFrameConfig(patch.tiny(), framedit.tiny(), actions=7, steps=2, window=8)
    return replace(config, training="teacher_forcing", pure_noise_prob=0.3)


def game() -> NextFrameConfig:
    """A dream of any game: 96x128 frames, 48 tokens a frame, real time on two CPU cores."""
    config = NextFrameConfig(PatchCodecConfig(channels=64), framedit.game(), actions=7, steps=1, window=7)
    return replace(config, training="teacher_forcing", pure_noise_prob=0.75, self_generated_prob=0.6)


def doom() -> NextFrameConfig:
    """The shipped dream: the same, with a map of the level `home`."""
    return replace(game(), memory=home_map(), noisy_history_prob=0.25)


def released(size: Literal["130M", "310M", "774M"]) -> NextFrameConfig:
    """The paper's three sizes on 224x384 frames through KL-16: 25 actions, 18 steps, 32 frames of history."""
    return NextFrameConfig(kl16(), framedit.released(size), actions=25, steps=18, window=32)
