"""What a session recalls from outside its window, and where its camera stands."""

from __future__ import annotations

from collections.abc import Callable

from dreamwalk.memory.contract import WindowConfig
from dreamwalk.memory.latent_pose import LatentPoseConfig
from dreamwalk.memory.neural_map import NeuralMapConfig, home_map
from dreamwalk.memory.points import PointsConfig

MemoryConfig = WindowConfig | NeuralMapConfig | PointsConfig | LatentPoseConfig
"""Memories that weight files may name; any config with `build(sizes) -> MemoryModel` trains and plays."""

MEMORIES: dict[str, Callable[[], MemoryConfig]] = {
    "window": WindowConfig,
    "map": home_map,
    "points": PointsConfig,
}
"""Those that `dreamwalk train --system.memory` knows."""
