"""Artokens: video as tokens, predicted group after group in an order; or as vectors, with the same order.

A codec gives a clip as a list of symbols y, an order (`schedules/orders.py`) parts it into groups, and one
transformer learns all conditionals at once, given the actions a:

    p(y | a) = prod_g prod_{i in g} p(y_i | y_before g, a)        minimise -log p(y | a)

    paper's word                                             our word
    next token (VideoGPT, arXiv 2104.10157)                  order `token`
    next block (NBP, arXiv 2502.07737): row, frame           orders `row`, `frame`
    next scale (VAR, arXiv 2404.02905), in frames            order `scale`, of a multi-scale codec
    diagonal decoding (DiagD, arXiv 2503.14070)              order `diagonal`, with the weights of `token`
    delta tokens (delta-IRIS, arXiv 2406.19320)              any order, of a `DeltaCodec`
    diffusion loss (MAR, arXiv 2406.11838)                   any order, of a codec without a codebook

With a `DeltaCodec` tokens tell what a frame adds to the one before. The transformer is told what the decoder
sees of that frame at each place, as delta-IRIS embeds it, and this is the form that is walked in: a frame
a step. A codec whose latents stand for several frames goes on by as many: `continued`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import NamedTuple, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones.tokenformer import TokenFormerConfig
from dreamwalk.clip import Clip
from dreamwalk.codecs.codec import Codec
from dreamwalk.codecs.delta import DeltaCodec, DeltaCodecConfig, Disturb, delta_tiny, fine_steps, whole_frames
from dreamwalk.codecs.quantizers import FSQ, UnquantizedConfig
from dreamwalk.codecs.rgbd import codec_input
from dreamwalk.codecs.tokens import TokenCodec, small_layers, small_scales, small_tokens, tokenized
from dreamwalk.conditions.actions import ActionEmbedding
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.memory.contract import MemoryModel
from dreamwalk.rollout.dream import Decode, WorldSpec
from dreamwalk.rollout.realtime import FramePass, WalkState
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.orders import Order
from dreamwalk.schedules.token_orders import OrderName
from dreamwalk.systems.artokens_config import TokenSystemConfig
from dreamwalk.systems.token_disturbance import disturbance
from dreamwalk.systems.token_sampler import SlotConditions, TokenStream
from dreamwalk.systems.token_walk import TokenWalk
from dreamwalk.systems.walkable import Walkable, check_starts


@dataclass(frozen=True)
class ArTokensConfig(TokenSystemConfig):
    """The codec, the order, the sizes of the transformer, and how it is sampled and trained."""

    def build(self) -> ArTokens:
        return ArTokens(self)


class Symbols(NamedTuple):
    """A clip as a model of tokens takes it."""

    values: Tensor
    """Indices `(b, n)`, or vectors `(b, n, c)`, in the order of the list."""
    seen: Tensor | None
    """What a delta codec sees of the frame before each, `(b, t', h', w', f)`."""
    told: Tensor | None = None
    """Indices of what was decoded, for a delta codec, which differ from the values where they were
    disturbed."""


class ArTokens(Walkable):
    """A frozen codec, an action embedding, and a transformer of tokens."""

    name = "artokens"
    config: ArTokensConfig

    def __init__(self, config: ArTokensConfig) -> None:
        super().__init__()
        self.config, self.memory = config, MemoryModel()
        self.codec = config.codec.build().requires_grad_(False)
        self._orders: dict[OrderName, Order] = {}
        self.order = self.make_order()
        self.actions = ActionEmbedding(config.actions, config.width, stride=self.codec.stride[0])
        sizes = {"width": config.width, "depth": config.depth, "heads": config.heads}
        told = {"fillers": self.order.fillers, "scales": self.order.scales}
        told["seen"] = self.codec.seen_features if isinstance(self.codec, DeltaCodec) else 0
        told["text_dim"] = config.text_encoder.width if config.text_encoder else 0
        self.text_encoder = config.text_encoder.build() if config.text_encoder else None
        self.backbone = TokenFormerConfig(self.order.trained_as, config.head, **sizes, **told).build()

    def train(self, mode: bool = True) -> Self:
        """The codec is frozen, what it measures in training as well."""
        super().train(mode)
        self.codec.eval()
        return self

    @property
    def blocks(self) -> nn.ModuleList:
        return self.backbone.blocks

    @property
    def action_size(self) -> int:
        return self.config.actions

    @property
    def passes(self) -> float:
        order = self.make_order(self.config.played)
        return order.passes / (self.config.frames * self.codec.stride[0])

    def loss(self, clip: Clip, generator: KeyedGenerator) -> dict[str, Tensor]:
        """Negative log-likelihood of a token in nats, or the flow loss of a vector; of each order in bits."""
        disturb = None
        if self.config.disturbed and isinstance(self.codec, DeltaCodec):
            assert isinstance(self.codec.quantizer, FSQ)
            disturb = disturbance(self.codec.quantizer, generator, most=self.config.disturbed)
        symbols, conditions = self._drawn_window(
            self.symbols(clip, disturb), self._conditions(clip), generator
        )
        keep = generator.uniform(1) >= self.config.cond_dropout
        text, conditions = self._text(clip, keep=keep[:, 0].tolist()), conditions * keep[..., None]
        size = self.order.tokens, *self.backbone.head.loss_noise
        noise = generator.normal(*size) if self.continuous else None
        terms = {}
        for name in dict.fromkeys((self.config.order, self.config.played)):
            slots = self.make_order(name).slots(device=symbols.values.device)
            losses = self.backbone.loss(
                symbols.values,
                slots,
                conditions=conditions,
                seen=symbols.seen,
                text=text,
                noise=noise,
                told=symbols.told,
            )
            terms[name] = losses.mean()
        loss, unit = torch.stack(list(terms.values())).mean(), 1.0 if self.continuous else math.log(2)
        return {"loss": loss} | {f"{name}_loss": term.detach() / unit for name, term in terms.items()}

    def _drawn_window(
        self, symbols: Symbols, conditions: Tensor, generator: KeyedGenerator
    ) -> tuple[Symbols, Tensor]:
        """As many frames as the order has, of a longer clip from a drawn one on: so a list is learnt after a
        frame that was decoded, as it is in a walk, and not after a true one alone."""
        coded, frames = conditions.shape[1], self.config.frames
        if not self.delta or symbols.seen is None or coded <= frames:
            return symbols, conditions
        first = (generator.uniform(1) * (coded - frames + 1)).long()
        at = torch.arange(len(first), device=first.device)[:, None], first + torch.arange(frames).to(first)
        cut = lambda listed: listed.unflatten(1, (coded, -1))[at].flatten(1, 2)
        told = None if symbols.told is None else cut(symbols.told)
        return Symbols(cut(symbols.values), symbols.seen[at], told), conditions[at]

    @torch.no_grad()
    def symbols(self, clip: Clip, disturb: Disturb | None = None) -> Symbols:
        """Of all frames of a batched clip, of a delta codec disturbed; UserErrors of the codec."""
        video = codec_input(clip, 3)
        if isinstance(self.codec, DeltaCodec):
            coded, grid = self.codec.code(video, clip.actions, disturb), self.config.grid
            if self.continuous:
                return Symbols(coded.values.flatten(1, 3), coded.seen.unflatten(2, grid))
            return Symbols(coded.tokens.flatten(1), coded.seen.unflatten(2, grid), coded.told.flatten(1))
        if isinstance(self.codec, TokenCodec) and not self.continuous:
            return Symbols(self.codec.tokens(video).flatten(1), None)
        return Symbols(rearrange(self.codec.encode(video), "b t c h w -> b (t h w) c"), None)

    def make_order(self, name: OrderName | None = None) -> Order:
        """An order of this config, made once."""
        name = name or self.config.order
        if name not in self._orders:
            self._orders[name] = self.config.make_order(name)
        return self._orders[name]

    @property
    def continuous(self) -> bool:
        """Whether symbols are vectors."""
        return isinstance(self.config.quantizer, UnquantizedConfig)

    @property
    def delta(self) -> bool:
        """Whether tokens tell what a frame adds to the one before."""
        return isinstance(self.codec, DeltaCodec)

    @torch.inference_mode()
    def begin(self, start: Clip, *, seed: int = 0, frame_pass: FramePass | None = None) -> TokenWalk:
        """A walk whose history is the batched clip `start` (one frame is enough); UserError for a codec whose
        latents stand for several frames, or that does not know the frame before."""
        if not self.delta:
            raise UserError(
                "these tokens stand for several frames at once: walk in a dream of a delta codec, or make a "
                "film with `dreamwalk sample`"
            )
        walk = TokenWalk(seed=seed, stream=self.stream([seed] * len(start.video), text=self._text(start)))
        walk.shown = codec_input(start, 3)[:, -1]
        if len(start) > 1:
            symbols, conditions = self.symbols(start), self._conditions(start)
            assert symbols.seen is not None
            self._give(walk.stream, symbols.values, conditions, symbols.seen)
            walk.told[conditions.shape[1] - 1] = conditions[:, -1:], symbols.seen[:, -1:]
        return walk

    @torch.inference_mode()
    def advance(
        self,
        session: WalkState,
        action: Tensor,
        *,
        frame_pass: FramePass | None = None,
        decode: Decode | None = None,
        timings: dict[str, float] | None = None,
    ) -> Tensor:
        """Symbols `(b, n)` or `(b, n, c)` of the next frame, which `action` `(b, a)` leads into;
        `session.shown` is then the frame."""
        assert isinstance(self.codec, DeltaCodec) and isinstance(session, TokenWalk)
        assert session.shown is not None
        began = perf_counter()
        sight = self.codec.look(session.shown, action)
        seen = sight.features[:, None].unflatten(2, self.config.grid)
        now = session.stream.frame
        session.told = {now - 1: session.told[now - 1]} if now - 1 in session.told else {}
        session.told[now] = self.actions(action[:, None]), seen
        symbols = self._next_frame(session.stream, partial(session.of, 0), partial(session.of, 1))
        middle = perf_counter()
        session.shown = self.codec.decode(sight, self._values(symbols), action)
        if timings is not None:
            timings |= {"tokens": 1000 * (middle - began), "decode": 1000 * (perf_counter() - middle)}
        return symbols

    def stream(
        self, seeds: Sequence[int], order: OrderName | None = None, *, text: TextEmbedding | None = None
    ) -> TokenStream:
        """A list of tokens to be drawn, a row for each seed."""
        order, sampling = order or self.config.played, self.config.sampling
        return TokenStream(self.backbone, self.make_order(order), seeds, sampling, text=text, endless=True)

    @torch.inference_mode()
    def continued(
        self, clip: Clip, *, history: int, seed: int = 0, advance: Callable[[], None] = lambda: None
    ) -> Tensor:
        """As of any system; UserError for a history that is no whole number of latents."""
        if self.delta:
            return super().continued(clip, history=history, seed=seed, advance=advance)
        codec, frames = self.codec, len(clip)
        assert isinstance(codec, Codec)
        given, latents = codec.latent_frames(history), codec.latent_frames(frames)
        if codec.decoded_frames(given) != history:
            near = codec.decoded_frames(given)
            raise UserError(f"{history} frames are no whole latents of this codec: give a history of {near}")
        missing = codec.decoded_frames(latents) - frames
        whole = replace(clip, actions=nn.functional.pad(clip.actions, (0, 0, 0, missing)))
        conditions, known = self._conditions(whole), self.symbols(clip.first(history)).values
        told = lambda asked: conditions[:, list(asked)]
        stream = self.stream([seed] * len(clip.video), text=self._text(clip))
        self._give(stream, known, conditions[:, :given], None)
        drawn = [known]
        for latent in range(given, latents):
            drawn.append(self._next_frame(stream, told, None))
            for _ in range(codec.decoded_frames(latent), min(codec.decoded_frames(latent + 1), frames)):
                advance()
        symbols = torch.cat(drawn, 1).unflatten(1, (latents, -1))
        return codec.decode(rearrange(self._values(symbols), "b t h w c -> b t c h w"), frames)[:, history:]

    def restored(self, clip: Clip) -> Tensor:
        return self.codec.restored(codec_input(clip, 3), clip.actions)

    def measured(self, clip: Clip) -> dict[str, float]:
        """Tokens of a frame of video, and its bits by the likelihood, on as many frames as in training."""
        order = self.make_order()
        rows = {"tokens": order.tokens / (self.config.frames * self.codec.stride[0])}
        clip = clip.first(self._training_frames)
        if self.continuous or len(clip) < self._training_frames:
            return rows
        symbols = self.symbols(clip)
        slots, conditions = order.slots(device=symbols.values.device), self._conditions(clip)
        with torch.inference_mode():
            told = {"conditions": conditions, "seen": symbols.seen}
            loss = self.backbone.loss(symbols.values, slots, **told, text=self._text(clip))
        return rows | {"bits": float(loss.mean()) / math.log(2) * rows["tokens"]}

    @torch.inference_mode()
    def preview(self, clip: Clip) -> Tensor:
        """The dream of `clip` from its first frame under its actions, in [-1, 1] `(b, t, 3, h, w)`."""
        return torch.cat([codec_input(clip.first(1), 3), self.continued(clip, history=1)], 1).clamp(-1, 1)

    def check_world(self, spec: WorldSpec, source: str) -> None:
        (rows, columns), (_, down, across) = self.config.grid, self.codec.stride
        check_starts(spec, source, actions=self.config.actions, size=(rows * down, columns * across))

    @property
    def _training_frames(self) -> int:
        """Frames of video behind the tokens of the order."""
        return self.config.frames + 1 if self.delta else 1 + (self.config.frames - 1) * self.codec.stride[0]

    def _conditions(self, clip: Clip) -> Tensor:
        """Of the frames of the list, `(b, t', d)`: a delta codec has no tokens of the first frame."""
        return self.actions(clip.actions[:, 1:] if self.delta else clip.actions)

    def _text(self, clip: Clip, *, keep: Sequence[bool] = ()) -> TextEmbedding | None:
        """Of the captions of a batched clip, those that are not kept empty; None for a model of none."""
        if self.text_encoder is None:
            return None
        captions = clip.caption if isinstance(clip.caption, list) else [clip.caption] * len(clip.video)
        kept = zip(captions, keep or [True] * len(captions), strict=True)
        return self.text_encoder([caption if stays else "" for caption, stays in kept])

    def _give(self, stream: TokenStream, symbols: Tensor, conditions: Tensor, seen: Tensor | None) -> None:
        """The last known frames, as many as leave room for another."""
        frames = conditions.shape[1]
        stream.left = max(0, frames - self.config.frames + 1)
        stream.conditions = lambda asked: conditions[:, list(asked)]
        stream.seen = None if seen is None else lambda asked: seen[:, list(asked)]
        stream.give(symbols[:, stream.left * stream.tokens :])
        stream.conditions = stream.seen = None  # a walk that is saved or sent holds no function

    def _next_frame(
        self, stream: TokenStream, conditions: SlotConditions, seen: SlotConditions | None
    ) -> Tensor:
        """Draw the symbols `(b, n)` or `(b, n, c)` of another frame."""
        stream.conditions, stream.seen = conditions, seen
        symbols = stream.next_frame()
        stream.conditions = stream.seen = None
        return symbols

    def _values(self, symbols: Tensor) -> Tensor:
        """What a codec decodes, `(.., h', w', c)`, for the symbols of frames, `(.., n)` or `(.., n, c)`."""
        if self.continuous:
            return symbols.unflatten(-2, self.config.grid)
        assert isinstance(self.codec, TokenCodec | DeltaCodec)
        scales = self.config.order == "scale"
        return self.codec.quantizer.values(symbols if scales else symbols.unflatten(-1, self.config.grid))


def tiny() -> ArTokensConfig:
    """For tests: 32x32 frames, four tokens a frame."""
    return ArTokensConfig(delta_tiny(), actions=7, grid=(2, 2), frames=4, width=64, depth=2, heads=2)


def doom() -> ArTokensConfig:
    """A dream of Doom: 48 tokens a frame beside what is expected of it, row by row."""
    config = ArTokensConfig(whole_frames(), actions=7, grid=(6, 8), frames=9, width=160)
    return replace(config, order="row", played="row", disturbed=0.5)


def changes() -> ArTokensConfig:
    """The same of tokens that tell what is not as expected, as in delta-IRIS."""
    codec = DeltaCodecConfig(actions=7, quantizer=fine_steps())
    return replace(doom(), codec=codec, disturbed=0.0)


def video(order: OrderName = "row") -> ArTokensConfig:
    """Tokens of 4x16x16 pixels, to compare orders: 17 frames are 240 tokens, or 325 in four scales."""
    codec = small_scales() if order == "scale" else small_tokens()
    return ArTokensConfig(codec, actions=7, grid=(6, 8), order=order, played=order, frames=5)


def continuous() -> ArTokensConfig:
    """The same without a codebook."""
    layers = small_layers()
    return replace(video(), codec=tokenized(layers, UnquantizedConfig(layers.channels)))
