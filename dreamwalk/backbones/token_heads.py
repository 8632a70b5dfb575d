"""What a token transformer predicts of a slot: an index, by one softmax or by factors, or a vector.

    softmax                   one factor
    factorised                an index in digits, each predicted given those before it (Open-MAGVIT2, arXiv
                              2409.04410)
    bitwise, FSQ by channel   factors that are independent given the slot (Infinity, arXiv 2412.04431)
    continuous                a small network that denoises a vector, by flow matching (after MAR, arXiv
                              2406.11838, whose head is a diffusion): an order without any codebook

All heads sample from the same standard normal numbers, and all guide by the same rule before anything else:
`w conditional + (1 - w) unconditional`, of logits or velocities, so that w = 1 is no guidance. (VAR and NBP
write w - 1.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm, linear

from dreamwalk.errors import UserError
from dreamwalk.layers.modulation import Modulation, SigmaEmbedding, modulate, zero_init
from dreamwalk.validation import MOST, Count, Share, Signed, Steps

Factors = Annotated[tuple[int, ...], Meta(max_length=62)]


@dataclass(frozen=True)
class TokenSampling:
    """How tokens are drawn. Guidance comes first, then temperature, then `top_k`, then `top_p`."""

    temperature: Annotated[float, Meta(ge=0, le=100)] = 1.0
    """0 takes the most likely index; for a vector it scales the noise that denoising begins with."""
    top_k: Count = 0
    """Of each factor the most likely values that stay; 0 is all."""
    top_p: Share = 1.0
    """The fewest most likely values that together are as likely stay; 1 is all."""
    guidance: Signed = 1.0
    """w of `w conditional + (1 - w) unconditional`; 1 is none."""
    steps: Steps = 16
    """Euler steps of a continuous vector."""

    def __post_init__(self) -> None:
        if not (0 <= self.temperature <= 100 and 0 < self.top_p <= 1 and 0 <= self.top_k <= MOST):
            raise UserError(
                "the temperature is 0 to 100, top_p over 0 up to 1 and top_k 0 or more, got "
                f"{self.temperature}, {self.top_p} and {self.top_k}"
            )
        if not math.isfinite(self.guidance) or self.steps < 1:
            raise UserError(f"guidance is finite and steps from 1, got {self.guidance} and {self.steps}")

    def guided(self, branches: Tensor) -> Tensor:
        """The mixture of predictions `(branches, ...)`, conditional and unconditional, or the first alone."""
        if len(branches) == 1:
            return branches[0]
        return self.guidance * branches[0] + (1 - self.guidance) * branches[1]

    def draw(self, logits: Tensor, normal: Tensor) -> Tensor:
        """Indices `(...)` by logits `(..., v)` and standard normal numbers `(...)`."""
        if not self.temperature:
            return logits.argmax(-1)
        ranked, index = (logits.double() / self.temperature).sort(dim=-1, descending=True, stable=True)
        if self.top_k:
            ranked = ranked[..., : self.top_k]
        p = ranked.softmax(-1)
        if self.top_p < 1:
            p = p * (p.cumsum(-1) - p < self.top_p)
        total = p.cumsum(-1)
        uniform = torch.special.ndtr(normal.double())[..., None].clamp(max=1 - 1e-12)
        place = (total <= uniform * total[..., -1:]).sum(-1, keepdim=True)
        return index.gather(-1, place)[..., 0]


@dataclass(frozen=True)
class DiscreteHeadConfig:
    """An index as digits of `factors`, the most significant first; UserError for a vocabulary past 2^62."""

    factors: Factors
    chained: bool = False
    """Whether a digit is predicted given those before it; otherwise they are independent given the slot."""

    def __post_init__(self) -> None:
        if not self.factors or min(self.factors) < 2 or math.prod(self.factors) > 2**62:
            raise UserError(
                f"factors of an index are from 2 up and at most 2^62 together, got {self.factors}"
            )

    def build(self, width: int) -> DiscreteHead:
        """The head of a trunk of this width, with fresh weights."""
        return DiscreteHead(self, width)


def softmax(vocabulary: int) -> DiscreteHeadConfig:
    """One softmax over the whole vocabulary."""
    return DiscreteHeadConfig((vocabulary,))


def factorised(*factors: int) -> DiscreteHeadConfig:
    """Digits one after another: 64 and 4096 for 18 bits in Open-MAGVIT2."""
    return DiscreteHeadConfig(factors, chained=True)


def bitwise(bits: int) -> DiscreteHeadConfig:
    """A classifier for every bit."""
    return DiscreteHeadConfig((2,) * bits)


class DiscreteHead(nn.Module):
    """Symbols are whole numbers `(b, n)`, from 0 to the product of the factors."""

    loss_noise: tuple[int, ...] = ()
    """Of a token: none."""

    def __init__(self, config: DiscreteHeadConfig, width: int) -> None:
        super().__init__()
        self.factors, self.chained = config.factors, config.chained
        self.draws = len(config.factors)
        self.vocabulary = math.prod(config.factors)
        self.embedding = nn.Embedding(sum(config.factors), width)
        self.out = nn.Linear(width, sum(config.factors))
        links = self.factors[1:] if config.chained else ()
        self.links = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in links
        )

    def blank(self, *shape: int) -> Tensor:
        """Symbols `shape` that stand for what is not known yet."""
        return torch.zeros(shape, dtype=torch.long, device=self.out.weight.device)

    def check(self, symbols: Tensor) -> None:
        """UserError unless these are indices `(b, n)` of the vocabulary."""
        if symbols.ndim != 2 or symbols.is_floating_point() or symbols.is_complex():
            raise UserError(
                f"tokens are whole numbers (batch, tokens), got {symbols.dtype} of shape "
                f"{tuple(symbols.shape)}: give the indices of a codec with a codebook"
            )
        low, high = map(int, symbols.aminmax()) if symbols.numel() else (0, 0)
        if low < 0 or high >= self.vocabulary:
            raise UserError(
                f"token {low if low < 0 else high} lies outside the vocabulary, 0 to {self.vocabulary - 1}: "
                "use the codec that these weights were trained with"
            )

    def embed(self, symbols: Tensor) -> Tensor:
        """`(b, n)` to `(b, n, d)`: the sum over digits."""
        return self._embedded(self._digits(symbols))

    def logits(self, hidden: Tensor, symbols: Tensor) -> list[Tensor]:
        """Of every factor `(b, n, v)` for `hidden` `(b, n, d)`, given the digits before it."""
        digits = self._digits(symbols)
        return [self._logits(hidden, digits[:i]) for i in range(len(digits))]

    def loss(self, hidden: Tensor, symbols: Tensor, noise: Tensor | None = None) -> Tensor:
        """Negative log-likelihood in nats `(b, n)`, of all factors together."""
        pairs = zip(self.logits(hidden, symbols), self._digits(symbols), strict=True)
        losses = [cross_entropy(one.transpose(1, 2), digit, reduction="none") for one, digit in pairs]
        return torch.stack(losses).sum(0)

    def sample(self, hidden: Tensor, sampling: TokenSampling, normal: Tensor) -> Tensor:
        """Indices `(b, n)` for `hidden` `(branches, b, n, d)`, by `normal` `(b, n, draws)`."""
        index, digits = self.blank(*normal.shape[:2]), list[Tensor]()
        for factor, draw in zip(self.factors, normal.unbind(-1), strict=True):
            digits.append(sampling.draw(sampling.guided(self._logits(hidden, digits)), draw))
            index = index * factor + digits[-1]
        return index

    def _digits(self, symbols: Tensor) -> list[Tensor]:
        digits, rest = list[Tensor](), symbols.long()
        for factor in reversed(self.factors):
            digits.insert(0, rest % factor)
            rest = rest // factor
        return digits

    def _embedded(self, digits: Sequence[Tensor]) -> Tensor:
        """The sum of the embeddings of the first digits."""
        first, *others = (self.embedding(digit + sum(self.factors[:i])) for i, digit in enumerate(digits))
        return sum(others, first)

    def _logits(self, hidden: Tensor, before: Sequence[Tensor]) -> Tensor:
        """Of the next factor, given the digits before it."""
        i = len(before)
        if self.chained and i:
            hidden = hidden + self.links[i - 1](hidden + self._embedded(before))
        own = slice(sum(self.factors[:i]), sum(self.factors[: i + 1]))
        return linear(hidden, self.out.weight[own], self.out.bias[own])


@dataclass(frozen=True)
class FlowHeadConfig:
    """A multilayer perceptron that denoises vectors of `channels`."""

    channels: int
    width: int = 1024
    depth: int = 3
    repeats: int = 4
    """Noise levels of a token in one step of training."""

    def build(self, width: int) -> FlowHead:
        """The head of a trunk of this width, with fresh weights."""
        return FlowHead(self, width)


class FlowHead(nn.Module):
    """Symbols are vectors `(b, n, c)`, best of unit variance. `x_sigma = (1 - sigma) x + sigma eps`; its
    velocity `eps - x` is predicted from it, sigma and the slot, by residual blocks with adaLN."""

    def __init__(self, config: FlowHeadConfig, width: int) -> None:
        super().__init__()
        self.channels = self.draws = config.channels
        self.loss_noise: tuple[int, ...] = (config.repeats, 1 + config.channels)
        inner = config.width
        self.embed = nn.Linear(config.channels, width)
        self.slot, self.input = nn.Linear(width, inner), nn.Linear(config.channels, inner)
        self.sigma = SigmaEmbedding(inner)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(inner, inner), nn.SiLU(), nn.Linear(inner, inner))
            for _ in range(config.depth)
        )
        self.modulations = nn.ModuleList(Modulation(inner, parts=3) for _ in range(config.depth))
        self.last = Modulation(inner, parts=2)
        self.out = zero_init(nn.Linear(inner, config.channels))

    def blank(self, *shape: int) -> Tensor:
        """Symbols `(*shape, c)` that stand for what is not known yet."""
        return self.out.weight.new_zeros(*shape, self.channels)

    def check(self, symbols: Tensor) -> None:
        """UserError unless these are vectors `(b, n, c)`."""
        if symbols.ndim != 3 or symbols.shape[-1] != self.channels or not symbols.is_floating_point():
            raise UserError(
                f"continuous tokens are vectors (batch, tokens, {self.channels}), got {symbols.dtype} of "
                f"shape {tuple(symbols.shape)}: use the codec that these weights were trained with"
            )

    def velocity(self, x: Tensor, hidden: Tensor, sigma: Tensor) -> Tensor:
        """`(b, n, c)` for noisy `x` `(b, n, c)`, `hidden` `(b, n, d)` and `sigma` `(b, n)`."""
        condition, y = self.slot(hidden) + self.sigma(sigma), self.input(x)[:, :, None]
        for layer, modulation in zip(self.layers, self.modulations, strict=True):
            shift, scale, gate = modulation(condition)
            y = y + gate * layer(modulate(layer_norm(y, y.shape[-1:], eps=1e-6), shift, scale))
        return self.out(modulate(layer_norm(y, y.shape[-1:], eps=1e-6), *self.last(condition)))[:, :, 0]

    def loss(self, hidden: Tensor, symbols: Tensor, noise: Tensor | None = None) -> Tensor:
        """Mean squared error of the velocity `(b, n)`, at levels whose logit is normal (SD3, arXiv
        2403.03206, 3.1), by standard normal `noise` `(b, n, *loss_noise)`. It never enters the trunk."""
        assert noise is not None, "a continuous head learns from noise"
        noise = noise.to(symbols.dtype)
        sigma, eps = torch.sigmoid(noise[..., 0]), noise[..., 1:]
        x, level = symbols[:, :, None], sigma[..., None]
        wide = hidden[:, :, None].expand(-1, -1, noise.shape[2], -1).flatten(1, 2)
        v = self.velocity(((1 - level) * x + level * eps).flatten(1, 2), wide, sigma.flatten(1, 2))
        return (v.view_as(eps) - (eps - x)).square().mean(dim=(2, 3))

    def sample(self, hidden: Tensor, sampling: TokenSampling, normal: Tensor) -> Tensor:
        """Vectors `(b, n, c)` for `hidden` `(branches, b, n, d)`, by `normal` `(b, n, draws)`."""
        branches, b = hidden.shape[:2]
        x, slot = sampling.temperature * normal.to(hidden.dtype), hidden.flatten(0, 1)
        for step in range(sampling.steps, 0, -1):
            sigma = x.new_full((branches * b, x.shape[1]), step / sampling.steps)
            v = self.velocity(x.repeat(branches, 1, 1), slot, sigma).unflatten(0, (branches, b))
            x = x - sampling.guided(v) / sampling.steps
        return x
