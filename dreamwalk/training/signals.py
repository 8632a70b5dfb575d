"""Ctrl-C and SIGTERM end a run after the step that it is at, so that everything is saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

TWICE = 1.0
"""Seconds after which another Ctrl-C is a second one, and not the same that torchrun handed on."""


class Stopping:
    """While this context is open, `asked` says which signal asked the run to stop; a second Ctrl-C interrupts
    at once. Signals reach only the main thread: elsewhere nothing is heard."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        """The `time.monotonic()` from which it is too late for another step."""
        self.asked: signal.Signals | None = None
        self._since = 0.0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for one in (signal.SIGINT, signal.SIGTERM):
                self._before[one] = signal.signal(one, self._hear)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)  # type: ignore[arg-type]

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked and number == signal.SIGINT and now - self._since > TWICE:
            raise KeyboardInterrupt
        if not self.asked:
            self.asked, self._since = signal.Signals(number), now
            os.write(2, b"\nstopping after this step; Ctrl-C again to stop at once\n")

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def leave(self) -> None:
        """End the program as the signal would have, now that all is saved."""
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        if self.asked:
            raise SystemExit(128 + self.asked)
