"""The config of artokens: a codec, an order and a transformer of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from dreamwalk.backbones.token_heads import (
    DiscreteHeadConfig,
    FlowHeadConfig,
    TokenSampling,
    bitwise,
    softmax,
)
from dreamwalk.codecs.delta import DeltaCodecConfig
from dreamwalk.codecs.quantizers import FSQConfig, LFQConfig, UnquantizedConfig
from dreamwalk.codecs.residual_quantizers import MultiScaleConfig
from dreamwalk.codecs.shuffle import ShuffleVAEConfig
from dreamwalk.codecs.tokens import QuantizerConfig, TokenCodecConfig
from dreamwalk.codecs.vector_quantizer import VQConfig
from dreamwalk.conditions.byte_encoder import ByteEncoderConfig
from dreamwalk.errors import UserError
from dreamwalk.schedules.orders import Order
from dreamwalk.schedules.token_orders import OrderName, named_order
from dreamwalk.systems.system import SystemConfig, grid_of
from dreamwalk.validation import Count, Share
from dreamwalk.world import ActionSchema


@dataclass(frozen=True)
class TokenSystemConfig(SystemConfig):
    """The codec, the order, the sizes of the transformer, and how it is sampled and trained."""

    codec: TokenCodecConfig | ShuffleVAEConfig | DeltaCodecConfig
    actions: Count
    """Length of the action vector."""
    grid: tuple[int, int]
    """Rows and columns of tokens of a frame."""
    order: OrderName = "token"
    """In which tokens are predicted."""
    played: OrderName = "token"
    """In which they are drawn. `diagonal` runs on the weights of `token`, which then learn both: small models
    need to."""
    frames: int = 8
    """Frames of tokens that are predicted together in training, and that a dream looks back on."""
    width: int = 256
    depth: int = 6
    heads: int = 4
    text_encoder: ByteEncoderConfig | None = None
    """Of captions, for a model that is told them."""
    cond_dropout: Share = 0.1
    """Probability of training a clip without its actions and its caption, for classifier-free guidance."""
    disturbed: Share = 0.0
    """Most share of tokens that are made wrong in what is told of a clip of training, as those of a dream are
    (`token_disturbance.py`); for a delta codec with FSQ."""
    sampling: TokenSampling = field(default_factory=TokenSampling)
    """How tokens are drawn."""

    def __post_init__(self) -> None:
        scales = isinstance(self.quantizer, MultiScaleConfig)
        if scales != (self.order == "scale"):
            raise UserError("the order `scale` is for a multi-scale codec, and the others are for the rest")
        if self.played != self.order and (self.order, self.played) != ("token", "diagonal"):
            raise UserError(
                f"weights of the order `{self.order}` are not played by `{self.played}`: only those of "
                "`token` have another order, `diagonal`"
            )
        delta = isinstance(self.codec, DeltaCodecConfig)
        if self.disturbed and not (delta and isinstance(self.quantizer, FSQConfig)):
            raise UserError("only tokens of a delta codec with FSQ are disturbed: leave `disturbed` at 0")

    def sized(self, schema: ActionSchema, size: tuple[int, int]) -> Self:
        """The config for data with these actions and frames of `size` (h, w); UserError where none fits."""
        _, h, w = self.codec.stride
        codec, grid = self.codec, grid_of(size, (h, w))
        if isinstance(codec, DeltaCodecConfig):
            codec = replace(codec, actions=schema.size)
        return replace(self, actions=schema.size, codec=codec, grid=grid)

    @property
    def quantizer(self) -> QuantizerConfig:
        """Of the codec; that which quantizes nothing for a codec without any."""
        codec = self.codec
        return UnquantizedConfig(codec.channels) if isinstance(codec, ShuffleVAEConfig) else codec.quantizer

    def make_order(self, name: OrderName) -> Order:
        """An order of `frames` frames of this codec."""
        scales = self.quantizer.scales if isinstance(self.quantizer, MultiScaleConfig) else ()
        return named_order(name, (self.frames, *self.grid), scales=scales)

    @property
    def head(self) -> DiscreteHeadConfig | FlowHeadConfig:
        """Of a token of the codec; UserError for a codec whose tokens have several indices."""
        stage = self.quantizer.stage if isinstance(self.quantizer, MultiScaleConfig) else self.quantizer
        match stage:
            case UnquantizedConfig():
                return FlowHeadConfig(stage.channels, width=2 * self.width)
            case FSQConfig():
                return DiscreteHeadConfig(digits(stage.levels), chained=True)
            case LFQConfig():
                return bitwise(stage.channels)
            case VQConfig():
                return softmax(stage.codes)
        raise UserError("tokens of a residual quantizer have several indices: take one, or a multi-scale one")


def digits(levels: Sequence[int], *, most: int = 512) -> tuple[int, ...]:
    """Of an index of FSQ, the most significant first: neighbouring channels share a digit of up to `most`
    values, for every digit is another pass through the head."""
    found = list[int]()
    for level in reversed(levels):  # the first channel is the lowest
        if found and found[-1] * level <= most:
            found[-1] *= level
        else:
            found.append(level)
    return tuple(found)
