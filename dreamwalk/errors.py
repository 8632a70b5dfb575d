"""The one exception that the command line and the page turn into a sentence."""

from __future__ import annotations

import errno
import os
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
        reason = error.strerror or error
        raise UserError(
            f"'{path}' cannot be written ({reason}): free some space there, or choose another place"
        ) from error


def brief(error: Exception) -> str:
    """What an exception of a library says, as a part of one sentence."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def require_writable(folder: Path) -> None:
    """UserError unless files can be written into a folder, which need not be there yet; worth asking before
    long work."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"nothing can be written into '{folder}' ('{there}' is in the way): choose another")
