"""Training in its shortest form, to learn one clip by heart."""

import torch

from dreamwalk.clip import Clip
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.system import System


def learn(
    system: System, clip: Clip, *, steps: int, lr: float = 3e-3, same_chance: bool = False
) -> list[dict[str, float]]:
    """The terms of the loss at each step, at a rate that falls to a tenth; with `same_chance` all steps draw
    alike."""
    learnt = [p for p in system.parameters() if p.requires_grad]
    optimizer, told = torch.optim.AdamW(learnt, lr=lr, betas=(0.9, 0.99)), []
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
    for step in range(steps):
        keys = [(0, 0 if same_chance else step, row) for row in range(len(clip.video))]
        terms = system.loss(clip, KeyedGenerator(keys))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        schedule.step()
        told.append({name: float(term.detach()) for name, term in terms.items()})
    return told


def fallen(told: list[dict[str, float]], *, over: int = 1, term: str = "loss") -> float:
    """The mean of a term over the last steps, as a share of that over the first."""
    values = [terms[term] for terms in told]
    return sum(values[-over:]) / sum(values[:over])
