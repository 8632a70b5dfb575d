"""The contract of codecs: video to latents and back; and the base of those with a Gaussian bottleneck.

A codec of single frames has a stride of 1 in time, and codes a stream frame by frame. In a causal codec the
first frame has a latent of its own, and every later latent stands for `stride[0]` frames.
"""

from __future__ import annotations

from itertools import chain
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dreamwalk.clip import Clip
from dreamwalk.codecs.penalties import outlier_penalty
from dreamwalk.distributed import mean_over_processes
from dreamwalk.errors import UserError

Stride = tuple[int, int, int]
"""Frames, rows and columns that become one."""
DECAY = 0.99
"""Of the running mean square; young ones forget faster."""


class CodecSizes(Protocol):
    """The part of a config that all codecs share."""

    @property
    def channels(self) -> int: ...
    @property
    def stride(self) -> Stride: ...


class KLSizes(CodecSizes, Protocol):
    """The part of a config that all codecs with a posterior share."""

    @property
    def scale(self) -> float | None: ...


class Normals(Protocol):
    """Where noise comes from (`schedules/generator.py`)."""

    def normal(self, *shape: int) -> Tensor:
        """Standard normal `(b, *shape)`."""

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), `(b, *shape)`."""


class Bottleneck(NamedTuple):
    """What lies between encoder and decoder while a codec trains."""

    latents: Tensor
    """As the decoder is to see them."""
    losses: dict[str, Tensor]
    """Terms of the loss that are of the latents."""
    measured: dict[str, Tensor]
    """Numbers to log."""


class Rebuilt(NamedTuple):
    """Video as a codec makes it anew while it trains."""

    video: Tensor
    """`(b, t, c, h, w)`."""
    losses: dict[str, Tensor]
    """Terms of the loss beside its error, as of `Bottleneck`."""
    measured: dict[str, Tensor]
    """Numbers to log."""


class Codec(nn.Module):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> latents `(b, t', c, h', w')`; `decode` goes back."""

    causal: ClassVar[bool] = True
    """No latent sees a later frame's latent; the first frame has a latent of its own."""
    config: CodecSizes
    stride: Stride
    """Frames, rows and columns of pixels per latent."""
    channels: int
    """Latent channels."""
    image_channels: int = 3
    """Of the video: RGB, or RGB-D (`codecs/rgbd.py`)."""

    def __init__(self, config: CodecSizes) -> None:
        super().__init__()
        self.config, self.stride, self.channels = config, config.stride, config.channels

    @property
    def channel_weights(self) -> Tensor:
        """Weight of a squared error in each channel, `(c, 1, 1)`, one on average: all alike."""
        return torch.ones(self.channels, 1, 1, device=next(self.parameters()).device)

    def latent_frames(self, frames: int) -> int:
        """Latents of so many frames; the last one may stand for fewer than `stride[0]`."""
        first = int(self.causal)
        return first - (first - frames) // self.stride[0]

    def decoded_frames(self, latents: int) -> int:
        """Frames of so many latents."""
        first = int(self.causal)
        return first + (latents - first) * self.stride[0]

    @property
    def fitted(self) -> bool:
        """Whether all is there that `fit` computes from data: always, where the encoder is trained."""
        return True

    def fit(self, video: Tensor) -> None:
        """Compute the encoder from a large batch of video `(b, t, 3, h, w)`, so that only the decoder is
        trained."""

    def check_size(self, video: Tensor) -> None:
        """UserError with the nearest size for frames that cannot be coded."""
        require_whole_latents(video, self.stride)

    def encode(self, video: Tensor) -> Tensor:
        """Latents of video, whose last frame is repeated up to a whole latent; UserErrors of `check_size`."""
        raise NotImplementedError

    def encode_measured(self, video: Tensor) -> Tensor:
        """Latents of a step of training, which is taken into what is measured rather than learnt: nothing
        here; UserErrors of `check_size`."""
        return self.encode(video)

    def bottleneck(self, video: Tensor, chance: Normals, *, noise: float) -> Bottleneck:
        """Latents for a step of training, with what is measured in it: here those of `encode` with noise of
        std `noise`; UserErrors of `check_size`."""
        latents = self.encode(video)
        return Bottleneck(latents + noise * chance.normal(*latents.shape[1:]), {}, {})

    def rebuilt(self, video: Tensor, clip: Clip, chance: Normals, *, noise: float) -> Rebuilt:
        """Video through `bottleneck`, for a step of training; the clip that it is of is for codecs that are
        told more."""
        latents, losses, measured = self.bottleneck(video, chance, noise=noise)
        return Rebuilt(self.decode(latents, video.shape[1]), losses, measured)

    @torch.no_grad()
    def restored(self, video: Tensor, actions: Tensor) -> Tensor:
        """Video encoded and decoded; the actions `(b, t, a)` are for codecs that are told them."""
        return self.decode(self.encode(video), video.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights, which for a linear code are no parameters."""
        return next(chain(self.parameters(), self.buffers())).dtype

    def decode(self, latents: Tensor, frames: int | None = None) -> Tensor:
        """Video of all frames, or of the first `frames` if the last ones were only repeated for coding.

        UserError for more frames than there are.
        """
        decoded = self.decoded_frames(latents.shape[1])
        if frames is not None and not 0 < frames <= decoded:
            raise UserError(f"{latents.shape[1]} latents are 1 to {decoded} frames, not {frames}")
        return self.reconstruct(latents.to(self.dtype))[:, :frames]

    def reconstruct(self, latents: Tensor) -> Tensor:
        """All frames of latents in the codec's precision."""
        raise NotImplementedError

    def padded(self, video: Tensor) -> Tensor:
        """The last frame repeated up to a whole latent."""
        missing = self.decoded_frames(self.latent_frames(video.shape[1])) - video.shape[1]
        return torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], 1) if missing else video


