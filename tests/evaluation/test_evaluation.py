import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learning import learn
from toy import Toy

from dreamwalk.clip import Clip, batch
from dreamwalk.data.shards import Shards
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.evaluation.control import Columns, read_back
from dreamwalk.evaluation.fidelity import psnr, roll_out, sharpness, ssim
from dreamwalk.evaluation.prompt_adherence import (
    ClipClassifiers,
    RoomClassifier,
    draw_windows,
    fit_classifiers,
)
from dreamwalk.evaluation.walks import EvaluateWalks, evaluate_walks
from dreamwalk.systems import nextframe
from dreamwalk.systems.autoencode import Autoencode
from dreamwalk.systems.autoencode import doom as autoencode_doom
from dreamwalk.systems.inverse import Inverse, InverseConfig
from dreamwalk.systems.nextframe import NextFrame
from dreamwalk.world import ActionSchema
from dreamwalk.worlds.doom import DOOM_ACTIONS
from dreamwalk.worlds.scenery import Level


@pytest.fixture(scope="module")
def clips(toy_data: Path) -> list[Clip]:
    shards = Shards(toy_data)
    return [shards.clip(index) for index in range(6)]


@pytest.fixture(scope="module")
def system(clips: list[Clip]) -> NextFrame:
    torch.manual_seed(0)
    system = NextFrame(nextframe.tiny()).eval()
    system.codec.fit(batch(clips).video.float() / 127.5 - 1)  # type: ignore[union-attr, operator]
    return system


def noisy(video: torch.Tensor, amount: int) -> torch.Tensor:
    noise = torch.randint(-amount, amount + 1, video.shape, generator=torch.Generator().manual_seed(0))
    return (video.int() + noise).clamp(0, 255).byte()


def test_measures_know_better_from_worse(clips: list[Clip]) -> None:
    truth = batch(clips).video
    near, far = noisy(truth, 4), noisy(truth, 40)
    assert (psnr(truth, truth) == 60).all()
    assert (psnr(near, truth) > psnr(far, truth) + 10).all()
    assert (ssim(near, truth) > ssim(far, truth)).all()
    fog = truth.float().mean(dim=(3, 4), keepdim=True).expand(truth.shape).byte()
    assert (sharpness(fog) < sharpness(truth) / 10).all()


def test_psnr_is_the_textbooks() -> None:
    black, grey = (
        torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8),
        torch.full((1, 1, 3, 8, 8), 16, dtype=torch.uint8),
    )
    assert psnr(grey, black)[0, 0] == pytest.approx(20 * np.log10(255 / 16), abs=1e-4)


def test_a_rollout_lines_up_with_the_truth(system: NextFrame, clips: list[Clip]) -> None:
    rollout = roll_out(system, clips, history=3, size=4)
    video = batch(clips).video
    assert torch.equal(rollout.truth, video[:, 3:])
    assert torch.equal(rollout.last, video[:, 2:3])
    assert torch.equal(rollout.floor[:, 5], video[:, 2])
    assert torch.equal(rollout.actions, batch(clips).actions[:, 3:])
    assert rollout.dream.shape == rollout.truth.shape
    assert psnr(rollout.ceiling, rollout.truth).mean() > psnr(rollout.dream, rollout.truth).mean()


def test_a_rollout_does_not_depend_on_its_batches(system: NextFrame, clips: list[Clip]) -> None:
    one, many = roll_out(system, clips, history=2, size=1), roll_out(system, clips, history=2, size=6)
    assert (one.dream.int() - many.dream.int()).abs().max() <= 1


def test_turning_is_read_back(clips: list[Clip]) -> None:
    """Trained on the toy's real turns, the examiner reads them; from the film backwards, the opposite."""
    torch.manual_seed(0)
    inverse = Inverse(InverseConfig(buttons=5, axes=2, width=8))
    clip = batch(clips)
    learn(inverse, clip, steps=120)
    control = read_back(
        inverse, clip.video[:, 1:], clip.video[:, :1], clip.actions[:, 1:], schema=DOOM_ACTIONS
    )
    assert control.yaw_sign > 0.9
    backwards = clip.video.flip(1)
    reversed_ = read_back(
        inverse, backwards[:, 1:], backwards[:, :1], clip.actions.flip(1)[:, :-1], schema=DOOM_ACTIONS
    )
    assert reversed_.yaw_sign < 0.3


def test_the_examination_writes_its_report(system: NextFrame, toy_data: Path, tmp_path: Path) -> None:
    report = evaluate_walks(
        system, EvaluateWalks(str(toy_data), tmp_path, clips=3, frames=8, history=2), name="tiny"
    )
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert set(report["psnr"]) == {"ceiling (codec)", "dream", "floor (copy last)"}
    assert list(report["psnr"]["dream"]) == ["1", "2", "4", "8"]
    assert (tmp_path / "sheet.png").stat().st_size > 0
    assert (tmp_path / "horizon.png").stat().st_size > 0


def test_the_default_examination_goes_as_far_as_the_walks(
    system: NextFrame, toy_data: Path, tmp_path: Path
) -> None:
    report = evaluate_walks(system, EvaluateWalks(str(toy_data), tmp_path, clips=2), name="tiny")
    assert (report["walks"], list(report["psnr"]["dream"])) == (2, ["1", "2", "4", "8"])


