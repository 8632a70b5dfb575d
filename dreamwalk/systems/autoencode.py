"""Autoencode: the codec as a system of its own, trained before the systems that dream in its latents.

The patch codec (`codecs/patch.py`) sets its linear code from data and trains its decoder; the KL autoencoder
(`codecs/frame.py`, LDM, arXiv 2112.10752) trains both sides with a small KL term on its bottleneck.

    paper's word             our word
    first-stage model        codec
    latent z                 latents
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dreamwalk.clip import Clip
from dreamwalk.codecs import CodecConfig, VideoCodecConfig, build_codec, build_video_codec
from dreamwalk.codecs.blocks import BlockCodec, BlockCodecConfig
from dreamwalk.codecs.patch import PatchCodec, PatchCodecConfig
from dreamwalk.codecs.penalties import outlier_penalty
from dreamwalk.schedules.draws import Draws


@dataclass(frozen=True)
class AutoencodeConfig:
    """A codec and the weights of its loss."""

    codec: CodecConfig | VideoCodecConfig = field(default_factory=PatchCodecConfig)
    noise: float = 0.05
    """Noise added to latents while the decoder trains, in stds: dreamt latents are never exact."""
    l1: float = 0.5
    """Share of the absolute error in the loss; the rest is squared error; pixels are in [-1, 1]."""
    kl: float = 1e-6
    """Weight of the KL term, for codecs that learn their encoder."""
    outliers: float = 0.0
    """Weight of the outlier penalty of Movie Gen (`codecs/penalties.py`), which puts it at 1e5."""


class Autoencode(nn.Module):
    """A codec and its loss."""

    name = "autoencode"
    about: dict[str, Any] | None = None
    """Metadata of the file that the weights came from."""

    def __init__(self, config: AutoencodeConfig) -> None:
        super().__init__()
        self.config = config
        codec = config.codec
        self.codec = build_codec(codec) if isinstance(codec, CodecConfig) else build_video_codec(codec)

    @property
    def blocks(self) -> list[nn.Module]:
        """What is sharded, compiled and checkpointed."""
        return []

    def prepare(self, clips: Callable[[], Clip]) -> None:
        """Before the first step, set what is computed from data, not learned; `clips` gives a large batch."""
        if isinstance(self.codec, PatchCodec | BlockCodec):
            self.codec.fit(to_float(clips().video))

    def loss(self, clip: Clip, draws: Draws) -> dict[str, Tensor]:
        """Reconstruction of `clip.video`; `loss` is what is minimised, the rest is told."""
        video = to_float(clip.video)
        terms: dict[str, Tensor] = {}
        if isinstance(self.codec, PatchCodec | BlockCodec):
            latents = self.codec.encode(video)
            restored = self.codec.decode(latents + self.config.noise * draws.normal(*latents.shape[1:]))
        else:
            mean, log_variance = self.codec.posterior(video)
            terms["kl"] = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
            latents = mean + (0.5 * log_variance).exp() * draws.normal(*mean.shape[1:])
            restored = self.codec.decode(self.codec.normalise(latents))
            if self.config.outliers:
                terms["outliers"] = outlier_penalty(latents)
        error = restored[:, : video.shape[1]] - video
        squared, absolute = error.square().mean(), error.abs().mean()
        loss = self.config.l1 * absolute + (1 - self.config.l1) * squared
        loss = loss + self.config.kl * terms.get("kl", 0.0)
        loss = loss + self.config.outliers * terms.get("outliers", 0.0)
        return {"loss": loss, "psnr": 10 * torch.log10(4 / squared.detach()), **terms}

    @torch.no_grad()
    def preview(self, clip: Clip) -> Tensor:
        """Reconstruction in [-1, 1] `(b, t, 3, h, w)`, for a look during training."""
        return self.codec.decode(self.codec.encode(to_float(clip.video)))[:, : len(clip)].clamp(-1, 1)


def to_float(video: Tensor) -> Tensor:
    """uint8 video to float32 in [-1, 1]."""
    return video.float() / 127.5 - 1


def doom() -> AutoencodeConfig:
    """The frame codec of the shipped dreams: 96x128 pixels to 64 channels on a 6x8 grid."""
    return AutoencodeConfig(codec=PatchCodecConfig(channels=64))


def blocks() -> AutoencodeConfig:
    """The video codec of the shipped clips: 4 frames of 16x16 pixels to 256 channels."""
    return AutoencodeConfig(codec=BlockCodecConfig())
