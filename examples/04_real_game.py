"""The real game: walk in Doom, and turn its depth into points of the world.

python examples/04_real_game.py --steps 30
"""

from contextlib import closing
from dataclasses import dataclass

import numpy as np
import tyro

from dreamwalk.cameras import project, unproject
from dreamwalk.worlds.doom import Doom


@dataclass(frozen=True)
class Options:
    """Which level, and how far to walk in it."""

    level: str = "home"
    steps: int = 30


def main(options: Options) -> None:
    with closing(Doom(options.level)) as world:
        _, info = world.reset(seed=0)
        clouds = []
        for _ in range(options.steps):
            _, _, _, _, info = world.step(world.actions.action(["forward"], yaw=6.0))
            camera = {key: info[key] for key in ("intrinsics", "world_from_camera")}
            points = unproject(info["depth"], **camera)
            clouds.append(points[info["depth"] > 0])
    cloud = np.concatenate(clouds)
    low, high = cloud.min(axis=0).round().astype(int), cloud.max(axis=0).round().astype(int)
    print(f"{len(cloud)} points from {low.tolist()} to {high.tolist()} (X east, Y north, Z up)")
    pixels, depth = project(clouds[-1], **camera)
    print(f"seen again from the last pose: x {pixels[:, 0].min():.1f} .. {pixels[:, 0].max():.1f}, "
          f"depth {depth.min():.0f} .. {depth.max():.0f}")  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options))
