"""dreamwalk: six families of video generation and world models over shared parts.

    import dreamwalk
    system = dreamwalk.load("nextframe.doom")
    world = system.world(seed=7)                      # a gymnasium.Env that a network dreams
    game = dreamwalk.make("dreamwalk/Doom-v0")        # the real one

Importing the package makes its worlds known to gymnasium and imports no torch; what needs it is imported when
it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium.envs.registration import WrapperSpec

if TYPE_CHECKING:
    from dreamwalk.clip import Clip
    from dreamwalk.errors import UserError
    from dreamwalk.schedules.staircase import Schedule
    from dreamwalk.systems.clip_request import ClipRequest
    from dreamwalk.systems.open import load
    from dreamwalk.world import ActionSchema, World

__all__ = ["ActionSchema", "Clip", "ClipRequest", "Schedule", "UserError", "World", "load", "make"]
__version__ = "0.1.0"
_HOMES = {"Clip": "clip", "UserError": "errors", "Schedule": "schedules.staircase", "World": "world"}
_HOMES |= {"ClipRequest": "systems.clip_request", "load": "systems.open", "ActionSchema": "world"}


def __getattr__(name: str) -> Any:
    """What is public, imported when it is first asked for: most of it needs torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dreamwalk' has no attribute '{name}'")
    return getattr(import_module(f"dreamwalk.{_HOMES[name]}"), name)


def make(name: str, **options: Any) -> gymnasium.Env:
    """`gymnasium.make`, which knows dreamwalk's worlds once this package is imported.

    They are `dreamwalk/Doom-v0`, and `dreamwalk/Dream-v0`, which takes `system=`, a name or what `load` gave.
    `dreamwalk/DoomDiscrete-v0` and `dreamwalk/DreamDiscrete-v0` have numbered actions. An episode is cut off
    after 2,100 steps, three minutes of the game; `max_episode_steps=` says otherwise.
    """
    return gymnasium.make(name, **options)


def _register() -> None:
    """Make the worlds known to gymnasium. It runs at import, so it names modules and imports none."""
    wrapped = (WrapperSpec("DiscreteActions", "dreamwalk.world:DiscreteActions", {"share": 0.25}),)
    worlds = {"Doom": "dreamwalk.worlds.doom:Doom", "Dream": "dreamwalk.systems.open:dream"}
    for world, entry_point in worlds.items():
        for form, wrappers in (("", ()), ("Discrete", wrapped)):
            gymnasium.register(
                f"dreamwalk/{world}{form}-v0",
                entry_point=entry_point,
                max_episode_steps=2100,
                additional_wrappers=wrappers,
            )


_register()
