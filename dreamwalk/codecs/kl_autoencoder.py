"""KL frame autoencoder: the convolutional image codec of latent diffusion (arXiv 2112.10752, appendix E).

`kl16()` has the sizes of the public KL-16 of MAR (arXiv 2406.11838; 66,456,019 parameters), which Next-Frame
Diffusion's published successor uses for frames of 224x384. Frames are coded one by one, so streaming and
whole-clip coding are the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor, nn

from dreamwalk.codecs.codec import KLAutoencoder, Stride
from dreamwalk.validation import Positive


@dataclass(frozen=True)
class ImageSizes:
    """Sizes that the convolutional codecs of frames share (`codecs/vqgan.py` is another)."""

    channels: int = 16
    """Latent channels."""
    width: int = 128
    """Channels at full resolution."""
    multiples: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width multiple of each level; every level but the last halves the resolution."""
    blocks: int = 2
    """Residual blocks a level (one more when decoding)."""

    @property
    def stride(self) -> Stride:
        """Frames, rows and columns of pixels per latent."""
        factor = 2 ** (len(self.multiples) - 1)
        return 1, factor, factor


@dataclass(frozen=True)
class KLCodecConfig(ImageSizes):
    """Sizes of a KL frame autoencoder."""

    scale: Positive | None = 0.2325
    """Latents are multiplied by this, so that their variance is about one; None: as training measures it."""

    def build(self) -> KLCodec:
        """The codec, with random weights."""
        return KLCodec(self)


class KLCodec(KLAutoencoder):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> means `(b, t, c, h/f, w/f)`; `decode` goes back."""

    def __init__(self, config: KLCodecConfig) -> None:
        super().__init__(config)
        self.encoder = image_encoder(config)
        self.decoder = image_decoder(config)

    def moments_of(self, video: Tensor) -> Tensor:
        return self.encoder(video.flatten(0, 1)).unflatten(0, video.shape[:2])

    def reconstruct(self, latents: Tensor) -> Tensor:
        return self.decoder(self.scale.undo(latents).flatten(0, 1)).unflatten(0, latents.shape[:2])


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(width), nn.Conv2d(width, out, 3, padding=1)
        self.norm2, self.conv2 = _norm(out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(nn.functional.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(nn.functional.silu(self.norm2(h)))


class PixelAttention(nn.Module):
    """Single-head attention over all pixels of a frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.qkv, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (three c) h w -> three b (h w) c", three=3)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(rearrange(y, "b (h w) c -> b c h w", h=x.shape[2]))


class Downsample(nn.Module):
    """Stride-two convolution, padded at the right and the bottom only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x, (0, 1, 0, 1)))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, width), width, eps=1e-6)


def _middle(width: int) -> list[nn.Module]:
    return [ResidualBlock(width, width), PixelAttention(width), ResidualBlock(width, width)]


def image_encoder(config: KLCodecConfig) -> nn.Sequential:
    """Frames `(n, 3, h, w)` to moments `(n, 2 c, h/f, w/f)`."""
    layers, moments = encoder_layers(config), 2 * config.channels
    width = config.multiples[-1] * config.width
    return nn.Sequential(*layers, nn.Conv2d(width, moments, 3, padding=1), nn.Conv2d(moments, moments, 1))


def image_decoder(config: KLCodecConfig) -> nn.Sequential:
    """`(n, c, h, w)` of unscaled latents to frames."""
    width = config.multiples[-1] * config.width
    first = [nn.Conv2d(config.channels, config.channels, 1), nn.Conv2d(config.channels, width, 3, padding=1)]
    return nn.Sequential(*first, *decoder_layers(config))


def encoder_layers(config: ImageSizes) -> list[nn.Module]:
    """Frames `(n, 3, h, w)` to features of the deepest width, normalised and activated.

    Attention follows every block of the deepest level, as in KL-16 and VQGAN.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, config.width, 3, padding=1)]
    width = config.width
    for level, multiple in enumerate(config.multiples):
        last = level == len(config.multiples) - 1
        for _ in range(config.blocks):
            layers.append(ResidualBlock(width, multiple * config.width))
            width = multiple * config.width
            layers += [PixelAttention(width)] if last else []
        layers += [] if last else [Downsample(width)]
    return [*layers, *_middle(width), _norm(width), nn.SiLU()]


def decoder_layers(config: ImageSizes, *, attended: tuple[int, ...] = ()) -> list[nn.Module]:
    """Features of the deepest width to frames; one block a level more than the encoder has.

    Attention is in the middle, as in KL-16, and follows every block of the levels `attended`.
    """
    width = config.multiples[-1] * config.width
    layers = _middle(width)
    for level, multiple in reversed(list(enumerate(config.multiples))):
        for _ in range(config.blocks + 1):
            layers.append(ResidualBlock(width, multiple * config.width))
            width = multiple * config.width
            layers += [PixelAttention(width)] if level in attended else []
        if level:
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(width, width, 3, padding=1)]
    return [*layers, _norm(width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1)]


def kl16() -> KLCodecConfig:
    """The public KL-16: 16x smaller a side, 16 channels, 66,456,019 parameters."""
    return KLCodecConfig()


def kl_tiny() -> KLCodecConfig:
    """Small enough for a test: 4x smaller a side."""
    return KLCodecConfig(channels=4, width=16, multiples=(1, 1, 2), blocks=1, scale=None)
