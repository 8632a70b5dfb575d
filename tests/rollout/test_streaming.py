"""Walks without an end: the same as one large plan, at constant memory; and the films made of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import Toy, toy_system, with_map

from dreamwalk.backbones.frame_backbone import FrameInputs
from dreamwalk.cli import main
from dreamwalk.clip import Clip, batch
from dreamwalk.commands.sample import SampleWalk
from dreamwalk.data.walks import Walk
from dreamwalk.rollout.execute import KeyedNoise, Update, euler, execute, multistep
from dreamwalk.rollout.frame_predictor import CachedFramePredictor, FramePredictor
from dreamwalk.rollout.streaming import StreamConditions, finished_frames, stream
from dreamwalk.schedules.guidance import unguided
from dreamwalk.schedules.plans import MaskName
from dreamwalk.schedules.sigmas import shifted_sigmas
from dreamwalk.schedules.staircase import SCHEDULES, Schedule, attention_group, named_schedule, staircase
from dreamwalk.systems import nextframe
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.scheduled import schedule_plan, schedule_preview, scheduled_frames
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.doom import DOOM_ACTIONS
from dreamwalk.worlds.games import wander

GRID = shifted_sigmas(4).tolist()


def conditions(system: Interactive, start: Clip, actions: Tensor) -> StreamConditions:
    return StreamConditions(system.actions, system.memory, system.codec, start, actions)


@pytest.fixture(scope="module")
def system() -> Interactive:
    return toy_system(with_map(nextframe.tiny()))


@pytest.fixture(scope="module")
def start() -> Clip:
    return batch(list(Toy(clip_frames=2).clips(range(2))))


@pytest.mark.parametrize("update", [euler, multistep])
@pytest.mark.parametrize(("lag", "chunk"), [(4, 1), (2, 1), (3, 2), (1, 1), (4, 3)])
@pytest.mark.parametrize("kind", [FramePredictor, CachedFramePredictor])
def test_stride_after_stride_is_one_large_plan(
    system: Interactive, start: Clip, lag: int, chunk: int, update: Update, kind: Callable
) -> None:
    count, history = 6, torch.randn(2, 2, 16, 4, 4)
    actions, noise = torch.randn(2, 30, 7), KeyedNoise((1, 2), (16, 4, 4))
    # later frames under way are not seen by earlier ones, so the plan may end where the walk goes on
    plan = staircase(GRID, count, lag=lag, chunk=chunk, history=2, history_sigma=0.05)
    schedule = Schedule(4, lag, chunk, window=30)
    with torch.inference_mode():
        reader = kind(system.backbone, conditions(system, start, actions))
        walk = stream(schedule, GRID, history, reader, noise, history_sigma=0.05, update=update)
        walked = torch.cat(list(finished_frames(walk, count)), 1)
        reader = FramePredictor(system.backbone, conditions(system, start, actions))
        planned = execute(plan, reader, noise, given=history, update=update)[:, 2:]
    torch.testing.assert_close(walked, planned, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize(("lag", "chunk", "known"), [(4, 2, 2), (4, 2, 1), (4, 3, 2), (2, 2, 4), (4, 1, 2)])
@pytest.mark.parametrize("mask", ["block", "causal"])
def test_chunks_stay_chunks_as_history(lag: int, chunk: int, known: int, mask: MaskName) -> None:
    """Walks without an end equal the staircase, cached or not, in the last bits of double precision.

    With a lag of two of four steps all chunks but the newest have the same neighbours in both.
    """
    system = toy_system().double()
    torch.manual_seed(3)
    for parameter in system.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    count, history = 3 * chunk, torch.randn(1, known, 16, 4, 4).double()
    actions, drawn = torch.randn(1, 30, 7).double(), KeyedNoise((1,), (16, 4, 4))

    def noise(frame: int, use: int) -> Tensor:
        return drawn(frame, use).double()

    def script(frames: Sequence[int]) -> FrameInputs:
        return FrameInputs(system.actions(actions[:, list(frames)]))

    plan = staircase(GRID, count, lag=lag, chunk=chunk, history=known, history_sigma=0.05, mask=mask)
    planned = execute(plan, FramePredictor(system.backbone, script), noise, given=history)[:, known:]
    schedule = Schedule(4, lag, chunk, window=30, mask=mask)
    for kind in (FramePredictor, CachedFramePredictor):
        walk = stream(schedule, GRID, history, kind(system.backbone, script), noise, history_sigma=0.05)
        walked = torch.cat(list(finished_frames(walk, count)), 1)
        torch.testing.assert_close(walked, planned, atol=1e-8, rtol=1e-8)
    other = replace(schedule, mask="causal" if mask == "block" else "block")
    walk = stream(other, GRID, history, FramePredictor(system.backbone, script), noise, history_sigma=0.05)
    walked = torch.cat(list(finished_frames(walk, count)), 1)
    assert chunk == 1 or (walked - planned).abs().max() > 1e-3


def test_chunks_are_counted_from_the_first_new_frame() -> None:
    def groups(mask: MaskName) -> list[int]:
        return [attention_group(slot, 3, chunk=2, mask=mask) for slot in range(7)]

    assert groups("causal") == list(range(7)) and groups("bidirectional") == [0] * 7
    assert groups("block") == [-2, -1, -1, 0, 0, 1, 1]


def test_the_walk_in_real_time_is_the_schedule_next_frame(system: Interactive, start: Clip) -> None:
    """Even when the window has moved on: both remember what committed frames saw."""
    actions = torch.randn(2, 12, 7)
    session = system.begin(start, seed=3)
    paced = torch.cat([system.advance(session, actions[:, i]) for i in range(12)], 1)
    steps = system.stream(start, actions, schedule=system.schedule("next-frame"), seed=3)
    torch.testing.assert_close(torch.cat(list(finished_frames(steps, 12)), 1), paced, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_memory_does_not_grow(system: Interactive, start: Clip, name: str) -> None:
    schedule, script = system.schedule(name), conditions(system, start, torch.randn(2, 1, 7))
    reader = CachedFramePredictor(system.backbone, script)
    with torch.inference_mode():
        walk = stream(
            schedule, GRID[::2], torch.randn(2, 2, 16, 4, 4), reader, KeyedNoise((0, 1), (16, 4, 4))
        )
        steps = list(islice(walk, 200))
    assert steps[-1].frames[0] > 60
    assert len(reader.kept) <= schedule.window and len(script.recalled) <= StreamConditions.KEPT
    assert max(step.x.shape[1] for step in steps) <= schedule.window
    finished = [f for step in steps for f in step.frames[: step.finished]]
    assert finished == list(range(2, 2 + len(finished)))


@pytest.mark.parametrize(("window", "steps"), [(8, 4), (2, 4), (5, 1), (8, 7), (3, 18)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_named_schedules_fit_every_window(name: str, window: int, steps: int) -> None:
    schedule = named_schedule(name, steps=steps, window=window)
    assert schedule.under_way * schedule.chunk < window


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: named_schedule("spiral", steps=4, window=8),
            "no schedule 'spiral': known are full, pyramid",
        ),
        (lambda: Schedule(4, 1, 2, 8), "a window of 8 frames is too small for the 8 that are under way"),
        (lambda: Schedule(4, 5, 1, 8), "the lag must be a whole number from 0 to 4, got 5"),
        (lambda: Schedule(4, 4, 0, 8), "chunk must be a whole number from 1 up, got 0"),
    ],
)
def test_impossible_schedules_are_refused(make: Callable, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_film_has_its_frames(system: Interactive) -> None:
    flags = {"frames": 9, "schedule": "pyramid", "guide_history": 1.5, "seed": 4, "start": 1}
    asked = SampleWalk(Path("o.mp4"), solver="multistep", **flags)  # type: ignore[arg-type]
    walk, world = asked.walk(system.world_spec), system.world()  # type: ignore[arg-type]
    schedule = asked.schedule_for(system, walk)

    def film() -> Iterator[np.ndarray]:
        return scheduled_frames(system, world, walk, schedule, update=multistep, guide=asked.guide)

    pictures = list(film())
    assert len(pictures) == 9 and {p.shape for p in pictures} == {(32, 32, 3)}
    assert np.array_equal(pictures[0], system.world_spec.starts[1])  # type: ignore[union-attr]
    assert all(np.array_equal(a, b) for a, b in zip(pictures, film(), strict=True))
    assert "3" in schedule_plan(system, schedule, asked.guide).show() or system.config.steps < 4


def test_a_walk_is_cut_or_goes_on(system: Interactive) -> None:
    """Without a file it is what somebody did who began there, and then about."""
    strolls = np.random.default_rng(0).random((2, 6, 7), np.float32)
    strolls[..., :5] = strolls[..., :5] > 0.5
    world_spec = replace(system.world_spec, strolls=strolls)  # type: ignore[type-var]
    walk = SampleWalk(Path("o.mp4"), frames=5, start=1).walk(world_spec)
    assert walk.start == {"start": 1} and np.array_equal(walk.actions, strolls[1, :4])
    long = SampleWalk(Path("o.mp4"), frames=51, start=1, seed=1).walk(world_spec).actions
    assert np.array_equal(long[:6], strolls[1]) and np.array_equal(long[6:], wander(DOOM_ACTIONS, 44, seed=1))
    drawn = {SampleWalk(Path("o.mp4"), seed=seed).walk(world_spec).start["start"] for seed in range(9)}
    assert drawn == {0, 1}
    assert wander(ActionSchema(("jump",)), 30, seed=0).any()
    with pytest.raises(ValueError, match="at least one frame and at most 100000, got 0"):
        SampleWalk(Path("o.mp4"), frames=0).check()


def test_what_is_not_learnt_changes_no_film() -> None:
    system, films = toy_system(), []
    vectors = np.zeros((3, 7), np.float32)
    vectors[:, 5] = 0.5
    for unlearnt, actions in (((), vectors), (("yaw",), vectors), ((), 0 * vectors)):
        system.world_spec = replace(system.world_spec, unlearnt=unlearnt)  # type: ignore[type-var]
        names = {"buttons": DOOM_ACTIONS.buttons, "axes": DOOM_ACTIONS.axes}
        walk = Walk(seed=0, actions=actions, start={"start": 0}, **names)
        world, schedule = system.world(), system.schedule("next-frame")
        made = scheduled_frames(system, world, walk, schedule, update=euler, guide=unguided)
        films.append(np.stack(list(made)))
    assert (films[0] != films[1]).any() and (films[1] == films[2]).all()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--frames", "0"], "a film has at least one frame and at most 100000, got 0"),
        (["--steps", "0"], "steps must be a whole number from 1 to 64, got 0"),
        (["--steps", "65"], "from 1 to 64, got 65"),
        (["--guide-actions", "nan"], "guidance weighs its branches by finite numbers, got nan"),
        (["--guide-history", "inf"], "guidance weighs its branches by finite numbers, got inf"),
    ],
)
def test_what_no_film_can_be_is_refused_before_anything_is_opened(
    flags: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dreamwalk.systems.open.load", lambda name: pytest.fail("it was opened"))
    with pytest.raises(SystemExit) as stop:
        main(["sample", "nextframe.doom", "--out", str(tmp_path / "o.mp4"), *flags])
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_frames_under_way_are_shown_with_their_noise(system: Interactive) -> None:
    schedule = replace(system.schedule("pyramid"), steps=4, lag=2)
    rows = list(islice(schedule_preview(system, 0, schedule, world=system.world(), shown=5), 12))
    assert {row.shape for row in rows} == {(38, 160, 3)}
    bar = [int((row[-1, :, 0] == 255).sum()) for row in rows]
    assert bar[1] and all(row[:32, :32].any() for row in rows[6:])
