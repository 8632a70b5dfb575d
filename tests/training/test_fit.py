"""Resume = uninterrupted, two processes = one, a killed run goes on, and a broken one says so."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_game import Push
from gymnasium import spaces
from toy import Toy, with_map

from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.commands.sample import SampleWalk
from dreamwalk.data.game_walks import GameWalks
from dreamwalk.data.shards import Shards
from dreamwalk.data.videos import read_frames
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.memory.neural_map import NeuralMapConfig
from dreamwalk.systems import autoencode, nextframe
from dreamwalk.systems.autoencode import AutoencodeConfig
from dreamwalk.systems.inverse import InverseConfig
from dreamwalk.systems.nextframe import NextFrame
from dreamwalk.systems.open import load
from dreamwalk.training import checkpoint
from dreamwalk.training.batches import draw, presses
from dreamwalk.training.fit import fit
from dreamwalk.training.run import OptimConfig, Run
from dreamwalk.weights.files import read
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.games import Game


def tiny(folder: Path, **changes: object) -> Run:
    run = Run(
        name="nextframe.tiny",
        system=nextframe.tiny(),
        data=str(folder),
        frames=4,
        batch=4,
        steps=8,
        optim=OptimConfig(lr=1e-3, warmup=2),
        save_every=4,
        preview_every=100,
        log_every=2,
    )
    return replace(run, **changes)  # type: ignore[arg-type]


def equal(first: Path, second: Path, *, tolerance: float = 1e-6) -> None:
    """Equal to float32 rounding: matrix products round by where memory happens to lie."""
    one, two = read(first)[0], read(second)[0]
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_resume_equals_uninterrupted(toy_data: Path, tmp_path: Path, kind: str) -> None:
    run = tiny(toy_data, optim=OptimConfig(method=kind, lr=1e-3, warmup=2))  # type: ignore[arg-type]
    whole = fit(run, tmp_path / "whole")
    fit(run, tmp_path / "parts", minutes=0.0)
    assert checkpoint.latest(tmp_path / "parts") == 1
    parts = fit(run, tmp_path / "parts", resume=True)
    equal(whole, parts)


def test_a_run_folder_opens_itself(toy_data: Path, tmp_path: Path) -> None:
    fit(tiny(toy_data), tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {
        "config.json",
        "argv.txt",
        "commit.txt",
        "log.jsonl",
        "samples",
        "checkpoints",
        "weights.safetensors",
    } <= names
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert list((tmp_path / "run" / "samples").glob("*.mp4"))
    system = load(tmp_path / "run")
    assert system.world_spec.starts.shape == (12, 32, 32, 3)
    assert system.world_spec.fps == 10


def test_recomputed_blocks_give_the_same_weights(toy_data: Path, tmp_path: Path) -> None:
    plain = fit(tiny(toy_data), tmp_path / "plain")
    recomputed = fit(tiny(toy_data, checkpoint_blocks=True), tmp_path / "recomputed")
    equal(plain, recomputed)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from training.test_fit import tiny
from dreamwalk.training.batches import draw, presses
from dreamwalk.training.fit import fit
fit(tiny(Path({data!r}), steps={steps}, save_every={save}), Path({out!r}), resume={resume})
"""


def script(
    tmp_path: Path, data: Path, out: Path, *, steps: int = 8, save: int = 4, resume: bool = False
) -> Path:
    file = tmp_path / f"script{len(list(tmp_path.glob('*.py')))}.py"
    tests = str(Path(__file__).parent.parent)
    file.write_text(
        SCRIPT.format(tests=tests, data=str(data), out=str(out), steps=steps, save=save, resume=resume)
    )
    return file


def test_two_processes_equal_one(toy_data: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*torchrun, script(tmp_path, toy_data, tmp_path / "two")],
        check=True,
        env=environment,
        timeout=240,
        capture_output=True,
    )
    one = fit(tiny(toy_data), tmp_path / "one")
    equal(one, tmp_path / "two" / "weights.safetensors", tolerance=2e-4)
    losses = []
    for name in ("one", "two"):
        losses.append(
            [json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    films = [sorted((tmp_path / name / "samples").glob("*.mp4")) for name in ("one", "two")]
    assert (
        [film.name for film in films[0]]
        == [film.name for film in films[1]]
        == ["00000000.mp4", "00000008.mp4"]
    )
    for alone, sharded in zip(*films, strict=True):
        one, two = (np.stack(list(read_frames(path, count(), size=(128, 64)))) for path in (alone, sharded))
        assert np.abs(one.astype(int) - two).mean() < 1.0


def test_two_processes_resume_on_one(toy_data: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*torchrun, script(tmp_path, toy_data, tmp_path / "two", steps=4)],
        check=True,
        timeout=240,
        capture_output=True,
    )
    resumed = fit(tiny(toy_data), tmp_path / "two", resume=True)
    # the learning rate knows the whole length of a run, so compare with one that stopped at 4 of 4 steps too
    fit(tiny(toy_data, steps=4), tmp_path / "one")
    equal(fit(tiny(toy_data), tmp_path / "one", resume=True), resumed, tolerance=2e-4)


def test_killed_at_any_step_it_goes_on(toy_data: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, script(tmp_path, toy_data, tmp_path / "killed", steps=40, save=1)]
    )
    deadline = time.monotonic() + 120
    while (checkpoint.latest(tmp_path / "killed") or 0) < 5 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 5 <= (checkpoint.latest(tmp_path / "killed") or 0) < 40
    resumed = fit(tiny(toy_data, steps=40, save_every=100), tmp_path / "killed", resume=True)
    equal(fit(tiny(toy_data, steps=40, save_every=100), tmp_path / "whole"), resumed, tolerance=1e-4)


