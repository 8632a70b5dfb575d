import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from dreamwalk.codecs.codec import require_whole_latents
from dreamwalk.codecs.tae import TAECodec, tae_tiny
from dreamwalk.codecs.tiles import Tiling, _axes, _weighed, stream_decode, tiled_decode, tiled_encode

TILING = Tiling(tile=(24, 24, 24), overlap=(12, 12, 12))


class Toy(nn.Module):
    """4x4x4, two convolutions a way: no output sees further than 7 frames or pixels, or 2 latents."""

    stride = (4, 4, 4)
    channels = 2

    def __init__(self, *, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.patch, self.mix = nn.Conv3d(3, 2, 4, stride=4), nn.Conv3d(2, 2, 3)
        self.unmix, self.smooth = nn.Conv3d(2, 4, 3), nn.Conv3d(4, 3, 3)
        self.seen: list[tuple[int, ...]] = []

    def latent_frames(self, frames: int) -> int:
        return (frames + 2) // 4 + 1 if self.causal else -(-frames // 4)

    def wide(self, x: Tensor, layer: nn.Module) -> Tensor:
        return layer(
            nn.functional.pad(x, (1, 1, 1, 1, *((2, 0) if self.causal else (1, 1))), mode="replicate")
        )

    def encode(self, video: Tensor) -> Tensor:
        require_whole_latents(video, self.stride)
        self.seen.append(tuple(video.shape))
        lead = 3 if self.causal else 0
        surplus = -(lead + video.shape[1]) % 4
        x = nn.functional.pad(video.transpose(1, 2), (0, 0, 0, 0, lead, surplus), mode="replicate")
        return self.wide(self.patch(x).tanh(), self.mix).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        self.seen.append(tuple(latents.shape))
        x = self.wide(latents.transpose(1, 2), self.unmix).tanh()
        x = x.repeat_interleave(4, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)
        return self.wide(x, self.smooth).transpose(1, 2)[:, 3 if self.causal else 0 :]


@pytest.fixture(params=[False, True], ids=["symmetric", "causal"])
def codec(request: pytest.FixtureRequest) -> Iterator[Toy]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield Toy(causal=request.param).double()


def single(codec: Toy, count: int, axis: int, *, pixels: bool) -> Tensor:
    """Where along an axis only one tile has a share."""
    size = [count if k == axis else 1 for k in range(3)]
    tiles = _axes(codec, size, TILING)[axis]
    kept = [(tile if pixels else tile.turned()).kept for tile in tiles]
    covers = torch.zeros(kept[-1].stop)
    for span in kept:
        covers[span] += 1
    return covers == 1


@pytest.mark.parametrize(("frames", "h", "w"), [(41, 40, 24), (20, 48, 28), (1, 64, 32)])
def test_tiled_equals_whole_where_tiles_see_enough(codec: Toy, frames: int, h: int, w: int) -> None:
    video = torch.randn(2, frames, 3, h, w, dtype=torch.float64)
    for whole, tiled, pixels in (
        (codec.encode(video), tiled_encode(codec, video, TILING), False),
        (codec.decode(codec.encode(video)), tiled_decode(codec, codec.encode(video), TILING), True),
    ):
        count = codec.latent_frames(frames), h // 4, w // 4
        inside = [single(codec, n, axis, pixels=pixels) for axis, n in enumerate(count)]
        assert whole.shape == tiled.shape
        for axis, here in zip((1, 3, 4), inside, strict=True):
            assert len(here) == whole.shape[axis] and here.any()
        error = (whole - tiled).abs().amax((0, 2))
        assert error[inside[0]][:, inside[1]][:, :, inside[2]].max() < 1e-6
        assert error.max() > 1e-6 or all(here.all() for here in inside)


def test_one_tile_is_no_tile(codec: Toy) -> None:
    video = torch.randn(1, 9, 3, 16, 24, dtype=torch.float64)
    assert torch.equal(tiled_encode(codec, video, TILING), codec.encode(video))
    latents = codec.encode(video)
    assert torch.equal(tiled_decode(codec, latents, TILING, frames=9), codec.decode(latents)[:, :9])


def test_no_tile_is_a_sliver(codec: Toy) -> None:
    """All tiles have one size; the last ends with the video."""
    latents = torch.randn(1, 16, 2, 7, 13, dtype=torch.float64)
    tiled_decode(codec, latents, TILING)
    assert {shape[3:] for shape in codec.seen} == {(6, 6)}
    assert {shape[1] for shape in codec.seen} == ({7} if codec.causal else {6})
    times, rows, columns = _axes(codec, (16, 7, 13), TILING)
    assert [tile.inputs.start for tile in rows] == [0, 1]
    assert [tile.inputs.start for tile in columns] == [0, 3, 6, 7]
    assert times[-1].inputs.stop == 16


def test_the_lead_of_a_causal_codec() -> None:
    """Every tile takes one latent before its own, and drops the one frame that this one gives."""
    times = _axes(Toy(causal=True), (8, 1, 1), Tiling(tile=(16, 4, 4), overlap=(4, 0, 0)))[0]
    assert [(tile.inputs, tile.kept) for tile in times] == [
        (slice(0, 5), slice(0, 17)),
        (slice(3, 8), slice(13, 29)),
    ]
    assert [tile.turned().kept for tile in times] == [slice(0, 5), slice(4, 8)]
    times = _axes(Toy(), (8, 1, 1), Tiling(tile=(16, 4, 4), overlap=(4, 0, 0)))[0]
    assert [tile.inputs for tile in times] == [slice(0, 4), slice(3, 7), slice(4, 8)]


class Numbered(Toy):
    """Decodes to the number of the tile."""

    def decode(self, latents: Tensor) -> Tensor:
        b, t, _, h, w = latents.shape
        self.seen.append(())
        return torch.full((b, 4 * t, 3, 4 * h, 4 * w), len(self.seen) - 1.0, dtype=latents.dtype)


@pytest.mark.parametrize("axis", [1, 3, 4])
def test_blending_is_linear_over_the_shared_pixels(axis: int) -> None:
    """Tiles of 8 that share 4, the last shifted flush: 0, 1 and 2, on pixels 0-8, 4-12 and 8-16 (6-14)."""
    shape = [1, 1, 2, 1, 1]
    shape[axis] = 4
    video = tiled_decode(Numbered(), torch.zeros(shape), Tiling(tile=(8, 8, 8), overlap=(4, 4, 4)))
    line = video.movedim(axis, 0)[:, 0, 0, 0, 0]
    rise = (torch.arange(4) + 0.5) / 4
    expected = torch.cat([torch.zeros(4), rise, 1 + rise, torch.full((4,), 2.0)])
    torch.testing.assert_close(line, expected)


def test_weights_sum_to_one_whatever_the_sizes() -> None:
    for count, tile, overlap in itertools.product(range(1, 12), range(1, 6), range(5)):
        for causal in (False, True):
            if overlap < tile:
                tiling = Tiling(tile=(4 * tile, 4, 4), overlap=(4 * overlap, 0, 0))
                cut = _axes(Toy(causal=causal), (count, 1, 1), tiling)[0]
                total = torch.zeros(cut[-1].kept.stop, dtype=torch.float64)
                for one, weight in _weighed(cut, total):
                    assert (weight > 0).all()
                    total[one.kept] += weight
                torch.testing.assert_close(total, torch.ones_like(total))
                assert cut[-1].inputs.stop == count


@pytest.mark.parametrize("frames", [1, 12, 13, 30, 41])
def test_frames_come_as_they_are_finished(codec: Toy, frames: int) -> None:
    latents = torch.randn(1, codec.latent_frames(frames), 2, 7, 6, dtype=torch.float64)
    pieces = list(stream_decode(codec, latents, TILING, frames=frames))
    assert sum(piece.shape[1] for piece in pieces) == frames and all(piece.shape[1] for piece in pieces)
    assert torch.equal(torch.cat(pieces, 1), tiled_decode(codec, latents, TILING)[:, :frames])
    codec.seen.clear()
    next(stream_decode(codec, latents, TILING))
    assert len(codec.seen) == 2, "the first frames wait for the first tiles in time alone"


def test_half_precision_is_blended_in_full() -> None:
    latents = torch.zeros(1, 1, 2, 1, 4, dtype=torch.bfloat16)
    video = tiled_decode(Numbered(), latents, Tiling(tile=(4, 4, 8), overlap=(0, 0, 4)))
    assert video.dtype == torch.bfloat16 and video[0, 0, 0, 0, 5] == 0.375


def test_a_tae_in_tiles() -> None:
    tae = TAECodec(tae_tiny())
    video = torch.rand(1, 13, 3, 24, 16) * 2 - 1
    with torch.inference_mode():
        latents = tiled_encode(tae, video, Tiling((8, 16, 16), (4, 8, 8)))
        assert latents.shape == tae.encode(video).shape
        restored = tiled_decode(tae, latents, Tiling((8, 16, 16), (4, 8, 8)), frames=13)
    assert restored.shape == video.shape


@pytest.mark.parametrize(
    ("tiling", "sentence"),
    [
        (Tiling((30, 24, 24), (0, 0, 0)), "tiles of 30 frames in time are not whole latents of 4: .* 32"),
        (Tiling((24, 1, 24), (0, 0, 0)), "tiles of 1 pixels in height .* the nearest are 4"),
        (Tiling((24, 24, 24), (0, 0, 24)), "tiles of 24 pixels in width cannot share 24: .* nearest is 20"),
        (Tiling((24, 24, 24), (0, 7, 0)), "in height cannot share 7: .* nearest is 8"),
        (Tiling((24, 24, 24), (-4, 0, 0)), "in time cannot share -4: .* nearest is 0"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(tiling: Tiling, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tiled_decode(Toy(), torch.zeros(1, 2, 2, 8, 8), tiling)
    with pytest.raises(ValueError, match=sentence):
        tiled_encode(Toy(), torch.zeros(1, 8, 3, 32, 32), tiling)


def test_frames_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="2 latents are 1 to 5 frames, not 6"):
        tiled_decode(Toy(causal=True), torch.zeros(1, 2, 2, 8, 8), TILING, frames=6)


def test_frames_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="30x32 do not divide by 4x4: the nearest size is 32x32"):
        tiled_encode(Toy(), torch.zeros(1, 8, 3, 30, 32), TILING)
