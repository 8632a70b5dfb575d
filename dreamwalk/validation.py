"""Validation of untrusted values: JSON against annotations and msgspec types.

`conform` takes what JSON gave for an annotated type: numbers are finite and in the range of their annotation,
texts are texts, tuples have their length, dataclasses their fields. A UserError names the file and the field.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from inspect import Parameter, signature
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dreamwalk.errors import UserError

LONGEST = 2**30
"""Bytes of a JSON file that is read."""


MOST = 2**24
"""The largest whole number where nothing else is said."""
Count = Annotated[int, Meta(ge=0, le=MOST)]
MOST_STEPS = 64
"""Denoising steps of a frame or a clip that anything takes, at most."""
Steps = Annotated[int, Meta(ge=1, le=MOST_STEPS)]
"""Denoising passes."""
Side = Annotated[int, Meta(ge=1, le=16384)]
"""Pixels."""
Bytes = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[float, Meta(ge=1e-9, le=1e9)]
Share = Annotated[float, Meta(ge=0, le=1)]
Signed = Annotated[float, Meta(ge=-1e9, le=1e9)]
Rate = Annotated[float, Meta(ge=0.01, le=1000)]
"""Frames per second."""
DEFAULT_RANGES: dict[Any, Meta] = {int: Meta(ge=1, le=MOST), float: Meta(ge=0, le=1e9)}
"""Ranges of numbers without one: sizes and weights of losses are never negative."""


def parse_json(text: str | bytes, where: str) -> Any:
    """JSON from a text; UserError that names `where` it stands."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{where} is not valid JSON: {reason}") from None


def read_json(path: Path, kind: Any = Any, *, mend: str) -> Any:
    """JSON from a file, as `kind`; a UserError ends with what mends it."""
    with mending(mend):
        if path.stat().st_size > LONGEST:
            raise UserError(f"'{path}' is larger than any file of its kind")
        return conform(kind, parse_json(path.read_bytes(), f"'{path}'"), f"in '{path}', the whole")


def decode_json(kind: Any, text: str | bytes, where: str, *, of: str = "") -> Any:
    """JSON from a text as `kind`, a union of Structs or one; a UserError names the wrong field, after `of`,
    or the line.

    An annotation may be a class with `from_json`, which makes one of what JSON gave.
    """
    try:
        return _decoder(kind).decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        try:
            conform(kind, parse_json(text, where), where)
        except UserError as wrong:
            raise UserError(str(wrong).replace(f"{where}.", of, 1)) from None
        raise UserError(f"{where} is not valid JSON: {error}") from None


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=_custom)


def _custom(kind: Any, value: Any) -> Any:
    return kind.from_json(value)


@contextmanager
def mending(mend: str) -> Iterator[None]:
    """Around what reads one file: its UserErrors end with what mends it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}: {mend}") from error.__cause__


def relative_path(value: Any, where: str) -> str:
    """A path below the folder of the file that names it, as it is written; UserError for any other."""
    name = conform(str, value, where)
    path = Path(name)
    if not path.parts or path.anchor or ".." in path.parts or "\0" in name:
        raise UserError(f"{where} must be a path within its own folder, got {name!r:.60}")
    return name


def require_inside(folder: Path, value: Any, where: str) -> Path:
    """The path of a file that a file in `folder` names; UserError unless it lies there, links followed."""
    path = folder / relative_path(value, where)
    if not (found := path.resolve()).is_relative_to(folder.resolve()):
        raise UserError(f"{where} leads out of '{folder}', to '{found}': put the file itself there")
    return path


def conform(kind: Any, value: Any, where: str) -> Any:
    """A value from JSON as `kind`, a type as in annotations; UserError that says what `where` must be."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _bounded(args[0], args[1], value, where)
    if kind in DEFAULT_RANGES:
        return _number(kind, DEFAULT_RANGES[kind], value, where)
    if origin in (typing.Union, types.UnionType):
        return None if value is None and type(None) in args else _member(args, value, where)
    if origin is Literal:
        return _require(value in args, value, f"one of {_listed(args)}", where)
    if origin is tuple:
        return _tuple(args, value, where)
    if origin is dict:
        _require(isinstance(value, dict), value, "an object", where)
        return {key: conform(args[1], item, f"{where}.{key:.60}") for key, item in value.items()}
    if _is_record(kind):
        named = value.get("kind") if isinstance(value, dict) else None
        return assembled(_subclasses(kind).get(str(named), kind), value, where)
    if hasattr(kind, "from_json"):
        return kind.from_json(value)
    wanted = {str: "a text", bool: "true or false", dict: "an object"}[kind]
    return _require(isinstance(value, kind), value, wanted, where)


def _subclasses(kind: Any) -> dict[Any, Any]:
    """A class and those derived from it, by name: where a base is annotated, any of them may be meant."""
    found = {kind.__name__: kind}
    for derived in kind.__subclasses__():
        found |= _subclasses(derived)
    return found


