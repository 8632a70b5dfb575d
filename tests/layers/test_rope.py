import pytest
import torch

from dreamwalk.layers.rope import pixel_tables, rope_tables, rotate, split_axes, time_tables


def test_published_splits() -> None:
    assert split_axes(64) == (8, 28, 28)
    assert split_axes(128) == (16, 56, 56)


def test_a_head_that_does_not_split_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        split_axes(40)


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


def test_positions_in_a_picture() -> None:
    """Rows turn the first part of the head, columns the second, the rest stays; corners turn oppositely."""
    cos, sin = pixel_tables((2, 3), head_width=16, axis_width=4, max_frequency=4.0)
    assert cos.shape == sin.shape == (1, 1, 6, 8)
    angle = torch.atan2(sin, cos)[0, 0].unflatten(0, (2, 3))
    assert (angle[:, :, 4:] == 0).all()
    assert torch.equal(angle[0, 0, :2], angle[0, 2, :2]) and torch.equal(angle[0, 1, 2:4], angle[1, 1, 2:4])
    assert torch.equal(sin[0, 0, 0], -sin[0, 0, -1])
    with pytest.raises(ValueError, match="two even parts of 10 do not fit into a head of 16"):
        pixel_tables((2, 3), head_width=16, axis_width=10, max_frequency=4.0)


def test_a_whole_head_turns_with_time() -> None:
    cos, sin = time_tables(torch.tensor([0, 5]), head_width=8)
    assert cos.shape == (1, 1, 2, 4) and (cos[0, 0, 0] == 1).all()
    torch.testing.assert_close(
        torch.atan2(sin, cos)[0, 0, 1, 1:], 5 * 10_000.0 ** -torch.tensor([0.25, 0.5, 0.75])
    )
