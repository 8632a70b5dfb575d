"""Someone in front of a real browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rooms import HEIGHT, WIDTH

GREY = f"""index => {{
  const small = new OffscreenCanvas({WIDTH}, {HEIGHT}).getContext("2d");
  small.imageSmoothingQuality = "high";
  small.drawImage(document.querySelectorAll(".frame canvas")[index], 0, 0, {WIDTH}, {HEIGHT});
  return [...small.getImageData(0, 0, {WIDTH}, {HEIGHT}).data];
}}"""


class Tab:
    """One browser tab in a profile of its own."""

    def __init__(self, browser: Any, address: str, *, ready: str = "#enter:enabled", **settings: Any) -> None:
        settings = {"viewport": {"width": 720, "height": 540}, "reduced_motion": "reduce"} | settings
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.goto(address)
        self.page.wait_for_selector(ready)

    def look(self, script: str) -> Any:
        return self.page.evaluate(script)

    def until(self, script: str, seconds: float = 8.0) -> Any:
        """Wait until an expression is true in the page (its policy forbids playwright's own way)."""
        end = time.monotonic() + seconds
        while not (found := self.page.evaluate(script)):
            if time.monotonic() > end:
                raise AssertionError(f"never true: {script}")
            time.sleep(0.02)
        return found

    def type(self, field: str, text: str) -> None:
        """Type into a field, key by key, in the place of what is there."""
        self.page.locator(field).wait_for()
        self.page.focus(field)
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.type(text)

    def begin(self, start: int = 0, seed: int = 0) -> Tab:
        self.type("#start-seed", str(seed))
        self.page.locator(".start").nth(start).click()
        self.until("dreamwalk.app.hello && dreamwalk.view.newest && dreamwalk.app.status.state === 'ready'")
        return self

    def stand_still(self) -> None:
        """Pause, and let what is on its way arrive."""
        if not self.look("dreamwalk.app.status.paused"):
            self.page.keyboard.press("p")
        self.until("dreamwalk.app.status.paused")
        self.settle()

    def settle(self) -> None:
        """Wait until no new frame comes."""
        frame = -1
        while frame != (frame := self.look("dreamwalk.view.newest.serial")):
            time.sleep(0.1)

    def rests(self, made: Callable[[], int]) -> None:
        """Nothing more is made of what nobody looks at, but for what was on its way."""
        time.sleep(0.2)
        before = made()
        time.sleep(0.8)
        assert made() == before, "nobody looks at it, so nothing is made"

    def picture(self, index: int = 0) -> np.ndarray:
        """What the canvas shows, float32 grey `(h, w)`."""
        data = np.asarray(self.page.evaluate(GREY, index), np.float32)
        return data.reshape(HEIGHT, WIDTH, 4)[..., :3].mean(-1)

    def step(self, key: str = "") -> np.ndarray:
        """One frame of a paused walk with a key held down, and its picture."""
        number = self.look("dreamwalk.view.newest.frame")
        if key:
            self.page.keyboard.down(key)
            time.sleep(0.05)
        self.page.keyboard.press(".")
        self.until(f"dreamwalk.view.newest.frame > {number}")
        if key:
            self.page.keyboard.up(key)
        return self.picture()
