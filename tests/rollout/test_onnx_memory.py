from dataclasses import replace
from typing import Any

import pytest
import torch

from dreamwalk.clip import Clip
from dreamwalk.memory import BankConfig, PointsAndBankConfig
from dreamwalk.memory.contract import CameraState
from dreamwalk.rollout.onnx import OnnxPass
from dreamwalk.systems import forcing

SIDE = 32
MEMORIES = {
    "projected": BankConfig(encoding="projected"),
    "prope": BankConfig(encoding="prope"),
    "pluecker": BankConfig(encoding="pluecker"),
    "points-and-bank": PointsAndBankConfig(),
}


def walk(frames: int) -> Clip:
    """Along x past random pictures of a wall 200 units away."""
    generator = torch.Generator().manual_seed(frames)
    poses = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 40], [0, 0, 0, 1]]).repeat(1, frames, 1, 1)
    poses[:, :, 0, 3] = torch.arange(frames) * 20.0
    intrinsics = torch.tensor([[16.0, 0, 16], [0, 16, 16], [0, 0, 1]]).repeat(1, frames, 1, 1)
    video = torch.randint(0, 256, (1, frames, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    depth, times = torch.full((1, frames, SIDE, SIDE), 200.0), torch.arange(frames)[None]
    return Clip(video, torch.zeros(1, frames, 7), poses, intrinsics, depth, times=times)


@torch.inference_mode()
@pytest.mark.parametrize("name", MEMORIES)
def test_onnx_equals_eager_when_something_is_recalled(name: str) -> None:
    torch.manual_seed(0)
    memory: Any = MEMORIES[name]
    config = replace(forcing.tiny(), memory=memory, window=2)
    system = replace(config, codec=replace(config.codec, image_channels=4)).build()
    for parameter in system.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    fast, eager, clip = system.engine()[0], system.frame_pass(), walk(7)
    assert isinstance(fast, OnnxPass)
    session = system.begin(clip.first(6))
    session.move(CameraState.of_clip(clip, 6))
    recalled, cache = system._to_inputs(session, system._recall(session))
    assert recalled.keys is not None and recalled.visible is not None
    x, action = torch.randn(1, 1, *session.shape), clip.actions[:, 6:]
    films = []
    for found in (recalled, recalled._replace(keys=2 * recalled.keys), system.memory.blank):
        (v, fresh), (expected, kept) = (step(x, 0.7, action, cache, found) for step in (fast, eager))
        torch.testing.assert_close(v, expected, atol=1e-4, rtol=1e-4)
        for pair in zip(fresh, kept, strict=True):
            torch.testing.assert_close(*pair, atol=1e-4, rtol=1e-4)
        films.append(expected)
    seen = [not torch.allclose(film, films[0], atol=1e-2) for film in films[1:]]
    assert recalled.visible.any() and all(seen), "keys and values tell"
