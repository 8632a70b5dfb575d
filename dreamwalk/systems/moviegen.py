"""Moviegen: a whole clip from words, a picture, or another clip.

Movie Gen (arXiv 2410.13720, section 3) and HunyuanVideo (arXiv 2412.03603): a video codec, text encoders, a
transformer over all latent frames at once, and flow matching between data and noise. Which of the two it is,
its parts say: `backbones/mmdit.py` with `codecs/causal.py`, or `backbones/crossdit.py` with `codecs/tae.py`.

    paper's word                        our word
    TAE, causal 3D VAE                  codec
    t (1 data, 0 noise); timestep       sigma = 1 - t; 1000 sigma
    logit-normal sampling, time shift   `logit_normal`, `shift`
    text dropout                        `untold`
    image to video                      `pictured`, in one of two ways:
      token replacement                 the first latent is shown as it is, at sigma 0
      latent concatenation              it is shown beside all latents (`backbone.cond_channels`)
    embedded guidance, distillation     `embedded`
    spatial upsampler                   `upsampler`, `enlarges`
    MLLM and CLIP text encoders         `HunyuanTextConfig`; with `pictures`, the MLLM sees the first one
    MLLM, Glyph-ByT5, SigLIP (1.5)      `Hunyuan15TextConfig`; with `pictures`, SigLIP sees the first one

The upsampler (Movie Gen, section 3.1.5) is shown, beside all latents, those of the small clip made larger in
pixels. Both come from the system's codec, so that each latent has the latent of the very same frames beside
it, whatever the stride in time. The paper codes both by frames, as an inflated `TAEConfig(temporal=1)` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones import ClipBackboneConfig
from dreamwalk.backbones.clip_backbone import widened
from dreamwalk.backbones.crossdit import CrossDiTConfig, grown
from dreamwalk.backbones.mmdit import MMDiTConfig
from dreamwalk.clip import Clip
from dreamwalk.codecs import CodecConfig
from dreamwalk.codecs.block import BlockCodecConfig
from dreamwalk.codecs.causal import CausalVAEConfig
from dreamwalk.conditions import WordsConfig, build_reader
from dreamwalk.conditions.byte_encoder import ByteEncoderConfig
from dreamwalk.conditions.hunyuan import HunyuanTextEncoder
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.schedules.flow import add_noise, expand_like, logit_normal, shift
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.clip_generator import ClipGenerator, ClipRequest, film, shown_beside
from dreamwalk.systems.system import SystemConfig
from dreamwalk.systems.upscaling import degraded, resized
from dreamwalk.validation import Count, Positive, Rate, Share, Side, Steps


@dataclass(frozen=True)
class MoviegenConfig(SystemConfig):
    """The parts of a text-to-video system, and how it is trained and sampled."""

    codec: CodecConfig = field(default_factory=BlockCodecConfig)
    backbone: ClipBackboneConfig = field(default_factory=MMDiTConfig)
    letters: WordsConfig = field(default_factory=lambda: ByteEncoderConfig(width=128))
    """Who reads the words: a text encoder that is trained along, or published ones."""
    predicts: Literal["velocity", "clean"] = "velocity"
    """What the last layer gives: `v`, or `x`, from which v follows (Back to Basics, arXiv 2511.13720)."""
    velocity_floor: Positive = 0.1
    """Smallest sigma by which a clean prediction is divided."""
    shift: Positive = 3.0
    """How far levels are moved towards noise when sampling."""
    training_shift: Positive = 3.0
    """How far when training. Where everything is to be decided by the words, nothing else may show through:
    the larger the clip and the louder its low frequencies, the further."""
    training_spread: float = 1.0
    """Std of the logit of a training level, before it is shifted."""
    untold: Share = 0.1
    """Share of training clips without words, for classifier-free guidance."""
    pictured: Share = 0.3
    """Share of training clips that go on from their first latents: with 0 none can, with 1 all must."""
    enlarges: int = 1
    """How many times as high and wide a given clip becomes, which is then shown beside the latents."""
    hint: Share = 0.0
    """How much of its picture's latent shines through the noise that a clip begins as."""
    lead: Count = 0
    """Frames before a clip that begins with a picture, which are dreamt and cut off."""
    frames: int = 33
    """Frames of a clip, unless asked for otherwise."""
    size: tuple[Side, Side] = (96, 128)
    """Height and width of a clip, unless asked for otherwise."""
    fps: Rate = 35 / 3
    steps: Steps = 30
    guidance: float = 4.0
    embedded: float | None = None
    """The scale of guidance that a backbone is told which has it as an input."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the backbone's weights; the codec's are float32."""

    def build(self) -> Moviegen:
        return Moviegen(self)

    def __post_init__(self) -> None:
        channels, extra = self.backbone.channels, self.backbone.cond_channels
        if self.enlarges < 1 or (self.enlarges > 1 and extra != channels):
            raise UserError(
                f"`enlarges` is {self.enlarges}, and {extra} channels are beside {channels}: take the config "
                "that `moviegen.upsampler` gives"
            )


