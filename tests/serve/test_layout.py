"""Nothing lies on anything else, on any screen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from odd import ODD, Odd
from rooms import Imagined, Room
from tabs import Tab

from dreamwalk.serve import AppConfig, GalleryStart

pytestmark = pytest.mark.browser
FINGERS: dict[str, Any] = {"has_touch": True, "is_mobile": True}
SIZES = [(1280, 800), (1920, 1080), (1024, 768), (800, 900), (720, 540), (2560, 800), (390, 844), (844, 390)]
COVERED = """over => {
  const pictures = [...document.querySelectorAll(".frame:not([hidden])")];
  return over.filter(one => {
    const box = one.getBoundingClientRect();
    return box.width && box.height && pictures.map(one => one.getBoundingClientRect()).some(picture =>
      box.x < picture.right - 1 && box.right > picture.x + 1
      && box.y < picture.bottom - 1 && box.bottom > picture.y + 1);
  }).map(one => one.outerHTML);
}"""
OUTSIDE = """all => all.filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && (box.x < 0 || box.y < 0 || box.right > innerWidth + 1 || box.bottom > innerHeight + 1);
}).map(one => one.outerHTML)"""
BOXES = (
    """all => all.map(one => one.getBoundingClientRect()).map(box => [box.x, box.y, box.right, box.bottom])"""
)


def covering(walk: Tab) -> list[str]:
    """What lies on a picture."""
    return walk.page.locator("#keys *, #stats *, #views button, #pads button").evaluate_all(COVERED)


def outside(walk: Tab) -> list[str]:
    """What is not wholly on the screen."""
    return walk.page.locator("#keys *, #stats *, .tool, #views button, .frame").evaluate_all(OUTSIDE)


def numbers(walk: Tab) -> None:
    walk.until("document.querySelectorAll('#stats dd').length > 3")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_numbers_and_keys_never_cover_a_picture(tab: Callable[..., Tab], size: tuple[int, int]) -> None:
    phone = min(size) < 500
    walk = tab(viewport={"width": size[0], "height": size[1]}, **(FINGERS if phone else {})).begin()
    for view in ("dream", "both"):
        if view == "both":
            walk.page.keyboard.press("b")
            walk.until("document.body.dataset.view === 'both' && dreamwalk.view.newest.view === 'both'")
        numbers(walk)
        if size != (844, 390):  # a phone that lies on its side shows the picture alone, under its controls
            assert covering(walk) == []
        assert outside(walk) == []
        shown = walk.look("document.querySelector('#first').getBoundingClientRect().width")
        assert shown > (0.3 if view == "both" else 0.5) * min(size[0], size[1] * 4 / 3), (
            "the picture stays large"
        )


def test_many_keys_never_cover_a_picture(
    tab: Callable[..., Tab], serve_config: Callable[..., str], starts: list[GalleryStart]
) -> None:
    home = serve_config(AppConfig("odd.game", dream=lambda: Odd(20), starts=starts, actions=ODD))
    for size in ((1280, 800), (1024, 768), (390, 844)):
        walk = tab(
            address=home, viewport={"width": size[0], "height": size[1]}, **(FINGERS if size[0] < 500 else {})
        )
        walk.begin()
        numbers(walk)
        assert covering(walk) == [] and outside(walk) == []


def test_the_row_of_numbers_stands_still_on_a_phone(tab: Callable[..., Tab]) -> None:
    walk = tab(viewport={"width": 390, "height": 844}, **FINGERS).begin()
    walk.until("dreamwalk.view.newest.frame > 4")
    seen = []
    for values in (
        {"model": 9.5, "latency": 7},
        {"model": 140, "latency": 234},
        {"model": 31.2, "latency": 0},
    ):
        rest = {"page": values["model"], "stream": 10, "rtt": 1}
        walk.look(
            f"Object.defineProperty(dreamwalk.hud, 'numbers', {{value: {values | rest}, configurable: true}})"
        )
        walk.look("dreamwalk.hud.write(dreamwalk.view.newest)")
        boxes = walk.page.locator("#stats dl > div").evaluate_all(BOXES)
        seen.append(np.array(boxes))
    assert np.abs(np.diff(seen, axis=0)[..., :2]).max() < 0.5 and seen[0][:, 0].max() > 200


def test_schedules_lie_on_nothing_on_a_phone(
    tab: Callable[..., Tab], serve_config: Callable[..., str], starts: list[GalleryStart]
) -> None:
    def rows(start: int, seed: int) -> Any:
        yield np.zeros((80, 400, 3), np.uint8)

    schedules = dict.fromkeys(("full", "pyramid", "chunks", "next-frame"), rows)
    home = serve_config(AppConfig("room.test", Imagined, Room, starts, schedules=schedules))
    page = tab(address=home, viewport={"width": 390, "height": 844}, **FINGERS)
    page.page.locator('#start-screen [data-do="schedules"]').tap()
    page.page.locator("#schedules .strip").wait_for()
    parts = "#schedules .segments button, #schedules p, #schedules .strip"
    boxes = page.page.locator(parts).evaluate_all(BOXES)
    ((left, _, end, _),) = page.page.locator("#schedules").evaluate_all(BOXES)
    for k, (x, y, right, bottom) in enumerate(boxes):
        assert left <= x and right <= end
        for a, b, c, d in boxes[k + 1 :]:
            assert x >= c - 1 or right <= a + 1 or y >= d - 1 or bottom <= b + 1
    page.page.locator("#schedules button:has-text('next-frame')").tap()
    page.until("document.querySelector('#schedules [aria-pressed=true]').textContent === 'next-frame'")
