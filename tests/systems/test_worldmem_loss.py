from dataclasses import replace

import torch
from learning import fallen, learn
from wall_walk import walk

from dreamwalk.memory.frame_memory import BankConfig
from dreamwalk.systems import worldmem


def test_it_overfits_a_clip() -> None:
    torch.manual_seed(0)
    config, memory = worldmem.tiny(), BankConfig(frames=2, empty_prob=0.0, dreamed_prob=0.0)
    system = replace(config, memory=memory).build()
    clip = walk(8, past=True, rows=2)
    told = learn(system, clip, steps=100, same_chance=True)
    assert fallen(told, over=10, term="error") < 0.2
