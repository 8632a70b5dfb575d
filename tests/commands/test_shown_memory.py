"""`dreamwalk play` of a dream with a bank of frames: its strip, the places on the map, and the switch."""

import pytest
from switched_memory import assert_on_the_map, assert_switched
from tiny_rooms import SIZE, tiny_rooms

from dreamwalk.commands.play import _dream_app
from dreamwalk.memory import MEMORIES, MemoryConfig
from dreamwalk.memory.frame_memory import BankConfig
from dreamwalk.memory.points_and_bank import PointsAndBankConfig
from dreamwalk.memory.retention import BankBudget
from dreamwalk.serve import AppConfig
from dreamwalk.serve.world_pair import WorldPair
from dreamwalk.worlds.doom import DOOM_ACTIONS

BANK = BankConfig(budget=BankBudget(frames=12))


def app_of(memory: MemoryConfig) -> AppConfig:
    return _dream_app("forcing.test", tiny_rooms(memory))


@pytest.mark.parametrize("memory", [BANK, PointsAndBankConfig(bank=BANK)], ids=["bank", "both"])
def test_a_bank_is_shown_beside_a_level_and_switched(memory: MemoryConfig) -> None:
    pair, turn = WorldPair(app_of(memory)), DOOM_ACTIONS.pack(DOOM_ACTIONS.action(["forward"], yaw=20.0))
    pair.begin(2, {"level": 2})
    strip = pair.strip()
    assert strip and strip.recalled == (None,) * 4 and (strip.kept, strip.budget) == (4, 12), "and around"
    for _ in range(14):
        pair.advance(turn)
    strip, drawn = pair.strip(), pair.draw_map()
    assert strip and drawn and strip.kept == 12
    told = [one for one in strip.recalled if one]
    assert len(told) >= 2 and all(one.picture.shape == (*SIZE, 3) and one.age > 0 for one in told)
    assert [one is None for one in drawn.recalled] == [one is None for one in strip.recalled]
    assert drawn.picture.any() == isinstance(memory, PointsAndBankConfig)
    assert 2 <= len(drawn.places) <= 12
    assert pair.pose is not None
    assert_on_the_map(drawn, (*drawn.places, (*pair.pose[:2, 3], 0.0)))
    assert_switched(pair, turn, slots=4, kept=12)
    pair.close()


def test_other_memories_have_no_strip() -> None:
    points, window = app_of(MEMORIES["points"]()), app_of(MEMORIES["window"]())
    assert points.memory and points.memory.strip is None and window.memory is None
    bank = app_of(BANK).memory
    assert points.memory.cloud and bank and bank.cloud is None
    pair = WorldPair(points)
    pair.begin(0, {"start": 0})
    drawn = pair.draw_map()
    assert drawn and drawn.places == drawn.recalled == () and pair.strip() is None
    pair.close()
