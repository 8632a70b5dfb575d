"""Sampler of tokens: one pass for every group of an order, in front of the cache of the groups that it sees.

    h, keys, values = trunk(input map of what is known, behind the cache)
    y_g = head.sample(h), by noise of (seed, group)
    the cache takes group g and loses what no later group sees

A slot holds what was before it, never its own token, so the pass that predicts a group is also the one whose
keys and values later groups see: cached and teacher-forced passes are the same numbers. With a window
(`token_orders.windowed`) whole frames leave the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dreamwalk.backbones.token_heads import TokenSampling
from dreamwalk.backbones.tokenformer import FrameModulation, TokenFormer
from dreamwalk.errors import UserError
from dreamwalk.layers.cache import SlotCache
from dreamwalk.layers.text import TextEmbedding, beside
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.orders import Order

SlotConditions = Callable[[Sequence[int]], Tensor]
"""Conditions `(b, k, d)` of `k` frames; asked for when it is a group's turn, so that an action may be chosen
by what was decoded before."""


@dataclass
class TokenStream:
    """A clip on its way, of one row for each seed; a row's tokens do not depend on the other rows.

    Guidance compares with conditions of zero and an empty text, so training must drop them that way.
    """

    model: TokenFormer
    order: Order
    seeds: Sequence[int]
    sampling: TokenSampling = field(default_factory=TokenSampling)
    conditions: SlotConditions | None = None
    text: TextEmbedding | None = None
    seen: SlotConditions | None = None
    """What is seen of the frames before, `(b, k, h, w, f)`, for models that are told."""
    endless: bool = False
    """Whether it may `slide`: then frames stay in the cache until they do."""
    symbols: Tensor = field(init=False)
    """All tokens `(b, n)`, or vectors `(b, n, c)`; blank where they are not known yet."""
    group: int = field(init=False, default=0)
    """The group that comes next."""
    cache: SlotCache = field(init=False)
    left: int = field(init=False, default=0)
    """Frames that were forgotten: the first of the list is this one."""

    _told: tuple[Tensor | None, list[FrameModulation]] = field(init=False, default=(None, []), repr=False)

    def __post_init__(self) -> None:
        rows, order = len(self.seeds), self.order
        if not rows:
            raise UserError("a clip needs a seed, and a batch one for each row")
        told = self.endless or self.conditions is not None or self.text is not None  # a walk at every frame
        if self._guided and not told:
            raise UserError("guidance leads towards conditions or a text: give one, or guidance 1")
        if self.text is not None and len(self.text.tokens) != rows:
            raise UserError(f"{rows} seeds need as many texts, got {len(self.text.tokens)}")
        self.symbols = self.model.head.blank(rows, order.tokens)
        self.cache = self.model.cache(
            self._room if self.endless else order.live_slots, batch=rows * self._branches
        )
        if self._guided and self.text is not None:
            self.text = beside(self.text, TextEmbedding(self.text.tokens[:, :0]))

    @property
    def done(self) -> bool:
        return self.group == self.order.passes

    @torch.no_grad()
    def give(self, symbols: Tensor) -> None:
        """Begin with known tokens `(b, m)`, the first of the list and whole groups: one pass for all."""
        if self.group:
            raise UserError("known tokens come before the first pass: begin another stream")
        self.model.head.check(symbols)
        known = self.order.prefix(symbols.shape[1])
        if len(symbols) != len(self.seeds):
            raise UserError(f"{len(self.seeds)} seeds need as many rows of known tokens, got {len(symbols)}")
        self.symbols[:, : symbols.shape[1]] = symbols
        if known:
            self._pass(range(known))

    @torch.no_grad()
    def advance(self) -> Tensor:
        """Draw the next group: the indices `(m,)` of the tokens that are known now."""
        assert not self.done
        index, head = self.group, self.model.head
        hidden, tokens = self._pass(range(index, index + 1))
        turn = index + self.left * self._groups
        noise = KeyedGenerator([(seed, turn) for seed in self.seeds], device=hidden.device)
        normal = noise.normal(len(tokens), head.draws)
        hidden = hidden.unflatten(0, (self._branches, len(self.seeds)))
        self.symbols[:, tokens] = head.sample(hidden, self.sampling, normal)
        return tokens

    def finish(self, *, frame: int | None = None) -> Tensor:
        """All tokens, when the groups up to a frame, by default the last, are drawn."""
        while not self.done and (frame is None or self.order.frames[self.group].start <= frame):
            self.advance()
        return self.symbols

    def slide(self) -> None:
        """Forget the first frame, so that the list has room for another and a stream need not end.

        For orders whose frames are alike. What the cache holds of later frames stays as it was computed."""
        assert self.endless and self.group >= self._groups, "only what is drawn can be forgotten"
        blank = self.model.head.blank(len(self.seeds), self.tokens)
        self.symbols = torch.cat([self.symbols[:, self.tokens :], blank], 1)
        self.cache.shift(self._groups)
        self.group, self.left = self.group - self._groups, self.left + 1

    def next_frame(self) -> Tensor:
        """Draw another frame: its symbols `(b, n)` or `(b, n, c)`. An endless stream makes room for it."""
        if self.done:
            self.slide()
        frame = self.frame - self.left
        return self.finish(frame=frame)[:, frame * self.tokens : (frame + 1) * self.tokens]

    def clone(self) -> TokenStream:
        """A snapshot that later draws leave alone."""
        twin = copy(self)
        twin.symbols, twin.cache = self.symbols.clone(), self.cache.clone()
        return twin

    def __deepcopy__(self, copied: dict[int, object]) -> TokenStream:
        return self.clone()  # copies share the weights

    @property
    def frames(self) -> int:
        """Frames of the list."""
        return self.order.frames[-1].stop

    @property
    def frame(self) -> int:
        """The frame that comes next, counted from the beginning of the stream."""
        return self.left + (self.frames if self.done else self.order.frames[self.group].start)

    @property
    def tokens(self) -> int:
        """Tokens of a frame, where all are alike."""
        return self.order.tokens // self.frames

    @property
    def _groups(self) -> int:
        """Groups of a frame, where all are alike."""
        return self.order.passes // self.frames

    @property
    def _room(self) -> int:
        """Slots of the cache of a stream that slides: any frame may come to be the first, and have more slots
        than that one ever had, such as what commits."""
        sizes, counts = [len(group.slots) for group in self.order.groups], Counter[int]()
        for span, size in zip(self.order.frames, sizes, strict=True):
            counts[span.stop] += size
        return max(self.order.live_slots, max(counts.values()) * self.frames)

    @property
    def _guided(self) -> bool:
        return self.sampling.guidance != 1

    @property
    def _branches(self) -> int:
        """Copies of the rows: with conditions, and behind them without."""
        return 2 if self._guided else 1

    def _pass(self, groups: range) -> tuple[Tensor, Tensor]:
        """Hidden vectors `(branches * b, m, d)` of the tokens `(m,)` of groups, which join the cache."""
        slots = self.order.slots(groups, kept=list(self.cache.sizes), device=self.symbols.device)
        frames = [self.left + frame for frame in slots.frames]
        slots = slots._replace(places=slots.places + slots.places.new_tensor([self.left, 0, 0]))
        modulations = self._modulations(frames)
        seen = None if self.seen is None else self.seen(frames)
        if self._guided and seen is not None:  # what is seen is no condition that guidance leads towards
            seen = torch.cat([seen, seen])
        symbols = self.symbols.repeat(self._branches, *[1] * (self.symbols.ndim - 1))
        past = self.cache if self.cache.sizes else None
        hidden, fresh = self.model.predict(symbols, slots, modulations, self.text, past, seen=seen)
        sizes = {index: len(self.order.groups[index].slots) for index in groups}
        self.cache.write(
            sizes, fresh, lambda index: self.endless or self.order.last_seen[index] >= groups.stop
        )
        self.group = groups.stop
        return hidden, slots.tokens

    def _modulations(self, frames: Sequence[int]) -> list[FrameModulation]:
        """By the conditions of frames; made once where these are the same tensor again, as in the groups of
        one frame."""
        conditions = None if self.conditions is None else self.conditions(frames)
        if conditions is not None and conditions is self._told[0]:
            return self._told[1]
        both = conditions
        if self._guided and conditions is not None:
            both = torch.cat([conditions, torch.zeros_like(conditions)])
        batch = len(self.seeds) * self._branches
        self._told = conditions, self.model.modulations(both, batch=batch, frames=len(frames))
        return self._told[1]
