"""Configs to JSON and back. Every dataclass is stored with its class name, so a file says what it holds."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from dreamwalk.errors import UserError


def to_json(config: Any) -> Any:
    """Nested frozen dataclasses of numbers, strings, tuples and None to plain JSON values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        assert not hasattr(config, "kind"), f"{type(config).__name__} has a field named like the tag"
        values = {field.name: to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
        return {"kind": type(config).__name__, **values}
    if isinstance(config, (list, tuple)):
        return [to_json(item) for item in config]
    return config


def from_json(kind: Any, value: Any) -> Any:
    """The inverse of `to_json` for a value annotated as `kind`; UserError names what does not fit."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else from_json(_member(args, value), value)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value)
    if origin is tuple:
        inner = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(from_json(part, item) for part, item in zip(inner, value, strict=True))
    return value


def _dataclass(kind: Any, value: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    given = {name: item for name, item in value.items() if name != "kind"}
    unknown = sorted(set(given) - set(hints))
    if unknown:
        raise UserError(
            f"{kind.__name__} has no field '{unknown[0]}': the file was written by another version"
        )
    try:
        return kind(**{name: from_json(hints[name], item) for name, item in given.items()})
    except TypeError as error:
        raise UserError(f"{kind.__name__} cannot be read: {error}") from None


def _member(choices: tuple[Any, ...], value: Any) -> Any:
    for choice in choices:
        if isinstance(value, dict) and getattr(choice, "__name__", "") == value.get("kind"):
            return choice
    return next(choice for choice in choices if choice is not type(None))