def test_what_cannot_be_examined_is_named(system: NextFrame, toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"longest walk has 12 frames and 68 are needed: .* `--frames`"):
        evaluate_walks(system, EvaluateWalks(str(toy_data), tmp_path, frames=64), name="tiny")
    with pytest.raises(ValueError, match=r"longest walk has 12 frames and 13 are needed: .* `--history`"):
        evaluate_walks(system, EvaluateWalks(str(toy_data), tmp_path, history=12), name="tiny")
    other = NextFrame(replace(system.config, actions=3))
    with pytest.raises(UserError, match="has 7 actions and 'tiny' knows 3: give `--data` clips of its own"):
        evaluate_walks(
            other, EvaluateWalks(str(toy_data), tmp_path, clips=3, frames=8, history=2), name="tiny"
        )
    for asked in (EvaluateWalks(clips=0), EvaluateWalks(frames=0), EvaluateWalks(history=0)):
        with pytest.raises(UserError, match="are at least 1"):
            evaluate_walks(system, asked, name="tiny")
    codec = Autoencode(autoencode_doom())
    with pytest.raises(ValueError, match="cannot go on frame after frame"):
        evaluate_walks(codec, EvaluateWalks(str(toy_data), tmp_path), name="codec")


def test_clips_that_cannot_be_read_back_are_named(toy_data: Path) -> None:
    shards, inverse = Shards(toy_data), Inverse(InverseConfig(buttons=5, axes=2, width=8))
    with pytest.raises(UserError, match="has 12 frames, fewer than the 33 of a dream: use a smaller"):
        draw_windows(shards, 2, frames=33)
    with pytest.raises(UserError, match=r"no clip of .* is in a room of its level"):
        fit_classifiers(shards, Level("nowhere", b""), inverse, clips=2)


def test_control_is_told_by_horizon(system: NextFrame, toy_data: Path, tmp_path: Path) -> None:
    inverse = Inverse(InverseConfig(buttons=5, axes=2, width=8))
    asked = EvaluateWalks(str(toy_data), tmp_path, clips=2, frames=8, history=2)
    report = evaluate_walks(system, asked, name="tiny", inverse=inverse)
    assert set(report["control"]) == {"dream, 4 frames", "real, 4 frames"}


class ClipPredictor(Inverse):
    """An examiner that knows the answer: actions `(t, a)` in the order of `order` instead of its schema's."""

    def __init__(self, actions: torch.Tensor, schema: ActionSchema) -> None:
        super().__init__(InverseConfig(len(schema.buttons), len(schema.axes), width=8))
        self.answer = actions

    def read(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n = self.config.buttons
        return 2 * self.answer[None, :, :n] - 1, self.answer[None, :, n:]


def acted(frames: int, schema: ActionSchema) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    held = (torch.rand(frames, len(schema.buttons), generator=random) < 0.5).float()
    return torch.cat([held, 2 * torch.rand(frames, len(schema.axes), generator=random) - 1], dim=1)


LOOK = ActionSchema(("jump", "forward"), ("pitch", "yaw"), (15.0, 20.0))
VIDEO = torch.zeros(1, 40, 3, 8, 8, dtype=torch.uint8)


def test_yaw_and_forward_are_found_by_their_names() -> None:
    actions = acted(40, LOOK)
    control = read_back(ClipPredictor(actions, LOOK), VIDEO, VIDEO[:, :1], actions[None], schema=LOOK)
    assert (control.yaw_sign, control.walking) == (1.0, 1.0)
    assert control.turning_frames > 20 and control.yaw_error == pytest.approx(0, abs=1e-5)
    other = ClipPredictor(actions[:, [1, 0, 3, 2]] * torch.tensor([1, 1, 0.5, 0.25]), LOOK)  # of wider limits
    other.about = {
        "world_spec": {
            "actions": {"buttons": ["forward", "jump"], "axes": ["yaw", "pitch"], "limits": [40.0, 60.0]}
        }
    }
    assert read_back(other, VIDEO, VIDEO[:, :1], actions[None], schema=LOOK) == control
    classifiers = ClipClassifiers(
        other, RoomClassifier(["stone"]), Columns.of(ActionSchema(("forward",), ("yaw",), (40.0,))), 0.5
    )
    degrees, walks = classifiers.motion(VIDEO)
    assert degrees.item() == pytest.approx(-20 * actions[:, 3].sum().item(), abs=1e-3)
    assert walks.item() == pytest.approx((2 * actions[:, 1] - 1).sigmoid().mean().item(), abs=1e-5)


def test_what_cannot_be_read_back_is_said(
    system: NextFrame, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jumps = ActionSchema(("jump",))
    actions = acted(40, jumps)
    control = read_back(ClipPredictor(actions, jumps), VIDEO, VIDEO[:, :1], actions[None], schema=jumps)
    assert (control.yaw_sign, control.turning_frames, control.yaw_error, control.walking) == (
        None,
        0,
        None,
        None,
    )
    still = torch.zeros(1, 40, LOOK.size)
    control = read_back(ClipPredictor(still[0], LOOK), VIDEO, VIDEO[:, :1], still, schema=LOOK)
    assert (control.yaw_sign, control.yaw_error, control.walking) == (None, 0.0, 1.0)
    with pytest.raises(UserError, match="reads 2 buttons and 2 axes, not 1 and 0"):
        read_back(ClipPredictor(still[0], LOOK), VIDEO, VIDEO[:, :1], actions[None], schema=jumps)
    folder = write_clips(Toy(schema=ActionSchema(tuple("abcdefg"))), 2, tmp_path / "data")
    asked = EvaluateWalks(str(folder), tmp_path / "out", clips=2, frames=8, history=2)
    report = evaluate_walks(
        system, asked, name="tiny", inverse=Inverse(InverseConfig(buttons=5, axes=2, width=8))
    )
    assert report["control"] == {}
    assert "these data have neither yaw nor forward" in capsys.readouterr().out
