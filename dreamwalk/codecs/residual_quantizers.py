"""Residual quantizers: each stage quantizes what the stages before it left over, and values are the sum.

    residual      RQ-VAE (arXiv 2203.01941, section 3.1): all stages at every position, a codebook each
    multi-scale   VAR (arXiv 2404.02905, section 3.2, algorithms 1 and 2): one codebook for all stages; each
                  sees the rest of a frame on a coarser grid, down by areas and up bicubic, and is smoothed by
                  one of a few convolutions that neighbouring scales share

What a stage sees is divided by its running root mean square, and what it gives is multiplied by a gain, the
least-squares factor by which its values tell what was left over: a stage never adds to the error of what it
was measured on. Without gains binary stages hardly converge, for their codes have one length, and what is
left over gets shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Annotated, NamedTuple, Protocol

import torch
from einops import rearrange
from msgspec import Meta
from torch import Tensor, nn

from dreamwalk.codecs.causal_layers import precise
from dreamwalk.codecs.codec import DECAY, decay_at
from dreamwalk.codecs.quantizers import (
    BSQConfig,
    FSQConfig,
    LFQConfig,
    Quantized,
    Quantizer,
    QuantizerSizes,
    full_precision,
    straight_through,
)
from dreamwalk.codecs.vector_quantizer import VQConfig
from dreamwalk.distributed import mean_over_processes
from dreamwalk.errors import UserError
from dreamwalk.validation import Count

StageConfig = VQConfig | FSQConfig | LFQConfig | BSQConfig


@dataclass(frozen=True)
class StagedConfig:
    """Of what the stages are."""

    stage: StageConfig = field(default_factory=VQConfig)

    @property
    def channels(self) -> int:
        return self.stage.channels

    @property
    def vocabulary(self) -> int:
        return self.stage.vocabulary


@dataclass(frozen=True)
class ResidualConfig(StagedConfig):
    """How many stages, and of what."""

    stages: Annotated[int, Meta(ge=1, le=64)] = 4

    def build(self) -> ResidualQuantizer:
        return ResidualQuantizer(self, stages=self.stages, codebooks=self.stages)


class StagePass(NamedTuple):
    """What one stage does."""

    inputs: Tensor
    """What its codebook sees."""
    quantized: Quantized
    total: Tensor
    """The sum after it, with gradients to what is learnt of the stages."""


class StagedSizes(QuantizerSizes, Protocol):
    """The part of a config that quantizers of several stages share."""

    @property
    def stage(self) -> StageConfig: ...


class ResidualQuantizer(Quantizer):
    """Indices `(.., stages)`; the first of them alone are a coarser code."""

    config: StagedSizes
    power: Tensor
    overlap: Tensor
    energy: Tensor
    steps: Tensor

    def __init__(self, config: StagedSizes, *, stages: int, codebooks: int) -> None:
        super().__init__(config)
        self.stages, self.codebooks = stages, codebooks
        self.codes = nn.ModuleList(config.stage.build() for _ in range(codebooks))
        for name in ("power", "overlap", "energy"):
            self.register_buffer(name, torch.ones(stages))
        """Running means of each stage: squares of its inputs, products of its values with what was left over,
        and squares of its values."""
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, z: Tensor) -> Quantized:
        """Losses are the means over those of all stages."""
        self.check_shape(z)
        with full_precision(z):
            z = precise(z)
            passes = list(self._passes(z))
            terms = [each.quantized.losses for each in passes]
            losses = {name: torch.stack([term[name] for term in terms]).mean() for name in terms[0]}
            indices = self.joined([each.quantized.indices for each in passes])
            values = straight_through(passes[-1].total.detach(), z)
            return Quantized(values, indices, losses | self.losses(z, torch.stack([p.total for p in passes])))

    @torch.no_grad()
    def measure(self, z: Tensor) -> None:
        with full_precision(z):
            passes = list(self._passes(precise(z), measured=True))
        self.steps += 1
        for k, codes in enumerate(self.codes):
            seen = [each.inputs.reshape(-1, self.channels) for each in passes[k :: self.codebooks]]
            codes.measure(torch.cat(seen))

    def look_up(self, indices: Tensor) -> Tensor:
        with full_precision(indices):
            total = torch.zeros((), dtype=precise(self.power).dtype, device=indices.device)
            for k, part in enumerate(self.parted(indices)):
                total = total + self._added(self._codes(k).look_up(part).to(total), k)
            return total

    def parted(self, indices: Tensor) -> list[Tensor]:
        """Indices of each of the first stages; UserError where they are not whole stages."""
        if indices.ndim == 0 or not 1 <= indices.shape[-1] <= self.stages:
            given = indices.shape[-1] if indices.ndim else 0
            raise UserError(f"a token of 1 to {self.stages} stages has as many indices, not {given}")
        return list(indices.unbind(-1))

    def joined(self, parts: list[Tensor]) -> Tensor:
        """And back."""
        return torch.stack(parts, dim=-1)

    def coarse(self, rest: Tensor, stage: int) -> Tensor:
        """What a stage sees of what is left over."""
        return rest

    def fine(self, values: Tensor, stage: int) -> Tensor:
        """And what its values are on the full grid."""
        return values

    def index(self, points: Tensor) -> Tensor:
        """Stage after stage the nearest, which is not always the nearest sum."""
        return self.forward(points).indices

    def _passes(self, z: Tensor, *, measured: bool = False) -> Iterator[StagePass]:
        """All stages in turn, each measured before it is used if that is wanted."""
        total = torch.zeros_like(z)
        for k in range(self.stages):
            rest = z - total.detach()
            coarse = self.coarse(rest, k)
            if measured:
                self._follow(self.power[k], coarse.square().mean())
            inputs = coarse / self.power[k].sqrt()
            quantized = self._codes(k)(inputs)
            if measured:
                fine = self.fine(quantized.values, k)
                self._follow(self.overlap[k], (rest * fine).mean())
                self._follow(self.energy[k], fine.square().mean())
            total = total + self._added(quantized.values.detach(), k)
            yield StagePass(inputs, quantized, total)

    def _added(self, values: Tensor, stage: int) -> Tensor:
        """What a stage adds to the sum."""
        return self.fine(values, stage) * (self.overlap[stage] / self.energy[stage])

    def _follow(self, mean: Tensor, value: Tensor) -> None:
        value = mean_over_processes(value.to(mean)).clamp(min=1e-12)
        mean.lerp_(value, 1 - decay_at(self.steps, DECAY))

    def _codes(self, stage: int) -> Quantizer:
        codes = self.codes[stage % self.codebooks]
        assert isinstance(codes, Quantizer)
        return codes


@dataclass(frozen=True)
class MultiScaleConfig(StagedConfig):
    """The grids of the stages, from coarse to fine, and of what they are."""

    stage: StageConfig = field(default_factory=lambda: VQConfig(channels=32, codes=4096))
    scales: tuple[tuple[int, int], ...] = ((1, 1), (2, 2), (3, 4), (6, 8))
    """Rows and columns; the last are those of a frame of latents."""
    filters: Count = 4
    """Convolutions that the scales share."""
    smoothing: float = 0.25
    """Weight of the squared error of the sums after every stage, by which these learn."""

    def __post_init__(self) -> None:
        if not self.scales or any(h > H or w > W for (h, w), (H, W) in pairwise(self.scales)):
            raise UserError(f"scales go from coarse to fine, which {self.scales} do not")
        if self.filters > len(self.scales):
            raise UserError(
                f"{self.filters} convolutions are more than the {len(self.scales)} scales: take fewer"
            )

    def build(self) -> MultiScaleQuantizer:
        return MultiScaleQuantizer(self)


class MultiScaleQuantizer(ResidualQuantizer):
    """Frames `(.., h, w, c)`; indices `(.., n)` are those of all scales after one another, by rows.

    Every frame is coded by itself.
    """

    config: MultiScaleConfig

    def __init__(self, config: MultiScaleConfig) -> None:
        super().__init__(config, stages=len(config.scales), codebooks=1)
        width = config.channels
        self.filters = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(config.filters))

    @property
    def sizes(self) -> list[int]:
        """Tokens of each scale."""
        return [h * w for h, w in self.config.scales]

    def check_shape(self, z: Tensor) -> None:
        """And UserError for frames that are not those of the last scale."""
        super().check_shape(z)
        if tuple(z.shape[-3:-1]) != (grid := self.config.scales[-1]):
            given, wanted = ("x".join(map(str, size)) for size in (z.shape[-3:-1], grid))
            raise UserError(f"the last scale has {wanted} latents, not {given}: take frames of that size")

    def losses(self, points: Tensor, values: Tensor) -> dict[str, Tensor]:
        """By which the convolutions learn what is smooth, for the sums `values` after each stage."""
        return {"smoothing": self.config.smoothing * (values - points.detach()).square().mean()}

    def told(self, indices: Tensor) -> Tensor:
        """What the first scales tell the next one: the mean of their sum in each of its cells, `(.., n)` to
        `(.., m, c)`. UserErrors as of `values`; and for all scales, behind which there is none."""
        count = len(self.parted(indices))
        if count == self.stages:
            raise UserError(f"behind the {count} scales that there are comes none")
        return self.coarse(self.values(indices), count).flatten(-3, -2)

    def parted(self, indices: Tensor) -> list[Tensor]:
        ends = list(accumulate(self.sizes))
        if indices.ndim == 0 or indices.shape[-1] not in ends:
            given = indices.shape[-1] if indices.ndim else 0
            raise UserError(
                f"the first scales of a frame have {ends} tokens together, and {given} are none of these"
            )
        count = 1 + ends.index(indices.shape[-1])
        parts = indices.split(self.sizes[:count], dim=-1)
        return [part.unflatten(-1, grid) for part, grid in zip(parts, self.config.scales, strict=False)]

    def joined(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([part.flatten(-2) for part in parts], dim=-1)

    def coarse(self, rest: Tensor, stage: int) -> Tensor:
        grid = self.config.scales[stage]
        return _over_frames(rest, lambda x: nn.functional.adaptive_avg_pool2d(x, grid))

    def fine(self, values: Tensor, stage: int) -> Tensor:
        return _over_frames(values, lambda x: self._smoothed(x, stage))

    def _smoothed(self, x: Tensor, stage: int) -> Tensor:
        """Frames `(n, c, h, w)` of a scale on the full grid, half of each through a convolution."""
        if x.shape[-2:] != self.config.scales[-1]:
            x = nn.functional.interpolate(x, size=self.config.scales[-1], mode="bicubic")
        if not self.filters:
            return x
        filter_ = self.filters[nearest_filter(stage, self.stages, len(self.filters))]
        weight, bias = (precise(p).to(x) for p in filter_.parameters())
        return 0.5 * (x + nn.functional.conv2d(x, weight, bias, padding=1))


def nearest_filter(stage: int, stages: int, filters: int) -> int:
    """Which of the convolutions a stage takes: the one whose tick is nearest, both in equal steps from coarse
    to fine; of two that are as near the finer."""
    first = Fraction(1, 3 * filters)
    step = (1 - 2 * first) / max(1, filters - 1)
    at = Fraction(stage, max(1, stages - 1))
    # exact: of VAR's ten scales the third and the eighth lie half way, where a float goes either way
    return max(range(filters), key=lambda tick: (-abs(first + tick * step - at), tick))


def _over_frames(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`(.., h, w, c)` through what takes `(n, c, h, w)`."""
    frames = rearrange(x.reshape(-1, *x.shape[-3:]), "n h w c -> n c h w")
    changed = rearrange(change(frames), "n c h w -> n h w c")
    return changed.reshape(*x.shape[:-3], *changed.shape[1:])
