import itertools
from dataclasses import replace

import pytest
import torch
from toy import Toy

from dreamwalk.backbones.memory_stdit import MemoryCache, MemorySTDiTConfig
from dreamwalk.clip import batch
from dreamwalk.errors import UserError
from dreamwalk.memory.contract import (
    CameraState,
    FinishedFrame,
    MemoryModel,
    NoStore,
    RecalledFrames,
    Recollection,
)
from dreamwalk.rollout.realtime import extended
from dreamwalk.rollout.streaming import finished_frames
from dreamwalk.systems import forcing


class FirstFrame(NoStore):
    """Recalls the first frame of the session for ever."""

    recalled = Recollection()

    def write(self, frame: FinishedFrame) -> None:
        if frame.time == 0:
            first = frame.latents[:, None], frame.action[:, None]
            poses = None if frame.camera is None else frame.camera.pose[:, None]
            self.recalled = Recollection(frames=RecalledFrames(*first, times=(0,), sigma=0.02, poses=poses))

    def recall(self, camera: object, time: int) -> Recollection:
        return self.recalled


class FirstFrameConfig(MemoryModel):
    recalls_frames = True

    def build(self, sizes: object) -> MemoryModel:
        return self

    def begin(self) -> FirstFrame:
        return FirstFrame(self)


@torch.inference_mode()
def test_it_changes_what_is_dreamt_once_the_window_has_passed() -> None:
    start, actions, films = batch(list(Toy(clip_frames=1).clips(range(1)))), torch.zeros(1, 8, 7), []
    for memory in (forcing.tiny().memory, FirstFrameConfig()):
        torch.manual_seed(0)
        system = replace(forcing.tiny(), window=3, memory=memory).build()  # type: ignore[arg-type]
        for zero in (p for p in system.backbone.parameters() if not p.any()):
            torch.nn.init.normal_(zero, std=0.1)
        session = system.begin(start)
        played = [system.advance(session, actions[:, i]) for i in range(8)]
        steps = system.stream(start, actions, schedule=system.schedule("next-frame"))
        films.append([torch.cat(played, 1), torch.cat(list(finished_frames(steps, 8)), 1)])
    for plain, recalled in zip(*films, strict=True):
        assert torch.equal(plain[:, :2], recalled[:, :2]), "the window still holds the first frame"
        assert not torch.allclose(plain[:, 4:], recalled[:, 4:], atol=1e-3)
    torch.testing.assert_close(*films[1], atol=1e-2, rtol=1e-2)


@torch.inference_mode()
def test_a_part_of_the_backbone_sees_it_from_the_camera() -> None:
    """What is recalled changes what is dreamt, and so does where it is seen from; without a camera nothing is
    recalled."""
    torch.manual_seed(0)
    config, memory = forcing.tiny(), FirstFrameConfig()
    backbone = MemorySTDiTConfig(config.backbone.channels, config.backbone.grid, 32, 2, 2, patch=1)
    config = replace(config, backbone=backbone, memory=memory)  # type: ignore[arg-type]
    system, start = config.build().eval(), batch(list(Toy(clip_frames=1).clips(range(1))))
    for zero in (p for p in system.backbone.parameters() if not p.any()):
        torch.nn.init.normal_(zero, std=0.1)
    posed = replace(start, world_from_camera=torch.eye(4)[None, None], intrinsics=torch.eye(3)[None, None])
    here, actions = CameraState.of_clip(posed, 0), torch.rand(1, 3, 7)
    assert here is not None
    there = replace(here, pose=here.pose.clone())
    there.pose[:, :3, 3] = 3
    dreams = []
    for camera in (None, here, there):
        session = system.begin(start if camera is None else posed)
        frames = [system.advance(session, actions[:, i], camera=camera) for i in range(3)]
        dreams.append(torch.cat(frames, 1))
        behind = extended(session, session.memory.recall(camera, 4).frames, system.actions, system.backbone)
        assert isinstance(behind, MemoryCache) is (camera is not None) and behind.frames == 4
    for one, other in itertools.combinations(dreams, 2):
        assert not torch.allclose(one, other, atol=1e-3)
    with pytest.raises(UserError, match="it sees frame by frame: walk in it"):
        next(system.stream(start, actions, schedule=system.schedule("next-frame")))
