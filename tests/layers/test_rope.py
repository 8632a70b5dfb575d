import pytest
import torch

from dreamwalk.layers.rope import rope_tables, rotate, split_axes


def test_published_splits() -> None:
    assert split_axes(64) == (8, 28, 28)
    assert split_axes(128) == (16, 56, 56)


def test_a_head_that_does_not_split_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        split_axes(40)


def scores(times: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 12, 32, generator=generator, dtype=torch.float64)
    cos, sin = (table.double() for table in rope_tables(times, grid=(2, 3), head_width=32, theta=256.0))
    return rotate(q, cos, sin) @ rotate(k, cos, sin).transpose(-1, -2)


@pytest.mark.parametrize("offset", [1, 1000, 10_000_000])
def test_scores_depend_on_differences_of_time_only(offset: int) -> None:
    torch.testing.assert_close(
        scores(torch.tensor([0, 1]) + offset), scores(torch.tensor([0, 1])), atol=1e-5, rtol=0
    )


def test_rotation_keeps_lengths() -> None:
    x = torch.randn(1, 2, 6, 32)
    cos, sin = rope_tables(torch.tensor([7]), grid=(2, 3), head_width=32, theta=256.0)
    torch.testing.assert_close(rotate(x, cos, sin).norm(dim=-1), x.norm(dim=-1))
