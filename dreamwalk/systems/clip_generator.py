"""The base of systems that generate whole clips: a request becomes a plan, sampling steps, and a video.

The plan is one of `schedules.clip_plans.together`, run by the one executor. The request's conditioning says
what it starts from (`systems/conditionings.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

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
from dreamwalk.codecs.tiles import Tiling, stream_decode
from dreamwalk.conditions import TextEncoderConfig
from dreamwalk.conditions.byte_encoder import ByteEncoderConfig
from dreamwalk.conditions.frozen import TextInputs
from dreamwalk.errors import UserError
from dreamwalk.layers.precision import float32_arithmetic
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.rollout.clip_predictor import ClipPredictor, TiledVelocity, Velocity, WindowedPredictor
from dreamwalk.rollout.execute import UPDATES, KeyedNoise, Noise, Predictor, begin, run
from dreamwalk.schedules.flow import expand_like, logit_normal, shift
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.guidance import conditions, guided
from dreamwalk.schedules.sigmas import spaced_sigmas
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.conditionings import Canvas, Conditioning
from dreamwalk.systems.system import System, SystemConfig
from dreamwalk.validation import Count, Positive, Rate, Share, Side, Steps


@dataclass(frozen=True)
class ClipConfig(SystemConfig):
    """The parts of a generator of clips, and how it is trained and sampled."""

    codec: CodecConfig = field(default_factory=BlockCodecConfig)
    backbone: ClipBackboneConfig = field(default_factory=MMDiTConfig)
    text_encoder: TextEncoderConfig = field(default_factory=lambda: ByteEncoderConfig(width=128))
    predicts: Literal["velocity", "clean"] = "velocity"
    """What the last layer gives: `v`, or `x`, from which v follows (Back to Basics, arXiv 2511.13720)."""
    velocity_floor: Positive = 0.1
    """Smallest sigma by which a clean prediction is divided."""
    shift: Positive = 3.0
    """How far sigmas are shifted towards noise when sampling."""
    training_shift: Positive = 3.0
    """The same when training. Where the text has to decide everything, nothing else may show through: the
    larger the clip and the louder its low frequencies, the further."""
    logit_std: float = 1.0
    """Std of the logit of a training sigma, before it is shifted."""
    cond_dropout: Share = 0.1
    """Probability of training a clip without its text, for classifier-free guidance."""
    image_prob: Share = 0.3
    """Probability of image conditioning in training. 0: text to video only; 1: image to video only."""
    image_mix: Share = 0.0
    """Share of the image's latent in the noise that image to video begins from."""
    discard_frames: Count = 0
    """Frames before a clip that begins with an image, which are generated and cut off."""
    upscale: int = 1
    """Factor of height and width by which a given clip is enlarged; 1: the system is no upsampler."""
    frames: int = 33
    """Frames of a clip, unless asked for otherwise."""
    size: tuple[Side, Side] = (96, 128)
    """Height and width of a clip, unless asked for otherwise."""
    fps: Rate = 35 / 3
    steps: Steps = 30
    guidance: float = 4.0
    embedded_guidance: float | None = None
    """Guidance scale for a backbone that has it as an input."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the backbone's weights; the codec's are float32."""

    def __post_init__(self) -> None:
        channels, extra = self.backbone.channels, self.backbone.cond_channels
        if self.upscale < 1 or (self.upscale > 1 and extra != channels):
            raise UserError(
                f"`upscale` is {self.upscale}, and {extra} channels are beside {channels}: take the config "
                "that `moviegen.upsampler` gives"
            )


@dataclass(frozen=True)
class ClipSettings:
    """The numbers of a request, with the system's own where it leaves them open."""

    frames: int
    size: tuple[int, int]
    """Height and width in pixels."""
    steps: int
    guidance: float
    embedded_guidance: float | None
    shift: float


@dataclass(frozen=True)
class ClipStep:
    """Clips after a sampling step."""

    step: int
    steps: int
    latents: Tensor
    """`(b, t', c, h', w')`, noisy until the last step."""
    denoised: Tensor
    """The prediction of the clean latents: `x - sigma v`, by the last velocity."""


