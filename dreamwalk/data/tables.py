"""Parsing of files that people wrote: tables of actions, schemas, texts.

Every error names the file and the row, as a spreadsheet or an editor counts it (an array is counted from 0),
and where there is one the column.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dreamwalk.data import minedojo, vpt
from dreamwalk.errors import UserError
from dreamwalk.validation import assembled, field_types, parse_json
from dreamwalk.world import ActionSchema

WORDS = {"true": 1.0, "yes": 1.0, "on": 1.0, "false": 0.0, "no": 0.0, "off": 0.0, "": 0.0}
"""What stands for a number in a cell; nothing is 0."""


@dataclass(frozen=True, eq=False)
class Table:
    """A row of actions per frame."""

    names: tuple[str, ...]
    """Of the columns; none for an array."""
    values: np.ndarray
    """float32 `(frames, columns)`, all finite."""
    schema: ActionSchema | None = None
    """Where the layout says what its columns are."""
    notes: tuple[str, ...] = ()
    """What was taken for what."""
    first: int = 0
    """The first frame that is worth using."""
    cameras: np.ndarray | None = None
    """`world_from_camera` of every frame float32 `(frames, 4, 4)`, where the layout has them."""
    field_of_view: float = 0.0
    """Of these cameras, in degrees from top to bottom."""
    pointers: np.ndarray | None = None
    """Where a mouse pointer is missing in the picture: x and y `(frames, 2)` as shares of its height; nan
    where none is."""


def read_table(file: Path) -> Table:
    """The table in a file of one of `videos.ACTIONS`; UserError for the first thing in it that is wrong."""
    if file.suffix == ".npy":
        return _read_array(file)
    if file.suffix == ".npz":
        values, cameras = minedojo.read_minedojo(file)
        names, first = minedojo.SCHEMA.buttons + minedojo.SCHEMA.axes, minedojo.LOADING
        notes = (f"its first {first} frames are left out: the game is loading there",)
        found = Table(names, values, minedojo.SCHEMA, notes, first=first, cameras=cameras)
        return replace(found, field_of_view=minedojo.FIELD_OF_VIEW)
    return _read_objects(file) if file.suffix == ".jsonl" else _read_cells(file)


def read_text(file: Path) -> str:
    """The text of a file in UTF-8 or, as Excel writes it, in UTF-16; UserError when it is neither."""
    data = file.read_bytes()
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"'{file}' is not text in UTF-8: save it as such") from None


def read_schema(file: Path) -> ActionSchema:
    """A schema that a person wrote: `{"buttons": ["jump"], "axes": ["yaw"], "limits": [30]}`."""
    written, known = parse_json(read_text(file), f"'{file}'"), field_types(ActionSchema)
    if isinstance(written, dict):
        if unknown := [key for key in written if key not in known]:
            raise UserError(f"'{file}' has an unknown key '{unknown[0]:.40}': known are {', '.join(known)}")
        written = {"buttons": []} | written
    schema = assembled(ActionSchema, written, f"in '{file}', the whole")
    if not schema.size:
        raise UserError(f"'{file}' must name one button or axis at least")
    return schema


def _read_cells(file: Path) -> Table:
    """A table of cells, separated by commas, semicolons, tabs or bars; its first row are names."""
    rows, delimiter = _cells(file)
    if not rows:
        raise UserError(f"'{file}' is empty: it should have a row of names and one row per frame")
    (_, names), *rows = rows
    _check_names(file, names)
    for row, cells in rows:
        if len(cells) < len(names) or any(cells[len(names) :]):
            mend = " (decimal commas need semicolons between the columns)" if delimiter == "," else ""
            raise UserError(f"'{file}', row {row} has {len(cells)} cells, the names are {len(names)}{mend}")
    kept = [k for k, name in enumerate(names) if name]
    nameless = [k for k, name in enumerate(names) if not name and any(cells[k] for _, cells in rows)]
    notes = [f"column {k + 1} has no name and is not used" for k in nameless]
    empty = sum(not cells[k] for _, cells in rows for k in kept)
    notes += [f"empty cells are taken for 0 ({empty})"] if empty else []
    number = partial(_number, file=file, comma=delimiter != ",")
    table = [(row, [number(cells[k], row=row, name=names[k]) for k in kept]) for row, cells in rows]
    return _table(file, [names[k] for k in kept], table, notes)


def _cells(file: Path) -> tuple[list[tuple[int, list[str]]], str]:
    """Numbered rows of cells without blank ones at the end, and what separates them."""
    lines = io.StringIO(read_text(file), newline="")
    first = lines.readline()
    hinted = first.startswith("sep=")  # Excel's
    delimiter = first[4:5] if hinted else max(",;\t|", key=first.count)
    lines.seek(len(first) if hinted else 0)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        rows = [(reader.line_num + hinted, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise UserError(f"'{file}', row {reader.line_num + hinted}: {error}") from None
    rows = [(row, cells) for row, cells in rows if len(cells) > 1 or any(cells)]
    while rows and not any(rows[-1][1]):
        rows.pop()
    return rows, delimiter


def _check_names(file: Path, names: list[str]) -> None:
    if all(_is_number(name) or name.lower() in WORDS for name in names):
        raise UserError(f"'{file}', row 1 has numbers: write a row of names above it, one for each column")
    named = [name for name in names if name]
    if twice := [name for k, name in enumerate(named) if name in named[:k]]:
        raise UserError(f"'{file}', row 1: two columns are called '{twice[0]}'")


def _read_objects(file: Path) -> Table:
    """One JSON object a line; those of VPT's recordings too."""
    lines = [(k, line) for k, line in enumerate(read_text(file).splitlines(), 1) if line.strip()]
    rows = [(k, parse_json(line, f"'{file}', row {k}")) for k, line in lines]
    for k, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"'{file}', row {k} must be an object of names and numbers, got {row!r:.40}")
    if not rows:
        raise UserError(f"'{file}' is empty: it should have one object per frame, a line each")
    if vpt.is_vpt(rows[0][1]):
        values, pointers, notes = vpt.read_vpt(rows, file)
        return Table(vpt.SCHEMA.buttons + vpt.SCHEMA.axes, values, vpt.SCHEMA, notes, pointers=pointers)
    stripped = [(k, {name.strip(): value for name, value in row.items()}) for k, row in rows]
    names = list(dict.fromkeys(name for _, row in stripped for name in row))
    table = [(k, [_value(row.get(name), file, k, name) for name in names]) for k, row in stripped]
    return _table(file, names, table)


