"""Temporal autoencoder of Movie Gen (arXiv 2410.13720, section 3.1.1): an image autoencoder inflated in time.

Every spatial convolution of the KL autoencoder (`codecs/kl_autoencoder.py`) is followed by a convolution over
frames, every attention over pixels by one over frames; the outermost halvings of the resolution halve the
frames too. Nothing is causal: both ends of a video are repeated.

At first the temporal layers only pick and repeat frames, so an inflated codec gives what the image codec
gave: exactly so for images and for videos that stand still, and for others one frame of each group. Norms are
taken over single frames, which keeps this true and tells no frame how long its video is.

    paper's word                our word
    TAE                         `TAECodec`
    inflate                     `inflate`
    1D temporal convolution     `TemporalConv`
    spurious frames             what `decode` cuts at `frames`
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.codecs.kl_autoencoder import (
    Downsample,
    KLCodec,
    KLCodecConfig,
    PixelAttention,
    ResidualBlock,
    image_decoder,
    image_encoder,
    kl_tiny,
    require_whole_latents,
)
from dreamwalk.codecs.scale import Scale
from dreamwalk.errors import UserError
from dreamwalk.layers.norms import RMSNorm


@dataclass(frozen=True)
class TAEConfig:
    """Sizes of a temporal autoencoder."""

    image: KLCodecConfig = field(default_factory=KLCodecConfig)
    """The image autoencoder that is inflated."""
    temporal: int = 8
    """Frames per latent frame: 1, 2, 4, ..., at most the spatial factor."""


class TAECodec(nn.Module):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> means `(b, t', c, h/f, w/f)`; `decode` goes back."""

    def __init__(self, config: TAEConfig) -> None:
        super().__init__()
        self.config = config
        factor = 2 ** (len(config.image.multiples) - 1)
        if config.temporal not in (legal := [2**k for k in range(len(config.image.multiples))]):
            nearest = min(legal, key=lambda n: abs(n - config.temporal))
            raise UserError(
                f"{config.temporal} frames a latent do not fit an image codec of {factor}x{factor} pixels a "
                f"latent: the nearest that do are {nearest}"
            )
        halvings = config.temporal.bit_length() - 1
        self.encoder = _inflated(image_encoder(config.image), first=0, last=halvings)
        doublings = len(config.image.multiples) - 1
        self.decoder = _inflated(image_decoder(config.image), first=doublings - halvings, last=doublings)
        self.scale = Scale(config.image.scale)

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels per latent in time, height and width."""
        factor = 2 ** (len(self.config.image.multiples) - 1)
        return self.config.temporal, factor, factor

    @property
    def channels(self) -> int:
        return self.config.image.channels

    @property
    def loudness(self) -> Tensor:
        """How much a squared error of each channel weighs: all alike."""
        return torch.ones(self.channels, 1, 1, device=next(self.parameters()).device)

    def latent_frames(self, frames: int) -> int:
        """Latents that `frames` frames make; the last one may stand for fewer than `stride[0]`."""
        return -(-frames // self.config.temporal)

    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the unscaled latents; UserError for sides that do not divide."""
        require_whole_latents(video, self.stride)
        mean, log_variance = self.encoder(self._whole_groups(video)).chunk(2, dim=2)
        return mean, log_variance.clamp(-30, 20)

    def normalise(self, latents: Tensor) -> Tensor:
        return self.scale(latents)

    def encode(self, video: Tensor) -> Tensor:
        return self.normalise(self.posterior(video)[0])

    def decode(self, latents: Tensor, frames: int | None = None) -> Tensor:
        """Video of `stride[0]` frames a latent, or its first `frames`; UserError if there are fewer."""
        decoded = latents.shape[1] * self.config.temporal
        if frames is not None and not 0 < frames <= decoded:
            raise UserError(f"{latents.shape[1]} latents are 1 to {decoded} frames, not {frames}")
        return self.decoder(self.scale.undo(latents))[:, :frames]

    def _whole_groups(self, video: Tensor) -> Tensor:
        """The last frame repeated up to a whole latent; not a lone one, which gives the same by itself."""
        t = video.shape[1]
        surplus = self.latent_frames(t) * self.config.temporal - t if t > 1 else 0
        return torch.cat([video, video[:, -1:].expand(-1, surplus, -1, -1, -1)], dim=1)


