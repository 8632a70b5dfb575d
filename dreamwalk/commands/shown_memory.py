"""What the page of a dream shows of its memory: a map from above, and the frames that a bank recalls."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from dreamwalk.memory.bank_view import (
    RecalledUnit,
    banks_of,
    empty_map,
    kept_stands,
    recalled_units,
    stands_of,
    unit_of,
)
from dreamwalk.memory.frame_memory import BankMemory
from dreamwalk.memory.level_map import draw_map
from dreamwalk.memory.points import Clouds, PointsMemory
from dreamwalk.memory.points_and_bank import PointsAndBank
from dreamwalk.memory.posed_bank import PosedBankMemory
from dreamwalk.memory.session_rows import SessionBanks
from dreamwalk.rollout.dream import Dream, decode_frame
from dreamwalk.serve import CloudSample, DreamMemory, LevelMap, MemoryStrip, RecalledPicture
from dreamwalk.systems.interactive import Interactive
from dreamwalk.world import World

PICTURES = 64
"""Recalled frames of which the pictures are kept: most are recalled again."""


def dream_memory(system: Interactive) -> DreamMemory | None:
    """How a memory of points, of frames or of both is shown and switched; None for other memories."""
    has_bank = isinstance(system.memory, PointsAndBank | BankMemory | PosedBankMemory)
    if not has_bank and not isinstance(system.memory, PointsMemory):
        return None
    cloud = _sampled if isinstance(system.memory, PointsMemory) else None
    return DreamMemory(_drawn, _switch, _strip_of(system) if has_bank else None, cloud)


def _memory(world: World) -> Clouds | SessionBanks:
    assert isinstance(world, Dream) and isinstance(world.session.memory, Clouds | SessionBanks)
    return world.session.memory


def _switch(world: World, recalling: bool) -> None:
    _memory(world).recalling = recalling


def _drawn(world: World) -> LevelMap | None:
    """The cloud from above, and where frames of the bank were kept."""
    assert isinstance(world, Dream)
    kept, camera = _memory(world), world.session.camera
    banks = banks_of(kept)
    if camera is None or not kept.rows:
        return None
    stands = np.zeros((0, 3)) if banks is None else kept_stands(banks)
    if isinstance(kept, Clouds):
        picture, place = draw_map(kept.rows[0], camera.pose[0, :3, 3], highest=kept.highest)
    else:
        picture, place = empty_map(np.concatenate([stands, stands_of(camera.pose[:1])]), unit_of(banks))
    recalled = [] if banks is None else recalled_units(kept)
    marks = [None if unit is None else _standing(stands_of(unit.pose[None])[0]) for unit in recalled]
    return LevelMap(picture, *place, places=tuple(map(_standing, stands)), recalled=tuple(marks))


def _sampled(world: World, every: int) -> CloudSample | None:
    """Some points of the cloud, and who looks at them."""
    assert isinstance(world, Dream)
    kept, camera = _memory(world), world.session.camera
    if camera is None or not isinstance(kept, Clouds) or not kept.rows:
        return None
    position, rgb, footprint = (part.cpu().numpy() for part in kept.rows[0].sample(every))
    focal = float(camera.intrinsics[0, 1, 1]) / kept.model.sizes.pixels[0]
    return CloudSample(position.T, rgb.T, footprint, camera.pose[0, :3, 3].cpu().numpy(), focal)


def _standing(stand: np.ndarray) -> tuple[float, float, float]:
    x, y, heading = stand.tolist()
    return x, y, heading


def _strip_of(system: Interactive) -> Callable[[World], MemoryStrip | None]:
    """The strip of a dream of this system; pictures of recalled frames are decoded once."""

    @lru_cache(maxsize=PICTURES)
    def picture(data: bytes, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> np.ndarray:
        latent = torch.frombuffer(bytearray(data), dtype=dtype).view(1, 1, *shape)
        return decode_frame(latent.to(device), system.codec.decode)

    def recalled(unit: RecalledUnit) -> RecalledPicture:
        latent = unit.latent.cpu().contiguous()
        data = latent.view(torch.uint8).numpy().tobytes()
        shown = picture(data, latent.dtype, tuple(latent.shape), unit.latent.device)
        return RecalledPicture(shown, unit.age, unit.covers, unit.dreamed)

    def strip(world: World) -> MemoryStrip | None:
        memory = _memory(world)
        banks = banks_of(memory)
        assert banks is not None
        kept = len(banks.rows[0]) if banks.rows else 0
        units = recalled_units(memory)
        budget = banks.model.config.budget.frames
        return MemoryStrip(tuple(unit and recalled(unit) for unit in units), kept, budget)

    return strip
