"""What backbones over whole clips are given, and the one sentence about what does not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from dreamwalk.errors import UserError
from dreamwalk.layers.patches import Patch
from dreamwalk.layers.text import TextEmbedding

UNGUIDED = "`guidance` is not an input of this network: guide by a second pass without words"


class VideoSizes(Protocol):
    """The sizes that inputs must have: channels of latents, channels beside them, widths of words; and
    how many latents are a token."""

    @property
    def channels(self) -> int: ...
    @property
    def extra(self) -> int: ...
    @property
    def text(self) -> int: ...
    @property
    def pooled(self) -> int: ...
    @property
    def patch(self) -> Patch: ...


def check(sizes: VideoSizes, x: Tensor, words: TextEmbedding, *, extra: Tensor | None) -> None:
    """UserError for the first input that is missing, too much, or of another size."""
    if x.ndim != 5 or x.shape[2] != sizes.channels:
        raise UserError(f"latents are (b, t, {sizes.channels}, h, w) here, not {tuple(x.shape)}")
    if words.tokens.shape[-1] != sizes.text:
        raise UserError(f"words are {sizes.text} wide here, not {words.tokens.shape[-1]}")
    given = 0 if words.pooled is None else words.pooled.shape[-1]
    if given != sizes.pooled:
        raise UserError(
            f"the vector of all words, `TextEmbedding.pooled`, is {sizes.pooled} wide here, not {given}"
        )
    beside = 0 if extra is None else extra.shape[2]
    if beside != sizes.extra:
        raise UserError(f"`extra` has {sizes.extra} channels here, not {beside}")


def levels_by_frame(sigma: Tensor, x: Tensor, patch: Patch) -> Tensor:
    """Levels `(b, 1)` of clips, or `(b, t)` of frames of tokens: of the frames in a patch, the highest."""
    assert sigma.shape in (x.shape[:1], x.shape[:2]), f"sigma {tuple(sigma.shape)} of x {tuple(x.shape)}"
    return sigma[:, None] if sigma.ndim == 1 else sigma.unflatten(1, (-1, patch[0])).amax(-1)


def widened(tensors: Mapping[str, Tensor], sizes: VideoSizes) -> dict[str, Tensor]:
    """Weights of a backbone with nothing beside its latents, for one that has `extra` channels there: their
    inputs weigh nothing, so at first it gives the same (Movie Gen, arXiv 2410.13720, section 3.1.5)."""
    alone, beside = (channels * math.prod(sizes.patch) for channels in (sizes.channels, sizes.extra))
    return {
        name: nn.functional.pad(tensor, (0, beside))
        if f".{name}".endswith(".embed.project.weight") and tensor.shape[1] == alone
        else tensor
        for name, tensor in tensors.items()
    }
