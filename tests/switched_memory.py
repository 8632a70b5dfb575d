"""What any memory of frames shows in the page: its places on the map, and nothing while it is off."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dreamwalk.serve import LevelMap
from dreamwalk.serve.world_pair import WorldPair


def assert_on_the_map(drawn: LevelMap, places: Iterable[tuple[float, ...]]) -> None:
    side = drawn.picture.shape[0] * drawn.scale
    for x, y, _ in places:
        assert drawn.left <= x <= drawn.left + side and drawn.top - side <= y <= drawn.top


def assert_switched(pair: WorldPair, action: np.ndarray, *, slots: int, kept: int) -> None:
    """Off, nothing is recalled, at once and after a step, and all is kept; on again something is."""
    pair.recall(False)
    strip = pair.strip()
    assert strip and strip.recalled == (None,) * slots
    pair.advance(action)
    strip = pair.strip()
    assert strip and strip.recalled == (None,) * slots and strip.kept == kept
    pair.recall(True)
    pair.advance(action)
    strip = pair.strip()
    assert strip and any(strip.recalled)
