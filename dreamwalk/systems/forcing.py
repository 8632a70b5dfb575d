"""Diffusion Forcing: a noise level of its own for every frame, so that any schedule can be walked afterwards.

Chen et al., "Diffusion Forcing: Next-token Prediction Meets Full-Sequence Diffusion" (arXiv 2407.01392), and
its history-guided transformer (Song et al., arXiv 2502.06764). Algorithm 1: draw an independent level for
every frame, noise it, predict all frames from all that they may see:

    x_sigma = (1 - sigma) x + sigma eps        minimise sum_t w_t |x_hat_t - x_t|^2

    paper's word                     our word
    noise level k_t                  sigma, an independent level per frame
    scheduling matrix K              plan (`dreamwalk.schedules.plans`)
    context, tokens already known    history
    stabilization level              history_level
    latent z (recurrent)             cache
    fused SNR reweighting            fused_snr_weight

Teacher forcing and full-sequence diffusion are the same loss with other draws of levels (`levels`): every
frame as a noisy target behind clean history, and one level for a whole clip.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dreamwalk.backbones.framedit import FrameDiTConfig
from dreamwalk.backbones.teacher_forcing import Known, teacher_pass
from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.errors import UserError
from dreamwalk.memory.neural_map import NeuralMapConfig
from dreamwalk.schedules import flow, training
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.plans import MaskName, check_mask, check_range
from dreamwalk.schedules.staircase import HistorySigma, Schedule, attention_group
from dreamwalk.systems.interactive import Interactive, InteractiveConfig


@dataclass(frozen=True)
class ForcingConfig(InteractiveConfig):
    """The parts of the system, how it is played, and how it is trained."""

    levels: Literal["independent", "teacher", "full"] = "independent"
    """Levels in training: one per frame, one per target behind clean history, or one per clip."""
    density: training.Density = "uniform"
    """How each of them is drawn, before `shift`."""
    mask: MaskName = "causal"
    """Whether a frame sees the frames after it: none, those of its chunk (`block`), or all."""
    chunk: int = 4
    """Frames of a chunk in training (`block`): the first frame alone, then one chunk after another."""
    pure: float = 0.0
    """Share of levels at pure noise, where every frame starts when played."""
    begun: float = 0.0
    """Share of clips whose first frames, up to a drawn one, are nearly clean, as history is when played."""
    untold: float = 0.1
    """Share of clips without their actions, for guidance."""
    snr_most: float = 5.0
    """Where the weight of nearly clean frames stops growing."""
    snr_decay: float = 0.9
    """How far back the noise of history counts for a frame's weight: its share per frame."""

    def __post_init__(self) -> None:
        check_mask(self.mask)
        check_range("chunk", self.chunk, 1)
        if self.levels == "teacher" and self.mask == "bidirectional":
            raise UserError(
                "teacher forcing hides from a target what comes after it: take the mask `causal` or `block`"
            )
        super().__post_init__()


class Forcing(Interactive):
    """How a dreaming system learns to go on from any mixture of noise."""

    name = "forcing"
    config: ForcingConfig

    @property
    def mask(self) -> MaskName:
        return self.config.mask

    def schedule(self, name: str, *, steps: int | None = None) -> Schedule:
        """As of any system, in the chunks that it was trained on."""
        schedule = super().schedule(name, steps=steps)
        trained = self.mask == "block" and name == "chunks"
        return replace(schedule, chunk=self.config.chunk) if trained else schedule

    @property
    def shown_history(self) -> HistorySigma:
        """A model that was trained on one level a clip knows history only as noisy as the rest."""
        return "alike" if self.config.levels == "full" else self.config.history_sigma

    def dream_loss(
        self, x: Tensor, conditions: Tensor, views: Tensor | None, generator: KeyedGenerator
    ) -> dict[str, Tensor]:
        told = generator.uniform(1) >= self.config.untold
        known = Known(conditions * told[..., None], views)
        if self.config.levels == "teacher":
            return self.teacher(x, known, generator)
        levels = 1 if self.config.levels == "full" else x.shape[1]
        sigma = self.draw_sigmas(levels, generator).expand(-1, x.shape[1])
        noisy = flow.add_noise(x, generator.normal(*x.shape[1:]), sigma)
        groups = self.groups(x)
        visible = groups[:, None] >= groups
        v = self.backbone(noisy, sigma, known.conditions, visible=visible, views=known.views)
        snr = self.snr.around(sigma) if self.mask == "bidirectional" else self.snr.before(sigma)
        return self.compare(x, noisy, v, sigma, snr)

    def groups(self, x: Tensor) -> Tensor:
        """Of every frame of `x`; a frame sees its own group and all smaller ones, as in plans."""
        config = self.config
        of = (attention_group(i, 1, chunk=config.chunk, mask=config.mask) for i in range(x.shape[1]))
        return torch.tensor(list(of), device=x.device)

    def teacher(self, x: Tensor, known: Known, generator: KeyedGenerator) -> dict[str, Tensor]:
        """Frames 0 .. t-2 as clean history, shown as when played; frames 1 .. t-1 as targets, in one pass."""
        history, targets, frames = x[:, :-1], x[:, 1:], x.shape[1] - 1
        sigma = self.draw_sigmas(frames, generator)
        shown_at = torch.full_like(sigma, self.config.history_sigma)
        shown = flow.add_noise(history, generator.normal(*history.shape[1:]), shown_at)
        noisy = flow.add_noise(targets, generator.normal(*targets.shape[1:]), sigma)
        v = teacher_pass(self.backbone, shown, noisy, shown_at, sigma, known, self.groups(x))
        return self.compare(targets, noisy, v, sigma, self.snr.running(shown_at))

    @property
    def snr(self) -> training.FusedSNR:
        return training.FusedSNR(self.config.snr_most, self.config.snr_decay)

    def draw_sigmas(self, frames: int, generator: KeyedGenerator) -> Tensor:
        """`(b, frames)`."""
        c = self.config
        return training.draw_sigmas(
            generator, frames, c.shift, density=c.density, pure_noise_prob=c.pure, clean_prefix_prob=c.begun
        )

    def compare(self, x: Tensor, noisy: Tensor, v: Tensor, sigma: Tensor, snr: Tensor) -> dict[str, Tensor]:
        """The weighted loss of frames at `sigma` beside frames of which `snr` is left."""
        error = self.error(x, flow.denoised(noisy, v, sigma))
        return training.weighted_loss(error, self.snr.weight(sigma, snr))


def tiny() -> ForcingConfig:
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
    return ForcingConfig(codec=codec, backbone=backbone, actions=7, pure=0.2, steps=4, window=8)


def rooms() -> ForcingConfig:
    """For levels never seen: 96x128 frames, 48 tokens a frame, small enough to compare ideas on a laptop."""
    backbone = FrameDiTConfig(
        channels=64,
        grid=(6, 8),
        width=192,
        depth=6,
        heads=3,
        feedforward_multiple=64,
        qk_norm=True,
        predicts="clean",
    )
    return ForcingConfig(
        codec=PatchCodecConfig(channels=64), backbone=backbone, actions=7, pure=0.1, window=11
    )


def doom() -> ForcingConfig:
    """The shipped dream of the level `home`, known by heart: any schedule, in real time."""
    backbone = replace(rooms().backbone, width=256, heads=4)
    place = NeuralMapConfig(origin=(-32, -32), extent=(1152, 736))
    return replace(rooms(), backbone=backbone, map=place, begun=0.5, pure=0.25, window=7)
