"""Perceptual distance of frames: LPIPS (arXiv 1801.03924) on the features of VGG16 (arXiv 1409.1556).

Features after five stages are scaled to unit length at every pixel; the distance is their squared difference,
weighed by a head for each stage. The weights are not ours: `weights.vgg` reads them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamwalk.errors import UserError

CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Of each stage; between two stages the resolution halves."""
FIRST, LAST = (0, 5, 10, 17, 24), (3, 8, 15, 22, 29)
"""Where in `features` a stage has its first convolution, and its last layer."""
WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the stages as published."""


class Perceptual(nn.Module):
    """Distance of two videos in [-1, 1] `(b, t, 3, h, w)`, frame by frame, on average; nothing is trained.

    Parameters are named as in torchvision's `vgg16` (`features.28.weight`) and LPIPS (`lin4.model.1.weight`).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for stage, (following, count) in enumerate(zip(widths, CONVOLUTIONS, strict=True)):
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(count):
                layers += [nn.Conv2d(width, following, 3, padding=1), nn.ReLU()]
                width = following
        self.features = nn.Sequential(*layers)
        for stage, channels in enumerate(widths):
            head = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))
            self.add_module(f"lin{stage}", nn.ModuleDict({"model": head}))
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)
        self.requires_grad_(False)

    def forward(self, video: Tensor, other: Tensor) -> Tensor:
        """Sum over stages of the mean over frames and pixels; UserError for frames of under 16 a side."""
        if min(video.shape[-2:]) < 16:
            size = f"{video.shape[-2]}x{video.shape[-1]}"
            raise UserError(f"frames of {size} are too small for five stages: 16x16 is the least")
        x = (torch.stack([video, other]).flatten(0, 2) - self.shift) / self.scale
        distance = x.new_zeros(())
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in LAST:
                ours, theirs = nn.functional.normalize(x, dim=1, eps=1e-10).chunk(2)
                head = self.get_submodule(f"lin{LAST.index(index)}.model")
                distance = distance + head((ours - theirs).square()).mean()
        return distance