def _value(value: Any, file: Path, row: int, name: str) -> float:
    if isinstance(value, str):
        return _number(value, file, row, name)
    if value is None or isinstance(value, bool | int | float):
        return float(value or 0) if not isinstance(value, int) or abs(value) < 1e300 else math.inf
    raise _no_number(value, file, row, name)


def _read_array(file: Path) -> Table:
    try:
        values = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"'{file}' is not an array that numpy.save wrote ({error})") from None
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "biuf":
        what = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else "several arrays"
        raise UserError(f"'{file}' must be an array of numbers (frames, columns), got {what}")
    return _table(file, [], list(enumerate(values)))


def _table(file: Path, names: list[str], rows: list[tuple[int, Any]], notes: Iterable[str] = ()) -> Table:
    """A table of numbered rows; UserError where it has none, or what is no finite number."""
    if not rows:
        raise UserError(f"'{file}' has no rows: it should have one per frame")
    with np.errstate(over="ignore"):
        values = np.array([row for _, row in rows]).astype(np.float32)
    for at, k in np.argwhere(~np.isfinite(values)):
        column = f"'{names[k]}'" if names else k
        raise UserError(f"'{file}', row {rows[at][0]}, column {column} is {rows[at][1][k]}: give it a number")
    return Table(tuple(names), values, notes=tuple(notes))


def _number(cell: str, file: Path, row: int, name: str, *, comma: bool = False) -> float:
    """The number in a cell, `comma`: with a decimal comma."""
    text = cell.strip().lower().replace("−", "-")
    if comma and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    if text in WORDS:
        return WORDS[text]
    if not _is_number(text):
        raise _no_number(cell, file, row, name)
    return float(text)


def _no_number(value: Any, file: Path, row: int, name: str) -> UserError:
    what = "is neither a number nor true or false"
    return UserError(f"'{file}', row {row}, column '{name}' {what}: {value!r:.40}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
