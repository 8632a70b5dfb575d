from collections import deque

import pytest
import torch

from dreamwalk.codecs.tae import TAECodec, tae_released, tae_tiny
from dreamwalk.codecs.tiles import Tiling, stream_decode
from dreamwalk.device.peak import decode_bytes, peak_bytes

TILING = Tiling(tile=(16, 16, 16), overlap=(8, 8, 8))


def test_by_hand() -> None:
    """Three tensors of 400 bytes, of which the first is gone when the third comes; views cost nothing."""

    def run() -> torch.Tensor:
        x = torch.ones(100)
        y = x.view(10, 10) + 1
        del x
        return (y + 1).add_(1)

    assert peak_bytes(run) == 800
    kept = torch.ones(100)
    assert peak_bytes(lambda: kept.add_(1).view(10, 10)) == 0


@pytest.mark.parametrize("tiling", [None, TILING])
def test_it_is_what_decoding_takes(tiling: Tiling | None) -> None:
    tae, latents = TAECodec(tae_tiny()), torch.zeros(1, 6, 4, 6, 8)
    with torch.no_grad():
        if tiling is None:
            taken = peak_bytes(lambda: tae.decode(latents))
        else:
            taken = peak_bytes(lambda: deque(stream_decode(tae, latents, tiling), maxlen=1))
    assert decode_bytes(tae, tuple(latents.shape), tiling) == taken > 0


def test_a_longer_video_in_tiles_takes_no_more() -> None:
    """Nor does a larger one take more than its own pictures of two tiles in time."""
    with torch.device("meta"):
        tae = TAECodec(tae_tiny())
    short, long = (decode_bytes(tae, (1, frames, 4, 8, 8), TILING) for frames in (16, 64))
    assert long < 1.01 * short < decode_bytes(tae, (1, 16, 4, 8, 8)) / 2
    pictures = 2 * (16 + 8) * 3 * (64 * 32 - 32 * 32) * 4
    assert decode_bytes(tae, (1, 16, 4, 16, 8), TILING) < short + pictures


def test_the_published_size_needs_no_weights() -> None:
    with torch.device("meta"):
        tae = TAECodec(tae_released())
    whole, tiled = (decode_bytes(tae, (1, 4, 16, 48, 48), tiling) for tiling in (None, Tiling()))
    assert 18 < whole / 2**30 < 19 and tiled < whole / 2
