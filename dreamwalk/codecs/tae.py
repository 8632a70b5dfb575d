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

from dreamwalk.codecs import kl_autoencoder
from dreamwalk.codecs.codec import KLAutoencoder, Stride
from dreamwalk.codecs.kl_autoencoder import Downsample, KLCodec, KLCodecConfig, PixelAttention, ResidualBlock
from dreamwalk.errors import UserError
from dreamwalk.layers.modulation import zero_init
from dreamwalk.layers.norms import RMSNorm


@dataclass(frozen=True)
class TAEConfig:
    """Sizes of a temporal autoencoder."""

    image: KLCodecConfig = field(default_factory=KLCodecConfig)
    """The image autoencoder that is inflated."""
    temporal: int = 8
    """Frames per latent frame: 1, 2, 4, ..., at most the spatial factor."""

    def __post_init__(self) -> None:
        side = self.image.stride[1]
        if self.temporal not in (legal := [2**k for k in range(side.bit_length())]):
            nearest = min(legal, key=lambda n: abs(n - self.temporal))
            raise UserError(
                f"{self.temporal} frames a latent do not fit an image codec of {side}x{side} pixels a "
                f"latent: the nearest that do are {nearest}"
            )

    @property
    def channels(self) -> int:
        """Latent channels."""
        return self.image.channels

    @property
    def scale(self) -> float | None:
        """That of the image autoencoder."""
        return self.image.scale

    @property
    def stride(self) -> Stride:
        """Frames, rows and columns of pixels per latent."""
        return self.temporal, *self.image.stride[1:]

    def build(self) -> TAECodec:
        """The codec, inflated from random weights."""
        return TAECodec(self)


class TAECodec(KLAutoencoder):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> means `(b, t', c, h/f, w/f)`; `decode` goes back."""

    causal = False
    config: TAEConfig

    def __init__(self, config: TAEConfig) -> None:
        super().__init__(config)
        levels, halvings = len(config.image.multiples) - 1, config.temporal.bit_length() - 1
        self.encoder = _inflated(kl_autoencoder.image_encoder(config.image), first=0, last=halvings)
        decoder = kl_autoencoder.image_decoder(config.image)
        self.decoder = _inflated(decoder, first=levels - halvings, last=levels)

    def padded(self, video: Tensor) -> Tensor:
        """As of any codec, but for a lone frame, which gives the same by itself."""
        return video if video.shape[1] == 1 else super().padded(video)

    def moments_of(self, video: Tensor) -> Tensor:
        return self.encoder(video)

    def reconstruct(self, latents: Tensor) -> Tensor:
        return self.decoder(self.scale.undo(latents))


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
        self.norm, self.qkv = RMSNorm(width), nn.Linear(width, 3 * width)
        self.out = zero_init(nn.Linear(width, width))

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
        if isinstance(layer, ResidualBlock):
            for name, child in layer.named_children():
                setattr(layer, name, Inflated(child, _over_time(child)))
            inflated.append(layer)
        else:
            inflated.append(Inflated(layer, _over_time(layer, temporal=first <= resamplings < last)))
            resamplings += isinstance(layer, Downsample | nn.Upsample)
    return nn.Sequential(*inflated)


def _over_time(layer: nn.Module, *, temporal: bool = False) -> nn.Module:
    """What follows a layer of the image network: its like in time for a resampling, an attention, and a
    convolution of more than one pixel. A `temporal` resampling acts on time too."""
    if isinstance(layer, Downsample):
        return TemporalConv(layer.conv.out_channels, stride=2 if temporal else 1)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
        return TemporalConv(layer.out_channels)
    if isinstance(layer, PixelAttention):
        return TemporalAttention(layer.out.out_channels)
    return Doubled() if isinstance(layer, nn.Upsample) and temporal else nn.Identity()


def tae_released() -> TAEConfig:
    """8x8x8 and 16 channels as the paper has, over an image autoencoder as wide as that of Stable Diffusion
    3.5: 118,267,921 parameters, 85,924,307 of them the image autoencoder's."""
    return TAEConfig(image=KLCodecConfig(channels=16, width=128, multiples=(1, 2, 4, 4), scale=1.5305))


def tae_tiny() -> TAEConfig:
    """Small enough for a test: 4x4x4."""
    return TAEConfig(image=kl_autoencoder.kl_tiny(), temporal=4)
