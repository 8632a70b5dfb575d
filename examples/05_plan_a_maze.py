"""Plan with Diffusion Forcing: learn the ways of a maze as videos of one pixel, then dream some to a goal.

python examples/05_plan_a_maze.py --png plans.png
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from dreamwalk.backbones.frame_backbone import FrameInputs
from dreamwalk.backbones.framedit import FrameDiT, FrameDiTConfig
from dreamwalk.rollout import execute, frame_predictor, planning
from dreamwalk.schedules import flow, sigmas, staircase, training
from dreamwalk.worlds.mazes import Maze

MAZE, LENGTH, NOTHING, ALL = Maze(), 16, torch.zeros(1, 1, 64), torch.ones(16, 16, dtype=torch.bool)


@dataclass(frozen=True)
class Options:
    """How long to learn, and what to plan: lag (0: all waypoints at once), weight and samples of guidance."""

    train: int = 3000
    pairs: int = 200
    plans: tuple[tuple[int, float, int], ...] = ((0, 0, 1), (0, 40, 1), (4, 0, 1), (4, 40, 8), (4, 40, 1))
    png: Path = Path("plans.png")


def main(options: Options) -> None:
    torch.manual_seed(0)
    net = FrameDiT(FrameDiTConfig(2, (1, 1), 64, depth=3, heads=2, qk_norm=True, predicts="clean"))
    optim = torch.optim.AdamW(net.parameters())
    decay = torch.optim.lr_scheduler.OneCycleLR(optim, 2e-3, total_steps=options.train, pct_start=0.05)
    ways = torch.from_numpy(MAZE.walks(0, 8000, LENGTH))[..., None, None]
    for _ in range(options.train):
        x, sigma = ways[torch.randint(len(ways), (64,))], (1.1 * torch.rand(64, LENGTH)).clamp(max=1)
        sigma[:32, 0] = 0  # half of the time one knows where one starts
        noisy = flow.add_noise(x, torch.randn_like(x), sigma)
        error = flow.denoised(noisy, net(noisy, sigma, NOTHING, visible=ALL), sigma) - x
        (training.snr_weight(sigma, floor=0.2) * error.square().mean((2, 3, 4))).mean().backward()
        optim.step(), decay.step(), optim.zero_grad()
    start, *_, goal = torch.from_numpy(MAZE.walks(1, options.pairs, LENGTH))[..., None, None].unbind(1)
    model = frame_predictor.FramePredictor(net.requires_grad_(False), lambda _: FrameInputs(NOTHING))
    eps, grid = execute.KeyedNoise(tuple(range(len(goal))), (2, 1, 1)), sigmas.shifted_sigmas(32).tolist()
    for lag, *guide in options.plans:
        plan = staircase.staircase(grid, LENGTH - 1, lag=lag, history=1, mask="bidirectional")
        aim = planning.RewardGuidance(model, lambda x: -(x[:, -1] - goal).pow(2).sum((1, 2, 3)), eps, *guide)
        path = execute.execute(planning.foreseen(plan), aim, eps, given=start[:, None])[..., 0, 0].numpy()
        there, through = MAZE.arrives(path, goal[..., 0, 0].numpy()).mean(), MAZE.crosses(path).any(1).mean()
        print(f"lag {lag}, weight and samples {guide}: {there:.1%} arrive, {through:.1%} cross a wall")
    Image.fromarray(np.hstack(list(map(MAZE.picture, path[:6], goal[:6, :, 0, 0].numpy())))).save(options.png)


if __name__ == "__main__":
    main(tyro.cli(Options))
