"""What is found on coming back: who repeats the truth has it all, and who stands still earns nothing."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from box_room import dream_of_rooms, walk
from test_places import BoxWalks

from dreamwalk.clip import Clip, batch
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.evaluation.led_paths import (
    LedDream,
    LedPath,
    dream_path,
    frames_away,
    loop_path,
    opposite,
    returns,
    start_after,
    straight_path,
)
from dreamwalk.evaluation.revisits import (
    EvaluateRevisits,
    bin_of,
    configure_bank,
    evaluate_revisits,
    gate,
    interval,
    measure_all,
    measure_return,
)
from dreamwalk.memory.contract import CameraState
from dreamwalk.memory.frame_memory import BankConfig
from dreamwalk.memory.points_and_bank import PointsAndBankConfig
from dreamwalk.memory.recurrent import RecurrentConfig
from dreamwalk.memory.retention import BankBudget
from dreamwalk.systems.forcing import Forcing
from dreamwalk.worlds.doom import DOOM_ACTIONS

TURNS = [0, 0, 60, 120, 180, 180, 180, 180, 180, 180, 120, 60, 0, 0]
"""Away from what is ahead, and back to it in frame 12."""
WINDOW = 3


def true_walk(headings: list[int]) -> Clip:
    """An unbatched clip."""
    clip = walk([(0, 0, heading) for heading in headings])
    names = ("actions", "world_from_camera", "intrinsics", "depth")
    arrays = {name: getattr(clip, name)[0].numpy() for name in names}
    return Clip(clip.video[0].permute(0, 2, 3, 1).numpy(), **arrays)


def told(path: LedPath, frames: torch.Tensor) -> dict[str, float]:
    """Of the last return of a dream of uint8 frames, from the path's start on."""
    found = returns(path, WINDOW)[-1]
    return measure_return(rooms(BankConfig()), LedDream(path, frames), found, WINDOW)


@cache
def rooms(memory: Any) -> Forcing:
    """A tiny dream that no test changes, in plain PyTorch: graphs take longer to make than to run."""
    system = dream_of_rooms(memory)
    system.engine = lambda: (system.frame_pass(), system.codec.decode)
    return system


def test_frames_are_returns_only_after_their_surfaces_were_left() -> None:
    path = straight_path("open", true_walk(TURNS), 2, 12)
    found = {one.frame: one.gap for one in returns(path, WINDOW)}
    assert 12 in found and found[12] > 8
    assert not set(range(2, 10)) & set(found), "on the way out everything is new, or was just in view"
    assert not returns(straight_path("open", true_walk([0] * 14), 2, 12), WINDOW), "who stands still"


def test_a_surface_is_away_from_when_it_was_last_seen_until_it_came_back() -> None:
    seen = ["110000", "000110", "111111", "000000", "100001"]
    visible = torch.tensor([[digit == "1" for digit in one] for one in seen]).T[:, None]
    assert frames_away(visible, 3)[0].tolist() == [5, 2, 1, 0, 5]


def test_who_repeats_the_truth_is_perfect_and_who_stands_still_earns_nothing() -> None:
    path = straight_path("open", true_walk(TURNS), 2, 12)
    truth = path.truth.video[0, 2:]
    perfect, still = told(path, truth), told(path, path.truth.video[0, :1].expand_as(truth))
    assert perfect["psnr dream"] > 55 and perfect["psnr shown"] > 55
    assert perfect["gated ssim dream"] == pytest.approx(1, abs=1e-3) and perfect["gate dream"] == 1
    # Standing where one returns to is as good as true, by every measure but the gated ones.
    assert still["ssim dream"] > 0.99
    assert max(still[name] for name in ("gate dream", "gated ssim dream", "gated psnr dream")) < 0.02
    assert still["gated ssim floor"] == 0 and still["gated ssim ceiling"] > 0.1


def test_half_a_move_earns_half() -> None:
    frame = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    shown = {0: (frame * 0.999), 1: frame * 0.6, 2: frame}
    assert 0.0 <= gate(lambda t: shown[2 if t == 1 else t], 0, 2) < 0.02
    assert 0.02 < gate(lambda t: shown[t], 0, 2) <= 1


def test_a_loop_goes_back_over_its_own_poses() -> None:
    ahead = true_walk(TURNS)
    actions = np.random.default_rng(0).random(ahead.actions.shape).astype(np.float32)
    path = loop_path(replace(ahead, actions=actions), 2, 5, schema=DOOM_ACTIONS)
    poses = path.truth.world_from_camera[0]
    assert (len(path.truth), path.turn, path.twin(6), path.twin(10)) == (11, 6, None, 2)
    assert all(torch.equal(poses[t], poses[path.twin(t)]) for t in range(7, 11))
    back, out = path.truth.actions[0, 7], torch.from_numpy(actions[6])
    assert back.tolist() == [*out[[1, 0, 3, 2]], 0, *-out[5:]]
    assert np.array_equal(opposite(opposite(actions, DOOM_ACTIONS), DOOM_ACTIONS)[:, :4], actions[:, :4])


