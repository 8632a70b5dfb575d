"""One browser tab's walk: its own worlds, stepped by its own thread.

The thread paces itself at the world's rate and never lets stale frames pile up: it begins a frame only when
the page has acknowledged the one before the last. What is held and moved is read as late as possible, right
before the step.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque

from dreamwalk.errors import UserError
from dreamwalk.serve.app_config import AppConfig
from dreamwalk.serve.player import Player, Post, log, sentence
from dreamwalk.serve.protocol import Command, Input, Reset
from dreamwalk.serve.recording_store import RecordingStore
from dreamwalk.serve.world_pair import WorldPair

_OPENING = threading.Lock()
"""Worlds are opened one after another; those whose page has left before their turn are not opened at all."""
WINDOW = 2
"""Frames on their way to the page, with the one that is being made."""
MAX_COMMANDS = 64


class WalkSession:
    """One walk. Everything public may be called from any thread and returns at once, `run` apart."""

    def __init__(
        self, config: AppConfig, post: Post, store: RecordingStore, *, start: int | None = None, seed: int = 0
    ) -> None:
        self._config, self._post, self._store = config, post, store
        self._player: Player | None = None
        self._changed = threading.Condition()
        self._commands: deque[Command] = deque([Reset(seed, start)])
        self._stopping = False
        self._acked = 0
        self._due = 0.0
        self.touched = time.monotonic()
        """When a person last did something, on the monotonic clock."""

    def stop(self) -> None:
        """End the session; its thread closes the worlds as soon as the step at hand is done."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def acknowledge(self, serial: int) -> bool:
        """The page has decoded this frame; whether that is news. UserError when no such frame was sent."""
        with self._changed:
            sent = self._player.serial if self._player else 0
            if serial > sent:
                raise UserError(f"frame {serial} was never sent: the newest is {sent}")
            news, self._acked = serial > self._acked, max(self._acked, serial)
            self._changed.notify_all()
            return news

    def take(self, message: Input | Command) -> None:
        """Take in what the page says; UserError with one sentence when it makes no sense here.

        Input is not taken before the world is warm.
        """
        with self._changed:
            if isinstance(message, Input):
                self.touched = time.monotonic()
                if self._player:
                    self._player.controls.update(message)
            elif len(self._commands) >= MAX_COMMANDS:
                raise UserError("too many commands are waiting: this one was dropped")
            else:
                self.touched = time.monotonic()
                self._commands.append(message)
            self._changed.notify_all()

    # ---- in the session's thread

    def run(self) -> None:
        """Open the worlds and walk until the session is stopped; called once, in a thread of its own."""
        if hasattr(signal, "pthread_sigmask"):
            # A game's own process inherits this: Ctrl-C ends the server, not the game under its feet.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        player = None
        try:
            player = self._open()
            while player and not self._stopping:
                self._turn(player)
        except Exception as error:
            if not isinstance(error, UserError):
                log.exception("a session failed")
            self._post("over", {"message": sentence(error)})
        finally:
            if player:
                player.close()

    def _open(self) -> Player | None:
        """Open and warm the worlds, and say hello; None when the page has left meanwhile."""
        self._post("status", {"state": "warming", "message": "Opening the world"})
        while not _OPENING.acquire(timeout=0.1):
            if self._stopping:
                return None
        try:
            if self._stopping:
                return None
            worlds = WorldPair(self._config, gone=lambda: self._stopping)
        finally:
            _OPENING.release()
        try:
            player = Player(self._config, worlds, self._store, self._post)
            self._post("status", {"state": "warming", "message": "Warming up"})
            first = self._commands[0]
            assert isinstance(first, Reset)
            began = time.perf_counter()
            worlds.warm(first.seed or 0, player.options(first.start))
            warm_ms = round((time.perf_counter() - began) * 1e3, 1)
        except BaseException:
            worlds.close()
            raise
        self._post("hello", player.hello() | {"warm_ms": warm_ms})
        self._player = player
        return player

    def _turn(self, player: Player) -> None:
        """Do what was asked for, or one frame if it is time for one, or wait."""
        with self._changed:
            command = self._commands.popleft() if self._commands else None
            if command is None and not self._ready(player):
                return
        try:
            if command is not None:
                player.apply(command)
            else:
                period = 1.0 / player.fps
                now = time.perf_counter()
                self._due = self._due + period if 0 <= now - self._due <= period else now + period
                player.advance()
        except Exception as error:
            player.fail(error)

    def _ready(self, player: Player) -> bool:
        """Whether a frame may be made now; waits a while when not. Called with the lock held."""
        wait = 0.0
        if self._stopping:
            return False
        if (player.paused and not player.single) or player.serial - self._acked >= WINDOW:
            wait = 10.0
        elif not player.unlocked and not player.single:
            wait = self._due - time.perf_counter()
        if wait > 0:
            self._changed.wait(wait)
        return wait <= 0
