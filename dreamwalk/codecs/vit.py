"""ViT autoencoder: a vision transformer over large patches, with a KL bottleneck.

`vit_l20()` has the sizes of the public codec of Oasis (etched-ai/open-oasis, ViT-L/20 with a shallow
encoder; 229,246,160 parameters): frames of 360x640 in patches of 20, and so 16 channels on 18x32. Frames are
coded one by one, so streaming and whole-clip coding are the same thing. Positions are rotary over a picture
of fixed size, in half of every head, so frames of another size are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor, nn

from dreamwalk.codecs.codec import KLAutoencoder, Stride
from dreamwalk.errors import UserError
from dreamwalk.layers.attention import BiasedAttention
from dreamwalk.layers.rope import head_width, pixel_tables
from dreamwalk.validation import Positive


@dataclass(frozen=True)
class ViTCodecConfig:
    """Sizes of a ViT autoencoder."""

    channels: int = 16
    """Latent channels."""
    size: tuple[int, int] = (360, 640)
    """Height and width of a frame."""
    patch: int = 20
    """Side of a patch in pixels."""
    width: int = 1024
    heads: int = 16
    encoder: int = 6
    """Blocks of the encoder."""
    decoder: int = 12
    """Blocks of the decoder."""
    scale: Positive | None = 0.07843137254901961
    """Latents are multiplied by this, 20/255, so that their variance is about one; None: as training
    measures it."""

    def __post_init__(self) -> None:
        assert self.grid  # says whether the frames divide
        head_width(self.width, self.heads, multiple=8, least=8)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        h, w = self.size
        if h % self.patch or w % self.patch:
            raise UserError(f"frames of {h}x{w} do not divide into patches of {self.patch}")
        return h // self.patch, w // self.patch

    @property
    def stride(self) -> Stride:
        """Frames, rows and columns of pixels per latent."""
        return 1, self.patch, self.patch

    def build(self) -> ViTCodec:
        """The codec, with random weights."""
        return ViTCodec(self)


class ViTBlock(nn.Module):
    """Attention over a whole frame and feed-forward, each normalised."""

    def __init__(self, config: ViTCodecConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_attention = nn.LayerNorm(width, eps=1e-6)
        self.attention = BiasedAttention(width, heads=config.heads, qkv_bias=True)
        self.norm_feedforward = nn.LayerNorm(width, eps=1e-6)
        self.feedforward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """`x` `(b, n, d)`."""
        x = x + self.attention(self.norm_attention(x), rope, mask=None, past=None)[0]
        return x + self.feedforward(self.norm_feedforward(x))


class ViTCodec(KLAutoencoder):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> means `(b, t, c, h/f, w/f)`; `decode` goes back."""

    config: ViTCodecConfig

    def __init__(self, config: ViTCodecConfig) -> None:
        super().__init__(config)
        pixels, width = 3 * config.patch**2, config.width
        self.embed = nn.Linear(pixels, width)
        self.encoder = nn.ModuleList(ViTBlock(config) for _ in range(config.encoder))
        self.norm_encoder = nn.LayerNorm(width, eps=1e-6)
        self.moments = nn.Linear(width, 2 * config.channels)
        self.expand = nn.Linear(config.channels, width)
        self.decoder = nn.ModuleList(ViTBlock(config) for _ in range(config.decoder))
        self.norm_decoder = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, pixels)

    def check_size(self, video: Tensor) -> None:
        if tuple(video.shape[-2:]) != self.config.size:
            size, (h, w) = f"{video.shape[-2]}x{video.shape[-1]}", self.config.size
            raise UserError(f"this codec knows frames of {h}x{w} only, not of {size}: resize them first")

    def moments_of(self, video: Tensor) -> Tensor:
        b, (rows, _), p = len(video), self.config.grid, self.config.patch
        x = self.embed(rearrange(video, "b t c (h p) (w q) -> (b t) (h w) (c p q)", p=p, q=p))
        moments = self.moments(self.norm_encoder(self._run(self.encoder, x)))
        return rearrange(moments, "(b t) (h w) c -> b t c h w", b=b, h=rows)

    def reconstruct(self, latents: Tensor) -> Tensor:
        b, (rows, _), p = len(latents), self.config.grid, self.config.patch
        x = self.expand(rearrange(self.scale.undo(latents), "b t c h w -> (b t) (h w) c"))
        x = self.head(self.norm_decoder(self._run(self.decoder, x)))
        return rearrange(x, "(b t) (h w) (c p q) -> b t c (h p) (w q)", b=b, h=rows, p=p, q=p)

    def _run(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        """Tokens after all blocks."""
        (h, w), head = self.config.grid, self.config.width // self.config.heads
        rope = pixel_tables((h, w), head, head // 4, max_frequency=h * w, device=x.device)
        for block in blocks:
            x = block(x, rope)
        return x


def vit_l20() -> ViTCodecConfig:
    """The public codec of Oasis: 20x smaller a side, 16 channels, 229,246,160 parameters."""
    return ViTCodecConfig()


def vit_tiny() -> ViTCodecConfig:
    """Small enough for a test: 16x24 frames, 4x smaller a side."""
    return ViTCodecConfig(channels=4, size=(16, 24), patch=4, width=32, heads=2, encoder=1, decoder=2)
