import pytest
import torch

from dreamwalk.errors import UserError
from dreamwalk.layers.rope import (
    head_width,
    pixel_tables,
    place_tables,
    rope_tables,
    rotate,
    rotate_,
    split_axes,
    time_tables,
)


def test_published_splits() -> None:
    assert split_axes(64) == (8, 28, 28)
    assert split_axes(128) == (16, 56, 56)


@pytest.mark.parametrize("head", range(6, 258, 2))
def test_every_even_head_is_split(head: int) -> None:
    axes = split_axes(head)
    assert sum(axes) == head and all(part > 0 and part % 2 == 0 for part in axes)
    assert axes[1] == axes[2] and abs(axes[0] - head / 8) < 4


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((60, 4, 2, 6), "heads 15 wide, and they must be a multiple of 2 from 6 up: .* 4 heads is 64"),
        ((65, 4, 2, 6), "heads 16.25 wide, .* the nearest width for 4 heads is 64"),
        ((8, 2, 2, 6), "from 6 up: the nearest width for 2 heads is 12"),
        ((36, 2, 4, 4), "a multiple of 4 from 4 up: the nearest width for 2 heads is (32|40)"),
    ],
)
def test_a_head_that_cannot_be_had_is_refused_with_the_nearest(
    sizes: tuple[int, int, int, int], sentence: str
) -> None:
    width, heads, multiple, least = sizes
    with pytest.raises(UserError, match=sentence):
        head_width(width, heads, multiple=multiple, least=least)


def scores(times: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 12, 32, generator=generator, dtype=torch.float64)
    cos, sin = (table.double() for table in rope_tables(times, grid=(2, 3), axes=split_axes(32), theta=256.0))
    return rotate(q, cos, sin) @ rotate(k, cos, sin).transpose(-1, -2)


@pytest.mark.parametrize("offset", [1, 1000, 10_000_000])
def test_scores_depend_on_differences_of_time_only(offset: int) -> None:
    torch.testing.assert_close(
        scores(torch.tensor([0, 1]) + offset), scores(torch.tensor([0, 1])), atol=1e-5, rtol=0
    )


def test_rotation_keeps_lengths() -> None:
    x = torch.randn(1, 2, 6, 32)
    cos, sin = rope_tables(torch.tensor([7]), grid=(2, 3), axes=split_axes(32), theta=256.0)
    torch.testing.assert_close(rotate(x, cos, sin).norm(dim=-1), x.norm(dim=-1))


def test_in_place_it_is_the_same() -> None:
    """On a slice of something larger too; what is of lower precision is left as it is."""
    whole = torch.randn(1, 2, 6, 2, 32)
    x, rope = whole[:, :, :, 1], rope_tables(torch.tensor([7]), grid=(2, 3), axes=(4, 14, 14), theta=256.0)
    expected, low = rotate(x, *rope), x.bfloat16()
    assert rotate_(x, *rope) is x
    torch.testing.assert_close(whole[:, :, :, 1], expected)
    before = low.clone()
    torch.testing.assert_close(rotate_(low, *rope), rotate(low.float(), *rope))
    assert torch.equal(low, before)


def test_positions_in_a_picture() -> None:
    """Rows turn the first part of the head, columns the second, the rest stays; corners turn oppositely."""
    cos, sin = pixel_tables((2, 3), 16, 4, max_frequency=4.0)
    assert cos.shape == sin.shape == (1, 1, 6, 8)
    angle = torch.atan2(sin, cos)[0, 0].unflatten(0, (2, 3))
    assert (angle[:, :, 4:] == 0).all()
    assert torch.equal(angle[0, 0, :2], angle[0, 2, :2]) and torch.equal(angle[0, 1, 2:4], angle[1, 1, 2:4])
    assert torch.equal(sin[0, 0, 0], -sin[0, 0, -1])
    with pytest.raises(ValueError, match="two even parts of 10 do not fit into a head of 16"):
        pixel_tables((2, 3), 16, 10, max_frequency=4.0)


def test_a_whole_head_turns_with_time() -> None:
    cos, sin = time_tables(torch.tensor([0, 5]), head_width=8)
    assert cos.shape == (1, 1, 2, 4) and (cos[0, 0, 0] == 1).all()
    torch.testing.assert_close(
        torch.atan2(sin, cos)[0, 0, 1, 1:], 5 * 10_000.0 ** -torch.tensor([0.25, 0.5, 0.75])
    )


def test_any_places_are_turned_as_those_of_a_grid() -> None:
    axes = split_axes(16)
    places = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(4))
    grid = rope_tables(torch.arange(3), grid=(2, 4), axes=axes, theta=100.0)
    for one, other in zip(place_tables(places, axes=axes, theta=100.0), grid, strict=True):
        torch.testing.assert_close(one, other)
    (cos, sin) = place_tables(torch.tensor([[0.0, 0.5, 0.0]]), axes=axes, theta=100.0)
    assert cos[0, 0, 0, axes[0] // 2] == pytest.approx(torch.tensor(0.5).cos().item())
    assert sin[0, 0, 0, 0] == 0
