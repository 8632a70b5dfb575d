"""What tokens tell of a frame by itself, and a picture of two: what they say, and what was expected.

Tokens that tell changes leave a dream without an anchor: what it once drew wrong stays, and is changed again.
These tell all of a frame, coarsely, and what was expected adds the details where it agrees.
"""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, silu

from dreamwalk.codecs.pyramid import PATCH, Norm, Pyramid

PAINTED = 4 * PATCH**2
"""Numbers of a patch of a picture, and of how far it is painted."""


class FrameEncoder(nn.Module):
    """Frames to vectors at the last of these levels."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.pyramid, self.norm = Pyramid(3, widths), Norm(8, widths[-1])
        self.out = nn.Conv2d(widths[-1], channels, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """`(b, 3, h, w)` in [-1, 1] to `(b, h', w', c)`."""
        return rearrange(self.out(silu(self.norm(self.pyramid(frames)[-1]))), "b c h w -> b h w c")


def painted_over(expected: Tensor, paint: Tensor) -> Tensor:
    """Frames `(b, 3, h, w)` as a network paints them over, by `PAINTED` numbers a patch: half at first."""
    picture, share = pixel_shuffle(paint, PATCH).tensor_split([3], 1)
    return expected + share.sigmoid() * (picture - expected)
