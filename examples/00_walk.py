"""Open a dream, walk through it for a while, and keep what was seen as an animated picture.

python examples/00_walk.py --out walk.gif
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image

import dreamwalk


@dataclass(frozen=True)
class Options:
    """Where to walk, and where the film goes."""

    system: str = "nextframe.doom"
    """Shipped weights, a weight file or a run folder."""
    out: Path = Path("walk.gif")
    frames: int = 60
    seed: int = 7


def main(options: Options) -> None:
    world = dreamwalk.load(options.system).world(seed=options.seed)
    frame, _ = world.reset(seed=options.seed)
    frames = [frame]
    for k in range(options.frames - 1):
        turn = 10.0 if k % 30 < 12 else 0.0  # look to the right for a second, then go straight on
        frame, _, _, _, _ = world.step(world.actions.action(["forward"], yaw=turn))
        frames.append(frame)
    pictures = [Image.fromarray(frame).resize((384, 288), Image.Resampling.LANCZOS) for frame in frames]
    pictures[0].save(
        options.out, save_all=True, append_images=pictures[1:], duration=1000 / world.fps, loop=0
    )
    milliseconds = sum(world.timings.values())
    print(f"{len(frames)} frames, the last one dreamt in {milliseconds:.0f} ms: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options))