def test_a_loop_is_compared_with_what_it_showed_itself() -> None:
    path = loop_path(true_walk([0, 0, 0, 60, 120, 180, 180, 180, 180, 180]), 2, 8, schema=DOOM_ACTIONS)
    found = returns(path, WINDOW)
    assert found and all(one.frame > path.turn for one in found)
    noise = torch.randint(256, (9, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    order = [abs(7 - k) for k in range(15)]  # other than the truth, and the same on the way back
    values = told(path, noise.flip(0)[[8 - (7 - k) for k in order]])
    assert values["psnr own"] == 60 and values["gated ssim own"] > 0.99 and values["psnr dream"] < 15


@pytest.mark.parametrize("memory", [BankConfig(), PointsAndBankConfig(), RecurrentConfig(2, 16)])
def test_a_session_starts_quickly_as_it_would_slowly(memory: Any) -> None:
    system = rooms(memory)
    clip = batch([true_walk([12 * k for k in range(14)])])
    frame_pass = system.frame_pass()
    sessions = [
        system.begin(clip.first(12), seed=3, frame_pass=frame_pass),
        start_after(system, clip.first(12), seed=3, frame_pass=frame_pass),
    ]
    assert torch.equal(*(session.cache.keys for session in sessions))
    for step in range(12, 14):
        camera = CameraState.of_clip(clip, step)
        assert torch.equal(*(system.advance(x, clip.actions[:, step], camera=camera) for x in sessions))


def test_flags_of_a_bank_reach_it(tmp_path: Path) -> None:
    bank = dream_of_rooms(BankConfig()).memory
    configure_bank(bank, EvaluateRevisits(recalled=8, budget=16, policy="fifo"))
    assert (bank.config.frames, bank.config.retrieval.count) == (8, 16) and bank.tokens.config is bank.config
    assert (
        bank.config.budget == BankBudget(16, "fifo")
        and bank.blank.keys.shape[4] == 8 * bank.tokens.grid[0] ** 2
    )
    both = dream_of_rooms(PointsAndBankConfig()).memory
    configure_bank(both, EvaluateRevisits(retrieval="random"))
    assert (both.bank.config.retrieval.mode, both.bank.config.retrieval.count) == ("random", 4)
    with pytest.raises(UserError, match="has no bank"):
        configure_bank(rooms(RecurrentConfig(2, 16)).memory, EvaluateRevisits(budget=16))
    with pytest.raises(UserError, match="forgets nothing"):
        configure_bank(rooms(BankConfig()).memory, EvaluateRevisits(policy="fifo"))
    with pytest.raises(UserError, match="1 or more"):
        evaluate_revisits(rooms(BankConfig()), EvaluateRevisits(clips=0), name="tiny")
    with pytest.raises(UserError, match="`--recalled` is 1 or more"):
        configure_bank(rooms(BankConfig()).memory, EvaluateRevisits(recalled=0))


def test_gaps_and_intervals() -> None:
    assert [bin_of(gap) for gap in (22, 23, 45, 46, 100, 3000)] == [None, 32, 32, 64, 128, 2048]
    low, high = interval(np.array([1.0, 2.0, 3.0, 4.0]), 0)
    assert 1 < low < 2.5 < high < 4 and (low, high) == interval(np.array([1.0, 2.0, 3.0, 4.0]), 0)
    assert interval(np.array([2.0]), 0) == (2, 2)


def test_the_examination_of_revisits_writes_its_report(tmp_path: Path) -> None:
    headings = [0, 0, 60, 120, 180, 180, 180, 180, 180, 180, 120, 60, 0, 0, 0, 0]
    data = write_clips(BoxWalks(clip_frames=16, turns=tuple(headings)), 2, tmp_path / "clips")
    sizes = {"history": 2, "frames": 14, "replayed": 10, "after": 4, "clips": 2}
    asked = EvaluateRevisits(data=str(data), out=tmp_path / "out", **sizes)
    system = rooms(BankConfig())
    kept = system.memory.config
    report = evaluate_revisits(system, asked, name="tiny")
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert (tmp_path / "out" / "sheet.png").stat().st_size > 1000
    assert set(report["branches"]) == {"replay", "loop", "open"}
    loop = report["branches"]["loop"]["revisits"]["any"]
    assert loop["walks"] == 2 and loop["frames"] == 4
    mean, low, high = loop["rows"]["psnr own"]
    assert low <= mean <= high and loop["rows"]["gated ssim floor"] == [0, 0, 0]
    fewer = replace(
        asked, branches=("replay",), memory=False, budget=8, policy="uniform", retrieval="released"
    )
    off = evaluate_revisits(system, replace(fewer, clips=1), name="tiny")
    assert off == evaluate_revisits(system, replace(fewer, clips=1), name="tiny")
    assert set(off["branches"]) == {"replay"} and (off["budget"], off["memory"]) == (8, False)
    system.memory.config = system.memory.tokens.config = kept
    with pytest.raises(UserError, match="has 999 frames: use a smaller `--frames` or"):
        evaluate_revisits(system, replace(asked, frames=997, branches=("open",)), name="tiny")


def test_whole_frames_are_measured_without_poses_of_a_return() -> None:
    path = straight_path("replay", true_walk(TURNS), 10, 4)
    system = rooms(RecurrentConfig(2, 16))
    dream = dream_path(system, path)
    rows = measure_all(system, dream)
    assert len(rows) == 4 == len(dream.frames) and {"psnr dream", "ssim floor"} <= set(rows[0])
