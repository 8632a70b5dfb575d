"""A critic of patches of video, and the adversarial terms of a codec's loss.

Convolutions judge every patch (PatchGAN, arXiv 1611.07004) by the hinge loss (arXiv 1705.02894), as in VQGAN
(arXiv 2012.09841) and the video autoencoders after it. Both terms belong to one loss with one backward pass
and one optimizer: the codec's term goes through a critic whose weights are held, the critic's to it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn


@dataclass(frozen=True)
class CriticConfig:
    """Sizes of a critic."""

    width: int = 64
    """Channels after the first convolution; each level doubles them, up to eight times as many."""
    levels: int = 3
    """Halvings of height and width; all but the first halve the frames too."""


class Critic(nn.Module):
    """Video `(b, t, 3, h, w)`, one frame or more, to a score of every patch: high for what looks real."""

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        width = 3
        for level in range(config.levels):
            following = config.width * min(2**level, 8)
            stride = (2 if level else 1, 2, 2)
            layers.append(nn.Conv3d(width, following, (3, 4, 4), stride, padding=1))
            layers += [nn.GroupNorm(min(32, following), following)] if level else []
            layers.append(nn.LeakyReLU(0.2))
            width = following
        self.layers = nn.Sequential(*layers, nn.Conv3d(width, 1, 3, padding=1))

    def forward(self, video: Tensor) -> Tensor:
        """Scores `(b, t', h', w')`."""
        return self.layers(rearrange(video, "b t c h w -> b c t h w"))[:, 0]


def adversarial(critic: Critic, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The codec's term and the critic's, for videos `(b, t, 3, h, w)` and their reconstructions `fake`.

    Gradients of the first reach `fake` only, those of the second the critic only: add both to one loss.
    """
    held = {name: parameter.detach() for name, parameter in critic.named_parameters()}
    generator_term = -torch.func.functional_call(critic, held, (fake,)).mean()
    loud, quiet = critic(real.detach()), critic(fake.detach())
    critic_term = 0.5 * ((1 - loud).relu().mean() + (1 + quiet).relu().mean())
    return generator_term, critic_term
