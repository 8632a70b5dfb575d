"""Temporary folders that leave nothing behind, however their process ends.

An ordinary end removes them, as `tempfile` does. The end by `kill -9` or for want of memory is noticed by a
watcher: a small process of its own that reads the names of the folders from a pipe. At the end of the pipe,
which is that of whoever held its other side, it ends the game engines that were started on files of these
folders, and removes the folders and the engines' shared memory. Works wherever there is `/proc` or `ps`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROUNDS = 5
"""How often engines are looked for: one that was just being started when its parent died shows up late."""
_lock = threading.Lock()
_watchers: dict[int, subprocess.Popen[str]] = {}
"""The watcher of this process by its id: after a fork the child starts one of its own."""
_folders: weakref.WeakSet[TemporaryFolder] = weakref.WeakSet()


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder that is removed even when this process is killed; then a ViZDoom engine that was
    started on a file in it ends too."""

    def __init__(self, prefix: str = "dreamwalk-") -> None:
        super().__init__(prefix=prefix, ignore_cleanup_errors=True)
        _folders.add(self)
        _watch(self.name)


def _watch(folder: str) -> None:
    """Tell the watcher of this process of a folder; start the watcher if there is none yet."""
    with _lock:
        watcher = _watchers.get(os.getpid())
        if watcher is None:
            command = [sys.executable, "-I", "-S", os.path.abspath(__file__)]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "text": True, "errors": "surrogateescape"}
            quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            apart: dict[str, Any] = {"start_new_session": True, "cwd": tempfile.gettempdir()}
            watcher = _watchers[os.getpid()] = subprocess.Popen(command, **pipes, **quiet, **apart)
            atexit.register(_leave, watcher)
        assert watcher.stdin
        with contextlib.suppress(OSError):  # someone has ended the watcher
            watcher.stdin.write(folder + "\n")
            watcher.stdin.flush()


def _leave(watcher: subprocess.Popen[str]) -> None:
    """An ordinary end: remove the folders, and let the watcher end what engines are left."""
    if watcher is not _watchers.get(os.getpid()):  # this is a fork of the process that watcher belongs to
        return
    for folder in list(_folders):
        folder.cleanup()
    assert watcher.stdin
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        watcher.stdin.close()
        watcher.wait(10)


# ---- in the watcher


def _clean(folders: list[str]) -> None:
    """End the engines of these folders and remove what they and their parent left."""
    for attempt in range(ROUNDS):
        engines = [(pid, text) for pid, text in _commands() if any(f" {f}/" in text for f in folders)]
        for pid, text in engines:
            instance = re.search(r" \+viz_instance_id (\w+)", text)
            if instance is None:  # somebody else looks at a file there
                continue
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            for shared in Path("/dev/shm").glob(f"ViZDoom*{instance[1]}"):
                shared.unlink(missing_ok=True)
        left = [folder for folder in folders if os.path.exists(folder)]
        if not left and not engines:
            return
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1 * 2**attempt)


def _commands() -> Iterator[tuple[int, str]]:
    """Processes of this machine and their command lines."""
    if os.path.exists("/proc/self/cmdline"):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                yield int(path.parent.name), path.read_bytes().decode(errors="replace").replace("\0", " ")
    elif ps := shutil.which("ps"):
        listed = subprocess.run([ps, "-axww", "-o", "pid=,command="], capture_output=True, text=True)
        for line in listed.stdout.splitlines():
            pid, _, text = line.strip().partition(" ")
            yield int(pid), text


if __name__ == "__main__":
    sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    _clean([line.rstrip("\n") for line in sys.stdin])
