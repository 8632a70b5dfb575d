"""The page end to end: server, dream and a headless browser on the same machine.

    python benchmarks/page.py [--name nextframe.doom] [--steps 1 2 4] [--seconds 10] [--json out.json]

Walks forward, turning now and then, first at the world's own pace and then as fast as it goes; prints what
the page's own head-up display measures. Needs playwright and a Chromium (`--chromium PATH`).
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from playwright.sync_api import Page, sync_playwright


@dataclass(frozen=True)
class Options:
    name: str = "nextframe.doom"
    steps: tuple[int, ...] = (1, 2, 4)
    """Denoising passes a frame."""
    seconds: float = 10.0
    chromium: str = shutil.which("chromium") or ""
    json: Path | None = None
    """Also write the rows there."""
    screenshot: Path | None = None
    """Keep a picture of the page."""


def main(options: Options) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "dreamwalk", "play", options.name, "--port", str(port), "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=options.chromium or None)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            rows = walk(page, f"http://127.0.0.1:{port}", options)
            browser.close()
    finally:
        server.terminate()
        server.wait()
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def wait_for(port: int, *, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise SystemExit("the server did not come up")


def walk(page: Page, address: str, options: Options) -> list[dict[str, Any]]:
    page.goto(address)
    page.wait_for_selector("#enter:enabled")
    page.locator(".start").first.click()
    until(page, "dreamwalk.app.hello && dreamwalk.view.newest && dreamwalk.app.status.state === 'ready'")
    rows = []
    for steps in options.steps:
        for unlocked in (False, True):
            page.evaluate(f"dreamwalk.link.send({{type: 'steps', steps: {steps}}})")
            page.evaluate(f"dreamwalk.link.send({{type: 'pace', unlocked: {str(unlocked).lower()}}})")
            rows.append({"steps": steps, "unlocked": unlocked} | one_walk(page, options.seconds))
            told = {
                key: f"{value:.4g}" if isinstance(value, float) else value for key, value in rows[-1].items()
            }
            print("  ".join(f"{key} {value}" for key, value in told.items()))
    if options.screenshot:
        page.screenshot(path=str(options.screenshot))
    return rows


def one_walk(page: Page, seconds: float) -> dict[str, Any]:
    """Hold W, tap the arrows, and read the display at the end."""
    page.keyboard.down("w")
    end, first = time.monotonic() + seconds, page.evaluate("dreamwalk.view.newest.serial")
    while time.monotonic() < end:
        for key in ("ArrowRight", "ArrowLeft"):
            page.keyboard.down(key)
            page.wait_for_timeout(400)
            page.keyboard.up(key)
            page.wait_for_timeout(300)
    page.keyboard.up("w")
    frames = page.evaluate("dreamwalk.view.newest.serial") - first
    numbers = page.evaluate("dreamwalk.hud.numbers")
    return {"fps": frames / (time.monotonic() - end + seconds), **numbers}


def until(page: Page, script: str, *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not page.evaluate(script):
        if time.monotonic() > end:
            raise SystemExit(f"never true: {script}")
        time.sleep(0.05)


if __name__ == "__main__":
    main(tyro.cli(Options))
