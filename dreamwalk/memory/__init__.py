"""What a session recalls from outside its window, and where its camera stands."""

from __future__ import annotations

from collections.abc import Callable

from dreamwalk.memory.contract import WindowConfig
from dreamwalk.memory.frame_memory import BankConfig
from dreamwalk.memory.neural_map import NeuralMapConfig, home_map
from dreamwalk.memory.points import PointsConfig
from dreamwalk.memory.points_and_bank import PointsAndBankConfig
from dreamwalk.memory.posed_bank import PosedBankConfig
from dreamwalk.memory.recurrent import RecurrentConfig

MemoryConfig = (
    WindowConfig
    | NeuralMapConfig
    | PointsConfig
    | BankConfig
    | PointsAndBankConfig
    | RecurrentConfig
    | PosedBankConfig
)
"""Memories that weight files may name; any config with `build(sizes) -> MemoryModel` trains and plays."""

MEMORIES: dict[str, Callable[[], MemoryConfig]] = {
    "window": WindowConfig,
    "map": home_map,
    "points": PointsConfig,
    "bank": BankConfig,
    "points-and-bank": PointsAndBankConfig,
    "recurrent": RecurrentConfig,
}
"""Those that `dreamwalk train --system.memory` knows."""
