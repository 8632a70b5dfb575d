from dataclasses import replace

import torch
from wall_walk import walk

from dreamwalk.memory.frame_memory import BankConfig
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems import worldmem


def test_it_overfits_a_clip() -> None:
    torch.manual_seed(0)
    config, memory = worldmem.tiny(), BankConfig(frames=2, empty_prob=0.0, dreamed_prob=0.0)
    system = replace(config, memory=memory).build()
    clip = walk(8, past=True, rows=2)
    optimizer = torch.optim.AdamW(system.parameters(), lr=3e-3)
    errors = []
    for _ in range(100):
        loss = system.loss(clip, KeyedGenerator([(0, 0, 0), (0, 0, 1)]))
        loss["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        errors.append(float(loss["error"]))
    assert sum(errors[-10:]) < 0.2 * sum(errors[:10])
