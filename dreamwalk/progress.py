"""How far long work is, and how long it will still take: on stderr, so that results can be piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
EVERY = 10.0
"""Seconds between the lines where there is no terminal to draw a bar on."""


def followed(items: Iterable[Item], what: str, *, total: int) -> Iterator[Item]:
    """`items` as they come, under a bar with the time left; without a terminal a plain line now and then."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(items, what, total=total, console=console, transient=True)
        return
    began = told = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - told >= EVERY:
            left = (now - began) * max(0, total - count) / count
            print(f"{what} {count}/{total}, {clock(left)} left", file=sys.stderr, flush=True)
            told = now


def clock(seconds: float) -> str:
    """A duration as people say it: 42 s, 12 min, 3 h 05 min."""
    whole = max(0, round(seconds))
    minutes = round(whole / 60)
    if whole < 100:
        return f"{whole} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
