"""VQGAN's autoencoder of images (arXiv 2012.09841, in the sizes of arXiv 2112.10752, appendix E, and of VAR,
arXiv 2404.02905, section 3.2): the codec inside of a tokenizer of images.

The layers are those of the KL autoencoder (`codecs/kl_autoencoder.py`), with two differences: there is no
posterior, so latents are what comes out of the encoder, as large as it makes them; and attention follows the
deepest blocks of the decoder too. Frames are coded one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamwalk.codecs.codec import Codec
from dreamwalk.codecs.kl_autoencoder import ImageSizes, decoder_layers, encoder_layers


@dataclass(frozen=True)
class VQGANConfig(ImageSizes):
    """Sizes of a VQGAN without its quantizer; by default those of VAR."""

    channels: int = 32
    width: int = 160

    def build(self) -> VQGANCodec:
        """The codec, with random weights."""
        return VQGANCodec(self)


class VQGANCodec(Codec):
    """`encode`: video in [-1, 1] `(b, t, 3, h, w)` -> latents `(b, t, c, h/f, w/f)`; `decode` goes back."""

    config: VQGANConfig

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__(config)
        deepest, channels = config.multiples[-1] * config.width, config.channels
        convolution = lambda width, out: nn.Conv2d(width, out, 3, padding=1)
        head = [convolution(deepest, channels), convolution(channels, channels)]
        self.encoder = nn.Sequential(*encoder_layers(config), *head)
        first = [convolution(channels, channels), convolution(channels, deepest)]
        layers = decoder_layers(config, attended=(len(config.multiples) - 1,))
        self.decoder = nn.Sequential(*first, *layers)

    def encode(self, video: Tensor) -> Tensor:
        self.check_size(video)
        return self.encoder(video.flatten(0, 1)).unflatten(0, video.shape[:2])

    def reconstruct(self, latents: Tensor) -> Tensor:
        return self.decoder(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])

    @torch.no_grad()
    def stream_encode(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Latents `(b, 1, c, h', w')` one by one, of pieces `(b, t, 3, h, w)`; no gradients."""
        for piece in pieces:
            yield from (self.encode(frame) for frame in piece.split(1, dim=1))

    @torch.no_grad()
    def stream_decode(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Frames of each piece `(b, t, c, h', w')`; no gradients."""
        for piece in latents:
            yield self.decode(piece)


def vqgan_f16() -> VQGANConfig:
    """That of VAR's tokenizer: 16x smaller a side, 32 channels; 108.9 million parameters with its codes."""
    return VQGANConfig()
