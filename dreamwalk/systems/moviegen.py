"""Moviegen: a whole clip from text, an image, or another clip.

Movie Gen (arXiv 2410.13720, section 3) and HunyuanVideo (arXiv 2412.03603): a video codec, text encoders, a
transformer over all latent frames at once, and flow matching between data and noise. The parts decide which
of the two it is: `backbones/mmdit.py` with `codecs/causal.py`, or `crossdit.py` with `codecs/tae.py`.

    paper's word                        our word
    TAE, causal 3D VAE                  codec
    t (1 data, 0 noise); timestep       sigma = 1 - t; 1000 sigma
    logit-normal sampling, time shift   `training_sigma`, `shift`
    text dropout                        `cond_dropout`
    image to video                      `image_prob`, in one of two ways:
      token replacement                 the first latent stays clean, at sigma 0
      latent concatenation              it is beside all latents (`backbone.cond_channels`)
    embedded guidance, distillation     `embedded_guidance`
    spatial upsampler                   `upsampler`, `upscale`
    UL2, ByT5, MetaCLIP                 `MovieGenTextConfig`
    MLLM and CLIP text encoders         `HunyuanTextConfig`, with the image for image to video
    MLLM, Glyph-ByT5, SigLIP (1.5)      `Hunyuan15TextConfig`, with the image for image to video

The upsampler (Movie Gen, section 3.1.5) has, beside all latents, those of the small clip resized in pixels.
Both come from the system's codec, so that each latent is beside the latent of the very same frames, whatever
the stride in time. The paper codes both by frames, as an inflated `TAEConfig(temporal=1)` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreamwalk.backbones.crossdit import CrossDiTConfig
from dreamwalk.backbones.mmdit import MMDiTConfig
from dreamwalk.clip import Clip
from dreamwalk.codecs.block import BlockCodecConfig
from dreamwalk.codecs.causal import CausalVAEConfig
from dreamwalk.conditions.byte_encoder import ByteEncoderConfig
from dreamwalk.errors import UserError
from dreamwalk.schedules.flow import add_noise
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.clip_generator import ClipConfig, ClipGenerator
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.conditionings import Conditioning, TextOnly, Upscale, image_channels
from dreamwalk.systems.upscaling import degraded, resized


@dataclass(frozen=True)
class MoviegenConfig(ClipConfig):
    """The parts of a text-to-video system, and how it is trained and sampled."""

    def build(self) -> Moviegen:
        return Moviegen(self)


class Moviegen(ClipGenerator):
    """A frozen video codec, a text encoder, and a transformer over clips."""

    name = "moviegen"
    config: MoviegenConfig

    def loss(self, clip: Clip, generator: KeyedGenerator) -> dict[str, Tensor]:
        """Flow matching (Movie Gen, equations 1 to 4): the squared error of the velocity.

        One sigma for all frames of a clip, but 0 for the first latents under image conditioning, often one
        and at most all but one, which then have no loss. Under latent concatenation all have. An upsampler is
        given the clip, downscaled and resized.
        """
        config = self.config
        x = self.encode(clip.video) if clip.latents is None else clip.latents.float()
        text = self.training_text(clip, generator, None if clip.video is None else clip.video[:, 0])
        sigma = self.training_sigma(generator).expand(-1, x.shape[1]).clone()
        has_image = (generator.uniform(1)[:, 0] < config.image_prob) & (x.shape[1] > 1)
        cond = None
        if config.upscale > 1:
            small = degraded(clip.video, generator, factor=config.upscale)
            cond = self.encode(resized(small, clip.video.shape[-2:]))
        elif config.backbone.cond_channels:
            cond = image_channels(x[:, :1], x.shape[1]) * has_image[:, None, None, None, None]
        else:
            known = (generator.uniform(1).square() * (x.shape[1] - 1)).ceil().clamp(min=1)
            sigma[has_image[:, None] & (torch.arange(x.shape[1], device=x.device) < known)] = 0.0
        eps = generator.normal(*x.shape[1:])
        embedded = config.embedded_guidance
        guidance = None if embedded is None else x.new_full((len(x),), embedded)
        v = self.velocity(add_noise(x, eps, sigma), sigma, text, guidance=guidance, cond=cond)
        error = (self.codec.channel_weights * (v - (eps - x)).square()).mean(dim=(2, 3, 4))
        loss = (error * (sigma > 0)).sum() / (sigma > 0).sum()
        high, low = _masked_mean(error, sigma > 0.8), _masked_mean(error, (sigma > 0) & (sigma < 0.5))
        return {"loss": loss, "high": high, "low": low}

    @torch.inference_mode()
    def preview(self, clip: Clip) -> Tensor:
        """Clips of the captions of `clip`, in [-1, 1] `(b, t, 3, h, w)`."""
        b, t, _, h, w = clip.video.shape
        conditioning: Conditioning = TextOnly()
        if self.config.upscale > 1:
            generator = KeyedGenerator([(row,) for row in range(b)], device=clip.video.device)
            conditioning = Upscale(degraded(clip.video, generator, factor=self.config.upscale))
        prompts = tuple(clip.caption)
        return self.sample_video(ClipRequest(prompts, conditioning, frames=t, size=(h, w), steps=12))


def _masked_mean(error: Tensor, chosen: Tensor) -> Tensor:
    """The mean error of the chosen frames; 0 when there are none."""
    return (error * chosen).sum().detach() / chosen.sum().clamp(min=1)


def upsampler(config: MoviegenConfig, *, factor: int = 2) -> MoviegenConfig:
    """The upsampler of a text-to-video system, to `factor` times its height and width.

    It starts from that system's weights (`systems.open.init_from`) and at first gives what that one gives,
    but where positions are tables, which are interpolated.
    UserError for a system that has channels beside its latents already, or a factor below 2.
    """
    backbone, (height, width) = config.backbone, config.size
    if backbone.cond_channels or factor < 2:
        raise UserError("an upsampler makes clips 2 or more times as large and starts from `cond_channels` 0")
    if isinstance(backbone, CrossDiTConfig):
        t, h, w = backbone.extent
        backbone = replace(backbone, extent=(t, factor * h, factor * w))
    backbone = replace(backbone, cond_channels=backbone.channels)
    config = replace(config, size=(factor * height, factor * width), steps=20)
    return replace(config, backbone=backbone, upscale=factor, image_prob=0.0, image_mix=0.0)


def tiny() -> MoviegenConfig:
    """For tests: a toy of every part, for clips of 5 frames of 32x32."""
    strides = ((2, 2, 2), (2, 2, 2))
    codec = CausalVAEConfig(channels=4, widths=(8, 8, 8), strides=strides, norm="position", attention="frame")
    codec = replace(codec, blocks=1, patch=2, scale=1.0)
    backbone = MMDiTConfig(channels=4, width=32, heads=2, text_dim=16, pooled_dim=0, axes=(4, 6, 6))
    backbone = replace(backbone, double_blocks=1, single_blocks=1, refiner_blocks=1)
    text_encoder = ByteEncoderConfig(width=16, heads=2)
    return MoviegenConfig(codec, backbone, text_encoder, frames=5, size=(32, 32), steps=3)


def doom() -> MoviegenConfig:
    """The shipped size: clips of 33 frames of 96x128, 816 tokens."""
    backbone = MMDiTConfig(channels=128, width=256, heads=4, patch=(1, 1, 1), axes=(16, 24, 24))
    backbone = replace(backbone, double_blocks=1, single_blocks=7, refiner_blocks=1)
    backbone = replace(backbone, text_dim=128, pooled_dim=128)
    text_encoder = ByteEncoderConfig(width=128, pooled_dim=128)
    config = MoviegenConfig(BlockCodecConfig(), backbone, text_encoder, predicts="clean", image_prob=0.5)
    return replace(config, shift=8.0, training_shift=8.0, logit_std=1.6, steps=16, guidance=6.0)
