"""WorldMem: a world model that recalls frames of places it has left, and what was there at which time.

Xiao et al., "WorldMem: Long-term Consistent World Simulation with Memory" (arXiv 2504.12369). Diffusion
Forcing over a window of frames, beside which a few frames of a bank are recalled for every frame by where
the camera was, where it looked, and when:

    x_sigma = (1 - sigma) x + sigma eps        minimise sum_t w_t |x_hat_t - x_t|^2, window frames only

    paper's word                           our word
    memory bank, unit (frame, pose, t)     `FrameBank`, `Unit`
    memory retrieval (Algorithm 1)         `memory/retrieval.py`; then the few that together show most
    state embedding, Pluecker              `memory/encodings.py`: `pluecker`, beside `prope` and `projected`
    memory block                           `backbones/memory_blocks.py`
    memory frames at k_min, others at any  recalled frames are clean, some shaken; a noise level per frame

What differs from the paper: recalled frames are read by their pixels, once a frame, not through the trunk at
every step; where a token lands in the new frame turns its key, by its depth, for two processor cores do not
learn that from rays; and a cloud of points stands beside the bank. The published network and its weights are
`backbones/memory_stdit.py` and `published/worldmem.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreamwalk.backbones import framedit
from dreamwalk.backbones.frame_backbone import FrameInputs
from dreamwalk.codecs import patch
from dreamwalk.codecs.critic import CriticConfig
from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.memory.frame_memory import BankConfig
from dreamwalk.memory.pixel_filter import PixelFilterConfig
from dreamwalk.memory.points_and_bank import PointsAndBankConfig
from dreamwalk.schedules import flow
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.training import FusedSNR, draw_sigmas, weighted_loss
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.interactive_config import InteractiveConfig
from dreamwalk.validation import Share
from dreamwalk.worlds.placing import PLACE

OWN = 0.5, 1.0
"""Noise levels from which frames are made that are shown as the network's own."""


@dataclass(frozen=True)
class WorldMemConfig(InteractiveConfig):
    """The parts of the system, how it is sampled, and how it is trained."""

    pure_noise_prob: Share = 0.2
    """Probability of training a frame at pure noise, where every frame starts when sampled."""
    clean_prefix_prob: Share = 0.5
    """Probability of a clip whose first frames are nearly clean, as history is when sampled."""
    cond_dropout: Share = 0.1
    """Probability of training a frame without its action, for classifier-free guidance."""
    own_history_prob: Share = 0.25
    """Probability that a frame is shown to later ones as the network itself makes it in one pass, so that it
    learns what is to be trusted more: memory, or what it has just dreamed."""

    def build(self) -> WorldMem:
        return WorldMem(self)


class WorldMem(Interactive):
    """The loss of Diffusion Forcing over frames that also see what is recalled for them."""

    name = "worldmem"
    config: WorldMemConfig

    def loss_of_latents(self, x: Tensor, inputs: FrameInputs, generator: KeyedGenerator) -> dict[str, Tensor]:
        config, frames = self.config, x.shape[1]
        keep = generator.uniform(1) >= config.cond_dropout
        chances = {"pure_noise_prob": config.pure_noise_prob, "clean_prefix_prob": config.clean_prefix_prob}
        sigma = draw_sigmas(generator, frames, config.shift, density="uniform", **chances)
        own = (generator.uniform(frames) < config.own_history_prob)[..., None, None, None]
        conditions, shown = inputs.conditions * keep[..., None], x

        def made(clean: Tensor, level: Tensor) -> Tensor:
            """What the backbone makes of latents at noise levels `(b, t)`."""
            noisy = flow.add_noise(clean, generator.normal(*x.shape[1:]), level)
            v = self.backbone(noisy, level, conditions, recalled=inputs.recalled)
            return flow.denoised(noisy, v, level)

        if config.own_history_prob:
            level = OWN[0] + (OWN[1] - OWN[0]) * generator.uniform(frames)
            with torch.no_grad():
                shown = torch.where(own, made(x, level), x)
        prediction = made(shown, sigma)
        # fused SNR makes little of a frame whose history is noise, for it can know nothing; this one recalls
        weight = FusedSNR(5.0, 0.9).weight(sigma, torch.ones_like(sigma))
        return weighted_loss(self.error(x, prediction), weight)


def tiny() -> WorldMemConfig:
    """For tests: RGB-D frames of 32x32, 16 tokens a frame."""
    codec = replace(patch.tiny(), image_channels=4)
    return WorldMemConfig(codec, framedit.tiny(), actions=7, memory=BankConfig(frames=2), steps=2, window=4)


def network() -> WorldMemConfig:
    """For levels never seen: RGB-D frames of 96x128, a cloud of points and a bank, 48 tokens a frame."""
    codec = PatchCodecConfig(channels=128, image_channels=4, widths=())
    backbone = replace(framedit.game(width=256, heads=4), channels=128)
    memory = PointsAndBankConfig(changing=PLACE)
    return WorldMemConfig(codec, backbone, actions=7, memory=memory, window=7, steps=2)


def doom() -> WorldMemConfig:
    """The same with its pixel filter."""
    pixels, critic = PixelFilterConfig(), CriticConfig(width=32)
    memory = PointsAndBankConfig(changing=PLACE, pixels=pixels, critic=critic)
    return replace(network(), memory=memory)
