"""Quantizers: vectors `(.., c)` to codes of a vocabulary and back; the contract, and those with fixed codes.

A point is brought into the space of the codes (`project`), takes the nearest (`index`), and the gradient goes
straight through (VQ-VAE, arXiv 1711.00937, section 3.2). All this is computed in float32 or better and in
integers, whatever the precision around it: in bfloat16 a vocabulary of 64,000 would have 1,275 codes left.

    FSQ   finite scalar quantization (arXiv 2309.15505): each channel is bounded and rounded to its levels
    LFQ   lookup-free quantization (MAGVIT-v2, arXiv 2310.05737, section 3.1): a bit a channel, its sign
    BSQ   binary spherical quantization (arXiv 2406.07548): the same on the unit sphere

Codes that are learnt are in `vector_quantizer.py`, sums of several in `residual_quantizers.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import atanh, inf, log, log2, prod
from typing import Annotated, NamedTuple, Protocol

import torch
from msgspec import Meta
from torch import Tensor, nn

from dreamwalk.codecs.causal_layers import precise
from dreamwalk.errors import UserError
from dreamwalk.validation import Positive

MOST_BITS = 62
"""Of one index, which is an int64."""
RECENT = 2**14
"""Tokens over which the use of a vocabulary is counted; a batch has too few to tell that a code died."""
OVERSHOOT = 1e-3
"""How far the bound of FSQ lies beyond its last level, so that this can be reached."""


class Quantized(NamedTuple):
    """What a quantizer makes of vectors."""

    values: Tensor
    """`(.., c)`, those of the codes, in float32 or better; their gradient goes to the vectors."""
    indices: Tensor
    """`(..)` int64, one for each vector unless the quantizer says otherwise."""
    losses: dict[str, Tensor]
    """Terms of the loss, already weighted."""


class QuantizerSizes(Protocol):
    """The part of a config that all quantizers share."""

    @property
    def channels(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...


class Quantizer(nn.Module):
    """Vectors `(.., c)` -> `Quantized`; `values` goes back. Nothing is changed but by `measure`."""

    codebooks: int = 1
    """Vocabularies of its own that an index can be of, as the last axis of indices tells."""
    has_zero: bool = True
    """Whether what is zero can be told as such: a bit is plus or minus."""

    def __init__(self, config: QuantizerSizes) -> None:
        super().__init__()
        self.config, self.channels, self.vocabulary = config, config.channels, config.vocabulary
        self.recent = torch.empty(0, dtype=torch.long, device="cpu")
        """The last tokens of training in this process; not saved, so a resumed run counts anew."""

    @property
    def bits_per_token(self) -> float:
        """Information of one index at most."""
        return log2(self.vocabulary)

    def forward(self, z: Tensor) -> Quantized:
        """UserError for vectors of another width."""
        self.check_shape(z)
        with full_precision(z):
            points = self.project(precise(z))
            indices = self.index(points.detach())
            values = self.look_up(indices).to(points.dtype)
            return Quantized(straight_through(values, points), indices, self.losses(points, values))

    def measure(self, z: Tensor) -> None:
        """Take the vectors of a training step into what is measured rather than learnt by gradients."""

    def values(self, indices: Tensor) -> Tensor:
        """The values of codes, `(..)` to `(.., c)`; UserError for what is no index of the vocabulary."""
        return self.look_up(self.checked(indices))

    def bits(self, indices: Tensor) -> Tensor:
        """Codes in binary, `(..)` to bool `(.., n)`, the highest bit first; UserErrors as of `values`."""
        return (self.checked(indices)[..., None] >> self._places(indices) & 1).bool()

    def from_bits(self, bits: Tensor) -> Tensor:
        """And back; UserError for another number of bits, or a code outside the vocabulary."""
        if bits.shape[-1] != (count := (self.vocabulary - 1).bit_length()):
            raise UserError(f"a code has {count} bits here, not {bits.shape[-1]}")
        return self.checked((bits.long() << self._places(bits)).sum(-1))

    def checked(self, indices: Tensor) -> Tensor:
        """Indices as int64; UserError for those that are not whole or outside the vocabulary."""
        if indices.is_floating_point() or indices.dtype == torch.bool:
            raise UserError(f"indices are whole numbers, not {indices.dtype}: pass them as torch.int64")
        whole = indices.long()
        wrong = (whole < 0) | (whole >= self.vocabulary)
        if wrong.any():
            raise UserError(
                f"index {int(whole[wrong][0])} is outside the vocabulary of 0 to {self.vocabulary - 1}: "
                "take tokens of this codec"
            )
        return whole

    def check_shape(self, z: Tensor) -> None:
        """UserError for vectors of another width."""
        if z.shape[-1] != self.channels:
            raise UserError(f"this quantizer takes vectors of {self.channels} channels, not {z.shape[-1]}")

    def usage(self, indices: Tensor) -> dict[str, Tensor]:
        """How a vocabulary is used by many tokens, in any shape: `usage`, the share of codes that occur;
        `dead`, the number that do not; `perplexity`, exp of the entropy, averaged over codebooks
        geometrically."""
        books = torch.arange(self.codebooks, device=indices.device)
        own = indices.reshape(-1, self.codebooks) + self.vocabulary * books
        counts = own.unique(return_counts=True)[1]
        share, codes = counts.double() / counts.sum(), float(self.vocabulary * self.codebooks)
        used = counts.new_tensor(len(counts), dtype=torch.float64)
        entropy = -(share * share.log()).sum() - log(self.codebooks)
        return {"usage": used / codes, "dead": codes - used, "perplexity": entropy.exp()}

    def recent_usage(self, indices: Tensor) -> dict[str, Tensor]:
        """`usage` of late, with the tokens of a training step."""
        tokens = torch.cat([self.recent.to(indices.device), indices.flatten()])
        self.recent = tokens[-RECENT * self.codebooks :]
        return self.usage(self.recent)

    def project(self, z: Tensor) -> Tensor:
        """Vectors in the space of the codes, with gradients."""
        return z

    def index(self, points: Tensor) -> Tensor:
        """The nearest codes of points in their space, in float32 or better: the inverse of `values`."""
        raise NotImplementedError

    def look_up(self, indices: Tensor) -> Tensor:
        """The values of indices that need no check."""
        raise NotImplementedError

    def losses(self, points: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Terms of the loss, weighted."""
        return {}

    def _places(self, like: Tensor) -> Tensor:
        return torch.arange((self.vocabulary - 1).bit_length() - 1, -1, -1, device=like.device)


