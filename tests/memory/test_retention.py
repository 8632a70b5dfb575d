"""What a bank with a budget forgets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dreamwalk.errors import UserError
from dreamwalk.memory.bank import FrameBank, Unit
from dreamwalk.memory.retention import POLICIES, BankBudget, CoVisibility, PolicyName, Rarity

SIZE = (48, 64)
NAMES = list(POLICIES)
INTRINSICS = torch.tensor([[32.0, 0, 32], [0, 32, 24], [0, 0, 1]])


def written(bank: FrameBank, time: int, *, x: float, y: float = 0.0, heading: float = 0.0) -> None:
    c, s = math.cos(heading), math.sin(heading)
    pose = torch.tensor([[s, 0, c, x], [-c, 0, s, y], [0, -1, 0, 0], [0, 0, 0, 1]])
    bank.write(Unit(torch.full((1, 1, 1), float(time)), torch.zeros(1), pose, INTRINSICS, time))


def bank_of(policy: PolicyName, frames: int, newest: int = 1) -> FrameBank:
    return FrameBank(BankBudget(frames, policy, place=2.0, radius=30.0, newest=newest), size=SIZE)


def wandered(policy: PolicyName, frames: int, *, steps: int = 120, newest: int = 1) -> FrameBank:
    """A random walk."""
    chance, bank = np.random.default_rng(0), bank_of(policy, frames, newest)
    x = y = heading = 0.0
    for time in range(steps):
        heading += math.radians(15) * chance.integers(-1, 2)
        x, y = x + 0.3 * math.cos(heading), y + 0.3 * math.sin(heading)
        written(bank, time, x=x, y=y, heading=heading)
        assert len(bank) == min(time + 1, frames)
        kept = times(bank)
        assert kept[0] == 0 and kept[-1] == time and len(set(kept)) == len(kept)
        assert kept[-newest:] == list(range(time + 1))[-newest:]
    return bank


def times(bank: FrameBank) -> list[int]:
    held = bank.cameras().time
    assert held is not None
    return sorted(held.tolist())


@pytest.mark.parametrize("policy", NAMES)
@pytest.mark.parametrize("frames", [2, 3, 24])
def test_the_budget_holds_and_first_and_newest_stay(policy: PolicyName, frames: int) -> None:
    """And it is the same every time; the latents that are left are those of the frames that are."""
    bank = wandered(policy, frames)
    held = bank.cameras().time
    assert held is not None and torch.equal(bank.units(torch.arange(frames)).latent.flatten(), held.float())
    assert torch.equal(held, wandered(policy, frames).cameras().time)


@pytest.mark.parametrize("policy", NAMES)
def test_so_many_of_the_newest_stay(policy: PolicyName) -> None:
    for frames in (8, 12):
        wandered(policy, frames, steps=60, newest=7)
    with pytest.raises(
        UserError, match=r"has no room for the first frame and the newest: allow it 8 or more"
    ):
        bank_of(policy, 7, newest=7)


def test_fifo_keeps_the_newest() -> None:
    assert times(wandered("fifo", 8)) == [0, *range(113, 120)]


def test_uniform_is_even_in_time() -> None:
    gaps = np.diff(times(wandered("uniform", 24)))
    assert gaps.max() <= 4 * np.median(gaps) and np.median(gaps[:8]) >= 4


@pytest.mark.parametrize("policy", ["k-center", "co-visibility", "rarity", "version"])
def test_all_places_are_kept(policy: PolicyName) -> None:
    """Of six that one stays at for long, of which FIFO knows the last only."""
    bank = bank_of(policy, 8)
    for time in range(120):
        written(bank, time, x=100.0 * (time // 20), heading=0.001 * (time % 20))
    assert {time // 20 for time in times(bank)} == set(range(6))
    assert {time // 20 for time in times(wandered("fifo", 8))} == {0, 5}


def test_old_versions_of_a_place_go_before_places_do() -> None:
    """Four places are seen in turn, ten times: the first and the newest frame of each are left."""
    bank = bank_of("version", 8)
    for time in range(40):
        written(bank, time, x=100.0 * (time % 4))
    assert times(bank) == [0, 1, 2, 3, 36, 37, 38, 39]
    written(bank, 40, x=900.0)  # a fifth one: the oldest of the first versions goes, but for the very first
    assert times(bank) == [0, 2, 3, 36, 37, 38, 39, 40]


@pytest.mark.parametrize("policy", ["k-center", "rarity"])
def test_distances_are_those_of_all_pairs(policy: PolicyName) -> None:
    bank = wandered(policy, 24)
    state = bank._policy
    assert state is not None
    apart = state.apart(torch.arange(24), 24)  # type: ignore[attr-defined]
    assert torch.equal(state.distance, apart.amin(1))  # type: ignore[attr-defined]
    if isinstance(state, Rarity):
        assert torch.equal(state.around, (apart < 4).sum(1)) and state.around.any()


def test_views_are_counted_as_of_all_pairs() -> None:
    state = wandered("co-visibility", 24)._policy
    assert isinstance(state, CoVisibility)
    seen = (state.bounds[:, None] @ state.points >= 0).all(2)
    assert torch.equal(state.others.long(), seen.sum(0) - 1) and state.others.any()


def test_without_a_bound_nothing_goes() -> None:
    bank = FrameBank(size=SIZE)
    for time in range(150):
        written(bank, time, x=0.0)
    assert times(bank) == list(range(150))
