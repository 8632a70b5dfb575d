"""Configuration of the page: a dream, the real game or both, with a gallery; or clips; or scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from dreamwalk.errors import UserError
from dreamwalk.serve.protocol import Picture, Seed
from dreamwalk.serve.scene_config import Scenes
from dreamwalk.validation import Steps
from dreamwalk.world import ActionSchema, World


@dataclass(frozen=True)
class GalleryStart:
    """One place to begin, as the gallery shows it."""

    name: str
    thumbnail: np.ndarray
    """uint8 `(h, w, 3)`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Given to `World.reset(options=...)` of the dream and of the game, such as `{"start": 3}`."""

    def __post_init__(self) -> None:
        thumbnail = np.asarray(self.thumbnail)
        if thumbnail.dtype != np.uint8 or thumbnail.ndim != 3 or thumbnail.shape[2] != 3:
            raise UserError(f"the thumbnail of '{self.name}' must be uint8 (h, w, 3), got {thumbnail.shape}")


class WebClipRequest(msgspec.Struct, frozen=True):
    """A clip that a page asks for."""

    prompt: str = ""
    negative: str = ""
    """What the clip should not show."""
    seed: Seed = 0
    steps: Steps | None = None
    """Denoising steps; None: as many as `Clips.steps`."""
    image: Picture | None = None
    """Its first frame, uint8 `(h, w, 3)`, of any size until `parse_clip_request` has cut it."""


@dataclass(frozen=True)
class Progress:
    """A clip under way, after `step` of `steps`."""

    step: int
    steps: int
    frames: np.ndarray | None = None
    """uint8 `(t, h, w, 3)`: at the last step the whole clip; before it, now and then, some first frames as
    they are imagined so far."""


@dataclass(frozen=True)
class Clips:
    """A generator of clips from text, and what the form of the page has to know of it."""

    make: Callable[[WebClipRequest], Iterator[Progress]]
    """Called in a thread, for one request at a time; it is dropped between two steps when nobody waits."""
    size: tuple[int, int]
    """Height and width in pixels."""
    fps: float
    steps: int
    """Denoising steps unless asked for otherwise."""
    longest: int | None = 192
    """Bytes of a prompt, at most; None where they are not what is counted."""
    check: Callable[[str], None] = lambda text: None
    """UserError for a text that cannot be read, or not all of it."""
    examples: tuple[str, ...] = ()
    """Prompts to begin with."""
    vocabulary: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By title, the phrases that the model was trained on; empty where that is not known."""


@dataclass(frozen=True)
class Levels:
    """Levels that are made when somebody begins there, each from a number."""

    open: Callable[[int], tuple[World, dict[str, Any]]]
    """The real game on a level, and the options of its reset; called in the session's own thread."""
    most: int = 999_999
    """The largest number; the smallest is 0."""
    around: Callable[[World, dict[str, Any]], list[dict[str, Any]]] | None = None
    """What else is seen from where the reset with these options begins: pictures with depth and cameras."""

    def check(self, number: int) -> int:
        """The number; UserError when there is no such level."""
        if not 0 <= number <= self.most:
            raise UserError(f"a level is a whole number from 0 to {self.most:,}, not {number}")
        return number


Standing = tuple[float, float, float]
"""x and y in world units and heading in degrees, 90 being towards +y."""


@dataclass(frozen=True)
class LevelMap:
    """What a dream knows, from above."""

    picture: np.ndarray
    """uint8 `(h, w, 4)`, transparent where nothing is known; +y of the world is up."""
    left: float
    """x of its left edge in world units."""
    top: float
    """y of its upper edge."""
    scale: float
    """World units of a pixel."""
    places: tuple[Standing, ...] = ()
    """Where frames of a bank were kept."""
    recalled: tuple[Standing | None, ...] = ()
    """Where those were kept that are recalled, as in a `MemoryStrip`."""


@dataclass(frozen=True)
class RecalledPicture:
    """A frame that is recalled, and why."""

    picture: np.ndarray
    """uint8 `(h, w, 3)`."""
    age: int
    """Frames since it was shown."""
    covers: float
    """Share of the newest frame that it shows; by a bank with depth, of what those before it do not."""
    dreamed: bool
    """Whether it was made by the dream, and not given."""


