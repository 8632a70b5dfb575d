"""An interactive system on a codec of video: one latent frame stands for several frames and their actions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from learning import fallen, learn
from toy import Toy

from dreamwalk.backbones.framedit import FrameDiTConfig
from dreamwalk.clip import Clip, batch
from dreamwalk.codecs.block import BlockCodecConfig
from dreamwalk.codecs.causal import CausalVAEConfig
from dreamwalk.data.walks import Walk
from dreamwalk.errors import UserError
from dreamwalk.rollout.dream import WorldSpec
from dreamwalk.rollout.execute import euler
from dreamwalk.rollout.streaming import finished_frames
from dreamwalk.schedules.guidance import unguided
from dreamwalk.systems import forcing
from dreamwalk.systems.forcing import Forcing
from dreamwalk.systems.scheduled import scheduled_frames
from dreamwalk.worlds.doom import DOOM_ACTIONS

CAUSAL = CausalVAEConfig(
    4, (8, 8, 8), 1, norm="position", attention="frame", scale=1.0, patch=2, strides=((2, 2, 2), (2, 2, 2))
)
BLOCK = BlockCodecConfig(stride=(2, 8, 8), channels=16, cell=4, width=8)
GRIDS = {CAUSAL: (4, 4), BLOCK: (4, 4)}


@pytest.fixture(params=[CAUSAL, BLOCK], ids=["causal", "block"])
def system(request: pytest.FixtureRequest) -> Forcing:
    torch.manual_seed(0)
    codec = request.param
    backbone = FrameDiTConfig(codec.channels, GRIDS[codec], width=32, depth=2, heads=2, predicts="clean")
    return Forcing(replace(forcing.tiny(), codec=codec, backbone=backbone))


@pytest.fixture
def clip() -> Clip:
    return batch(list(Toy(clip_frames=9).clips(range(2))))


def test_it_learns_a_clip(system: Forcing, clip: Clip) -> None:
    assert fallen(learn(system, clip, steps=80), over=15) < 0.7


@pytest.mark.parametrize("name", ["chunks", "next-frame", "pyramid"])
def test_it_is_sampled_on_schedules(system: Forcing, clip: Clip, name: str) -> None:
    steps = system.stream(clip.first(1), clip.actions[:, 1:], schedule=system.schedule(name))
    count = system.codec.latent_frames(9)
    latents = torch.cat([system.encode(clip.first(1)), *finished_frames(steps, count - 1)], 1)
    assert latents.shape[:2] == (2, count) and latents.isfinite().all()
    assert system.codec.decode(latents, 9).shape == clip.video.shape
    assert system.preview(clip).shape == clip.video.shape


def test_every_action_reaches_the_latent_of_its_frame_and_no_earlier_one(system: Forcing, clip: Clip) -> None:
    stride, count = system.codec.stride[0], system.codec.latent_frames(9)
    before = system.actions(clip.actions)
    assert before.shape[:2] == (2, count)
    for frame in range(9):
        changed = clip.actions.clone()
        changed[:, frame] += 1
        moved = (system.actions(changed) - before).abs().amax((0, 2)).nonzero().flatten().tolist()
        assert moved == [-(-frame // stride)]


def test_there_is_no_next_frame_to_play(system: Forcing, clip: Clip) -> None:
    session = system.begin(clip.first(1))
    with pytest.raises(UserError, match=r"one latent of [24] frames: dream on a schedule"):
        system.advance(session, clip.actions[:, 0])


def test_it_is_filmed_on_a_schedule(system: Forcing, clip: Clip) -> None:
    starts = clip.video[:1, 0].permute(0, 2, 3, 1).numpy()
    poses, intrinsics = clip.world_from_camera[:1, 0].numpy(), clip.intrinsics[0, 0].numpy()
    system.world_spec = WorldSpec(DOOM_ACTIONS, 10.0, starts, poses, intrinsics)
    actions = clip.actions[0, 1:].numpy()
    keys = {"buttons": DOOM_ACTIONS.buttons, "axes": DOOM_ACTIONS.axes, "actions": actions}
    walk = Walk(seed=0, fps=10.0, steps=0, start={"start": 0}, **keys)
    schedule = system.schedule("chunks")
    frames = list(scheduled_frames(system, system.world(), walk, schedule, update=euler, guide=unguided))
    assert len(frames) == 9 and {frame.shape for frame in frames} == {(32, 32, 3)}
    assert np.array_equal(frames[0], starts[0])
