"""The real server as a process of its own: crowds that leave at once, and what is left when it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rooms import unpack_frame
from websockets.asyncio.client import connect

linux = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="counts processes and threads in /proc"
)


@dataclass(frozen=True)
class Played:
    """A running `dreamwalk play doom` with a folder of its own for temporary files."""

    process: subprocess.Popen[str]
    port: int
    folder: Path

    @property
    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def visit(self) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/walk", open_timeout=60, ping_interval=None)


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    command = [sys.executable, "-m", "dreamwalk", "play", "doom", "--no-browser", "--port", "0"]
    env = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdout
        try:
            said = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", said)
            assert found, said
            yield Played(process, int(found[1]), tmp_path)
        finally:
            process.kill()


def engines(folder: Path) -> dict[int, str]:
    """Processes of engines that were started on files in a folder, and the names of their instances."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if any(word.startswith(f"{folder}/") for word in words) and "+viz_instance_id" in words:
                found[int(path.parent.name)] = words[words.index("+viz_instance_id") + 1]
    return found


def settled(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


async def first_frame(visitor: connect) -> float:
    began = time.monotonic()
    async with asyncio.timeout(100), visitor as socket:
        async for message in socket:
            if isinstance(message, bytes):
                break
    return time.monotonic() - began


async def glance(visitor: connect) -> None:
    socket = await visitor
    await asyncio.sleep(0.05)
    socket.transport.abort()


@linux
def test_a_crowd_that_leaves_at_once_keeps_nobody_waiting(played: Played) -> None:
    """200 sockets that are dropped after 50 ms: no more threads than seats, and the next visitor walks."""

    async def crowd() -> tuple[int, float]:
        most = 0
        for _ in range(20):
            await asyncio.gather(*(glance(played.visit()) for _ in range(10)))
            most = max(most, played.threads)
        return most, await first_frame(played.visit())

    alone = asyncio.run(first_frame(played.visit()))
    most, waited = asyncio.run(crowd())
    assert most < 30, "eight seats, and the threads of the server itself"
    assert waited < 10 + 10 * alone
    assert settled(lambda: not engines(played.folder)), "the engines of those who have left are ended"
    played.process.send_signal(signal.SIGINT)
    assert played.process.wait(30) == 0


async def film(played: Played) -> dict[int, str]:
    """Walk and record until the film is a file, and kill the server; the engine that ran then."""
    async with asyncio.timeout(60), played.visit() as socket:
        await socket.send('{"type": "record", "on": true}')
        while not list(played.folder.rglob("*.mp4")):
            message = await socket.recv()
            if isinstance(message, bytes):
                serial = unpack_frame(message)[0].serial
                await socket.send(json.dumps({"type": "ack", "serial": serial}))
        found = engines(played.folder)
        played.process.kill()
        return found


@linux
def test_a_killed_server_leaves_nothing_behind(played: Played) -> None:
    (pid, instance), *others = asyncio.run(film(played)).items()
    assert not others
    assert settled(lambda: not Path(f"/proc/{pid}/exe").exists()), "the engine lives on"
    assert settled(lambda: not list(played.folder.glob("dreamwalk-*"))), "a film lies about"
    assert settled(lambda: not list(Path("/dev/shm").glob(f"ViZDoom*{instance}"))), "memory stays taken"


@linux
@pytest.mark.parametrize("stage", ["before the engine", "with the engine"])
def test_a_server_that_is_killed_while_a_world_opens(played: Played, stage: str) -> None:
    def begun() -> bool:
        early = stage == "before the engine"
        return bool(list(played.folder.rglob("level.wad")) if early else engines(played.folder))

    async def arrive() -> None:
        socket = await played.visit()
        while not begun():
            await asyncio.sleep(0.001)
        played.process.kill()
        socket.transport.abort()

    asyncio.run(arrive())
    assert played.process.wait(10) == -signal.SIGKILL
    assert settled(lambda: not list(played.folder.glob("dreamwalk-*")))
    time.sleep(1.0)  # time for an engine that was being started to show up
    assert settled(lambda: not engines(played.folder)), "the engine lives on"