@dataclass(frozen=True)
class UnquantizedConfig:
    """The ablation: latents as they are, in a codec that is otherwise the same."""

    channels: int = 16

    @property
    def vocabulary(self) -> int:
        return 0

    def build(self) -> Unquantized:
        return Unquantized(self)


class Unquantized(Quantizer):
    """Vectors as they are, with no index."""

    codebooks = 0
    bits_per_token = inf

    def forward(self, z: Tensor) -> Quantized:
        self.check_shape(z)
        return Quantized(z, torch.zeros(*z.shape[:-1], 0, dtype=torch.long, device=z.device), {})

    def checked(self, indices: Tensor) -> Tensor:
        raise UserError("latents that are not quantized have no tokens: take a codec with a quantizer")

    def usage(self, indices: Tensor) -> dict[str, Tensor]:
        return {}


@dataclass(frozen=True)
class FSQConfig:
    """Levels of each channel; the vocabulary is their product."""

    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 3 or self.vocabulary > 2**MOST_BITS:
            raise UserError(
                f"FSQ takes 3 levels or more a channel, 2^{MOST_BITS} codes at most, not {self.levels}; "
                "LFQ has two levels"
            )

    @property
    def channels(self) -> int:
        return len(self.levels)

    @property
    def vocabulary(self) -> int:
        return prod(self.levels)

    def build(self) -> FSQ:
        return FSQ(self)


