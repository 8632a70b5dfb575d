"""The actions of gymnasium games as buttons and axes, and back.

| space | here |
|---|---|
| Discrete(n), each entry of a MultiDiscrete | a group of n buttons, of which one acts |
| a Discrete(2) inside another space, each bit of a MultiBinary, an integer Box from 0 to 1 | a button |
| each number of a bounded Box | an axis; integers are rounded to |
| Dict, Tuple | their parts side by side, named after their place |

With no button of a group held, its no-op acts where the game names one, else its first choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import EnumMeta
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamwalk.errors import UserError
from dreamwalk.world import ActionSchema

KNOWN = "Discrete, MultiDiscrete, MultiBinary, a bounded Box, or a Dict or Tuple of these"
MOST = 1000
"""Buttons or axes that one space may become."""
LARGEST = 1e6
"""Magnitude beyond which the bounds of a Box mean nothing."""
IDLE = ("noop", "no_op", "no-op", "nop", "none", "nothing", "idle", "stay", "done")
"""Names that games have for a choice that does nothing (MiniGrid's is `done`)."""


@dataclass(frozen=True)
class Translation:
    """How an action vector, as it acts (`ActionSchema.canonical`), becomes an action of the game."""

    schema: ActionSchema
    native: Callable[[np.ndarray], Any]


def meanings(env: gymnasium.Env) -> tuple[str, ...]:
    """Names of the choices, where the game tells them: by `get_action_meanings()` (Atari) or an enumeration
    called `actions` (MiniGrid)."""
    if env.has_wrapper_attr("get_action_meanings"):
        return tuple(str(name).lower() for name in env.get_wrapper_attr("get_action_meanings")())
    listed = getattr(env.unwrapped, "actions", None)
    return tuple(name.lower() for name in listed.__members__) if isinstance(listed, EnumMeta) else ()


def translate(space: spaces.Space, meanings: tuple[str, ...] = (), *, name: str = "") -> Translation:
    """The schema of an action space and the way back into it; UserError for a space that has none.

    `meanings` are names for a Discrete one; `name` is the place of a part in the whole.
    """
    match space:
        case spaces.Discrete():
            return _choices(int(space.n), int(space.start), meanings, name)
        case spaces.MultiDiscrete():
            counts, starts = space.nvec.ravel().tolist(), np.ravel(space.start).tolist()
            names = _names(name or "choice", len(counts))
            parts = [_choices(*part) for part in zip(counts, starts, [()] * len(counts), names, strict=True)]
            return _side_by_side(parts, lambda v: np.array(v, space.dtype).reshape(space.shape))
        case spaces.MultiBinary():
            return _flags(space, name)
        case spaces.Box() if space.is_bounded():
            binary = (space.low == 0).all() and (space.high == 1).all()
            integer = np.issubdtype(space.dtype, np.integer)
            return _flags(space, name) if integer and binary else _axes(space, name)
        case spaces.Dict() | spaces.Tuple():
            inner = dict(space.spaces if isinstance(space, spaces.Dict) else enumerate(space.spaces))
            before = f"{name}_" if name else "" if isinstance(space, spaces.Dict) else "part_"
            parts = [translate(part, name=f"{before}{key}") for key, part in inner.items()]
            whole = (lambda v: dict(zip(inner, v, strict=True))) if isinstance(space, spaces.Dict) else tuple
            return _side_by_side(parts, whole)
    raise UserError(f"actions of kind {space} are not known here: wrap the game so that they are {KNOWN}")


def _names(name: str, count: int) -> tuple[str, ...]:
    if count > MOST:
        raise UserError(f"{count} choices or numbers in one action are too many: {MOST} at most")
    return tuple(f"{name}_{k}" for k in range(count))


def _choices(count: int, start: int, meanings: tuple[str, ...], name: str) -> Translation:
    if name and count == 2:
        return Translation(ActionSchema((name,)), lambda v: start + int(v[0] > 0.5))
    names = _names(name or "choice", count)
    if len(set(meanings)) == count:
        names = meanings
    first = next((choice for choice in names if choice in IDLE), names[0])
    group = (first, *(choice for choice in names if choice != first))
    return Translation(ActionSchema(names, choices=(group,)), lambda v: start + int(np.argmax(v > 0.5)))


def _flags(space: spaces.MultiBinary | spaces.Box, name: str) -> Translation:
    count = int(np.prod(space.shape))
    schema = ActionSchema((name,) if name and count == 1 else _names(name or "button", count))
    return Translation(schema, lambda v: (v > 0.5).astype(space.dtype).reshape(space.shape))


def _axes(space: spaces.Box, name: str) -> Translation:
    low, high = (bound.ravel().astype(np.float64) for bound in (space.low, space.high))
    limits = np.maximum(abs(low), abs(high))
    if limits.size and limits.max() > LARGEST:
        mend = "wrap the game so that its bounds are those in use"
        raise UserError(f"an action goes up to {limits.max():.3g}, which no key can mean: {mend}")
    limits[limits == 0] = 1.0
    names = (name,) if name and len(limits) == 1 else _names(name or "axis", len(limits))
    ranges = tuple(zip(low.tolist(), high.tolist(), strict=True))
    whole = np.issubdtype(space.dtype, np.integer)

    def native(vector: np.ndarray) -> np.ndarray:
        values = np.rint(vector * limits) if whole else vector * limits
        return np.clip(values, low, high).astype(space.dtype).reshape(space.shape)

    return Translation(ActionSchema((), names, tuple(limits.tolist()), ranges=ranges), native)


def _side_by_side(parts: Sequence[Translation], whole: Callable[[list[Any]], Any]) -> Translation:
    """First the buttons of all parts, then the axes of all; `whole` puts the parts' actions together."""
    schemas = [part.schema for part in parts]
    fields = ("buttons", "axes", "limits", "choices", "ranges")
    joined = {field: tuple(item for s in schemas for item in getattr(s, field)) for field in fields}
    schema = ActionSchema(**joined)

    def native(vector: np.ndarray) -> Any:
        button, axis, actions = 0, len(schema.buttons), []
        for part in parts:
            buttons, axes = len(part.schema.buttons), len(part.schema.axes)
            own = np.concatenate([vector[button : button + buttons], vector[axis : axis + axes]])
            actions.append(part.native(own))
            button, axis = button + buttons, axis + axes
        return whole(actions)

    return Translation(schema, native)
