import pytest
import torch
import torch.nn.functional as F

from dreamwalk.codecs.rgbd_rows import PACKINGS, DepthPlace, DepthRange, known_cells


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("place", PACKINGS)
def test_a_picture_comes_back(place: DepthPlace) -> None:
    packing, rgb, code = PACKINGS[place], 2 * drawn(2, 5, 3, 16, 24) - 1, 2 * drawn(2, 5, 16, 24) - 1
    made = packing.join(rgb, code)
    assert made.shape == (2, 5, packing.image_channels, *packing.size((16, 24)))
    colours, depth = packing.part(made)
    assert torch.equal(colours, rgb)
    if depth is None:
        assert place == "none"
    else:
        torch.testing.assert_close(depth, code, atol=1e-6, rtol=0)
    assert packing.known(code > 0).shape == (2, 5, *packing.size((16, 24)))


def test_rows_are_as_published() -> None:
    """Colours, sixteen rows of 1, and depth in three channels, which are read back as luma."""
    packing, rgb, code = PACKINGS["rows"], torch.zeros(1, 3, 512, 768), torch.full((1, 512, 768), -0.5)
    made = packing.join(rgb, code)
    assert made.shape == (1, 3, 1040, 768)
    assert (made[..., 512:528, :] == 1).all() and (made[..., 528:, :] == -0.5).all()
    made[:, 0, 528:] += 1
    assert packing.part(made)[1] == pytest.approx(-0.5 + 0.299)
    assert packing.known(code > 0)[0, 512:528].all()


def test_cells_are_as_published() -> None:
    """The unknown, 2, and the known, 0, of frames of which the first is there four times, max-pooled."""
    known = drawn(2, 49, 16, 24) > 0.001
    unknown = 1 - (2 * known[:, None].float() - 1)
    unknown = torch.cat([unknown[:, :, :1]] * 3 + [unknown], dim=2)
    assert unknown.shape[2] == 52
    theirs = 1 - F.max_pool3d(unknown, (4, 8, 8), (4, 8, 8))[:, 0]
    ours = known_cells(known, (4, 8, 8), coverage="whole")
    assert torch.equal(ours, theirs) and ours.shape == (2, 13, 2, 3) and 0.2 < (ours > 0).float().mean() < 0.9


def test_a_cell_is_known_if_all_of_it_is() -> None:
    known = torch.ones(1, 6, 8, 16, dtype=torch.bool)
    known[0, 5, 0, 15] = False  # alone in the last latent, which it fills
    assert known_cells(known, (4, 8, 8), coverage="whole").flatten().tolist() == [1, 1, 1, 1, 1, -1]
    known[0, 0, 7, 0] = False
    assert known_cells(known, (4, 8, 8), coverage="whole").flatten().tolist() == [-1, 1, 1, 1, 1, -1]
    assert (known_cells(known, (4, 8, 8), coverage="share") > -1).all(), "of none all pixels are unknown"


def test_depth_has_one_range_with_room() -> None:
    """Float there and back, twice as near and as far as what was known, and sky behind."""
    depth = 3 + 60 * drawn(2, 4, 8, 8) ** 2
    depth[1] *= 10
    depth[:, 0, :4] = 0
    bounds = DepthRange.of(depth, headroom=2.0)
    near, far = (depth[depth > 0].view(2, -1).quantile(q, dim=1) for q in (0.02, 0.98))
    torch.testing.assert_close((bounds.near, bounds.far), (near / 2, 2 * far), rtol=0.2, atol=0)
    code = bounds.code(depth)
    assert (code[:, 0, :4] == -1).all() and code[depth > 0].min() > -1 and code.max() < 1
    torch.testing.assert_close(bounds.depth(code), depth, rtol=1e-4, atol=0)
    extremes = torch.stack([bounds.near / 2, bounds.near, 0.89 * bounds.far, 3 * bounds.far], 1)
    found = bounds.depth(bounds.code(extremes))
    expected = torch.stack([bounds.near, bounds.near, 0.89 * bounds.far, 0 * bounds.far], 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_a_range_needs_some_depth() -> None:
    with pytest.raises(ValueError, match="nothing is known of the depth of a clip"):
        DepthRange.of(torch.zeros(1, 4, 4), headroom=2.0)
    flat = DepthRange.of(torch.full((1, 4, 4), 5.0), headroom=2.0)
    assert flat.depth(flat.code(torch.full((1, 4, 4), 5.0))) == pytest.approx(5.0)
