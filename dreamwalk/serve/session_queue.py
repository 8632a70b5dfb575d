"""Admission of sessions: a fixed number of seats and a bounded first-come-first-served queue."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable


class Full(Exception):
    """Every seat is taken and the queue is full."""


class SessionQueue:
    """Seats and the queue for them. Belongs to one event loop."""

    def __init__(self, seats: int, *, max_waiting: int = 32) -> None:
        self.seats = seats
        self.taken = 0
        self._max_waiting = max_waiting
        self._queue: list[tuple[asyncio.Event, Callable[[int], None]]] = []

    @property
    def waiting(self) -> int:
        """How many wait for a seat."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether the next one to enter is turned away."""
        return self.taken >= self.seats and self.waiting >= self._max_waiting

    def work(self, job: Callable[[], None], *, name: str) -> threading.Thread:
        """Run `job` in a thread that holds the seat which `enter` took, and gives it back when it has ended.

        A seat is free only when the work that was begun in it has ended, so there is never more work under
        way than there are seats. Raises `Full` when the machine has no thread
        left.
        """
        loop = asyncio.get_running_loop()

        def held() -> None:
            try:
                job()
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(self.leave)

        thread = threading.Thread(target=held, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self.leave()
            raise Full from None
        return thread

    async def enter(self, moved: Callable[[int], None] = lambda position: None) -> None:
        """Take a seat, waiting for one if need be; `moved(position)` is called when the place in the queue
        changes, 1 being next. Raises `Full` when the queue is full. Cancelling gives up the place.
        """
        if self.taken < self.seats:
            self.taken += 1
            return
        if self.full:
            raise Full
        called = asyncio.Event()
        entry = (called, moved)
        self._queue.append(entry)
        moved(len(self._queue))
        try:
            await called.wait()
        except asyncio.CancelledError:
            if called.is_set():
                self.leave()
            else:
                self._queue.remove(entry)
                self._announce()
            raise

    def leave(self) -> None:
        """Give the seat to the next in the queue, or free it."""
        if self._queue:
            called, _ = self._queue.pop(0)
            called.set()
            self._announce()
        else:
            self.taken -= 1

    def _announce(self) -> None:
        for position, (_, moved) in enumerate(self._queue, start=1):
            moved(position)
