"""dreamwalk: six families of video generation and world models over shared parts.

    import dreamwalk
    system = dreamwalk.load("nextframe.doom")
    world = system.world(seed=7)                      # a gymnasium.Env that a network dreams
    game = dreamwalk.make("dreamwalk/Doom-v0")        # the real one

Importing the package imports no torch; `load` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gymnasium

__all__ = ["load", "make"]
__version__ = "0.1.0"


def load(name: str | Path) -> Any:
    """A system with its weights: a shipped name, a .safetensors file, a run folder, or
    `hf://owner/repository`.

    UserError says in one sentence what is wrong with anything else.
    """
    from dreamwalk.systems.open import load

    return load(name)


def make(name: str, **options: Any) -> gymnasium.Env:
    """`gymnasium.make` with dreamwalk's worlds known: `dreamwalk/Doom-v0` and `dreamwalk/Dream-v0`.

    The dream takes `system=`, a name or what `load` gave.
    """
    import gymnasium

    from dreamwalk.data import doom

    doom.register()
    if "dreamwalk/Dream-v0" not in gymnasium.registry:
        gymnasium.register("dreamwalk/Dream-v0", entry_point="dreamwalk:_dream")
    return gymnasium.make(name, **options)


def _dream(system: Any, seed: int | None = None) -> gymnasium.Env:
    return (load(system) if isinstance(system, str | Path) else system).world(seed=seed)