class KLAutoencoder(Codec):
    """A codec with a Gaussian posterior per latent (LDM, arXiv 2112.10752, section 3.1).

    Latents are its means, scaled to a variance of about one.
    """

    def __init__(self, config: KLSizes) -> None:
        super().__init__(config)
        self.scale = Scale(config.scale)

    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the unscaled latents; UserErrors of `check_size`."""
        self.check_size(video)
        return split_moments(self.moments_of(self.padded(video)))

    def moments_of(self, video: Tensor) -> Tensor:
        """`(b, t', 2 c, h', w')`: means, then log variances."""
        raise NotImplementedError

    def encode(self, video: Tensor) -> Tensor:
        return self.scale(self.posterior(video)[0])

    def encode_measured(self, video: Tensor) -> Tensor:
        mean, _ = self.posterior(video)
        self.scale.measure(mean)
        return self.scale(mean)

    def bottleneck(self, video: Tensor, chance: Normals, *, noise: float) -> Bottleneck:
        """A sample of the posterior, whose own noise is all that there is; its divergence from the standard
        normal, `kl`, and the outlier penalty of Movie Gen, `outliers`."""
        mean, log_variance = self.posterior(video)
        self.scale.measure(mean)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        latents = mean + (0.5 * log_variance).exp() * chance.normal(*mean.shape[1:])
        return Bottleneck(self.scale(latents), {"kl": kl, "outliers": outlier_penalty(latents)}, {})


class Scale(nn.Module):
    """A published factor; or with None the running root mean square of latents, measured in training.

    What was measured lies in buffers, and so is saved with the weights of the codec.
    """

    power: Tensor
    steps: Tensor

    def __init__(self, factor: float | None) -> None:
        super().__init__()
        self.factor = factor
        if factor is None:
            self.register_buffer("power", torch.ones(()))
            self.register_buffer("steps", torch.zeros(()))

    @torch.no_grad()
    def measure(self, latents: Tensor) -> None:
        """Take unscaled latents of a training step into the running mean square."""
        if self.factor is None:
            decay = decay_at(self.steps, DECAY)
            self.power.lerp_(mean_over_processes(latents.float().square().mean()).to(self.power), 1 - decay)
            self.steps += 1

    def forward(self, latents: Tensor) -> Tensor:
        """Unscaled latents to scaled ones."""
        return latents * (self.power.rsqrt() if self.factor is None else self.factor)

    def undo(self, latents: Tensor) -> Tensor:
        """And back."""
        return latents * self.power.sqrt() if self.factor is None else latents / self.factor


class Spread(nn.Module):
    """Vectors `(.., c)` of which each channel has a mean of nearly zero and a variance of nearly one, as
    measured in training.

    Before a quantizer it keeps codes alive: otherwise what all vectors share grows, and what tells them apart
    is rounded away. MAGVIT-v2's tokenizer needs a norm there for the same reason; this one does not depend on
    the clip, and so tells nothing of the future.
    """

    mean: Tensor
    power: Tensor
    steps: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("power", torch.ones(channels))
        self.register_buffer("steps", torch.zeros(()))

    @torch.no_grad()
    def measure(self, vectors: Tensor) -> None:
        """Take vectors of a training step into the running means."""
        flat, decay = vectors.flatten(0, -2).float(), decay_at(self.steps, DECAY)
        for own, seen in ((self.mean, flat.mean(0)), (self.power, flat.square().mean(0))):
            own.lerp_(mean_over_processes(seen).to(own), 1 - decay)
        self.steps += 1

    def forward(self, vectors: Tensor) -> Tensor:
        return (vectors - self.mean) / self.std

    def undo(self, vectors: Tensor) -> Tensor:
        """As they were."""
        return vectors * self.std + self.mean

    @property
    def std(self) -> Tensor:
        """Of each channel, `(c,)`."""
        return (self.power - self.mean.square()).clamp(min=1e-8).sqrt()


def decay_at(steps: Tensor, decay: float) -> Tensor:
    """Of a running mean after so many steps: 0 at first, and at most `decay`."""
    return ((1 + steps) / (10 + steps)).clamp(max=decay) * (steps > 0)


def split_moments(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of `(b, t, 2 c, h, w)`."""
    mean, log_variance = moments.chunk(2, dim=2)
    return mean, log_variance.clamp(-30, 20)


def require_whole_latents(video: Tensor, stride: Stride) -> None:
    """UserError with the nearest size for frames whose sides do not divide by those of `stride`."""
    (h, w), (_, down, across) = video.shape[-2:], stride
    if h % down or w % across:
        near = f"{max(down, round(h / down) * down)}x{max(across, round(w / across) * across)}"
        raise UserError(f"frames of {h}x{w} do not divide by {down}x{across}: the nearest size is {near}")
