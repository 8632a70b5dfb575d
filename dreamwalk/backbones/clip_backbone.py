"""The base of backbones over whole clips, conditioned on text: what goes in, and what does not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamwalk.errors import UserError
from dreamwalk.layers.modulation import Modulation, SigmaEmbedding
from dreamwalk.layers.patches import Extent, Patch, PatchEmbed, PatchHead, token_extent
from dreamwalk.layers.refiner import Projection
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.validation import Count


@dataclass(frozen=True)
class ClipSizes:
    """Sizes that all share."""

    channels: int = 16
    """Latent channels."""
    cond_channels: Count = 0
    """Channels that are put beside the latents: `channels + 1` for known frames and where they are known."""
    width: int = 3072
    heads: int = 24
    patch: Patch = (1, 2, 2)
    """Latent frames, rows and columns of a token."""
    text_dim: int = 4096
    """Width of a word's vector."""
    pooled_dim: Count = 0
    """Width of a vector of the whole text, for the modulation; 0 for none."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"width {self.width} does not divide by {self.heads} heads")

    def build(self) -> ClipBackbone:
        """The backbone, with fresh weights."""
        raise NotImplementedError

    def shallow(self) -> ClipSizes:
        """With one block of each kind, which at its peak holds as much as many in a row."""
        raise NotImplementedError


class ClipBackbone(nn.Module):
    """`(x, sigma, text) -> v`; a subclass gives the pass over its blocks, `run`."""

    config: ClipSizes
    blocks: nn.ModuleList
    guided = False
    """Whether the scale of guidance is an input."""

    def __init__(self, config: ClipSizes) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.embed = PatchEmbed(config.channels + config.cond_channels, width, patch=config.patch)
        self.sigma = SigmaEmbedding(width)
        self.pooled = Projection(config.pooled_dim, width) if config.pooled_dim else None
        self.modulation = Modulation(width, parts=2)
        self.head = PatchHead(width, config.channels, patch=config.patch)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        text: TextEmbedding,
        *,
        guidance: Tensor | None = None,
        cond: Tensor | None = None,
    ) -> Tensor:
        """Velocity `v = eps - x` of noisy latents, in the precision of `x`.

        `x` `(b, t, c, h, w)`, `sigma` in [0, 1], `(b,)` for the clip or `(b, t)` for its frames, `guidance`
        `(b,)`, `cond` `(b, t, e, h, w)`. UserError for what is missing, too much, or of a size that does
        not fit.
        """
        self.check(x, text, guidance=guidance, cond=cond)
        dtype, extent = self.embed.project.weight.dtype, token_extent(x, self.config.patch)
        inputs = x if cond is None else torch.cat([x, cond.to(x.dtype)], dim=2)
        text = text.trimmed()
        text = text._replace(tokens=text.tokens.to(dtype))
        sigmas = sigma_by_frame(sigma, x, self.config.patch)
        tokens = self.run(inputs.to(dtype), sigmas, text, extent, guidance)
        return self.head(tokens, extent).to(x.dtype)

    def run(
        self, inputs: Tensor, sigmas: Tensor, text: TextEmbedding, extent: Extent, guidance: Tensor | None
    ) -> Tensor:
        """Tokens `(b, n, d)` of an extent after all blocks and the last modulation, of latents and what is
        beside them, `(b, t, c + e, h, w)`, at `sigmas` `(b, 1)` or `(b, t)`."""
        raise NotImplementedError

    def condition(self, sigmas: Tensor, text: TextEmbedding, guidance: Tensor | None = None) -> Tensor:
        """The embedding of `sigmas` `(b, t)`, guidance `(b,)` and the whole text, `(b, t, d)`."""
        condition = self.embed_sigma(sigmas, guidance)
        if self.pooled is not None and text.pooled is not None:
            condition = condition + self.pooled(text.pooled.to(condition.dtype))[:, None]
        return condition

    def embed_sigma(self, sigmas: Tensor, guidance: Tensor | None) -> Tensor:
        """`(b, t, d)`."""
        return self.sigma(sigmas)

    def check(self, x: Tensor, text: TextEmbedding, *, guidance: Tensor | None, cond: Tensor | None) -> None:
        """UserError for the first input that is missing, too much, or of another size."""
        sizes = self.config
        if x.ndim != 5 or x.shape[2] != sizes.channels:
            raise UserError(f"latents are (b, t, {sizes.channels}, h, w) here, not {tuple(x.shape)}")
        if text.tokens.shape[-1] != sizes.text_dim:
            raise UserError(f"text embeddings are {sizes.text_dim} wide here, not {text.tokens.shape[-1]}")
        pooled = 0 if text.pooled is None else text.pooled.shape[-1]
        if pooled != sizes.pooled_dim:
            raise UserError(f"`TextEmbedding.pooled` is {sizes.pooled_dim} wide here, not {pooled}")
        beside = 0 if cond is None else cond.shape[2]
        if beside != sizes.cond_channels:
            raise UserError(f"`cond` has {sizes.cond_channels} channels here, not {beside}")
        if self.guided and guidance is None:
            raise UserError("`guidance` is missing: 6.0, for instance")
        if guidance is not None and not self.guided:
            raise UserError("`guidance` is not an input of this network: guide by a second pass without text")


def sigma_by_frame(sigma: Tensor, x: Tensor, patch: Patch) -> Tensor:
    """`(b, 1)` of clips, or `(b, t)` of frames of tokens: of the frames in a patch, the highest."""
    assert sigma.shape in (x.shape[:1], x.shape[:2]), f"sigma {tuple(sigma.shape)} of x {tuple(x.shape)}"
    return sigma[:, None] if sigma.ndim == 1 else sigma.unflatten(1, (-1, patch[0])).amax(-1)


def widened(tensors: Mapping[str, Tensor], sizes: ClipSizes) -> dict[str, Tensor]:
    """Weights of a backbone with nothing or less beside its latents, for one that has `cond_channels` there:
    further inputs weigh nothing, so at first it gives the same (Movie Gen, arXiv 2410.13720, 3.1.5)."""
    alone, beside = (channels * math.prod(sizes.patch) for channels in (sizes.channels, sizes.cond_channels))
    return {
        name: nn.functional.pad(tensor, (0, alone + beside - tensor.shape[1]))
        if f".{name}".endswith(".embed.project.weight") and alone <= tensor.shape[1] <= alone + beside
        else tensor
        for name, tensor in tensors.items()
    }
