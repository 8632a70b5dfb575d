import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamwalk.clip import Clip, batch
from dreamwalk.data.shards import Shards
from dreamwalk.evaluation.control import read_back
from dreamwalk.evaluation.examine import Evaluate, examine
from dreamwalk.evaluation.fidelity import psnr, roll_out, sharpness, ssim
from dreamwalk.schedules.draws import Draws
from dreamwalk.systems import nextframe
from dreamwalk.systems.autoencode import Autoencode
from dreamwalk.systems.autoencode import doom as autoencode_doom
from dreamwalk.systems.inverse import Inverse, InverseConfig
from dreamwalk.systems.nextframe import NextFrame


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
    examiner = Inverse(InverseConfig(buttons=5, axes=2, width=8))
    optimizer = torch.optim.AdamW(examiner.parameters(), lr=3e-3)
    clip = batch(clips)
    for step in range(120):
        loss = examiner.loss(clip, Draws([(0, step)]))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    told = read_back(examiner, clip.video[:, 1:], clip.video[:, :1], clip.actions[:, 1:], limit=30.0)
    assert told.yaw_sign > 0.9
    backwards = clip.video.flip(1)
    reversed_ = read_back(
        examiner, backwards[:, 1:], backwards[:, :1], clip.actions.flip(1)[:, :-1], limit=30.0
    )
    assert reversed_.yaw_sign < 0.3


def test_the_examination_writes_its_report(system: NextFrame, toy_data: Path, tmp_path: Path) -> None:
    report = examine(system, Evaluate(str(toy_data), tmp_path, clips=3, frames=8, history=2), name="tiny")
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert set(report["psnr"]) == {"ceiling (codec)", "dream", "floor (copy last)"}
    assert list(report["psnr"]["dream"]) == ["1", "2", "4", "8"]
    assert (tmp_path / "sheet.png").stat().st_size > 0
    assert (tmp_path / "horizon.png").stat().st_size > 0


def test_the_default_examination_goes_as_far_as_the_walks(
    system: NextFrame, toy_data: Path, tmp_path: Path
) -> None:
    report = examine(system, Evaluate(str(toy_data), tmp_path, clips=2), name="tiny")
    assert (report["walks"], list(report["psnr"]["dream"])) == (2, ["1", "2", "4", "8"])


def test_what_cannot_be_examined_is_named(system: NextFrame, toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"longest walk has 12 frames and 68 are needed: .* `--frames`"):
        examine(system, Evaluate(str(toy_data), tmp_path, frames=64), name="tiny")
    with pytest.raises(ValueError, match=r"longest walk has 12 frames and 13 are needed: .* `--history`"):
        examine(system, Evaluate(str(toy_data), tmp_path, history=12), name="tiny")
    codec = Autoencode(autoencode_doom())
    with pytest.raises(ValueError, match="cannot go on frame after frame"):
        examine(codec, Evaluate(str(toy_data), tmp_path), name="codec")


def test_control_is_told_by_horizon(system: NextFrame, toy_data: Path, tmp_path: Path) -> None:
    examiner = Inverse(InverseConfig(buttons=5, axes=2, width=8))
    asked = Evaluate(str(toy_data), tmp_path, clips=2, frames=8, history=2)
    report = examine(system, asked, name="tiny", examiner=examiner)
    assert set(report["control"]) == {"dream, 4 frames", "real, 4 frames"}