def assembled(kind: Any, value: Any, where: str, *, others: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """A dataclass from an object that gives its fields, and from `others`; UserError for a field that is
    missing, unknown, or not as it is annotated."""
    _require(isinstance(value, dict), value, "an object", where)
    hints, (key, tag, strict) = field_types(kind), _tag(kind)
    if (named := value.get(key, tag)) != tag:
        raise UserError(f"{where} must be of the kind {tag}, got {shorten(named)}")
    given = {name: item for name, item in value.items() if name != key and (strict or name in hints)}
    if unknown := sorted(set(given) - (set(hints) - set(others))):
        reason = f"{kind.__name__} has no field '{unknown[0]:.60}', known are {_listed(hints)}"
        raise UserError(f"{where} is damaged or of another version: {reason:.400}")
    if missing := [name for name in _required(kind) if name not in given and name not in others]:
        raise UserError(f"{where} lacks '{missing[0]}'")
    fields = {name: conform(hints[name], item, f"{where}.{name}") for name, item in given.items()}
    try:
        return kind(**fields, **others)
    except UserError as error:
        raise UserError(f"{where} does not fit together: {error}") from None


def required(kinds: Mapping[str, Any], value: Any, where: str) -> dict[str, Any]:
    """The fields that `kinds` names of an object that may have more, each as it says there; UserError for one
    that is missing or does not fit."""
    _require(isinstance(value, dict), value, "an object", where)
    if missing := [name for name in kinds if name not in value]:
        raise UserError(f"{where} lacks '{missing[0]}'")
    return {name: conform(kind, value[name], f"{where}: {name}") for name, kind in kinds.items()}


def _is_record(kind: Any) -> bool:
    """Whether this is a dataclass or a Struct."""
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct))


def _tag(kind: Any) -> tuple[str | None, Any, bool]:
    """The field of an object that names its class, that name, and whether fields of no use are refused."""
    if config := getattr(kind, "__struct_config__", None):
        return config.tag_field, config.tag, config.forbid_unknown_fields
    return "kind", kind.__name__, True


@cache
def field_types(kind: Any) -> dict[str, Any]:
    """The annotation of every field of a dataclass or a Struct."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in signature(kind).parameters}


@cache
def _required(kind: Any) -> tuple[str, ...]:
    fields = signature(kind).parameters.values()
    return tuple(field.name for field in fields if field.default is Parameter.empty)


def _member(args: tuple[Any, ...], value: Any, where: str) -> Any:
    """Of several dataclasses or Structs the one that the object names; of another union its only member."""
    kinds = {_tag(kind)[1]: kind for kind in args if _is_record(kind)}
    if len(kinds) < 2:
        return conform(next(kind for kind in args if kind is not type(None)), value, where)
    _require(isinstance(value, dict), value, "an object", where)
    key = _tag(next(iter(kinds.values())))[0]
    named = value.get(key)
    if not isinstance(named, str) or named not in kinds:
        raise UserError(f"{where}.{key} must be one of {_listed(kinds)}, got {shorten(named)}")
    return conform(kinds[named], value, where)


def _tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _require(isinstance(value, list | tuple), value, "a list", where)
    inner = [args[0]] * len(value) if args[-1] is Ellipsis else args
    _require(len(value) == len(inner), value, f"a list of {len(inner)}", where)
    parts = zip(inner, value, strict=True)
    return tuple(conform(part, item, f"{where}[{index}]") for index, (part, item) in enumerate(parts))


def _bounded(kind: Any, bounds: Meta, value: Any, where: str) -> Any:
    if bounds.max_length is None:
        return _number(kind, bounds, value, where)
    short = isinstance(value, list | dict) and len(value) <= bounds.max_length
    what = f"{'an object' if typing.get_origin(kind) is dict else 'a list'} of at most {bounds.max_length}"
    return conform(kind, _require(short, value, what, where), where)


def _number(kind: type, bounds: Meta, value: Any, where: str) -> Any:
    low, high = bounds.ge or 0, bounds.le or 0
    whole = isinstance(value, int) and not isinstance(value, bool)
    right = whole or (kind is float and isinstance(value, float) and math.isfinite(value))
    if not right or not low <= value <= high:
        what = f"a {'whole ' if kind is int else ''}number from {low:.12g} to {high:.12g}"
        _require(False, value, what, where)
    return kind(value)


def _require(right: bool, value: Any, what: str, where: str) -> Any:
    if not right:
        raise UserError(f"{where} must be {what}, got {shorten(value)}")
    return value


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names))


def shorten(value: Any) -> str:
    """In few characters, however large or deep it is."""
    if isinstance(value, list | tuple | dict):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return f"{value!r:.40}"
