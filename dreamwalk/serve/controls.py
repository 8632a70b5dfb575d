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
"""Presses of a button that wait for later frames."""


class Controls:
    """The state of one page's keys and mouse.

    Held buttons are state; one that was pressed and let go between two frames still counts in the next one.
    Movement adds up and is drained once per frame, at most the axis' limit; what is beyond waits. A press
    lasts one frame, with a frame without between two presses of a button. Safe to share between threads.
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
        self._presses: dict[str, int] = {}
        self._pressed: frozenset[str] = frozenset()

    def update(self, message: Input) -> None:
        """Take in a message; UserError when it names a button or an axis that this world lacks."""
        schema = self.schema
        named = [(name, schema.buttons) for name in (*message.held, *message.pressed)]
        named += [(name, schema.axes) for name in (*message.moved, *message.turning)]
        for name, known in named:
            if name not in known:
                kind = "button" if known is schema.buttons else "axis"
                listed = ", ".join(known) or "none"
                raise UserError(f"this world has no {kind} '{name:.40}': it knows {listed}")
        with self._lock:
            self._seq = max(self._seq, message.seq)
            self._held = frozenset(message.held)
            self._tapped |= self._held
            self._turning = message.turning
            self._nudged |= message.turning
            for name, presses in message.pressed.items():
                self._presses[name] = min(self._presses.get(name, 0) + presses, MAX_PRESSES)
            for axis, distance in message.moved.items():
                limit = schema.limits[schema.axes.index(axis)] * (1.0 + CARRY)
                self._moved[axis] = float(np.clip(self._moved[axis] + distance, -limit, limit))

    def drain(self) -> tuple[np.ndarray, int]:
        """The action vector `(size,)` of the next frame, as `ActionSchema.pack` has it, and the newest
        input's seq."""
        with self._lock:
            due = frozenset(name for name, left in self._presses.items() if left) - self._pressed
            self._presses = {name: left - (name in due) for name, left in self._presses.items()}
            self._pressed = due
            held = self._held | self._tapped | due
            turning = self._nudged | self._turning
            self._nudged, self._tapped = {}, set()
            vector = [float(name in held) for name in self.schema.buttons]
            for axis, limit in zip(self.schema.axes, self.schema.limits, strict=True):
                wanted = self._moved[axis] + turning.get(axis, 0.0)
                used = float(np.clip(wanted, -limit, limit))
                # what is left over is never more than was moved: held turning is a rate and leaves nothing
                low, high = min(self._moved[axis], 0.0), max(self._moved[axis], 0.0)
                self._moved[axis] = float(np.clip(wanted - used, low, high))
                vector.append(used / limit)
            return np.asarray(vector, np.float32), self._seq
