"""Configs to JSON and back. Every dataclass is stored with its class name, so a file says what it holds."""

from __future__ import annotations

import dataclasses
from typing import Any

from dreamwalk.validation import conform


def to_json(config: Any) -> Any:
    """Nested frozen dataclasses of numbers, strings, tuples and None to plain JSON values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        assert not hasattr(config, "kind"), f"{type(config).__name__} has a field named like the tag"
        values = {field.name: to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
        return {"kind": type(config).__name__, **values}
    if isinstance(config, (list, tuple)):
        return [to_json(item) for item in config]
    return config


def from_json(kind: Any, value: Any, *, where: str = "the config") -> Any:
    """The inverse of `to_json` for a value annotated as `kind`; UserError names what does not fit."""
    return conform(kind, value, where)
