"""Diffusion Forcing's masks in training: who sees whom is what plans mean by the same word."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toy import Toy

from dreamwalk.backbones.teacher_forcing import FrameInputs, teacher_forcing
from dreamwalk.clip import batch
from dreamwalk.errors import UserError
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.schedules.plans import MaskName, Pass
from dreamwalk.schedules.sigmas import shifted_sigmas
from dreamwalk.schedules.staircase import staircase
from dreamwalk.systems import forcing
from dreamwalk.systems.forcing import Forcing


def system_of(mask: MaskName, *, chunk: int = 2) -> Forcing:
    torch.manual_seed(0)
    system = Forcing(replace(forcing.tiny(), mask=mask, chunk=chunk))
    for parameter in system.backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return system


@pytest.mark.parametrize(
    ("mask", "chunk", "groups"),
    [
        ("causal", 2, [0, 1, 2, 3, 4, 5]),
        ("block", 2, [0, 1, 1, 2, 2, 3]),
        ("block", 3, [0, 1, 1, 1, 2, 2]),
        ("bidirectional", 2, [0] * 6),
    ],
)
def test_a_clip_is_seen_in_training_as_in_a_walk(
    mask: MaskName, chunk: int, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    system, seen = system_of(mask, chunk=chunk), []
    forward = system.backbone.forward

    def watched(*args: Tensor, visible: Tensor, **given: Tensor | None) -> Tensor:
        seen.append(visible)
        return forward(*args, visible=visible, **given)

    monkeypatch.setattr(system.backbone, "forward", watched)
    system.loss(batch(list(Toy(clip_frames=6).clips(range(1)))), KeyedGenerator([(0,)]))
    wanted = torch.tensor(groups)
    assert torch.equal(seen[0], wanted[:, None] >= wanted)
    plan = staircase(shifted_sigmas(2).tolist(), 5, lag=0, chunk=chunk, history=1, mask=mask)
    row = plan.rows[0]
    assert isinstance(row, Pass)
    planned = torch.tensor(row.reads[0].groups)
    assert torch.equal(planned[:, None] >= planned, seen[0])


@torch.no_grad()
def test_teacher_forcing_in_chunks() -> None:
    """A target sees the clean frames before its chunk and the noisy ones in it, and nothing else."""
    system = system_of("block").double()
    shown, noisy = torch.randn(2, 1, 4, 16, 4, 4).double()
    level, known = torch.full((1, 4), 0.5).double(), FrameInputs(torch.zeros(1, 5, 64).double())
    groups = system.groups(torch.zeros(1, 5))  # 0, 1, 1, 2, 2; the targets are frames 1 to 4

    def answers(shown: Tensor, noisy: Tensor) -> Tensor:
        return teacher_forcing(system.backbone, (shown, level / 10), (noisy, level), known, groups)

    before = answers(shown, noisy)
    for frame, felt in ((0, [1, 2, 3, 4]), (1, [3, 4]), (2, [3, 4]), (3, [])):
        other = shown.clone()
        other[:, frame] += 1
        assert changed(before, answers(other, noisy)) == felt
    for frame, felt in ((1, [1, 2]), (2, [1, 2]), (3, [3, 4]), (4, [3, 4])):
        other = noisy.clone()
        other[:, frame - 1] += 1
        assert changed(before, answers(shown, other)) == felt


def changed(before: Tensor, after: Tensor) -> list[int]:
    """Frames of targets that differ."""
    return (1 + ((before - after).abs().amax((0, 2, 3, 4)) > 0).nonzero()[:, 0]).tolist()


def test_a_system_of_chunks_is_sampled_in_its_chunks() -> None:
    assert system_of("block", chunk=3).schedule("chunks").chunk == 3
    assert system_of("causal", chunk=3).schedule("chunks").chunk == 4


def test_masks_that_cannot_be_trained_are_refused() -> None:
    with pytest.raises(UserError, match="take the mask `causal` or `block`"):
        replace(forcing.tiny(), training="teacher_forcing", mask="bidirectional")
    with pytest.raises(UserError, match="chunk must be a whole number from 1 up, got 0"):
        replace(forcing.tiny(), chunk=0)
    with pytest.raises(UserError, match="no mask 'blocks'"):
        replace(forcing.tiny(), mask="blocks")
