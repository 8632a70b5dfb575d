"""Orders as data: partitions, counts, degenerate equalities, and a sentence for each rule that is broken."""

from dataclasses import replace

import pytest

from dreamwalk.errors import UserError
from dreamwalk.schedules.orders import Group, Order, Slot
from dreamwalk.schedules.token_orders import (
    diagonal,
    in_groups,
    next_block,
    next_scale,
    next_token,
    pyramid,
    raster,
    windowed,
)

GRID = (5, 16, 16)
SCALES = [(side, side) for side in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)]
COUNTS = [
    (next_token(GRID), 1280, 1280, 1280),
    (next_block(GRID, (1, 1, 16)), 80, 1280, 1280),
    (next_block(GRID, (1, 1, 16), hybrid=True), 95, 1280, 1280),
    (next_block(GRID, (1, 16, 16)), 5, 1280, 1280),
    (next_block(GRID, (1, 4, 4)), 80, 1280, 1280),
    (next_scale(5, SCALES), 50, 3400, 3400 + 4 * 256),
    (pyramid((1, 4), SCALES), 20, 3400, 3400 + 256),
    (diagonal(GRID), 5 * 31, 1280, 1280 + 5 * 15),
]
BROKEN = [
    ("slot", lambda g: replace(g, slots=()), "needs groups, and every group a slot"),
    ("future", lambda g: replace(g, sees=(range(3),)), "group 1 sees group 2, which comes later"),
    ("itself", lambda g: replace(g, sees=(range(1),)), "group 1 does not see itself"),
    ("spans", lambda g: replace(g, sees=(range(2), range(1, 2))), "must ascend from 0 and not overlap"),
    ("leak", lambda g: slot(g, sources=((1, 1.0),)), "group 1 leaks: an input is made of token 1"),
    ("nothing", lambda g: slot(g, sources=()), "needs sources or a filler"),
    ("weight", lambda g: slot(g, sources=((0, float("nan")),)), "weighs token 0 by nan"),
    ("frame", lambda g: slot(g, frame=-1), "counted from 0"),
    ("twice", lambda g: slot(g, token=0), "token 0 is predicted twice, the second time in group 1"),
    ("lost", lambda g: slot(g, sources=(), filler=1), "token 0 is lost to group 1"),
]


def slot(group: Group, **changes: object) -> Group:
    return replace(group, slots=(group.slots[0]._replace(**changes),))  # type: ignore[arg-type]


@pytest.mark.parametrize(("order", "passes", "tokens", "slots"), COUNTS, ids=lambda x: getattr(x, "name", ""))
def test_counts_of_17_frames_of_128(order: Order, passes: int, tokens: int, slots: int) -> None:
    """Passes, tokens and slots are the closed forms, and tokens and slots a partition."""
    assert (order.passes, order.tokens) == (passes, tokens)
    assert order.live_slots <= slots
    tensors = order.slots()
    assert sorted(tensors.tokens.tolist()) == list(range(tokens)) and len(tensors.places) == slots
    assert tensors.frames == tuple(range(5))


@pytest.mark.parametrize(("change", "sentence"), [x[1:] for x in BROKEN], ids=[x[0] for x in BROKEN])
def test_broken_orders_are_refused(change, sentence: str) -> None:  # type: ignore[no-untyped-def]
    first, second, third = next_token((1, 1, 3)).groups
    with pytest.raises(UserError, match=sentence):
        Order("broken", (first, change(second), third))


def test_tokens_are_counted_without_gaps() -> None:
    first, second, third = next_token((1, 1, 3)).groups
    with pytest.raises(UserError, match="predicts 3 tokens, so they are 0 to 2: 2 is missing"):
        Order("broken", (first, second, slot(third, token=7)))
    with pytest.raises(UserError, match="needs groups"):
        Order("empty", ())


def test_a_pyramid_that_starts_anew_forgets() -> None:
    """The published pyramid leaks nothing and loses the last scale of a clip all the same, with any mask."""
    for sparse in (True, False):
        order = pyramid((1, 1), [(1, 1), (2, 2)], sparse=sparse)
        published = [replace(g, slots=tuple(s for s in g.slots if s.token is not None)) for g in order.groups]
        with pytest.raises(UserError, match=r"token [01] is lost to group 2"):
            Order("as published", tuple(published))


