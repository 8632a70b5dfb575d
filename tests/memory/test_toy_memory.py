from dataclasses import replace

import torch
from toy import Toy

from dreamwalk.clip import batch
from dreamwalk.memory.contract import FinishedFrame, MemoryModel, NoStore, RecalledFrames, Recollection
from dreamwalk.rollout.streaming import finished_frames
from dreamwalk.systems import forcing


class FirstFrame(NoStore):
    """Recalls the first frame of the session for ever."""

    recalled = Recollection()

    def write(self, frame: FinishedFrame) -> None:
        if frame.time == 0:
            first = frame.latents[:, None], frame.action[:, None]
            self.recalled = Recollection(frames=RecalledFrames(*first, times=(0,), sigma=0.02))

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
