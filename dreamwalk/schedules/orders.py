"""Orders as data: in which groups a clip's tokens are predicted, from which inputs, and who sees whom.

A codec gives a clip as a list of tokens. An order is a partition of that list into groups; all tokens of a
group are predicted in one pass, from the groups before it:

    p(y) = prod_g prod_{i in g} p(y_i | y_before g)

    slot            one vector of the sequence, named by what it predicts; one that predicts nothing commits:
                    it tells later groups what is known
    input map       a slot's input is a weighted sum of the embeddings of tokens of earlier groups, or a
                    learned filler
    reference set   `sees`: the groups that a group attends to, itself among them; it gives the mask

Next token (VideoGPT, arXiv 2104.10157), next block (NBP, arXiv 2502.07737), next scale (VAR, arXiv
2404.02905) and the others of `token_orders` differ in this data alone, so one trunk and one sampler serve
all. A slot never holds its own token; that token reaches a later group only as an input that the group sees,
itself or through others. A mask without a leak may thus still forget: the published space-time pyramid
(InfinityStar, arXiv 2511.04675) starts every clip from nothing, and no input is made of the last scale before
it. `check_order` therefore asks both: no group knows its own or later tokens, and each knows all earlier
ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.layers.attention import slot_mask
from dreamwalk.layers.slots import Slots

START = 1
"""The filler of the first group."""


class Slot(NamedTuple):
    """What a slot predicts, where it lies and what it is made of."""

    token: int | None
    """Index into the list of tokens; None commits."""
    frame: int
    row: float
    column: float
    """In cells of the finest grid; a coarse slot has its centre."""
    sources: tuple[tuple[int, float], ...] = ()
    """Tokens of earlier groups, and the weights of their embeddings."""
    filler: int = 0
    """A learned vector in place of `sources`, from 1; 0 for none."""
    scale: int = 0


@dataclass(frozen=True)
class Group:
    """Slots that are computed in one pass, and the groups that they see: ascending spans, its own last."""

    slots: tuple[Slot, ...]
    sees: tuple[range, ...]


@dataclass(frozen=True)
class Order:
    """Groups in the order of generation; UserError names the first rule that is broken."""

    name: str
    groups: tuple[Group, ...]
    trained_as: str = ""
    """Name of the order whose weights run it, where it is derived; its own otherwise."""
    tokens: int = field(init=False)
    """Length of the list of tokens."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "trained_as", self.trained_as or self.name)
        object.__setattr__(self, "tokens", sum(s.token is not None for g in self.groups for s in g.slots))
        check_order(self)

    @property
    def passes(self) -> int:
        """Passes of the network that a clip takes."""
        return len(self.groups)

    @cached_property
    def frames(self) -> tuple[range, ...]:
        """The frames that each group predicts tokens of, or, if none, those of its slots."""
        spans = ([s.frame for s in g.slots if s.token is not None] for g in self.groups)
        named = (span or [s.frame for s in g.slots] for span, g in zip(spans, self.groups, strict=True))
        return tuple(range(min(span), max(span) + 1) for span in named)

    @cached_property
    def fillers(self) -> int:
        """Learned vectors that weights have for inputs."""
        return max(slot.filler for group in self.groups for slot in group.slots)

    @cached_property
    def scales(self) -> int:
        """Learned vectors that weights have for scales."""
        return 1 + max(slot.scale for group in self.groups for slot in group.slots)

    @cached_property
    def last_seen(self) -> list[int]:
        """The last group that sees each group: after it, keys and values can go."""
        last = torch.zeros(self.passes, dtype=torch.long)
        for index, group in enumerate(self.groups):
            for span in group.sees:
                last[span.start : span.stop] = index
        return last.tolist()

    @cached_property
    def live_slots(self) -> int:
        """The most slots whose keys and values exist at once."""
        live, most, leaving = 0, 0, [0] * self.passes
        for index, (group, last) in enumerate(zip(self.groups, self.last_seen, strict=True)):
            leaving[last] += len(group.slots)
            live += len(group.slots)
            most = max(most, live)
            live -= leaving[index]
        return most

    def visible(self, part: range) -> Tensor:
        """bool `(len(part), groups)`: which group of a part (row) sees which of all."""
        seen = torch.zeros(len(part), self.passes, dtype=torch.bool)
        for row, index in enumerate(part):
            for span in self.groups[index].sees:
                seen[row, span.start : span.stop] = True
        return seen

    def prefix(self, tokens: int) -> int:
        """How many first groups predict exactly the first `tokens` of the list; UserError where none do."""
        fits, done, top = {0: 0}, 0, -1
        for index, group in enumerate(self.groups):
            named = [slot.token for slot in group.slots if slot.token is not None]
            done, top = done + len(named), max([top, *named])
            if done == top + 1:
                fits.setdefault(done, index + 1)
        if tokens not in fits:
            nearest = min(fits, key=lambda fit: abs(fit - tokens))
            raise UserError(
                f"the first {tokens} tokens are no whole groups of the order '{self.name}': give the first "
                f"{nearest}"
            )
        return fits[tokens]

    def slots(
        self, part: range | None = None, *, kept: Sequence[int] = (), device: torch.device | str = "cpu"
    ) -> Slots:
        """The slots of some groups, by default all, behind kept groups, whose slots the mask has in front."""
        part = range(self.passes) if part is None else part
        slots = [slot for index in part for slot in self.groups[index].slots]
        frames = {frame: i for i, frame in enumerate(sorted({slot.frame for slot in slots}))}
        targets = [i for i, slot in enumerate(slots) if slot.token is not None]
        used = sorted({token for slot in slots for token, _ in slot.sources})

        def indices(values: Sequence[int | None]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        def owners(groups: Iterable[int]) -> Tensor:
            return torch.tensor([index for index in groups for _ in self.groups[index].slots])

        return Slots(
            self.trained_as,
            self.tokens,
            torch.tensor([slot[1:4] for slot in slots], dtype=torch.float64, device=device),
            tuple(frames),
            indices([frames[slot.frame] for slot in slots]),
            indices([slot.scale for slot in slots]),
            indices([slot.filler for slot in slots]),
            indices(used),
            _input_map(slots, used).to(device),
            indices([slots[i].token for i in targets]),
            indices(targets),
            slot_mask(self.visible(part), owners(part) - part.start, owners((*kept, *part)), device=device),
        )


def _input_map(slots: Sequence[Slot], used: Sequence[int]) -> Tensor:
    """Sparse `(s, u)`, float64: the weight of every used token in every slot's input."""
    place = {token: index for index, token in enumerate(used)}
    entries = [(i, place[token], weight) for i, slot in enumerate(slots) for token, weight in slot.sources]
    at = torch.tensor([entry[:2] for entry in entries], dtype=torch.long).reshape(-1, 2).T
    weights = torch.tensor([entry[2] for entry in entries], dtype=torch.float64)
    return torch.sparse_coo_tensor(at, weights, (len(slots), len(used)), check_invariants=True).coalesce()


def check_order(order: Order) -> None:
    """UserError with one sentence naming the first rule that an order breaks."""
    if not order.groups or not all(group.slots for group in order.groups):
        raise UserError(f"the order '{order.name}' needs groups, and every group a slot")
    predicted: set[int] = set()
    for index, group in enumerate(order.groups):
        _check_sees(index, group)
        for slot in group.slots:
            _check_slot(index, slot, predicted)
        own = [slot.token for slot in group.slots if slot.token is not None]
        if len(predicted | set(own)) < len(predicted) + len(own):
            twice = min(token for token in own if token in predicted or own.count(token) > 1)
            raise UserError(f"token {twice} is predicted twice, the second time in group {index}")
        predicted |= set(own)
    strange = predicted ^ set(range(order.tokens))
    if strange:
        raise UserError(
            f"the order '{order.name}' predicts {order.tokens} tokens, so they are 0 to {order.tokens - 1}: "
            f"{min(strange)} is {'out of range' if min(strange) in predicted else 'missing'}"
        )
    _check_known(order)


def _check_sees(index: int, group: Group) -> None:
    """A group sees itself and no later one."""
    if not group.sees or group.sees[-1].stop != index + 1:
        last = group.sees[-1].stop - 1 if group.sees else 0
        what = f"sees group {last}, which comes later" if last > index else "does not see itself"
        raise UserError(f"group {index} {what}: the last span that a group sees ends with itself")
    ends = [end for span in group.sees for end in (span.start, span.stop)]
    if ends != sorted(ends) or ends[0] < 0 or any(span.step != 1 or not span for span in group.sees):
        raise UserError(f"the spans that group {index} sees must ascend from 0 and not overlap")


def _check_slot(index: int, slot: Slot, predicted: set[int]) -> None:
    """An input is made of tokens of earlier groups, or of a filler."""
    if bool(slot.sources) == bool(slot.filler) or slot.filler < 0:
        raise UserError(f"a slot of group {index} needs sources or a filler, from 1, and not both")
    if any(number < 0 for number in (slot.frame, slot.scale)):
        raise UserError(f"frames and scales are counted from 0: a slot of group {index} has less")
    for token, weight in slot.sources:
        if token not in predicted:
            raise UserError(f"group {index} leaks: an input is made of token {token}, of no earlier group")
        if not math.isfinite(weight) or not weight:
            raise UserError(f"group {index} weighs token {token} by {weight}: leave it out or give a number")


def _check_known(order: Order) -> None:
    """Every group knows every token of the groups before it, as bits of whole numbers."""
    known: list[int] = []
    before = 0
    for index, group in enumerate(order.groups):
        mine = _bits(token for slot in group.slots for token, _ in slot.sources)
        for seen in (g for span in reversed(group.sees) for g in reversed(span) if g < index):
            if mine == before:
                break
            mine |= known[seen]
        if lost := before & ~mine:
            token = (lost & -lost).bit_length() - 1
            raise UserError(
                f"token {token} is lost to group {index}: no input that it sees, itself or through other "
                f"groups, is made of it, so let a slot that predicts nothing commit it"
            )
        known.append(mine)
        before |= _bits(slot.token for slot in group.slots if slot.token is not None)


def _bits(tokens: Iterable[int]) -> int:
    found = 0
    for token in set(tokens):
        found |= 1 << token
    return found
