import warnings

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask

from dreamwalk.layers import attention
from dreamwalk.layers.attention import KeyValues, Mask, attend, frame_mask, slot_mask
from dreamwalk.layers.cache import RingCache, SlotCache


def filled(frames: int) -> RingCache:
    cache = RingCache.empty((1, 1, 1, 3, 2), window=4, like=torch.zeros(()))
    for frame in range(frames):
        value = torch.full((1, 1, 3, 2), float(frame))
        cache.write([KeyValues(value, -value)])
    return cache


@pytest.mark.parametrize("frames", [0, 1, 3, 4, 5, 11])
def test_it_holds_the_newest_frames(frames: int) -> None:
    cache = filled(frames)
    held = cache.keys[0, 0, 0, :, 0][cache.bias()[0, 0, 0] == 0].unique().tolist()
    assert held == [float(frame) for frame in range(max(0, frames - 4), frames)]
    assert cache.keys.shape[3] == 12


def test_bias_covers_new_tokens() -> None:
    bias = filled(2).bias(new=3)
    assert bias.shape == (1, 1, 1, 15)
    assert (bias == 0).sum() == 2 * 3 + 3


def test_a_clone_is_left_alone() -> None:
    cache = filled(2)
    copy = cache.clone()
    cache.write([KeyValues(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2))])
    assert copy.frames == 2
    assert (copy.keys[..., 6:9, :] == 0).all()


def test_no_window_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        RingCache.empty((1, 1, 1, 3, 2), window=0, like=torch.zeros(()))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("sizes", [(32, 32, 32, 32), (1, 100, 20, 7)])
def test_flex_attention_agrees_with_a_dense_mask(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    visible, groups = torch.ones(4, 4, dtype=torch.bool).tril(), torch.arange(4)
    q, k, v = torch.randn(3, 1, 2, 128, 16)
    owner = groups.repeat_interleave(torch.tensor(sizes))

    def masks() -> list[Mask | None]:
        found = [slot_mask(visible, owner, owner)]
        return found + [frame_mask(visible, tokens=32)] * (len(set(sizes)) == 1)

    dense = [attend(q, k, v, mask) for mask in masks()]
    torch.testing.assert_close(dense[0], dense[-1])
    monkeypatch.setattr(attention, "_hides_blocks", lambda tokens, device: True)
    for mask, expected in zip(masks(), dense, strict=True):
        assert isinstance(mask, BlockMask)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
            torch.testing.assert_close(attend(q, k, v, mask), expected, atol=1e-9, rtol=1e-9)


def test_groups_of_slots_join_and_leave() -> None:
    cache = SlotCache.empty((1, 1, 1, 5, 2), like=torch.zeros(()))

    def write(sizes: dict[int, int], *leave: int) -> list[float]:
        value = torch.cat([torch.full((1, 1, n, 2), float(group)) for group, n in sizes.items()], dim=2)
        cache.write(sizes, [KeyValues(value, -value)], lambda group: group not in leave)
        keys, values = cache.layer(0)
        assert torch.equal(keys, -values) and cache.held == keys.shape[2]
        return keys[0, 0, :, 0].tolist()

    assert write({1: 2, 2: 1, 3: 2}, 2) == [1, 1, 3, 3]
    copy = cache.clone()
    assert write({4: 3}, 1, 2) == [3, 3, 4, 4, 4]
    assert write({5: 2}, 3, 5) == [4, 4, 4]
    assert copy.to("cpu").sizes == {1: 2, 3: 2} and copy.layer(0).keys[0, 0, :, 0].tolist() == [1, 1, 3, 3]
