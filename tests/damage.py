"""Damage to what is read: JSON with one field changed, code in a pickle, and a limit on memory meanwhile."""

from __future__ import annotations

import copy
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dreamwalk.errors import UserError


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return print, ("unpickled",)


class _Gone:
    def __repr__(self) -> str:
        return "gone"


GONE = _Gone()
"""In place of a value: the field is left out."""
DEEP: Any = []
for _ in range(80):
    DEEP = [DEEP]
WRONG: tuple[Any, ...] = (
    GONE,
    "x",
    -1,
    10**9,
    float("nan"),
    None,
    DEEP,
    0,
    {"kind": "Nope"},
    10**30,
    1.5,
    [],
    True,
    {},
    1e300,
    float("inf"),
)
BOUND = 3 << 30
SECONDS = 30
"""Of one reading; far more than any takes, on a busy machine too."""


def damaged(tree: Any, *, values: int) -> Iterator[tuple[str, Any]]:
    """Copies of a tree of JSON, each with one value changed: the first four of `WRONG` everywhere, and of the
    others so many that `values` are, in turn."""
    for number, path in enumerate(_paths(tree)):
        turn = [WRONG[4 + (number + k) % (len(WRONG) - 4)] for k in range(values - 4)]
        for wrong in (*WRONG[:4], *turn):
            if path or wrong is not GONE:
                yield f"{'.'.join(map(str, path))} = {wrong!r:.30}", changed(tree, path, wrong)


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value in one place."""
    if not path:
        return value
    tree = at = copy.deepcopy(tree)
    for key in path[:-1]:
        at = at[key]
    if value is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return tree


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from _paths(value, (*path, key))


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Whatever asks for more than `BOUND` bytes than there are now fails with a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BOUND, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Verdicts:
    """What came of many readings: refused in one sentence, right, or a fault."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self.right: list[str] = []
        self.faults: list[str] = []

    def read(self, label: str, attempt: Callable[[], object]) -> None:
        began = time.monotonic()
        try:
            attempt()
        except UserError as error:
            self.refused[label] = str(error)
            if "\n" in str(error) or len(str(error)) > 700:
                self.faults.append(f"{label}: more than a sentence: {error}")
        except Exception as error:
            self.faults.append(f"{label}: {type(error).__name__}: {error!s:.200}")
        else:
            self.right.append(label)
        if time.monotonic() - began > SECONDS:
            self.faults.append(f"{label}: took {time.monotonic() - began:.0f} s")
