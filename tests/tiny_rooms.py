"""A tiny dream of levels from seeds, with a start in one of them."""

from dataclasses import replace

import numpy as np
import torch

from dreamwalk.backbones import framedit
from dreamwalk.codecs import patch
from dreamwalk.memory import MemoryConfig
from dreamwalk.rollout.dream import WorldSpec
from dreamwalk.systems import forcing
from dreamwalk.systems.forcing import Forcing
from dreamwalk.worlds.doom import DOOM_ACTIONS, Doom, start_of

SIZE = 24, 32


def tiny_rooms(memory: MemoryConfig) -> Forcing:
    """With random weights, in evaluation mode."""
    torch.manual_seed(0)
    config = replace(
        forcing.tiny(),
        codec=replace(patch.tiny(), image_channels=4),
        backbone=replace(framedit.tiny(), grid=(SIZE[0] // 8, SIZE[1] // 8)),
        memory=memory,
    )
    made = config.build().eval()
    level, pose = start_of("test", number=1)
    game = Doom(level, size=SIZE)
    frame, info = game.reset(seed=0, options={"pose": pose})
    game.close()
    spec = WorldSpec(DOOM_ACTIONS, 11.7, frame[None], info["world_from_camera"][None], info["intrinsics"])
    depths = info["depth"][None].astype(np.float16)
    made.world_spec = replace(spec, world="doom", level="procedural", depths=depths)
    return made
