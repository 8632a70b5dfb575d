"""A request for clips: the numbers of its sampling, and what they start from besides the text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from dreamwalk.errors import UserError
from dreamwalk.rollout.execute import Solver
from dreamwalk.schedules.sigmas import Spacing
from dreamwalk.systems.conditionings import Conditioning, TextOnly
from dreamwalk.validation import Steps, conform

NUMBERS = ("guidance", "embedded_guidance", "rescale", "shift")


@dataclass(frozen=True)
class ClipRequest:
    """A request for clips, one for each prompt. None leaves a number to the system."""

    prompts: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    conditioning: Annotated[Conditioning, tyro.conf.Suppress] = field(default_factory=TextOnly)
    """What the clips start from besides the text: an image, a video, or nothing."""
    negative: str = ""
    """Negative prompt, which the clips are guided away from."""
    frames: int | None = None
    """Length of the clips; default: the system's, or that of a video that is redone or upscaled."""
    size: tuple[int, int] | None = None
    """Height and width in pixels; default: the system's."""
    seed: int = 0
    """Clip i has the seed `seed + i`."""
    steps: int | None = None
    """Denoising steps; default: the system's."""
    guidance: float | None = None
    """Scale of classifier-free guidance, 1: none; default: the system's."""
    embedded_guidance: float | None = None
    """Scale of guidance that is an input of a guidance-distilled backbone; default: the system's."""
    rescale: float = 0.0
    """Guidance rescale, 0 to 1: how far guided predictions return to the std of unguided ones."""
    spacing: Spacing = "shifted"
    """Spacing of the sigmas."""
    shift: float | None = None
    """How far sigmas are shifted towards noise; default: the system's."""
    solver: Solver = "euler"
    window: int = 0
    """Latent frames that the backbone sees at once, in windows that overlap by half; 0: all."""
    area: tuple[int, int] | None = None
    """Height and width in pixels that the backbone sees at once, in tiles that share a quarter with the next;
    default: all."""

    def check(self) -> None:
        """UserError for a number that no system takes."""
        if self.frames is not None and self.frames < 1:
            raise UserError(f"a clip has at least one frame, got {self.frames}")
        if self.steps is not None:
            conform(Steps, self.steps, "steps")
        for name in NUMBERS:
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise UserError(f"{name} must be a finite number, got {value}")
        if self.shift is not None and self.shift <= 0:
            raise UserError(f"shift must be above 0, got {self.shift}")
