"""What a clip starts from besides its text: nothing, an image, two, or another clip.

Each is a value that a request carries. Known frames are slots of the plan that begin clean (token
replacement), or latents beside the noisy ones (latent concatenation), as the backbone was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.rollout.execute import Noise
from dreamwalk.schedules.clip_plans import together
from dreamwalk.schedules.plans import Plan
from dreamwalk.systems.upscaling import resized

if TYPE_CHECKING:  # a request carries conditionings, and a system starts from them
    from dreamwalk.systems.clip_generator import ClipConfig, ClipGenerator


@dataclass(frozen=True)
class Canvas:
    """The clips to be sampled: shape, sigmas and noise of their latents."""

    shape: tuple[int, int, int, int, int]
    """`(b, t', c, h', w')`."""
    size: tuple[int, int]
    """Height and width in pixels."""
    sigmas: list[float]
    """From noise to clean."""
    noise: Noise
    device: torch.device

    @property
    def frames(self) -> int:
        """Latent frames."""
        return self.shape[1]

    def rows(self, video: Tensor) -> Tensor:
        """A video for each clip, `(b, t, 3, h, w)`."""
        return video.to(self.device).expand(self.shape[0], -1, -1, -1, -1)


@dataclass(frozen=True)
class ClipStart:
    """Where sampling begins."""

    plan: Plan
    noise: Noise
    given: Tensor | None = None
    """Values of the plan's given slots, `(b, k, c, h', w')`."""
    cond: Tensor | None = None
    """Channels beside the latents, `(b, t', e, h', w')`."""


@dataclass(frozen=True)
class ImageMixedNoise:
    """`Noise` with a share of the first latent mixed in, from which HunyuanVideo-I2V begins."""

    noise: Noise
    first: Tensor
    """`(b, c, h, w)`."""
    share: float

    def __call__(self, frame: int, use: int) -> Tensor:
        return (1 - self.share) * self.noise(frame, use) + self.share * self.first


class Conditioning:
    """The contract: a system checks it against its config, then starts from it."""

    video: Tensor | None = None
    """uint8 `(b or 1, t, 3, h, w)`."""
    of_image: ClassVar[bool] = False
    """Whether training with image conditioning is needed, not training without."""
    concatenates: ClassVar[bool] = True
    """Whether there is a form of it for backbones with channels beside the latents."""

    @property
    def image(self) -> Tensor | None:
        """The first frame, `(b or 1, 3, h, w)`, for text encoders that read one."""
        return None if self.video is None else self.video[:, 0]

    def extent(self, config: ClipConfig) -> tuple[int, tuple[int, int]]:
        """Frames, height and width of a clip, unless asked for otherwise."""
        return config.frames, config.size

    def discard_frames(self, config: ClipConfig) -> int:
        """Frames before the clip that are generated and cut off."""
        return 0

    def check(self, config: ClipConfig, frames: int, size: tuple[int, int]) -> None:
        """UserError when a system of `config` was not trained for it, or a video does not fit the clip."""
        if config.upscale > 1:
            raise UserError("this system only makes clips larger: give it one, and use it as `upscale`")
        if self.of_image and not config.image_prob:
            raise UserError("this system was not trained to go on from pictures: leave them out")
        if not self.of_image and config.image_prob == 1:
            raise UserError("this system goes on from a picture: give it one")
        if config.backbone.cond_channels and not self.concatenates:
            raise UserError(
                "this system is shown pictures beside the latents, and was trained with a first one only: "
                "use the given video as `first`"
            )
        if self.video is not None:
            _require_size(self.video, size)

    def start(self, system: ClipGenerator, canvas: Canvas) -> ClipStart:
        """Where sampling begins, of what `check` let pass."""
        raise NotImplementedError


@dataclass(frozen=True)
class TextOnly(Conditioning):
    """Nothing but the text."""

    def start(self, system: ClipGenerator, canvas: Canvas) -> ClipStart:
        (b, t, _, h, w), channels = canvas.shape, system.config.backbone.cond_channels
        cond = torch.zeros(b, t, channels, h, w, device=canvas.device) if channels else None
        return ClipStart(together(canvas.sigmas, t), canvas.noise, cond=cond)


@dataclass(frozen=True, eq=False)
class FirstFrame(Conditioning):
    """Image to video: the first frame of `video` is the clip's."""

    video: Tensor
    of_image = True

    def discard_frames(self, config: ClipConfig) -> int:
        return config.discard_frames

    def start(self, system: ClipGenerator, canvas: Canvas) -> ClipStart:
        latents, known = self.known(system, canvas)
        share = system.config.image_mix
        noise = ImageMixedNoise(canvas.noise, latents[:, 0], share) if share else canvas.noise
        if system.config.backbone.cond_channels:
            cond = image_channels(latents, canvas.frames)
            return ClipStart(together(canvas.sigmas, canvas.frames), noise, cond=cond)
        return ClipStart(together(canvas.sigmas, canvas.frames, known=known), noise, latents)

    def known(self, system: ClipGenerator, canvas: Canvas) -> tuple[Tensor, Sequence[int]]:
        """Latents of the known frames, and their indices among the clip's."""
        return system.encode(canvas.rows(self.video[:, :1])), [0]