def test_an_infinite_loss_stops_with_the_step_named(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamwalk.systems.nextframe import NextFrame

    loss = NextFrame.loss
    calls = []

    def breaking(self, clip, generator):  # type: ignore[no-untyped-def]
        calls.append(1)
        terms = loss(self, clip, generator)
        return terms | {"loss": terms["loss"] * (float("nan") if len(calls) == 3 else 1.0)}

    monkeypatch.setattr(NextFrame, "loss", breaking)
    with pytest.raises(ValueError, match="not finite at step 3; the state before it is kept"):
        fit(tiny(toy_data), tmp_path / "run")
    assert checkpoint.latest(tmp_path / "run") == 2
    monkeypatch.setattr(NextFrame, "loss", loss)
    equal(fit(tiny(toy_data), tmp_path / "run", resume=True), fit(tiny(toy_data), tmp_path / "whole"))


def test_bfloat16_arithmetic_trains(toy_data: Path, tmp_path: Path) -> None:
    weights = read(fit(tiny(toy_data, precision="bfloat16"), tmp_path / "run"))[0]
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights.values())
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    exact = read(fit(tiny(toy_data), tmp_path / "exact"))[0]
    assert rows[-1]["loss"] == pytest.approx(
        json.loads((tmp_path / "exact" / "log.jsonl").read_text().splitlines()[-1])["loss"], rel=0.1
    )
    assert weights.keys() == exact.keys()


