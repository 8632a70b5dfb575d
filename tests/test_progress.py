"""Long work says how far it is, on stderr alone: a bar on a terminal, plain lines elsewhere."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dreamwalk import progress
from dreamwalk.progress import clock, followed

ROOT = Path(__file__).parent.parent


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock is four seconds after the last."""
    now: Iterator[float] = iter(range(0, 10_000, 4))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))


def test_without_a_terminal_it_is_lines(ticking: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(followed("abcdefg", "dreaming", total=7)) == list("abcdefg")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["dreaming 3/7, 16 s left", "dreaming 6/7, 4 s left"]


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(followed(range(100), "dreaming", total=100)) == list(range(100))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (-3, "0 s"), (18, "18 s"), (99.4, "99 s"), (125, "2 min"), (11_130, "3 h 06 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert clock(seconds) == words


def test_a_terminal_gets_a_bar_with_the_time_left() -> None:
    code = "import time; from dreamwalk.progress import followed\n"
    code += "for _ in followed(range(8), 'dreaming', total=8): time.sleep(0.3)"
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "90", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=slave, env=environment
    )
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:  # the other end is closed
        pass
    assert process.communicate(timeout=60)[0] == b"" and process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "dreaming" in text and re.search(r"\b50%", text) and re.search(r"0:00:0[1-3]", text)
