"""From what the page says is held and moved to one action per frame."""

from __future__ import annotations

from threading import Lock

import numpy as np

from dreamwalk.errors import UserError
from dreamwalk.serve.protocol import Input
from dreamwalk.world import ActionSchema

CARRY = 2.0
"""How much movement beyond an axis' limit waits for later frames, in limits; the rest is forgotten."""
MAX_PRESSES = 4
"""Presses of `place` that wait for later frames."""


class Controls:
    """The state of one page's keys and mouse.

    Held buttons are state; one that was pressed and let go between two frames still counts in the next one.
    Movement adds up and is drained once per frame, at most the axis' limit; what is beyond waits. A press of
    `place` lasts one frame, with a frame without between two presses. Safe to share between threads.
    """

    def __init__(self, schema: ActionSchema) -> None:
        self.schema = schema
        self._seq = 0
        self._lock = Lock()
        self._let_go()

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        self._held: frozenset[str] = frozenset()
        self._tapped: set[str] = set()
        self._moved = dict.fromkeys(self.schema.axes, 0.0)
        self._turning: dict[str, float] = {}
        self._nudged: dict[str, float] = {}
        self._presses = 0
        self._placed = False

    def update(self, message: Input) -> None:
        """Take in a message; UserError when it names a button or an axis that this world lacks."""
        schema = self.schema
        for name in (*message.held, *message.moved, *message.turning, *(("place",) if message.place else ())):
            if name not in schema.buttons and name not in schema.axes:
                known = ", ".join([*schema.buttons, *schema.axes])
                raise UserError(f"this world has no '{name:.40}': it knows {known}")
        with self._lock:
            self._seq = max(self._seq, message.seq)
            self._held = frozenset(message.held)
            self._tapped |= self._held
            self._turning = message.turning
            self._nudged |= message.turning
            self._presses = min(self._presses + message.place, MAX_PRESSES)
            for axis, degrees in message.moved.items():
                limit = schema.limits[schema.axes.index(axis)] * (1.0 + CARRY)
                self._moved[axis] = float(np.clip(self._moved[axis] + degrees, -limit, limit))

    def drain(self) -> tuple[np.ndarray, int]:
        """The action vector `(size,)` of the next frame, as `ActionSchema.pack` has it, and the newest
        input's seq."""
        with self._lock:
            held = (self._held | self._tapped) - {"place"}
            if "place" in self._held or (self._presses and not self._placed):
                held |= {"place"}
                self._presses = max(self._presses - 1, 0)
            self._placed = "place" in held
            turning = self._nudged | self._turning
            self._nudged, self._tapped = {}, set()
            vector = [float(name in held) for name in self.schema.buttons]
            for axis, limit in zip(self.schema.axes, self.schema.limits, strict=True):
                wanted = self._moved[axis] + turning.get(axis, 0.0)
                used = float(np.clip(wanted, -limit, limit))
                self._moved[axis] = self._rest(self._moved[axis], wanted, used)
                vector.append(used / limit)
            return np.asarray(vector, np.float32), self._seq

    @staticmethod
    def _rest(moved: float, wanted: float, used: float) -> float:
        """Movement that is left over: never more than was moved, for held turning is a rate and leaves
        nothing."""
        rest = wanted - used
        return float(np.clip(rest, min(moved, 0.0), max(moved, 0.0)))
