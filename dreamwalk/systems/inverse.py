"""Inverse dynamics: predicts the action between two frames. The examination measures controllability with it.

It is trained on real frames only. Where its predictions on generated frames equal the actions that
conditioned them, the system is controllable. This measure is MineWorld's (arXiv 2504.08388, section 4), with
the model of VPT (arXiv 2206.11795).

    paper's word                        our word
    IDM                                 `Inverse`
    keyboard and mouse                  buttons and axes of an `ActionSchema`
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dreamwalk.clip import Clip
from dreamwalk.errors import UserError
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.system import System, SystemConfig
from dreamwalk.validation import Count
from dreamwalk.world import ActionSchema


@dataclass(frozen=True)
class InverseConfig(SystemConfig):
    """Sizes of the model, and of the actions that it predicts."""

    buttons: Count
    axes: Count
    width: int = 32

    def build(self) -> Inverse:
        return Inverse(self)

    def sized(self, schema: ActionSchema, size: tuple[int, int]) -> InverseConfig:
        """The config for data with these actions; UserError for data without."""
        if not schema.size:
            raise UserError("these data have no actions to read back: collect some with actions")
        return replace(self, buttons=len(schema.buttons), axes=len(schema.axes))


class Inverse(System):
    """A small convolutional network on pairs of frames at half resolution."""

    name = "inverse"
    config: InverseConfig

    def __init__(self, config: InverseConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        layers: list[nn.Module] = [nn.AvgPool2d(2)]
        for width, out in ((6, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w)):
            layers += [nn.Conv2d(width, out, 3, stride=2, padding=1), nn.GroupNorm(8, out), nn.SiLU()]
            layers += [nn.Conv2d(out, out, 3, padding=1), nn.SiLU()]
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((3, 4)), nn.Flatten())
        outputs = config.buttons + config.axes
        self.head = nn.Sequential(nn.Linear(48 * w, 256), nn.SiLU(), nn.Linear(256, outputs))

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Frames `(n, 3, h, w)` in [-1, 1] to button logits `(n, buttons)`, axes `(n, axes)` in [-1, 1]."""
        out = self.head(self.trunk(torch.cat([before, after - before], dim=1)))
        return out[:, : self.config.buttons], out[:, self.config.buttons :]

    def loss(self, clip: Clip, generator: KeyedGenerator) -> dict[str, Tensor]:
        """Cross-entropy of the buttons and squared error of the axes, over all pairs of neighbouring
        frames."""
        buttons, axes = self.read(clip.video)
        held, turned = clip.actions[:, 1:].split([self.config.buttons, self.config.axes], dim=-1)
        entropy = _mean(nn.functional.binary_cross_entropy_with_logits(buttons, held, reduction="none"))
        error = _mean((axes - turned).square())
        right = _mean(((buttons > 0) == (held > 0.5)).float())
        return {"loss": entropy + 10 * error, "buttons": right, "axes": error.detach().sqrt()}

    def read(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 video `(b, t, 3, h, w)` to button logits and axes `(b, t - 1, ...)`."""
        frames = video.float() / 127.5 - 1
        b, t = frames.shape[:2]
        buttons, axes = self(frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1))
        return buttons.unflatten(0, (b, t - 1)), axes.unflatten(0, (b, t - 1))

    def preview(self, clip: Clip) -> Tensor:
        """The frames themselves, in [-1, 1]: nothing is generated."""
        return clip.video.float() / 127.5 - 1


def _mean(values: Tensor) -> Tensor:
    """Zero for a game without buttons, or without axes."""
    return values.sum() / max(values.numel(), 1)


def doom() -> InverseConfig:
    """For Doom: five buttons, yaw and pitch."""
    return InverseConfig(buttons=5, axes=2)
