"""Parsing of what follows a verb: a name, and a dataclass of flags."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from dreamwalk.errors import UserError


def suggest(name: str, known: Sequence[str]) -> str:
    """The nearest of what is known, or all of it, to end a sentence with."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f": did you mean '{close[0]}'?" if close else f": known are {', '.join(known)}"


def split_name(argv: list[str], verb: str, known: Sequence[str]) -> tuple[str, list[str]]:
    """The name after a verb, empty before `--help`, and the flags after it."""
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        raise UserError(f"`dreamwalk {verb}` needs a name first, such as '{known[0]}'")
    return ("", argv) if argv[0] in ("-h", "--help") else (argv[0], argv[1:])


def parse_flags(kind: Any, argv: list[str], *, prog: str, default: Any = None) -> Any:
    """`argv` as a dataclass, by tyro; a field that is one of several configs keeps its default's kind."""
    import tyro

    given = {} if default is None else {"default": default}
    return tyro.cli(kind, args=argv, prog=f"dreamwalk {prog}", config=(tyro.conf.AvoidSubcommands,), **given)


def check_seed(seed: int | None) -> None:
    """UserError for a negative seed."""
    if seed is not None and seed < 0:
        raise UserError(f"a seed is a whole number from 0 up, got {seed}")
