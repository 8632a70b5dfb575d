"""Measures of what a vocabulary costs, on numbers alone: signal to noise, rate, entropy, use of codes, drift.

Bits are of logarithms to the base 2. Entropies are of first order, counted, and so never above the logarithm
of the number of tokens: of a vocabulary that is large against it they tell too little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dreamwalk.codecs.quantizers import Quantizer
from dreamwalk.evaluation.codings import Coding
from dreamwalk.evaluation.fidelity import psnr, to_bytes

DECIBELS_A_BIT = 20 * math.log10(2)
"""6.02: what a bit a dimension tells of white Gaussian latents at most (rate-distortion function)."""
ENOUGH = 10_000
"""Tokens from which the use of a vocabulary is told without a warning."""
RANKS = 60
"""Points of the curve of shares by rank."""


@dataclass
class SignalToNoise:
    """Of points against their codes, added up batch by batch."""

    count: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, points: Tensor, values: Tensor) -> None:
        """`(b, t, c, h, w)` both."""
        z, q = (x.double().movedim(2, -1).flatten(0, -2) for x in (points, values))
        terms = {"z": z, "zz": z * z, "qq": q * q, "zq": z * q, "noise": (z - q).square()}
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0) + term.sum(0)
        self.count += len(z)

    def decibels(self) -> dict[str, float]:
        """`snr`: variance of the points about the mean of each channel, over the mean squared error; `gain`:
        the same if values are multiplied by the best factor, as for codes that tell a direction only."""
        means = {name: total / self.count for name, total in self.sums.items()}
        signal = float((means["zz"] - means["z"].square()).sum())
        matched = float(means["zz"].sum() - means["zq"].sum().square() / means["qq"].sum())
        ratios = {"snr": float(means["noise"].sum()), "gain": matched}
        return {name: 10 * math.log10(signal / max(noise, 1e-12 * signal)) for name, noise in ratios.items()}


@dataclass(frozen=True)
class StageUse:
    """How one vocabulary is used by many tokens."""

    tokens: int
    vocabulary: int
    usage: float
    """Share of the codes that occur."""
    dead: int
    """Codes that do not."""
    perplexity: float
    entropy: float
    """Bits of a token, counted: the rate of an ideal coder of first order."""
    at_most: float
    """Sum of the entropies of the single bits of an index, which the true entropy does not exceed."""
    ranks: tuple[tuple[int, float], ...]
    """Shares of the tokens of the codes of some ranks, the most frequent first."""


def stage_use(indices: Tensor, quantizer: Quantizer) -> StageUse:
    """Of indices in any shape."""
    flat = indices.flatten()
    told = {name: float(value) for name, value in quantizer.usage(flat).items()}
    chance = quantizer.bits(flat).double().mean(0)
    split = torch.stack([chance, 1 - chance])
    counts = flat.unique(return_counts=True)[1].sort(descending=True).values
    some = np.unique(np.geomspace(1, len(counts), RANKS).round().astype(int))
    return StageUse(
        tokens=len(flat),
        vocabulary=quantizer.vocabulary,
        usage=told["usage"],
        dead=int(told["dead"]),
        perplexity=told["perplexity"],
        entropy=math.log2(told["perplexity"]),
        at_most=float(torch.special.entr(split).sum()) / math.log(2),
        ranks=tuple((int(rank), float(counts[rank - 1]) / len(flat)) for rank in some),
    )


@dataclass(frozen=True)
class Rate:
    """Bits of a clip, by its pixels."""

    tokens: int
    """Of a clip, over all stages."""
    bits: float
    """Of all tokens of a clip."""
    bits_a_dimension: float
    """Of the latents that they stand for."""
    bits_a_pixel: float
    """bits x tokens / (T H W)."""
    entropy_a_pixel: float
    """The same with the counted entropy of the indices of each stage."""


def rate_of(
    stages: Mapping[str, Quantizer],
    parts: Sequence[Tensor],
    *,
    uses: Mapping[str, StageUse],
    dimensions: int,
    pixels: int,
) -> Rate:
    """Of `parts`, the indices `(b, ..)` of each stage, where a clip has so many latent numbers and pixels."""
    counts = [part[0].numel() for part in parts]
    bits = sum(count * each.bits_per_token for count, each in zip(counts, stages.values(), strict=True))
    entropy = sum(count * uses[name].entropy for count, name in zip(counts, stages, strict=True))
    return Rate(sum(counts), bits, bits / dimensions, bits / pixels, entropy / pixels)


def nats_a_pixel(nats: Tensor, pixels: int) -> float:
    """The KL terms of clips as bits per pixel: what a sample of the posterior costs against the prior."""
    return float(nats.mean()) / math.log(2) / pixels


@dataclass(frozen=True)
class Drift:
    """Of each clip, `(b)`, after each number of round trips."""

    psnr: dict[int, np.ndarray]
    """Of the frames of a clip on average, against the original."""
    same: dict[int, np.ndarray]
    """Share of the tokens that are those of the original; empty for continuous latents."""


def drift_of(
    coding: Coding,
    video: Tensor,
    actions: Tensor,
    *,
    trips: Sequence[int],
    skipped: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Drift:
    """Encode and decode video in [-1, 1] `(b, t, 3, h, w)` again and again, and compare all frames
    but the first `skipped`; `advance` after each trip."""
    truth, told = to_bytes(video)[:, skipped:], Drift({}, {})
    coded = coding.code(video, actions)
    first = coded.parts
    for trip in range(1, max(trips) + 1):
        again = coded.restored
        coded = coding.code(again, actions)
        if trip in trips:
            told.psnr[trip] = psnr(to_bytes(again)[:, skipped:], truth).mean(1)
        if trip in trips and first:
            equal = [(now == then).flatten(1) for now, then in zip(coded.parts, first, strict=True)]
            told.same[trip] = torch.cat(equal, 1).double().mean(1).numpy()
        advance()
    return told