@dataclass(frozen=True)
class MemoryStrip:
    """What a dream with a bank of frames recalls for the newest frame."""

    recalled: tuple[RecalledPicture | None, ...]
    """Always as many, the one that shows most first; None where there is none."""
    kept: int
    """Frames in the bank."""
    budget: int | None
    """The most that it keeps; None for no bound."""


@dataclass(frozen=True, eq=False)
class CloudSample:
    """Some of the slots of the points that a dream keeps, by number; a slot may be empty, or be used anew."""

    position: np.ndarray
    """World coordinates, float32 `(n, 3)`, +z up; inf in slots without a point."""
    colours: np.ndarray
    """uint8 `(n, 3)`."""
    footprints: np.ndarray
    """World size of the pixel that saw each, float32 `(n,)`."""
    eyes: np.ndarray
    """World coordinates of the walker, `(3,)`."""
    focal: float
    """Focal length of the walker's camera, in heights of the picture."""

    def thinned(self, every: int) -> CloudSample:
        """Every so many-th slot of these."""
        parts = self.position[::every], self.colours[::every], self.footprints[::every]
        return CloudSample(*parts, self.eyes, self.focal)


@dataclass(frozen=True)
class DreamMemory:
    """The memory of a dream that keeps what it has shown: it can be drawn, and switched off."""

    draw: Callable[[World], LevelMap | None]
    """The map of a dream under way; None where it has kept nothing."""
    recall: Callable[[World, bool], None]
    """Whether a dream under way is told what was kept; keeping goes on in any case."""
    strip: Callable[[World], MemoryStrip | None] | None = None
    """What is recalled for the newest frame; None for a memory without a bank of frames."""
    cloud: Callable[[World, int], CloudSample | None] | None = None
    """Every so many-th slot of the points of a dream under way; None for a memory without points."""


def shown_of(memory: DreamMemory | None) -> dict[str, bool]:
    """Which parts of a memory, beside the map, a page can show."""
    return {part: getattr(memory, part, None) is not None for part in ("strip", "cloud")}


@dataclass(frozen=True)
class AppConfig:
    """What the page shows. Each browser tab gets worlds of its own from the two factories."""

    title: str
    """Name of what is shown, such as `nextframe.doom`; it is also the `system` of saved walks."""
    dream: Callable[[], World] | None = None
    """A fresh dream; the weights are shared inside. Called in the session's own thread."""
    game: Callable[[], World] | None = None
    """A fresh real game, which may take a while to open. Called in the session's own thread."""
    starts: list[GalleryStart] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    """Lines of the about panel: what this is, minutes of training, hardware."""
    picture: str = ""
    """What becomes of a picture that somebody dreams from; empty where the dream simply goes on."""
    unlearnt: tuple[str, ...] = ()
    """Buttons and axes that the dream has not learnt: there they do nothing."""
    schedules: dict[str, Callable[[int, int], Iterator[np.ndarray]]] = field(default_factory=dict)
    """By name: from the index of a start and a seed to pictures of frames under way, row after row."""
    actions: ActionSchema | None = None
    """What can be done in it, for the list of keys on the start screen; each walk says it again."""
    clips: Clips | None = None
    """Clips from text; the starts are then first pictures to choose from."""
    scenes: Scenes | None = None
    """Scenes along camera paths; the starts are then pictures that they may begin with."""
    game_title: str = "game"
    """Name of the real game beside a dream, which films and walks of it bear."""
    levels: Levels | None = None
    """Levels from seeds, in the place of one `game`: the dream begins at what is first seen of one."""
    memory: DreamMemory | None = None
    lacking: str = ""
    """A sentence on what would bring more than this page has; empty where nothing is missing."""

    def __post_init__(self) -> None:
        if not (self.dream or self.game or self.clips or self.scenes):
            raise UserError("a page needs a dream, a game, clips or scenes: there is nothing to show")