class FSQ(Quantizer):
    """Level k of n is the value k / (n // 2) - 1; the first channel is the lowest digit of an index."""

    config: FSQConfig

    def project(self, z: Tensor) -> Tensor:
        """Bounded by tanh a little beyond the levels, and shifted where they are even: 0 stays a level."""
        height, middle, start = (numbers.to(z.dtype) for numbers in fsq_bounds(self.config.levels, z.device))
        return ((z + start).tanh() * height - middle) / (self._levels(z) // 2)

    def index(self, points: Tensor) -> Tensor:
        levels = self._levels(points)
        digits = (points * (levels // 2)).round().long() + levels // 2
        return (digits.clamp(min=0).minimum(levels - 1) * self._basis(points)).sum(-1)

    def look_up(self, indices: Tensor) -> Tensor:
        levels = self._levels(indices)
        digits = indices[..., None] // self._basis(indices) % levels
        return (digits - levels // 2).float() / (levels // 2)

    def _levels(self, like: Tensor) -> Tensor:
        return constants(self.config.levels, torch.int64, like.device)

    def _basis(self, like: Tensor) -> Tensor:
        sizes = tuple(prod(self.config.levels[:k]) for k in range(self.channels))
        return constants(sizes, torch.int64, like.device)


@cache
def constants(numbers: tuple[float, ...], kind: torch.dtype, device: torch.device) -> Tensor:
    """Numbers on a device, made once: to send them there is to wait for it."""
    with torch.inference_mode(False):  # whoever asks first, gradients may go past them later
        return torch.tensor(numbers, dtype=kind, device=device)


def fsq_bounds(levels: tuple[int, ...], device: torch.device) -> list[Tensor]:
    """Of FSQ: half the range of each channel, the offset of those with an even number of levels, and where
    that lies before the bound."""
    half = [(n - 1) * (1 + OVERSHOOT) / 2 for n in levels]
    offset = [0.0 if n % 2 else 0.5 for n in levels]
    shift = [atanh(o / h) for o, h in zip(offset, half, strict=True)]
    return [constants(tuple(numbers), torch.float64, device) for numbers in (half, offset, shift)]


@dataclass(frozen=True)
class LFQConfig:
    """A bit a channel, and the weights of the terms that keep all codes in use."""

    channels: Annotated[int, Meta(ge=1, le=MOST_BITS)] = 10
    """Bits of a token."""
    commitment: float = 0.25
    """Weight of the squared distance of a point from its code, a channel, where codes are +1 and -1."""
    entropy: float = 0.1
    """Weight of the entropy of a point's choice, which should be small, less that of all choices together."""
    diversity: float = 1.0
    """Weight of the latter against the former."""
    temperature: Positive = 0.01
    """Of the choice: softmax of -(squared distance) / temperature over codes."""
    group: Annotated[int, Meta(ge=1, le=12)] = 9
    """Bits whose joint entropy is computed, in 2^group numbers a vector; the entropies of groups are added,
    which is an upper bound of that of all."""

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MOST_BITS:
            raise UserError(
                f"an index has 1 to {MOST_BITS} bits, not {self.channels}: take several residual stages"
            )

    @property
    def vocabulary(self) -> int:
        return 2**self.channels

    def build(self) -> LFQ:
        return LFQ(self)


class LFQ(Quantizer):
    """Codes are +1 and -1 in each channel; the first channel is the highest bit, and 1 is plus."""

    config: LFQConfig
    has_zero = False
    amplitude: float = 1.0
    """Of a code in each channel."""

    def index(self, points: Tensor) -> Tensor:
        return ((points > 0).long() << self._places(points)).sum(-1)

    def look_up(self, indices: Tensor) -> Tensor:
        signs = 2 * (indices[..., None] >> self._places(indices) & 1) - 1
        return signs.float() * self.amplitude

    def losses(self, points: Tensor, values: Tensor) -> dict[str, Tensor]:
        config = self.config
        one, all_ = bit_entropies(4 * self.amplitude / config.temperature * points, group=config.group)
        distance = (points - values).square().mean() / self.amplitude**2
        entropy = config.entropy * (one - config.diversity * all_)
        return {"commitment": config.commitment * distance, "entropy": entropy}


@dataclass(frozen=True)
class BSQConfig(LFQConfig):
    """LFQ on the unit sphere; bits are taken as independent in the entropy of all choices."""

    group: Annotated[int, Meta(ge=1, le=12)] = 1

    def build(self) -> BSQ:
        return BSQ(self)


class BSQ(LFQ):
    """Codes are the corners of a cube in the unit sphere."""

    def __init__(self, config: BSQConfig) -> None:
        super().__init__(config)
        self.amplitude = config.channels**-0.5

    def project(self, z: Tensor) -> Tensor:
        return nn.functional.normalize(z, dim=-1)


def bit_entropies(logits: Tensor, *, group: int) -> tuple[Tensor, Tensor]:
    """Entropy in nats of the bits `(.., n)` of one vector on average, and of those of all vectors together.

    The former is exactly a sum over bits, since they are independent given the vector. The latter is the sum
    over groups of so many bits.
    """
    logits = logits.reshape(-1, logits.shape[-1])
    chance = logits.sigmoid()
    one = (nn.functional.softplus(logits) - logits * chance).sum(-1).mean()
    together = one.new_zeros(())
    for bits in chance.split(group, dim=-1):
        joint = torch.ones_like(bits[:, :1])
        for bit in bits.split(1, dim=-1):
            joint = torch.cat([joint * (1 - bit), joint * bit], dim=-1)
        mean = joint.mean(0)
        together = together - (mean * mean.clamp(min=1e-12).log()).sum()
    return one, together


def straight_through(values: Tensor, points: Tensor) -> Tensor:
    """`values` to the last bit, with the gradient going to `points`."""
    return values + (points - points.detach())


def full_precision(like: Tensor) -> torch.autocast:
    """No autocast where this tensor is."""
    return torch.autocast(like.device.type, enabled=False)
