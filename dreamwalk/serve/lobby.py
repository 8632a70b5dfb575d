"""Who may walk now and who waits: a fixed number of seats and a short queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Full(Exception):
    """Every seat is taken and the queue is full."""


class Lobby:
    """Seats for sessions, first come, first served. Belongs to one event loop."""

    def __init__(self, seats: int, *, queue: int = 32) -> None:
        self.seats = seats
        self.taken = 0
        self._queue_limit = queue
        self._queue: list[tuple[asyncio.Event, Callable[[int], None]]] = []

    @property
    def waiting(self) -> int:
        """How many wait for a seat."""
        return len(self._queue)

    async def enter(self, told: Callable[[int], None]) -> None:
        """Take a seat, waiting for one if need be; `told(position)` is called whenever the place in the queue
        changes, 1 being next. Raises `Full` when the queue is full. Cancelling gives up the place.
        """
        if self.taken < self.seats:
            self.taken += 1
            return
        if len(self._queue) >= self._queue_limit:
            raise Full
        called = asyncio.Event()
        entry = (called, told)
        self._queue.append(entry)
        told(len(self._queue))
        try:
            await called.wait()
        except asyncio.CancelledError:
            if called.is_set():
                self.leave()
            else:
                self._queue.remove(entry)
                self._tell()
            raise

    def leave(self) -> None:
        """Give the seat to the next in the queue, or free it."""
        if self._queue:
            called, _ = self._queue.pop(0)
            called.set()
            self._tell()
        else:
            self.taken -= 1

    def _tell(self) -> None:
        for position, (_, told) in enumerate(self._queue, start=1):
            told(position)