def test_a_used_folder_is_not_overwritten(toy_data: Path, tmp_path: Path) -> None:
    fit(tiny(toy_data, steps=1), tmp_path / "run")
    with pytest.raises(ValueError, match="add `--resume`"):
        fit(tiny(toy_data), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": "nowhere"}, "nowhere"),
        ({"frames": 99}, "fewer than the 99"),
        ({"codec": "nothing.here"}, "no weights called 'nothing.here'"),
    ],
)
def test_what_does_not_fit_is_named(toy_data: Path, tmp_path: Path, changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fit(tiny(toy_data, **changes), tmp_path / "run")


def test_actions_and_grid_are_read_from_the_data(toy_data: Path, tmp_path: Path) -> None:
    system = nextframe.tiny()
    other = replace(system, actions=3, backbone=replace(system.backbone, grid=(2, 6)))
    made = load(fit(tiny(toy_data, system=other, steps=1), tmp_path / "run"))
    assert (made.config.actions, made.config.backbone.grid) == (7, (4, 4))
    fit(tiny(toy_data, system=other, steps=2), tmp_path / "run", resume=True)
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["system"]["actions"] == 7

    reader = load(fit(tiny(toy_data, system=InverseConfig(1, 1, width=8), steps=1), tmp_path / "reader"))
    assert (reader.config.buttons, reader.config.axes) == (5, 2)


def test_frames_that_no_grid_fits_are_named(toy_data: Path, tmp_path: Path) -> None:
    system = nextframe.tiny()
    wide = replace(system, codec=PatchCodecConfig(channels=16, patch=64, widths=()))
    with pytest.raises(UserError, match=r"32x32 do not divide into squares of 64x64: .* `--size 64 64`"):
        fit(tiny(toy_data, system=wide), tmp_path / "run")


GAMES: dict[str, spaces.Space] = {
    "axes alone": spaces.Box(np.array([-1, 0], np.float32), np.array([1, 1], np.float32)),
    "choices": spaces.Discrete(3),
    "both": spaces.Dict(turn=spaces.Box(-1, 1), gear=spaces.Discrete(3), jump=spaces.Discrete(2)),
}


@pytest.mark.parametrize("kind", GAMES)
def test_any_game_is_collected_trained_on_and_walked_in(kind: str, tmp_path: Path) -> None:
    def make() -> Push:
        return Push(GAMES[kind], pixels=True)

    walks = GameWalks(make=make, frames=96, clip_frames=12, size=(32, 40))
    data = write_clips(walks, len(walks), tmp_path / "data")
    system = load(fit(tiny(data, steps=2), tmp_path / "run"))
    assert system.config.backbone.grid == (4, 5)
    world = system.world(seed=0)
    assert world.actions == Shards(data).schema == Game(make()).actions
    world.reset(seed=0)
    nothing = np.zeros(world.actions.size, np.float32)
    still = world.step(world.actions.unpack(nothing))[0]
    world.reset(seed=0)
    acted = world.step(world.actions.unpack(world.actions.canonical(nothing)))[0]
    assert np.array_equal(still, acted)  # no key held is what it means in the game
    walk = SampleWalk(out=tmp_path / "walk.mp4", frames=20).walk(world.world_spec)
    assert np.array_equal(walk.actions, world.actions.canonical(walk.actions))
    assert walk.actions.any()
    fit(tiny(data, system=InverseConfig(1, 1, width=8), steps=1), tmp_path / "reader")


def test_the_codec_is_trained_first_and_taken(toy_data: Path, tmp_path: Path) -> None:
    codec = nextframe.tiny().codec
    first = Run(
        name="autoencode.tiny",
        system=AutoencodeConfig(codec=codec),
        data=str(toy_data),
        frames=2,
        batch=8,
        steps=3,
    )
    fit(first, tmp_path / "codec")
    fit(tiny(toy_data, steps=1, codec=str(tmp_path / "codec")), tmp_path / "run")
    taken, given = load(tmp_path / "run").codec.state_dict(), load(tmp_path / "codec").codec.state_dict()
    assert all(torch.equal(taken[name], tensor) for name, tensor in given.items())
    assert autoencode.doom().codec == nextframe.doom().codec


def test_a_map_joins_trained_weights_and_its_pose_model_is_fitted_once(
    toy_data: Path, tmp_path: Path
) -> None:
    fit(tiny(toy_data, steps=2), tmp_path / "plain")
    config = with_map(nextframe.tiny())
    assert isinstance(config.memory, NeuralMapConfig)
    system = replace(config, memory=replace(config.memory, pose_model_steps=30))
    run = tiny(toy_data, system=system, start=str(tmp_path / "plain"), steps=4, save_every=2)
    whole = fit(run, tmp_path / "whole")
    fit(run, tmp_path / "parts", minutes=0.0)
    equal(whole, fit(run, tmp_path / "parts", resume=True))
    known = load(tmp_path / "whole")
    assert isinstance(known, NextFrame) and known.memory.pose_model.fitted
    again = fit(replace(run, start=str(tmp_path / "whole"), steps=1), tmp_path / "again")
    assert torch.equal(read(again)[0]["memory.pose_model.turn"], known.memory.pose_model.turn)


def test_a_map_is_refused_where_there_are_no_poses(tmp_path: Path) -> None:
    data = write_clips(Toy(posed=False), 4, tmp_path / "blind")
    with pytest.raises(ValueError, match="has no poses"):
        fit(tiny(data, system=with_map(nextframe.tiny())), tmp_path / "run")


def test_a_map_is_refused_where_the_walks_leave_it(toy_data: Path, tmp_path: Path) -> None:
    config = with_map(nextframe.tiny())
    assert isinstance(config.memory, NeuralMapConfig)
    small = replace(config, memory=replace(config.memory, extent=(20, 20)))
    with pytest.raises(ValueError, match=r"leave the map: set `--system\.memory\.origin`"):
        fit(tiny(toy_data, system=small), tmp_path / "run")


class Pressed:
    """Three clips of 20 frames, in the second of which a button is held for two frames."""

    path = "pressed"
    schema = ActionSchema(("place",), ("yaw",), (1.0,))

    def __len__(self) -> int:
        return 3

    def frames_of(self, index: int) -> int:
        return 20

    def walked(self, index: int) -> tuple[None, None, np.ndarray]:
        actions = np.zeros((20, 2), np.float32)
        actions[9:11, 0] = index == 1
        return None, None, actions


def test_rare_presses_are_drawn_more_often(tmp_path: Path) -> None:
    data: Any = Pressed()
    run = replace(tiny(tmp_path), button="place", press_prob=1.0, frames=4)
    assert presses(data, "place") == [(1, 9)]
    starts = {int(draw(run, data, 0, row).frames[0]) for row in range(40)}
    assert starts == {6, 7, 8}, "it leads into any frame but the first"
    others = {draw(replace(run, press_prob=0.0), data, 0, row).index for row in range(40)}
    assert others == {0, 1, 2}
    with pytest.raises(UserError, match="has no button 'jump'"):
        draw(replace(run, button="jump"), data, 0, 0)
