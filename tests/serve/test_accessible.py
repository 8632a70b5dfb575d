"""Every screen of the page under axe-core, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rooms import ACTIONS, Imagined, Room
from tabs import Tab
from test_clip_requests import Maker, config_of
from test_layout import OUTSIDE
from test_scene_page import Drawn, drawn_scenes

from dreamwalk.serve import AppConfig, GalleryStart
from dreamwalk.serve.app import PAGE

pytestmark = pytest.mark.browser
SIZES: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


def test_fingers_may_enlarge_the_page() -> None:
    """axe-core is silent about it: nobody is kept from zooming."""
    viewport = (PAGE / "index.html").read_text().split('name="viewport"')[1].split(">")[0]
    assert "user-scalable" not in viewport and "maximum-scale" not in viewport


def test_more_steps_are_called_what_they_were_measured_to_be() -> None:
    """Sharper (docs/log.md), not cleaner."""
    words = "".join(path.read_text() for path in sorted(PAGE.iterdir()) if path.suffix in (".html", ".js"))
    assert "More steps are sharper" in words and "cleaner" not in words


def faults(tab: Tab, where: str) -> list[str]:
    """What axe-core finds serious or critical on the page as it is now."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    found = axe.Axe().run(tab.page).response["violations"]
    return [
        f"{where}: {fault['id']} at {node['target']}: {node['failureSummary']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@pytest.fixture(scope="module")
def config(starts: list[GalleryStart]) -> AppConfig:
    def rows(start: int, seed: int) -> Any:
        yield np.zeros((80, 400, 3), np.uint8)

    notes = {"What": "A room that is cast ray by ray."}
    schedules = dict.fromkeys(("full", "pyramid", "chunks", "next-frame"), rows)
    worlds = (lambda: Imagined(fps=20), lambda: Room(fps=20))
    return AppConfig(
        "room.test", *worlds, starts, notes, actions=ACTIONS, schedules=schedules, unlearnt=("place",)
    )


@pytest.mark.parametrize("size", list(SIZES))
def test_walks_have_no_serious_faults(
    tab: Callable[..., Tab], serve_config: Callable[..., str], config: AppConfig, size: str
) -> None:
    walk = tab(address=serve_config(config), bypass_csp=True, **SIZES[size])
    found = faults(walk, "start screen")
    for name in ("about", "help", "schedules"):
        walk.page.click(f'#start-screen [data-do="{name}"]')
        walk.page.locator(f"#{name}").wait_for()
        found += faults(walk, name)
        walk.page.keyboard.press("Escape")
    walk.begin()
    walk.until("dreamwalk.view.newest.frame > 6")
    found += faults(walk, "walk")
    walk.page.keyboard.press("b")
    walk.until("document.body.dataset.view === 'both'")
    found += faults(walk, "both")
    walk.page.keyboard.press("v")
    walk.until("dreamwalk.app.status.recording")
    walk.page.keyboard.press("v")
    walk.page.wait_for_selector(".film", state="attached")
    walk.page.keyboard.press(",")
    walk.until("dreamwalk.panel.isOpen")
    found += faults(walk, "settings")
    walk.page.keyboard.press("Escape")
    walk.look("dreamwalk.link.socket.close()")
    walk.page.wait_for_selector("#veil-text:has-text('You woke up')")
    found += faults(walk, "asleep")
    assert found == []


@pytest.mark.parametrize("size", list(SIZES))
def test_clips_have_no_serious_faults(
    tab: Callable[..., Tab], serve_config: Callable[..., str], size: str
) -> None:
    maker = Maker()
    page = tab(address=serve_config(config_of(maker)), ready="#prompt", bypass_csp=True, **SIZES[size])
    found = faults(page, "form")
    page.type("#prompt", "a red hall and a pizza, as large as")
    page.page.click("#vocabulary summary")
    found += faults(page, "strange words")
    maker.go.clear()
    page.page.focus("#prompt")
    page.page.keyboard.press("Enter")
    page.until("dreamwalk.clipForm.under !== null")
    found += faults(page, "dreaming")
    maker.go.set()
    page.until("dreamwalk.clipForm.film")
    found += faults(page, "done")
    assert found == []


@pytest.mark.parametrize("size", list(SIZES))
def test_scenes_have_no_serious_faults(
    tab: Callable[..., Tab], serve_config: Callable[..., str], size: str
) -> None:
    made: list[Drawn] = []
    page = tab(address=serve_config(drawn_scenes(made)), bypass_csp=True, **SIZES[size])
    page.page.locator(".start").first.click()
    idle = "document.querySelector('#scene').dataset.state === 'idle'"
    page.until(f"dreamwalk.scenes.name && {idle}")
    found = faults(page, "scene")
    page.type("#path", "fly:3")
    page.until("dreamwalk.scenes.wrong")
    found += faults(page, "wrong")
    page.type("#path", "forward:1")
    page.until("dreamwalk.scenes.planned")
    made[0].go.clear()
    page.page.keyboard.press("Enter")
    page.until("dreamwalk.scenes.under !== null")
    found += faults(page, "dreaming")
    made[0].go.set()
    page.until(f"dreamwalk.scenes.film && {idle}")
    found += faults(page, "dreamed")
    outside = page.page.locator(
        "#moves button, #path-form input, #go, #scene .tool, #scene-film"
    ).evaluate_all(OUTSIDE)
    assert found + outside == []
