"""Train on a game of your own: wrap it, collect clips, train a few steps, and load what came out.

python examples/03_train_your_own.py --out runs/cartpole --steps 20
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import dreamwalk
from dreamwalk.data.game_walks import GameWalks
from dreamwalk.data.writing import write_clips
from dreamwalk.systems import nextframe
from dreamwalk.systems.autoencode import AutoencodeConfig
from dreamwalk.training.fit import fit
from dreamwalk.training.run import OptimConfig, Run


@dataclass(frozen=True)
class Options:
    """Any gymnasium id works; give more frames and steps to see more than a blur."""

    game: str = "CartPole-v1"
    out: Path = Path("runs/cartpole")
    frames: int = 400
    steps: int = 20


def main(options: Options) -> None:
    data = options.out / "data"
    walks = GameWalks(id=options.game, frames=options.frames, clip_frames=8, size=(32, 32))
    write_clips(walks, len(walks), data)
    tiny = nextframe.tiny()  # how many actions and how large a frame: `fit` reads that from the data
    codec = Run(
        "autoencode.mine", AutoencodeConfig(codec=tiny.codec), str(data),
        frames=2, batch=8, steps=options.steps,
    )  # fmt: skip
    fit(codec, options.out / "codec")
    dream = Run(
        "nextframe.mine", tiny, str(data), codec=str(options.out / "codec"), frames=6, batch=8,
        steps=options.steps, optim=OptimConfig(lr=1e-3, warmup=5),
    )  # fmt: skip
    weights = fit(dream, options.out / "dream")
    world = dreamwalk.load(weights).world(seed=0)
    world.reset(seed=0)
    frame = world.step(world.actions.action())[0]
    print(f"a dream of {frame.shape[0]}x{frame.shape[1]} pixels: dreamwalk play {options.out / 'dream'}")


if __name__ == "__main__":
    main(tyro.cli(Options))
