"""How far long work is, and how long it will still take: on stderr, so that results can be piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
EVERY = 10.0
"""Seconds between the lines where there is no terminal to draw a bar on."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar with the time left; call what it gives after each of `total` parts. Without a terminal a plain
    line now and then."""
    from rich.console import Console
    from rich.progress import Progress

    console, count = Console(stderr=True), 0
    if console.is_terminal:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)
        return
    began = printed = time.monotonic()

    def advance() -> None:
        nonlocal count, printed
        now, count = time.monotonic(), count + 1
        if now - printed >= EVERY:
            left = (now - began) * max(0, total - count) / count
            print(f"{what} {count}/{total}, {clock(left)} left", file=sys.stderr, flush=True)
            printed = now

    yield advance


def followed(items: Iterable[Item], what: str, *, total: int) -> Iterator[Item]:
    """`items` as they come, with `progress`."""
    with progress(what, total) as advance:
        for item in items:
            yield item
            advance()


def clock(seconds: float) -> str:
    """A duration as people say it: 42 s, 12 min, 3 h 05 min."""
    whole = max(0, round(seconds))
    minutes = round(whole / 60)
    if whole < 100:
        return f"{whole} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