@dataclass(frozen=True, eq=False)
class FirstLast(FirstFrame):
    """The first and the last frame of `video` are the clip's."""

    concatenates = False

    def known(self, system: ClipGenerator, canvas: Canvas) -> tuple[Tensor, Sequence[int]]:
        if canvas.frames < 3 or self.video.shape[1] < 2:
            raise UserError("first and last frame need two given frames and a clip of three latents")
        # a codec codes a latent's frames together: the last one holds still for as long
        still = self.video[:, -1:].expand(-1, system.codec.stride[0] + 1, -1, -1, -1)
        first, last = (system.encode(canvas.rows(part)) for part in (self.video[:, :1], still))
        return torch.cat([first, last[:, -1:]], dim=1), [0, canvas.frames - 1]


@dataclass(frozen=True, eq=False)
class Continuation(FirstFrame):
    """The clip begins with `video` and goes on."""

    concatenates = False

    def known(self, system: ClipGenerator, canvas: Canvas) -> tuple[Tensor, Sequence[int]]:
        latents = system.encode(canvas.rows(self.video))
        if latents.shape[1] >= canvas.frames:
            raise UserError(f"the given video fills all {canvas.frames} latent frames: ask for more frames")
        return latents, range(latents.shape[1])


@dataclass(frozen=True, eq=False)
class Redo(Conditioning):
    """SDEdit (arXiv 2108.01073): `video` with noise of sigma `strength`, denoised."""

    video: Tensor
    strength: float = 0.7
    """Above 0 and up to 1, which forgets the video."""
    concatenates = False

    def extent(self, config: ClipConfig) -> tuple[int, tuple[int, int]]:
        return self.video.shape[1], config.size

    def check(self, config: ClipConfig, frames: int, size: tuple[int, int]) -> None:
        super().check(config, frames, size)
        _require_frames(self.video, frames)
        if not 0 < self.strength <= 1:
            raise UserError(f"the strength lies above 0 and up to 1, got {self.strength}")

    def start(self, system: ClipGenerator, canvas: Canvas) -> ClipStart:
        rising = list(reversed(canvas.sigmas))
        level = min(range(1, len(rising)), key=lambda k: abs(rising[k] - self.strength))
        latents = system.encode(canvas.rows(self.video))
        eps = torch.stack([canvas.noise(frame, 0) for frame in range(latents.shape[1])], dim=1)
        plan = together(canvas.sigmas, latents.shape[1], begin=level)
        mixed = (1 - rising[level]) * latents + rising[level] * eps
        return ClipStart(plan, canvas.noise, mixed[:, : sum(plan.given)])


@dataclass(frozen=True, eq=False)
class Upscale(Conditioning):
    """`video` at `config.upscale` times the height and width (Movie Gen, section 3.1.5)."""

    video: Tensor

    def extent(self, config: ClipConfig) -> tuple[int, tuple[int, int]]:
        height, width = (config.upscale * side for side in self.video.shape[-2:])
        return self.video.shape[1], (height, width)

    def check(self, config: ClipConfig, frames: int, size: tuple[int, int]) -> None:
        if config.upscale == 1:
            raise UserError("this system enlarges no clips: train one that `moviegen.upsampler` describes")
        _require_size(self.video, size, config.upscale)
        _require_frames(self.video, frames)

    def start(self, system: ClipGenerator, canvas: Canvas) -> ClipStart:
        cond = system.encode(canvas.rows(resized(self.video, canvas.size)))
        return ClipStart(together(canvas.sigmas, canvas.frames), canvas.noise, cond=cond)


def image_channels(latents: Tensor, count: int) -> Tensor:
    """For latent concatenation: the first latents `(b, k, c, h, w)` of `count`, then zeros, and their mask as
    one channel more, `(b, count, c + 1, h, w)`."""
    b, k, c, h, w = latents.shape
    cond = latents.new_zeros(b, count, c + 1, h, w)
    cond[:, :k, :c], cond[:, :k, c] = latents, 1.0
    return cond


def _require_size(video: Tensor, size: tuple[int, int], upscale: int = 1) -> None:
    found, needed = tuple(video.shape[-2:]), tuple(side // upscale for side in size)
    if found != needed:
        raise UserError(
            f"the given pictures are {found[0]}x{found[1]} and the clip of {size[0]}x{size[1]} needs "
            f"{needed[0]}x{needed[1]}: scale them to it"
        )


def _require_frames(video: Tensor, frames: int) -> None:
    if video.shape[1] != frames:
        raise UserError(f"the given video has {video.shape[1]} frames and the clip {frames}: make them equal")
