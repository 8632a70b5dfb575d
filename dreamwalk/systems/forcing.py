"""Diffusion Forcing: a noise level of its own for every frame, so that any schedule can be sampled
afterwards.

Chen et al., "Diffusion Forcing: Next-token Prediction Meets Full-Sequence Diffusion" (arXiv 2407.01392), and
its history-guided transformer (Song et al., arXiv 2502.06764). Algorithm 1: draw an independent noise level
for every frame, noise it, predict all frames from all that they may see:

    x_sigma = (1 - sigma) x + sigma eps        minimise sum_t w_t |x_hat_t - x_t|^2

    paper's word                     our word
    noise level k_t                  sigma, an independent noise level per frame
    scheduling matrix K              plan (`dreamwalk.schedules.plans`)
    context, tokens already known    history
    stabilization level              history_sigma
    latent z (recurrent)             cache
    fused SNR reweighting            fused_snr_weight

`teacher_forcing` and `full_sequence` diffusion are the same loss with other noise levels: every frame as a
noisy target behind clean history, and one level for a whole clip.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dreamwalk.backbones import framedit
from dreamwalk.backbones.teacher_forcing import FrameInputs, teacher_forcing
from dreamwalk.codecs import patch
from dreamwalk.codecs.critic import CriticConfig
from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.errors import UserError
from dreamwalk.memory.neural_map import home_map
from dreamwalk.memory.pixel_filter import PixelFilterConfig
from dreamwalk.memory.points import PointsConfig
from dreamwalk.schedules import flow
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.plans import MaskName, check_mask, check_range
from dreamwalk.schedules.staircase import HistorySigma, Schedule, attention_group
from dreamwalk.schedules.training import Density, FusedSNR, draw_sigmas, weighted_loss
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.interactive_config import InteractiveConfig
from dreamwalk.validation import Positive, Share
from dreamwalk.worlds.placing import PLACE


@dataclass(frozen=True)
class ForcingConfig(InteractiveConfig):
    """The parts of the system, how it is sampled, and how it is trained."""

    training: Literal["independent", "teacher_forcing", "full_sequence"] = "independent"
    """Noise levels: one per frame, one per target behind clean history, or one per clip."""
    density: Density = "uniform"
    """From which each is drawn, before `shift`."""
    mask: MaskName = "causal"
    """Which later frames a frame sees: none, those of its chunk (`block`), or all."""
    chunk: int = 4
    """Frames of a chunk in training (`block`): the first frame alone, then one chunk after another."""
    pure_noise_prob: Share = 0.0
    """Probability of training a frame at pure noise, where every frame starts when sampled."""
    clean_prefix_prob: Share = 0.0
    """Probability of a clip whose first frames, up to a drawn one, are nearly clean, as history is when
    sampled."""
    cond_dropout: Share = 0.1
    """Probability of training a frame without its action, for classifier-free guidance."""
    snr_max: Positive = 5.0
    """Signal-to-noise ratio at which the weight of nearly clean frames stops growing."""
    snr_decay: Share = 0.9
    """Decay per frame of the part that the noise of history has in the weight of a frame."""

    def __post_init__(self) -> None:
        check_mask(self.mask)
        check_range("chunk", self.chunk, 1)
        if self.training == "teacher_forcing" and self.mask == "bidirectional":
            raise UserError(
                "teacher forcing hides from a target what comes after it: take the mask `causal` or `block`"
            )
        super().__post_init__()

    def build(self) -> Forcing:
        return Forcing(self)


class Forcing(Interactive):
    """The loss of Diffusion Forcing."""

    name = "forcing"
    config: ForcingConfig

    def loss_of_latents(self, x: Tensor, inputs: FrameInputs, generator: KeyedGenerator) -> dict[str, Tensor]:
        keep = generator.uniform(1) >= self.config.cond_dropout
        inputs = inputs._replace(conditions=inputs.conditions * keep[..., None])
        if self.config.training == "teacher_forcing":
            return self.teacher_forcing(x, inputs, generator)
        full = self.config.training == "full_sequence"
        sigma = self.draw_sigmas(1 if full else x.shape[1], generator).expand(-1, x.shape[1])
        noisy, groups = flow.add_noise(x, generator.normal(*x.shape[1:]), sigma), self.groups(x)
        visible = groups[:, None] >= groups
        v = self.backbone(noisy, sigma, inputs.conditions, visible=visible, recalled=inputs.recalled)
        snr = self.snr.around(sigma) if self.config.mask == "bidirectional" else self.snr.before(sigma)
        return self.weighted_loss(x, noisy, v, sigma, snr)

    def teacher_forcing(self, x: Tensor, inputs: FrameInputs, generator: KeyedGenerator) -> dict[str, Tensor]:
        """Frames 0 .. t-2 as history, shown as when sampled; frames 1 .. t-1 as targets, in one pass."""
        history, targets = x[:, :-1], x[:, 1:]
        frames, shape = targets.shape[1], targets.shape[1:]
        sigma = self.draw_sigmas(frames, generator)
        history_sigma = torch.full_like(sigma, self.config.history_sigma)
        shown = flow.add_noise(history, generator.normal(*shape), history_sigma)
        noisy = flow.add_noise(targets, generator.normal(*shape), sigma)
        pairs = (shown, history_sigma), (noisy, sigma)
        v = teacher_forcing(self.backbone, *pairs, inputs, self.groups(x))
        return self.weighted_loss(targets, noisy, v, sigma, self.snr.running(history_sigma))

    def draw_sigmas(self, frames: int, generator: KeyedGenerator) -> Tensor:
        """Independent noise levels `(b, frames)`, some of a clean prefix, some pure noise."""
        config = self.config
        chances = {"pure_noise_prob": config.pure_noise_prob, "clean_prefix_prob": config.clean_prefix_prob}
        return draw_sigmas(generator, frames, config.shift, density=config.density, **chances)

    def weighted_loss(
        self, x: Tensor, noisy: Tensor, v: Tensor, sigma: Tensor, snr: Tensor
    ) -> dict[str, Tensor]:
        """The loss of frames at `sigma` that see frames of which the share `snr` is left."""
        return weighted_loss(self.error(x, flow.denoised(noisy, v, sigma)), self.snr.weight(sigma, snr))

    @property
    def snr(self) -> FusedSNR:
        return FusedSNR(self.config.snr_max, self.config.snr_decay)

    def groups(self, x: Tensor) -> Tensor:
        """Of every frame of `x`: a frame sees its own group and all smaller ones, as in plans."""
        chunk, mask = self.config.chunk, self.config.mask
        groups = [attention_group(i, history=1, chunk=chunk, mask=mask) for i in range(x.shape[1])]
        return torch.tensor(groups, device=x.device)

    @property
    def mask(self) -> MaskName:
        return self.config.mask

    @property
    def shown_history(self) -> HistorySigma:
        """A model that was trained on one noise level a clip knows history only as noisy as the rest."""
        return "alike" if self.config.training == "full_sequence" else self.config.history_sigma

    def schedule(self, name: str, *, steps: int | None = None) -> Schedule:
        """As of any system, in the chunks that it was trained on."""
        schedule = super().schedule(name, steps=steps)
        trained = self.mask == "block" and name == "chunks"
        return replace(schedule, chunk=self.config.chunk) if trained else schedule


def tiny() -> ForcingConfig:
    """For tests: 32x32 frames, learns a clip by heart in seconds."""
    return ForcingConfig(patch.tiny(), framedit.tiny(), actions=7, pure_noise_prob=0.2, steps=4, window=8)


def levels() -> ForcingConfig:
    """For levels never seen: 96x128 frames, 48 tokens a frame, small enough to compare ideas on a laptop."""
    backbone = framedit.game(width=192, heads=3)
    return ForcingConfig(PatchCodecConfig(channels=64), backbone, actions=7, pure_noise_prob=0.1, window=11)


def layout() -> ForcingConfig:
    """For levels never seen: RGB-D frames of 96x128, 48 tokens a frame, behind a memory of points."""
    codec = PatchCodecConfig(channels=128, image_channels=4, widths=())
    backbone = replace(framedit.game(width=256, heads=4), channels=128)
    config = ForcingConfig(codec, backbone, actions=7, memory=PointsConfig(), window=7, steps=2)
    return replace(config, pure_noise_prob=0.2, clean_prefix_prob=0.5)


def rooms() -> ForcingConfig:
    """The same with its pixel filter."""
    memory = PointsConfig(pixels=PixelFilterConfig(), critic=CriticConfig(width=32), changing=PLACE)
    return replace(layout(), memory=memory)


def doom() -> ForcingConfig:
    """The shipped dream of the level `home`: any schedule, in real time."""
    codec, memory = PatchCodecConfig(channels=64), home_map()
    config = ForcingConfig(codec, framedit.game(), actions=7, memory=memory, window=7)
    return replace(config, clean_prefix_prob=0.5, pure_noise_prob=0.25)
