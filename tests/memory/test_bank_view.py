"""What is told of a bank of frames: what was recalled and why, and where frames were kept."""

import numpy as np
import pytest
import torch
from test_frame_memory import learnt, small, walk

from dreamwalk.memory import MEMORIES, bank_view
from dreamwalk.memory.bank_view import banks_of, empty_map, kept_stands, recalled_units, stands_of
from dreamwalk.memory.contract import CameraState
from dreamwalk.memory.frame_memory import BankConfig, Banks
from dreamwalk.memory.level_map import SIDE
from dreamwalk.memory.points_and_bank import PointsAndBankConfig
from dreamwalk.memory.retention import BankBudget


@pytest.mark.parametrize("beside_a_cloud", [False, True])
@torch.inference_mode()
def test_what_is_told_is_what_was_recalled(beside_a_cloud: bool) -> None:
    bank = BankConfig(budget=BankBudget(frames=5, policy="fifo"))
    system = learnt(small(PointsAndBankConfig(bank=bank) if beside_a_cloud else bank))
    session, camera = system.begin(walk(6)), CameraState.of_clip(walk(7), 6)
    banks = banks_of(session.memory)
    assert isinstance(banks, Banks) and recalled_units(system.begin(walk(1)).memory) == [None] * 4
    for _ in range(2):
        time = session.cache.frames
        system.advance(session, torch.zeros(1, 7), camera=camera)
    kept, seen = banks.rows[0], recalled_units(session.memory)
    assert sorted(kept.cameras().time.tolist()) == [0, 4, 5, 6, 7], "frames between are forgotten"
    told = [unit for unit in seen if unit is not None]
    assert len(seen) == 4 and 2 <= len(told) <= 4 and not all(unit.dreamed for unit in told)
    encoded = system.encode(walk(6))[0]
    for unit in told:
        shown = time - unit.age
        assert unit.dreamed == (shown >= 6) and 0 <= unit.covers <= 1
        assert unit.dreamed or torch.equal(unit.latent, encoded[shown]), "also when it was forgotten since"
    session.memory.recalling = False
    assert recalled_units(session.memory) == [None] * 4, "at once"
    system.advance(session, torch.zeros(1, 7), camera=camera)
    session.memory.recalling = True
    assert recalled_units(session.memory) == [None] * 4, "for this frame nothing was"
    system.advance(session, torch.zeros(1, 7), camera=camera)
    assert any(recalled_units(session.memory)) and not any(recalled_units(session.clone().memory))


def test_a_memory_without_a_bank_has_none() -> None:
    system = small(MEMORIES["window"]())
    assert banks_of(system.begin(walk(6)).memory) is None


@torch.inference_mode()
def test_a_bank_is_shown_what_was_seen_around() -> None:
    for config in (BankConfig(), PointsAndBankConfig()):
        system = small(config)
        session, view = system.begin(walk(2)), walk(3)
        system.memory.show(session.memory, view, system.encode(view))
        banks = banks_of(session.memory)
        assert banks is not None and len(banks.rows[0]) == 3
        units = banks.rows[0].units(torch.tensor([2]))
        assert torch.equal(units.latent, system.encode(view)[0, :1]) and not units.dreamed.any()


@torch.inference_mode()
def test_places_are_those_of_the_walk_and_never_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    system = small(BankConfig())
    session = system.begin(walk(6))
    banks = banks_of(session.memory)
    assert banks is not None
    stands = kept_stands(banks)
    np.testing.assert_allclose(sorted(stands[:, 0]), np.arange(6) * 20.0)
    np.testing.assert_allclose(stands[:, 1:], [[0, 90]] * 6)
    monkeypatch.setattr(bank_view, "MOST_STANDS", 3)
    np.testing.assert_allclose(kept_stands(banks)[:, 0], [0, 40, 100])
    assert kept_stands(Banks(banks.model)).shape == (0, 3)


def test_an_empty_map_holds_every_place_and_mostly_stands_still() -> None:
    places, maps = np.zeros((1, 3)), set()
    for step in range(200):
        places = np.concatenate([places, [[step * 18.0, -step * 7.0, 0.0]]])
        picture, (left, top, scale) = empty_map(places)
        assert picture.shape == (SIDE, SIDE, 4) and not picture.any()
        column, row = (places[:, 0] - left) / scale, (top - places[:, 1]) / scale
        assert ((column >= 0) & (column <= SIDE) & (row >= 0) & (row <= SIDE)).all()
        maps.add((left, top, scale))
    assert len(maps) < 60
    assert stands_of(torch.eye(4)[None]).shape == (1, 3)