class Moviegen(ClipGenerator):
    """A frozen video codec, a text encoder, and a transformer over clips."""

    name = "moviegen"
    config: MoviegenConfig

    def __init__(self, config: MoviegenConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec.build().requires_grad_(False)
        self.letters = build_reader(config.letters)
        self.backbone = config.backbone.build().to(getattr(torch, config.precision))

    @property
    def blocks(self) -> nn.ModuleList:
        return self.backbone.blocks

    @property
    def working_bytes(self) -> int:
        return 4 * 3 * self.config.frames * math.prod(self.config.size)

    def adapt_weights(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of a system with nothing beside its latents, and of other tables of positions."""
        backbone = self.config.backbone
        tensors = widened(tensors, backbone)
        return grown(tensors, backbone.extent) if isinstance(backbone, CrossDiTConfig) else tensors

    def encode(self, video: Tensor) -> Tensor:
        """Video in 0 to 255 `(b, t, 3, h, w)` to latents `(b, t', c, h', w')`."""
        with torch.no_grad(), torch.autocast(video.device.type, enabled=False):
            return self.codec.encode(video.float() / 127.5 - 1)

    def read(self, texts: Sequence[str], pictures: Tensor | None = None) -> TextEmbedding:
        """What the backbone is told for texts; the empty one tells nothing. First pictures, uint8
        `(b or 1, 3, h, w)`, are shown to published readers, of which some look at them."""
        published = isinstance(self.letters, HunyuanTextEncoder)
        return self.letters(texts, pictures) if published else self.letters(texts)

    def velocity(
        self,
        x: Tensor,
        sigma: Tensor,
        words: TextEmbedding,
        *,
        guidance: Tensor | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """`v = eps - x` of noisy latents `(b, t, c, h, w)`; a `systems.clip_generator.Velocity`."""
        out = self.backbone(x, sigma, words, guidance=guidance, cond=extra)
        if self.config.predicts == "velocity":
            return out
        return (x - out) / expand_like(sigma.clamp(min=self.config.velocity_floor), x)

    def loss(self, clip: Clip, generator: KeyedGenerator) -> dict[str, Tensor]:
        """Flow matching (Movie Gen, equations 1 to 4): the squared error of the velocity.

        One level for all frames of a clip, but 0 for the first latents of those that go on from them, often
        one and at most all but one, which then have no loss. Where a first latent is shown beside all of them
        instead, it has. An upsampler is shown the clip, made small and large again.
        """
        config = self.config
        x = self.encode(clip.video) if clip.latents is None else clip.latents.float()
        told = generator.uniform(1)[:, 0] >= config.untold
        texts = [text if tell else "" for text, tell in zip(clip.caption, told, strict=True)]
        words = self.read(texts, None if clip.video is None else clip.video[:, 0])
        drawn = logit_normal(generator.normal(1), std=config.training_spread)
        sigma = shift(drawn, config.training_shift).expand(-1, x.shape[1]).clone()
        going_on = (generator.uniform(1)[:, 0] < config.pictured) & (x.shape[1] > 1)
        extra = None
        if config.enlarges > 1:
            small = degraded(clip.video, generator, enlarges=config.enlarges)
            extra = self.encode(resized(small, clip.video.shape[-2:]))
        elif config.backbone.cond_channels:
            extra = shown_beside(x[:, :1], x.shape[1]) * going_on[:, None, None, None, None]
        else:
            known = (generator.uniform(1).square() * (x.shape[1] - 1)).ceil().clamp(min=1)
            sigma[going_on[:, None] & (torch.arange(x.shape[1], device=x.device) < known)] = 0.0
        eps = generator.normal(*x.shape[1:])
        guidance = None if config.embedded is None else x.new_full((len(x),), config.embedded)
        v = self.velocity(add_noise(x, eps, sigma), sigma, words, guidance=guidance, extra=extra)
        error = (self.codec.channel_weights * (v - (eps - x)).square()).mean(dim=(2, 3, 4))
        loss = (error * (sigma > 0)).sum() / (sigma > 0).sum()
        return {
            "loss": loss,
            "high": _share(error, sigma > 0.8),
            "low": _share(error, (sigma > 0) & (sigma < 0.5)),
        }

    @torch.inference_mode()
    def preview(self, clip: Clip) -> Tensor:
        """What the captions of `clip` lead to, in [-1, 1] `(b, t, 3, h, w)`."""
        height, width = clip.video.shape[-2:]
        order = ClipRequest(tuple(clip.caption), frames=len(clip), size=(height, width), steps=12)
        if self.config.enlarges == 1:
            return film(self, order)
        generator = KeyedGenerator([(row,) for row in range(len(clip.video))], device=clip.video.device)
        small = degraded(clip.video, generator, enlarges=self.config.enlarges)
        return film(self, replace(order, use="larger"), small)

    def sample(
        self,
        prompt: str | Sequence[str],
        *,
        frames: int | None = None,
        seed: int = 0,
        order: ClipRequest | None = None,
        video: Tensor | None = None,
    ) -> Tensor:
        """Clips of one prompt or several, uint8 `(b, t, h, w, 3)`; an `order` says all but the prompts.

        `video` uint8 `(b or 1, t, 3, h, w)` are pictures to begin with or a clip, used as `order.use` says.
        """
        prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        asked = replace(order or ClipRequest((), frames=frames, seed=seed), prompts=prompts)
        return rearrange((film(self, asked, video) + 1) * 127.5, "b t c h w -> b t h w c").round().byte()


def _share(error: Tensor, chosen: Tensor) -> Tensor:
    """The mean error of some frames; 0 when there are none."""
    return (error * chosen).sum().detach() / chosen.sum().clamp(min=1)


def upsampler(config: MoviegenConfig, *, enlarges: int = 2) -> MoviegenConfig:
    """Of a system of clips from words, the one that makes its clips so many times as high and wide.

    It starts from that one's weights (`systems.open.init_from`) and at first gives what that one gives, but
    where positions are tables, which are interpolated.
    UserError for a system that is shown something beside its latents already, or for less than twice.
    """
    backbone, (height, width) = config.backbone, config.size
    if backbone.cond_channels or enlarges < 2:
        raise UserError(
            "an upsampler makes clips 2 or more times as large, and starts from `cond_channels` of 0"
        )
    if isinstance(backbone, CrossDiTConfig):
        t, h, w = backbone.extent
        backbone = replace(backbone, extent=(t, enlarges * h, enlarges * w))
    return replace(
        config,
        backbone=replace(backbone, cond_channels=backbone.channels),
        enlarges=enlarges,
        pictured=0.0,
        hint=0.0,
        size=(enlarges * height, enlarges * width),
        steps=20,
    )


def tiny() -> MoviegenConfig:
    """For tests: a toy of every part, for clips of 5 frames of 32x32."""
    codec = CausalVAEConfig(
        channels=4,
        widths=(8, 8, 8),
        blocks=1,
        norm="position",
        attention="frame",
        scale=1.0,
        patch=2,
        strides=((2, 2, 2), (2, 2, 2)),
    )
    backbone = MMDiTConfig(
        channels=4,
        width=32,
        heads=2,
        double_blocks=1,
        single_blocks=1,
        refiner_blocks=1,
        text_dim=16,
        pooled_dim=0,
        axes=(4, 6, 6),
    )
    letters = ByteEncoderConfig(width=16, heads=2)
    return MoviegenConfig(codec, backbone, letters, frames=5, size=(32, 32), steps=3)


def doom() -> MoviegenConfig:
    """The shipped size: clips of 33 frames of 96x128, 816 tokens."""
    return MoviegenConfig(
        codec=BlockCodecConfig(),
        backbone=MMDiTConfig(
            channels=128,
            width=256,
            heads=4,
            double_blocks=1,
            single_blocks=7,
            refiner_blocks=1,
            patch=(1, 1, 1),
            text_dim=128,
            pooled_dim=128,
            axes=(16, 24, 24),
        ),
        letters=ByteEncoderConfig(width=128, pooled=128),
        predicts="clean",
        shift=8.0,
        training_shift=8.0,
        training_spread=1.6,
        pictured=0.5,
        steps=16,
        guidance=6.0,
    )