def inflate(tae: TAECodec, image_codec: KLCodec) -> None:
    """Copy the image autoencoder's weights into a new `tae`; UserError if it has other sizes."""
    if tae.config.image != image_codec.config:
        raise UserError(f"the TAE inflates {tae.config.image}, not {image_codec.config}: build it for that")
    spatial = {name.replace(".space", ""): p for name, p in tae.state_dict().items() if ".time" not in name}
    given = image_codec.state_dict()
    assert spatial.keys() == given.keys()
    for name, tensor in spatial.items():
        tensor.copy_(given[name])


class Inflated(nn.Module):
    """A layer for every frame, then a layer over time: `(b, t, c, h, w)` to the same."""

    def __init__(self, space: nn.Module, time: nn.Module) -> None:
        super().__init__()
        self.space, self.time = space, time

    def forward(self, x: Tensor) -> Tensor:
        return self.time(self.space(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


class TemporalConv(nn.Conv2d):
    """Convolution over three frames, the ends repeated; at first it picks every `stride`-th frame."""

    def __init__(self, width: int, *, stride: int = 1) -> None:
        super().__init__(width, width, (3, 1), (stride, 1), padding=(1, 0), padding_mode="replicate")
        nn.init.dirac_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """With gradients as a product at every pixel, of the channels of three frames, which is quicker and
        takes three times the room."""
        if not torch.is_grad_enabled():
            y = super().forward(rearrange(x, "b t c h w -> b c t (h w)"))
            return rearrange(y, "b c t (h w) -> b t c h w", h=x.shape[3])
        padded = torch.cat([x[:, :1], x, x[:, -1:]], dim=1)
        stride, (b, t) = self.stride[0], x.shape[:2]
        seen = torch.cat([padded[:, k : k + t : stride] for k in range(3)], dim=2).flatten(0, 1)
        weight = rearrange(self.weight, "o c k one -> o (k c) one 1")
        return nn.functional.conv2d(seen, weight, self.bias).unflatten(0, (b, -1))


class TemporalAttention(nn.Module):
    """Single-head attention of every pixel over all frames; at first it adds nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = RMSNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.norm(rearrange(x, "b t c h w -> b (h w) t c"))
        y = self.out(nn.functional.scaled_dot_product_attention(*self.qkv(pixels).chunk(3, dim=-1)))
        return x + rearrange(y, "b (h w) t c -> b t c h w", h=x.shape[3])


class Doubled(nn.Module):
    """Every frame twice; the convolution that follows makes two of them."""

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=1)


def _inflated(layers: nn.Sequential, *, first: int, last: int) -> nn.Sequential:
    """An image network made temporal; its resamplings `first` to `last` (excluded) act on time too."""
    inflated: list[nn.Module] = []
    resamplings = 0
    for layer in layers:
        if isinstance(layer, Downsample | nn.Upsample):
            temporal = first <= resamplings < last
            resamplings += 1
            inflated.append(Inflated(layer, _resampling(layer, temporal=temporal)))
        elif isinstance(layer, ResidualBlock):
            for name, child in layer.named_children():
                setattr(layer, name, _followed(child))
            inflated.append(layer)
        else:
            inflated.append(_followed(layer))
    return nn.Sequential(*inflated)


def _resampling(layer: Downsample | nn.Upsample, *, temporal: bool) -> nn.Module:
    if isinstance(layer, Downsample):
        return TemporalConv(layer.conv.out_channels, stride=2 if temporal else 1)
    return Doubled() if temporal else nn.Identity()


def _followed(layer: nn.Module) -> nn.Module:
    """What stands in the image network, and after a convolution of more than one pixel or an attention its
    like in time."""
    if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
        return Inflated(layer, TemporalConv(layer.out_channels))
    if isinstance(layer, PixelAttention):
        return Inflated(layer, TemporalAttention(layer.out.out_channels))
    return Inflated(layer, nn.Identity())


def tae_released() -> TAEConfig:
    """8x8x8 and 16 channels as the paper has, over an image autoencoder as wide as that of Stable Diffusion
    3.5: 118,267,921 parameters, 85,924,307 of them the image autoencoder's."""
    return TAEConfig(image=KLCodecConfig(channels=16, width=128, multiples=(1, 2, 4, 4), scale=1.5305))


def tae_tiny() -> TAEConfig:
    """Small enough for a test: 4x4x4."""
    return TAEConfig(image=kl_tiny(), temporal=4)
