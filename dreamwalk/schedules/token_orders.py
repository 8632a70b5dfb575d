"""Orders of published methods: next token, next block, next scale, diagonals, windows.

Passes and tokens of 17 frames of 128x128 behind a 4x8x8 codec, a grid of 5x16x16:

    next_token                  1280 passes      1280 tokens
    next_block, row               80             1280
    next_block, row, hybrid       95             1280
    next_block, frame              5             1280
    next_scale, ten scales        50             3400
    pyramid (1, 4), ten scales    20             3400
    diagonal                     155             1280, by the weights of next_token
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from typing import Literal

from dreamwalk.errors import UserError
from dreamwalk.schedules.orders import START, Group, Order, Slot
from dreamwalk.schedules.plans import check_range

Grid = tuple[int, int, int]
"""Frames, rows and columns of tokens."""
OrderName = Literal["token", "row", "frame", "scale", "diagonal"]
Place = tuple[int, int, int]
"""Frame, row and column of a token."""


def in_groups(
    name: str, places: Sequence[Place], groups: Sequence[Sequence[int]], *, scales: Sequence[int] = ()
) -> Order:
    """Any permutation of tokens in groups: the i-th of a group is made of the i-th of the group before.

    `places` and `scales` (default 0) are those of all tokens. The first group is made of the start filler;
    where a group is larger than the one before, the rest is made of fillers of its own (NBP, arXiv
    2502.07737; PAR, arXiv 2412.15119). A smaller one forgets: UserError.
    """
    if sorted(token for group in groups for token in group) != list(range(len(places))):
        raise UserError(f"the groups of '{name}' must name each of the {len(places)} tokens once")
    found = list[Group]()
    for before, group in pairwise([(), *groups]):
        slots = []
        for i, token in enumerate(group):
            slot = Slot(token, *places[token], scale=scales[token] if scales else 0)
            known = i < len(before)
            sources = ((before[i], 1.0),) if known else ()
            filler = 0 if known else START + i if found else START
            slots.append(slot._replace(sources=sources, filler=filler))
        found.append(Group(tuple(slots), (range(len(found) + 1),)))
    return Order(name, tuple(found))


def raster(grid: Grid) -> list[Place]:
    """The places of a grid, frame after frame, row after row."""
    for name, side in zip(("frames", "rows", "columns"), grid, strict=True):
        check_range(f"the number of {name}", side, 1)
    return list(product(range(grid[0]), range(grid[1]), range(grid[2])))


def next_block(grid: Grid, block: Grid = (1, 1, 1), *, hybrid: bool = False) -> Order:
    """Blocks in raster order, all tokens of one at once: `(1, 1, w)` a row, `(1, h, w)` a frame, else cubes.

    With `hybrid` the first block is predicted token by token (NBP, arXiv 2502.07737).
    """
    if any(part < 1 or side % part for side, part in zip(grid, block, strict=True)):
        raise UserError(f"a grid of {_size(grid)} tokens does not divide into blocks of {_size(block)}")
    places = raster(grid)
    blocks: dict[tuple[int, ...], list[int]] = {}
    for token, place in enumerate(places):
        key = tuple(at // part for at, part in zip(place, block, strict=True))
        blocks.setdefault(key, []).append(token)
    groups = list(blocks.values())
    name = f"blocks of {_size(block)} in frames of {_size(grid[1:])}"
    if hybrid and len(groups[0]) > 1:
        groups, name = [*([token] for token in groups[0]), *groups[1:]], f"{name}, the first by token"
    return in_groups(name, places, groups)


def next_token(grid: Grid) -> Order:
    """Token after token in raster order (VideoGPT, arXiv 2104.10157)."""
    return next_block(grid)


def next_scale(frames: int, scales: Sequence[tuple[int, int]]) -> Order:
    """Frame after frame, in each from coarse to fine: VAR (arXiv 2404.02905) inside frames, as in VideoAR
    (arXiv 2601.05966). One scale is next frame."""
    return pyramid((1,) * frames, scales, sparse=False)


def pyramid(clips: Sequence[int], scales: Sequence[tuple[int, int]], *, sparse: bool = True) -> Order:
    """Clips of so many frames, each from coarse to fine: the space-time pyramid of InfinityStar (arXiv
    2511.04675), with what it forgets restored.

    Tokens come by clip, scale, frame, row and column. A slot's input is the sum of the coarser scales of its
    clip, as embeddings that are constant within their cells, in its mean over the slot's cell. That sum
    starts anew in every clip, so the first pass of the next clip also commits the whole of the last, in slots
    that predict nothing; where the first scale is of full size, it is made of the last clip instead.
    `sparse`: a pass sees itself and the first pass of its clip, and that one the first of the clip before;
    otherwise each sees all before it.
    """
    for name, parts in (("clip", clips), ("scale", scales)):
        if not parts:
            raise UserError(f"a pyramid needs at least one {name}")
    draft, groups = _Pyramid(tuple(clips), tuple(scales)), list[Group]()
    for clip, scale in product(range(len(clips)), range(len(scales))):
        index, begins = len(groups), bool(clip and not scale)
        carries = begins and scales[0] == scales[-1] and clips[clip] == clips[clip - 1]
        known = (clip - 1, len(scales)) if carries else (clip, scale)
        cells = draft.cells(clip, scales[scale], *known)
        slots = [
            slot._replace(token=token, scale=scale)
            for token, slot in enumerate(cells, draft.start(clip, scale, 0))
        ]
        if begins and not carries:
            slots += draft.cells(clip - 1, scales[-1], clip - 1, len(scales))
        anchor = index - (scale or len(scales))
        seen = (range(anchor, anchor + 1),) if anchor >= 0 else ()
        sees = (*seen, range(index, index + 1)) if sparse else (range(index + 1),)
        groups.append(Group(tuple(slots), sees))
    context = ", seeing the first pass of a clip alone" if sparse else ""
    return Order(f"scales {', '.join(map(_size, scales))} in clips of {max(clips)}{context}", tuple(groups))


@dataclass(frozen=True)
class _Pyramid:
    """Where the tokens of clips in several scales stand, and what they add up to."""

    clips: tuple[int, ...]
    scales: tuple[tuple[int, int], ...]

    def start(self, clip: int, scale: int, frame: int) -> int:
        """The first token of a frame of a clip in a scale."""
        sizes = [h * w for h, w in self.scales]
        whole = sum(self.clips[:clip]) * sum(sizes)
        return whole + self.clips[clip] * sum(sizes[:scale]) + frame * sizes[scale]

    def cells(self, clip: int, size: tuple[int, int], of: int, below: int) -> Iterator[Slot]:
        """A slot without a token for every cell of a clip at a size, made of the scales `below` one of the
        clip `of`, which has as many frames."""
        full, first = self.scales[-1], sum(self.clips[:clip])
        rows, columns = (
            [list(_overlaps(size[axis], scale[axis])) for scale in self.scales[:below]] for axis in (0, 1)
        )
        for frame, *place in raster((self.clips[clip], *size)):
            sources = tuple(
                (self.start(of, scale, frame) + row * self.scales[scale][1] + column, high * wide)
                for scale in range(below)
                for row, high in rows[scale][place[0]]
                for column, wide in columns[scale][place[1]]
            )
            row, column = (
                (at + 0.5) * whole / side - 0.5 for at, whole, side in zip(place, full, size, strict=True)
            )
            yield Slot(None, first + frame, row, column, sources, 0 if sources else START, below)


def _overlaps(cells: int, others: int) -> Iterator[list[tuple[int, float]]]:
    """For each of `cells` that divide a side: which of `others` it covers, and the share of it each takes."""
    for i in range(cells):
        shared = (
            (j, min((i + 1) * others, (j + 1) * cells) - max(i * others, j * cells)) for j in range(others)
        )
        yield [(j, length / others) for j, length in shared if length > 0]


def diagonal(grid: Grid) -> Order:
    """Frame after frame by anti-diagonals, with the weights of `next_token` (DiagD, arXiv 2503.14070).

    Tokens of a diagonal no longer see one another's values, so these are not the conditionals that were
    trained: measure what it costs. In raster order the first token of a row is made of the last one of the
    row above, which is not there yet: the same one of the frame before stands in, in the first frame the
    token above. When it is there, it is committed where raster order has it.
    """
    base, (frames, h, w) = next_token(grid), grid
    raster_slots = [group.slots[0] for group in base.groups]
    groups = list[Group]()
    for frame, step in product(range(frames), range(h + w - 1)):
        slots = []
        for row in range(max(0, step - w + 1), min(h, step + 1)):
            slot = raster_slots[(frame * h + row) * w + step - row]
            if row == step and row and w > 1:
                stand_in = slot.token - 1 - h * w if frame else slot.token - w
                slot = slot._replace(sources=((stand_in, 1.0),))
            slots.append(slot)
        if w > 1 and 0 < step - w + 1 < h:
            slots.append(raster_slots[(frame * h + step - w + 1) * w]._replace(token=None))
        groups.append(Group(tuple(slots), (range(len(groups) + 1),)))
    return Order(f"diagonals of frames of {h}x{w}", tuple(groups), trained_as=base.name)


def named_order(name: OrderName, grid: Grid, *, scales: Sequence[tuple[int, int]] = ()) -> Order:
    """The order that a model of frames is trained or drawn in; `scales` are those of a frame, for `scale`."""
    if name == "scale":
        return next_scale(grid[0], scales)
    if name == "diagonal":
        return diagonal(grid)
    block = {"token": (1, 1, 1), "row": (1, 1, grid[2]), "frame": (1, *grid[1:])}[name]
    return next_block(grid, block)


def windowed(order: Order, frames: int) -> Order:
    """An order whose groups see their own frames and so many before: what is further back leaves the cache,
    whole frames at a time. UserError when something would be forgotten that is told nowhere else.

    Weights of the order itself may run it; best are those that were trained with this window.
    """
    check_range("the window", frames, 1)
    last = list(accumulate((span.stop - 1 for span in order.frames), max))
    groups = []
    for group, own in zip(order.groups, order.frames, strict=True):
        oldest = bisect_left(last, own.start - frames)
        sees = (range(max(span.start, oldest), span.stop) for span in group.sees)
        groups.append(Group(group.slots, tuple(span for span in sees if span)))
    return Order(f"{order.name}, {frames} frames back", tuple(groups), order.trained_as)


def _size(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
