"""The one exception that the command line and the page turn into a sentence; whole files or none."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOO_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The numbers of an OSError that is for want of room on a disk."""


class UserError(ValueError):
    """Something that the person in front can mend: one sentence that names what is wrong and what mends it.

    Every other exception is a fault of the program and keeps its traceback. What a person wrote (JSON, CSV,
    a schema) is parsed where it is read, and the error names the file and the line.
    """


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Around what writes a file or folder: one that cannot be written, or a full disk, is a UserError."""
    try:
        yield
    except OSError as error:
        mend = "free some space there, or choose another place"
        raise UserError(f"'{path}' cannot be written ({error.strerror or error}): {mend}") from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which replaces it when all went well and is removed when not.

    So a file is the old one or the new one, never half, whoever else writes it. Makes the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def brief(error: Exception) -> str:
    """What an exception of a library says, as a part of one sentence."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def require_writable(folder: Path) -> None:
    """UserError unless files can be written into a folder, which need not be there yet; worth asking before
    long work."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"nothing can be written into '{folder}' ('{there}' is in the way): choose another")
