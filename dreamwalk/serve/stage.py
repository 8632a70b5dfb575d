"""What one server shows: a dream, the real game or both, and a gallery of places to begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dreamwalk.world import World


@dataclass(frozen=True)
class Start:
    """One place to begin, as the gallery shows it."""

    name: str
    thumbnail: np.ndarray
    """uint8 `(h, w, 3)`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Given to `World.reset(options=...)` of the dream and of the game, such as `{"start": 3}`."""

    def __post_init__(self) -> None:
        thumbnail = np.asarray(self.thumbnail)
        if thumbnail.dtype != np.uint8 or thumbnail.ndim != 3 or thumbnail.shape[2] != 3:
            raise ValueError(f"the thumbnail of '{self.name}' must be uint8 (h, w, 3), got {thumbnail.shape}")


@dataclass(frozen=True)
class Stage:
    """What one server shows. Each browser tab gets worlds of its own from the two factories."""

    title: str
    """Name of what is shown, such as `nextframe.doom`; it is also the `system` of saved walks."""
    dream: Callable[[], World] | None = None
    """A fresh dream; the weights are shared inside. Called in the session's own thread."""
    game: Callable[[], World] | None = None
    """A fresh real game, which may take a while to open. Called in the session's own thread."""
    starts: list[Start] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    """Lines of the about panel: what this is, minutes of training, hardware."""
    schedules: dict[str, Callable[[int, int], Iterator[np.ndarray]]] = field(default_factory=dict)
    """By name: from the index of a start and a seed to pictures of frames under way, row after row."""

    def __post_init__(self) -> None:
        if self.dream is None and self.game is None:
            raise ValueError("a stage needs a dream, a game or both: there is nothing to show")
