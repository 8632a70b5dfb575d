"""Next scale: VAR (arXiv 2404.02905), pictures of a class as tokens from coarse to fine.

    r_1, .., r_K = multi-scale code of the picture          codec.tokens, algorithm 1
    p(r_1 .. r_K) = prod_k p(r_k | r_1 .. r_k-1)            section 3.2, equation 6
    loss = cross-entropy of all tokens of all scales        a token counts the same, wherever it is
    logits_k = (1 + t_k) conditional - t_k unconditional    t_k = t k / (K - 1): the first scale is not led

    paper's word             our word
    token map r_k            tokens of a scale
    visual autoregressive    `ScaleFormer`
    f_hat, interpolated      `told`: what the scales so far tell the next one
    cfg t                    guidance 1 + t

A clip is so many pictures without a class; for classes the transformer was trained by its authors
(`published/var.py`), or is called from Python. Sampling is from Python too: `sample(classes, seeds)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from dreamwalk.backbones.scaleformer import ScaleFormerConfig
from dreamwalk.backbones.token_heads import TokenSampling
from dreamwalk.clip import Clip
from dreamwalk.codecs.residual_quantizers import MultiScaleConfig, MultiScaleQuantizer
from dreamwalk.codecs.rgbd import codec_input
from dreamwalk.codecs.tokens import TokenCodec, TokenCodecConfig
from dreamwalk.codecs.vector_quantizer import VQConfig
from dreamwalk.codecs.vqgan import VQGANConfig
from dreamwalk.errors import UserError
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.system import System, SystemConfig


@dataclass(frozen=True)
class NextScaleConfig(SystemConfig):
    """A codec of images with a multi-scale quantizer, the transformer over it, and how it is sampled."""

    codec: TokenCodecConfig
    backbone: ScaleFormerConfig
    sampling: TokenSampling = field(
        default_factory=lambda: TokenSampling(top_k=900, top_p=0.96, guidance=2.5)
    )
    """`guidance` is that of the last scale."""

    def __post_init__(self) -> None:
        quantizer, backbone = self.codec.quantizer, self.backbone
        if not isinstance(quantizer, MultiScaleConfig) or self.codec.stride[0] != 1:
            raise UserError("the codec must be one of frames with a multi-scale quantizer")
        for what in ("scales", "channels", "vocabulary"):
            ours, theirs = getattr(quantizer, what), getattr(backbone, what)
            if ours != theirs:
                raise UserError(f"the codec and the backbone have another {what}, {ours} and {theirs}")

    def build(self) -> NextScale:
        return NextScale(self)


class NextScale(System):
    """A frozen codec and a transformer over its scales."""

    name = "nextscale"
    config: NextScaleConfig

    def __init__(self, config: NextScaleConfig) -> None:
        super().__init__()
        self.config = config
        self.codec: TokenCodec = config.codec.build().requires_grad_(False)
        self.backbone = config.backbone.build()

    @property
    def blocks(self) -> nn.ModuleList:
        return self.backbone.blocks

    def loss(self, clip: Clip, generator: KeyedGenerator) -> dict[str, Tensor]:
        """Cross-entropy in nats of a token of the frames of `clip`, as pictures of no class."""
        with torch.no_grad():
            tokens = self.codec.tokens(codec_input(clip, 3)).flatten(0, 1)
        classes = torch.full((len(tokens),), self.backbone.none, device=tokens.device)
        logits = self.backbone(self.told_all(tokens), classes)
        loss = nn.functional.cross_entropy(logits.transpose(1, 2).float(), tokens)
        right = (logits.detach().argmax(-1) == tokens).float().mean()
        return {"loss": loss, "right": right}

    @torch.no_grad()
    def told_all(self, tokens: Tensor) -> Tensor:
        """What the scales before tell each but the first, `(b, n - n_1, c)`, for all tokens `(b, n)`."""
        ends = self.backbone.ends
        told = [self.quantizer.told(tokens[:, :end]) for end in ends[:-1]]
        return torch.cat([tokens.new_zeros(len(tokens), 0, self.codec.channels).float(), *told], 1)

    @torch.no_grad()
    def preview(self, clip: Clip) -> Tensor:
        """Pictures of no class, as many as there are frames."""
        rows, frames = clip.video.shape[:2]
        pictures = self.sample([self.backbone.none] * rows * frames, seeds=range(rows * frames))
        return pictures.unflatten(0, (rows, frames))

    @torch.no_grad()
    def sample(
        self, classes: Sequence[int], *, seeds: Sequence[int], sampling: TokenSampling | None = None
    ) -> Tensor:
        """Pictures `(b, 3, h, w)` in [-1, 1], one of each class by its own seed; a class is 0 to
        `backbone.config.classes`, of which the last is none of them.

        UserError for a class that there is not, and unless there are as many seeds.
        """
        tokens = self.draw(classes, seeds=seeds, sampling=sampling)
        return self.codec.decode(self.codec.from_tokens(tokens[:, None]))[:, 0].clamp(-1, 1)

    @torch.no_grad()
    def draw(
        self, classes: Sequence[int], *, seeds: Sequence[int], sampling: TokenSampling | None = None
    ) -> Tensor:
        """The tokens `(b, n)` of the pictures of `sample`: a pass for each scale, behind a cache."""
        if not classes or len(seeds) != len(classes):
            raise UserError(f"{len(classes)} classes need as many seeds, one or more, not {len(seeds)}")
        sampling, model, device = sampling or self.config.sampling, self.backbone, self.backbone.start.device
        given = torch.tensor(list(classes), device=device)
        led = sampling.guidance != 1
        both = torch.cat([given, torch.full_like(given, model.none)]) if led else given
        cache, branches, last = model.cache(batch=len(both)), 1 + led, len(model.sizes) - 1
        told = torch.zeros(len(given), 0, self.codec.channels, device=device)
        tokens = given.new_zeros(len(given), 0)
        for k, size in enumerate(model.sizes):
            past = cache if k else None
            logits, fresh = model.predict(told.repeat(branches, 1, 1), both, range(k, k + 1), past)
            noise = KeyedGenerator([(seed, k) for seed in seeds], device=device).normal(size)
            own = replace(sampling, guidance=1 + (sampling.guidance - 1) * k / max(last, 1))
            drawn = own.draw(own.guided(logits.unflatten(0, (branches, -1))), noise)
            tokens = torch.cat([tokens, drawn], 1)
            if k < last:
                cache.write({k: size}, fresh, lambda scale: True)
                told = self.quantizer.told(tokens)
        return tokens

    @property
    def quantizer(self) -> MultiScaleQuantizer:
        assert isinstance(self.codec.quantizer, MultiScaleQuantizer)
        return self.codec.quantizer


def tiny() -> NextScaleConfig:
    """For tests: pictures of 8x12 in three scales of 32 codes, of one of three classes."""
    scales = ((1, 1), (2, 3), (4, 6))
    inner = VQGANConfig(4, 16, (1, 2), 1)
    codec = TokenCodecConfig(inner, MultiScaleConfig(VQConfig(4, 32), scales, filters=2))
    return NextScaleConfig(codec, ScaleFormerConfig(scales, 32, 2, 2, 4, 32, 3), TokenSampling())