class ClipGenerator(System):
    """A frozen video codec, a text encoder, and a backbone over all latent frames of a clip."""

    config: ClipConfig
    generates: Literal["", "frames", "clips", "scenes"] = "clips"

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec.build().requires_grad_(False)
        self.text_encoder = config.text_encoder.build()
        self.backbone = config.backbone.build().to(getattr(torch, config.precision))

    @property
    def blocks(self) -> nn.ModuleList:
        return self.backbone.blocks

    @property
    def working_bytes(self) -> int:
        return 4 * 3 * self.config.frames * math.prod(self.config.size)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def adapt_weights(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Weights of a system with nothing beside its latents, and of other tables of positions."""
        backbone = self.config.backbone
        tensors = widened(tensors, backbone)
        return grown(tensors, backbone.extent) if isinstance(backbone, CrossDiTConfig) else tensors

    def encode(self, video: Tensor) -> Tensor:
        """Video in 0 to 255 `(b, t, 3, h, w)` to latents `(b, t', c, h', w')`."""
        with torch.no_grad(), float32_arithmetic():
            return self.codec.encode(video.float() / 127.5 - 1)

    def training_text(self, clip: Clip, generator: KeyedGenerator, picture: Tensor | None) -> TextEmbedding:
        """Of the captions of `clip`, some of them dropped; `picture` is the first of each."""
        kept = generator.uniform(1)[:, 0] >= self.config.cond_dropout
        texts = [text if keep else "" for text, keep in zip(clip.caption, kept, strict=True)]
        return self.text_encoder(texts, picture)

    def training_sigma(self, generator: KeyedGenerator) -> Tensor:
        """A noise level for each clip, `(b, 1)`."""
        drawn = logit_normal(generator.normal(1), std=self.config.logit_std)
        return shift(drawn, self.config.training_shift)

    def velocity(
        self, x: Tensor, sigma: Tensor, text: TextEmbedding, *, guidance: Tensor | None, cond: Tensor | None
    ) -> Tensor:
        """`v = eps - x` of noisy latents `(b, t, c, h, w)`; a `rollout.clip_predictor.Velocity`."""
        out = self.prediction(x, sigma, text, guidance=guidance, cond=cond)
        if self.config.predicts == "velocity":
            return out
        return (x - out) / expand_like(sigma.clamp(min=self.config.velocity_floor), x)

    def prediction(
        self, x: Tensor, sigma: Tensor, text: TextEmbedding, *, guidance: Tensor | None, cond: Tensor | None
    ) -> Tensor:
        """What `config.predicts` says, of the same inputs."""
        return self.backbone(x, sigma, text, guidance=guidance, cond=cond)

    def settings(self, request: ClipRequest) -> ClipSettings:
        """The numbers that a request is sampled with."""
        frames, size = request.conditioning.extent(self.config)
        names = "steps", "guidance", "embedded_guidance", "shift"
        asked = {name: getattr(request, name) for name in names}
        own = {name: getattr(self.config, name) if value is None else value for name, value in asked.items()}
        return ClipSettings(request.frames or frames, request.size or size, **own)

    @property
    def token_size(self) -> tuple[int, int]:
        """Height and width of a token in pixels."""
        (_, down, across), (_, p, q) = self.codec.stride, self.config.backbone.patch
        return down * p, across * q

    def check(self, request: ClipRequest) -> None:
        """UserError, with the nearest valid value, for what this system cannot sample."""
        request.check()
        settings = self.settings(request)
        self._check_tokens(settings.size, "clips")
        if request.area:
            self._check_tokens(request.area, "tiles")
        request.conditioning.check(self.config, settings.frames, settings.size)

    def _check_tokens(self, size: tuple[int, int], what: str) -> None:
        units = self.token_size
        if any(side < unit or side % unit for side, unit in zip(size, units, strict=True)):
            near = "x".join(str(max(1, round(s / u)) * u) for s, u in zip(size, units, strict=True))
            (h, w), whole = size, "x".join(map(str, units))
            raise UserError(f"{what} of {h}x{w} do not divide by {whole}: the nearest size is {near}")

    def latent_shape(self, request: ClipRequest) -> tuple[int, int, int, int, int]:
        """`(b, t', c, h', w')` of what is sampled, frames to be discarded included."""
        settings, (_, down, across) = self.settings(request), self.codec.stride
        frames = settings.frames + request.conditioning.discard_frames(self.config)
        (height, width), length = settings.size, self.codec.latent_frames(frames)
        return len(request.prompts), length, self.codec.channels, height // down, width // across

    def first_picture(self, conditioning: Conditioning) -> Tensor | None:
        """What text encoders that look at the first picture see of it, uint8 `(b or 1, 3, h, w)`."""
        return conditioning.image

    def text_inputs(self, request: ClipRequest) -> list[TextInputs]:
        """What the text encoder reads: the prompts and, where there is guidance, the negative prompts."""
        image = self.first_picture(request.conditioning)
        inputs: list[TextInputs] = [(request.prompts, image)]
        if self.settings(request).guidance != 1:
            against = None if image is None else self.text_encoder.negative_image(image)
            inputs.append(([request.negative] * len(request.prompts), against))
        return inputs

    def generate(self, request: ClipRequest, *, noise: Noise | None = None) -> Iterator[ClipStep]:
        """Sample clips step by step. `noise` is drawn from the request's seed unless it is given.

        UserErrors as of `check`, and of the conditioning's `start`.
        """
        self.check(request)
        settings, shape = self.settings(request), self.latent_shape(request)
        seeds = tuple(request.seed + row for row in range(shape[0]))
        noise = noise or KeyedNoise(seeds, shape[2:], self.device)
        sigmas = spaced_sigmas(request.spacing, settings.steps, shift_by=settings.shift)
        canvas = Canvas(shape, settings.size, sigmas, noise, self.device)
        start = request.conditioning.start(self, canvas)
        plan = guided(start.plan, conditions(settings.guidance, rescale=request.rescale))
        text, *rest = (self.text_encoder(*inputs) for inputs in self.text_inputs(request))
        velocity = self._tiled(request.area) if request.area else self.velocity
        negative = rest[0] if rest else None
        predictor: Predictor = ClipPredictor(velocity, text, negative, settings.embedded_guidance, start.cond)
        if request.window:
            predictor = WindowedPredictor(predictor, request.window, request.window // 2)
        state, update = begin(plan, start.noise, start.given), UPDATES[request.solver]
        for index in run(plan, state, predictor, start.noise, update=update):
            denoised = state.x.clone()
            for slot, (v, _) in state.last_step.items():
                denoised[:, slot] -= plan.sigmas[plan.levels[index + 1][slot]] * v
            yield ClipStep(index + 1, len(plan.rows), state.x, denoised)

    def _tiled(self, area: tuple[int, int]) -> Velocity:
        """The velocity, tile by tile; neighbours share a quarter, in whole tokens, but one at least."""
        _, p, q = self.config.backbone.patch
        counts = [side // unit for side, unit in zip(area, self.token_size, strict=True)]
        shared = [min(-(-n // 4), n - 1) for n in counts]
        return TiledVelocity(self.velocity, (counts[0] * p, counts[1] * q), (shared[0] * p, shared[1] * q))

    def decode(self, request: ClipRequest, latents: Tensor, tiling: Tiling | None = None) -> Iterator[Tensor]:
        """The frames of sampled latents in [-1, 1], `(b, some, 3, h, w)`, tile by tile or all at once."""
        cut = request.conditioning.discard_frames(self.config)
        frames = cut + self.settings(request).frames
        pieces = stream_decode(self.codec, latents, tiling, frames=frames) if tiling else None
        for piece in pieces or [self.codec.decode(latents, frames)]:
            yield piece[:, cut:].clamp(-1, 1)
            cut = max(0, cut - piece.shape[1])

    @torch.inference_mode()
    def sample_video(self, request: ClipRequest) -> Tensor:
        """The clips of a request in [-1, 1], `(b, t, 3, h, w)`."""
        *_, last = self.generate(request)
        return torch.cat(list(self.decode(request, last.latents)), dim=1)

    def sample(
        self,
        prompt: str | Sequence[str],
        *,
        frames: int | None = None,
        seed: int = 0,
        request: ClipRequest | None = None,
    ) -> Tensor:
        """Clips of one prompt or several, uint8 `(b, t, h, w, 3)`; a `request` says all but the prompts."""
        prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        request = replace(request or ClipRequest(frames=frames, seed=seed), prompts=prompts)
        video = (self.sample_video(request) + 1) * 127.5
        return rearrange(video, "b t c h w -> b t h w c").round().byte()