def test_degenerate_orders_are_the_same() -> None:
    grid = (3, 2, 4)
    assert next_block(grid, (1, 1, 1)) == next_token(grid) == next_block(grid, (1, 1, 1), hybrid=True)
    assert next_scale(3, [(2, 4)]).groups == next_block(grid, (1, 2, 4)).groups
    assert next_block(grid, grid).passes == 1
    for line in ((3, 1, 4), (3, 4, 1)):
        assert diagonal(line).groups == next_token(line).groups
    assert windowed(next_token(grid), 3).groups == next_token(grid).groups
    places = raster(grid)
    assert in_groups("mine", places, [[i] for i in range(24)]).groups == next_token(grid).groups


def test_equal_scales_are_residual_depths() -> None:
    """With scales of one size an input is the running sum of the embeddings of its place."""
    (_, _, third) = next_scale(1, [(2, 2)] * 3).groups
    assert [s.sources for s in third.slots] == [((i, 1.0), (4 + i, 1.0)) for i in range(4)]


def test_inputs_of_scales_are_means_over_cells() -> None:
    """Weights of every coarser scale sum to one, and 3 cells beside 2 share the middle one."""
    _, second, third = pyramid((1,), [(1, 1), (2, 2), (3, 3)]).groups
    assert [s.sources for s in second.slots] == [((0, 1.0),)] * 4
    for one in third.slots:
        assert sum(w for token, w in one.sources if token > 0) == pytest.approx(1)
    assert dict(third.slots[4].sources) == {0: 1.0, 1: 0.25, 2: 0.25, 3: 0.25, 4: 0.25}
    assert [s.row for s in second.slots] == [0.25, 0.25, 1.75, 1.75]


def test_a_permutation_in_groups() -> None:
    """PAR: the first tokens of two distant regions one by one, then both regions together."""
    order = in_groups("regions", raster((1, 1, 6)), [[0], [3], [1, 4], [2, 5]])
    assert [s.filler for s in order.groups[2].slots] == [0, 2]
    with pytest.raises(UserError, match="token 1 is lost to group 1"):
        in_groups("shrinking", raster((1, 1, 3)), [[0, 1], [2]])
    with pytest.raises(UserError, match="must name each of the 3 tokens once"):
        in_groups("twice", raster((1, 1, 3)), [[0], [1], [1]])


def test_diagonals_keep_the_inputs_of_raster_order() -> None:
    """But where a row begins; what it lacks then is committed in the next pass, as raster order has it."""
    grid = (2, 3, 4)
    base, order = next_token(grid), diagonal(grid)
    trained = {s.token: s for g in base.groups for s in g.slots}
    assert order.trained_as == base.name
    for index, group in enumerate(order.groups):
        for one in group.slots:
            if one.token is None:
                (twin,) = [s for s in trained.values() if s.sources == one.sources]
                assert twin._replace(token=None) == one and twin.token % 4 == 0 and index % 6 in (4, 5)
            elif one.token % 4 or one.token in (0, 12):
                assert one == trained[one.token]
            else:
                assert one.sources == ((one.token - (13 if one.frame else 4), 1.0),)


def test_a_window_evicts_whole_frames() -> None:
    order = windowed(next_token((4, 2, 3)), 1)
    assert order.trained_as == next_token((2, 2, 3)).name
    for index, group in enumerate(order.groups):
        frame = index // 6
        assert group.sees == (range(max(0, frame - 1) * 6, index + 1),)
    assert order.last_seen == [min(6 * (index // 6 + 2), 24) - 1 for index in range(24)]
    assert order.live_slots == 12


def test_a_prefix_is_whole_groups() -> None:
    order = next_block((3, 2, 2), (1, 2, 2))
    assert [order.prefix(n) for n in (0, 4, 8, 12)] == [0, 1, 2, 3]
    with pytest.raises(UserError, match=r"the first 5 tokens are no whole groups .* give the first 4"):
        order.prefix(5)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: next_block((4, 4, 4), (1, 3, 4)), "4x4x4 tokens does not divide into blocks of 1x3x4"),
        (lambda: next_token((0, 4, 4)), "the number of frames must be a whole number from 1 up"),
        (lambda: pyramid((), [(1, 1)]), "at least one clip"),
        (lambda: next_scale(2, []), "at least one scale"),
        (lambda: windowed(next_token((2, 2, 2)), 0), "the window must be a whole number from 1 up"),
    ],
)
def test_impossible_sizes_are_refused(make, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=sentence):
        make()


def test_a_commit_slot_predicts_nothing() -> None:
    order = next_scale(2, [(1, 1), (2, 2)])
    commits = [s for s in order.groups[2].slots if s.token is None]
    assert len(commits) == 4 and {s.scale for s in commits} == {2} and {s.frame for s in commits} == {0}
    assert order.frames[2] == range(1, 2)
    assert isinstance(commits[0], Slot)
