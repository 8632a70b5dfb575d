"""What a bank of frames recalls, as the page shows it; and the field for the number of a level."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rooms import HEIGHT, WIDTH, Visitor
from tabs import Tab
from test_accessible import SIZES as SCREENS
from test_accessible import faults
from test_layout import FINGERS, OUTSIDE, SIZES, covering, outside
from test_level_seeds import Remembering, Stage

from dreamwalk.serve import GalleryStart, LevelMap, MemoryStrip, RecalledPicture
from dreamwalk.serve.frames import THUMBNAIL, encode_thumbnail
from dreamwalk.world import World

Visit = Callable[..., Visitor]


class Banked(Stage):
    """A page of a dream with a bank, which recalls as many frames as were walked, up to three of four."""

    strips = 0

    def draw(self, world: World) -> LevelMap | None:
        drawn = super().draw(world)
        assert drawn and isinstance(world, Remembering)
        marks = ((2.0, 2.0, 90.0), None) if world.recalling else (None, None)
        return LevelMap(drawn.picture, -8.0, 8.0, 1.0, ((1.4, 1.0, 89.6), (2.0, 2.0, 90.0)), marks)

    def strip(self, world: World) -> MemoryStrip | None:
        self.strips += 1
        assert isinstance(world, Remembering)
        count = min(world.count, 3) if world.recalling else 0
        picture = np.full((HEIGHT, WIDTH, 3), 20 + self.strips % 200, np.uint8)
        found = [RecalledPicture(picture, 40 - i, 0.5 + i / 8, dreamed=i > 0) for i in range(count)]
        return MemoryStrip((*found, *[None] * (4 - count)), world.count + 1, 64)


@pytest.fixture
def stage(starts: list[GalleryStart]) -> Banked:
    return Banked(starts)


def test_it_tells_what_is_recalled_and_why(stage: Banked, visit: Visit) -> None:
    visitor = visit(stage.config, query="?seed=5")
    assert visitor.client.get("/api/stage").json()["strip"] is True
    assert visitor.until("hello")["strip"] is True
    visitor.frame(6)
    assert stage.strips == 0, "nobody looks at it, so nothing is made"
    visitor.send("strip", shown=True)
    told = visitor.until("strip")
    first, _, third, empty = told["recalled"]
    assert empty is None and told["kept"] == told["frame"] + 1 and told["budget"] == 64
    assert (first["age"], first["covers"], first["dreamed"]) == (40, 0.5, False)
    assert (third["age"], third["covers"], third["dreamed"]) == (38, 0.75, True)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(first["jpeg"]))))
    assert shown.shape == (HEIGHT, WIDTH, 3) and abs(float(shown.mean()) - 21) < 4
    visitor.seldom("strip", lambda: stage.strips)
    assert stage.maps == 0
    visitor.send("memory", recalling=False)
    visitor.until("status", memory=False)
    visitor.until("strip")
    assert visitor.until("strip")["recalled"] == [None] * 4
    visitor.look_away("strip", lambda: stage.strips)


def test_strip_and_map_are_of_the_same_frame(stage: Banked, visit: Visit) -> None:
    visitor = visit(stage.config, query="?seed=5")
    visitor.frame(3)
    visitor.send("map", shown=True)
    drawn = visitor.until("map")
    assert drawn["places"] == [[1, 1, 90], [2, 2, 90]] and drawn["recalled"] == [[2, 2, 90], None]
    visitor.send("strip", shown=True)
    visitor.until("strip")
    visitor.until("strip")
    kinds = [kind for kind, _ in visitor.heard if kind in ("map", "strip", "frame")]
    assert kinds[-2:] == ["map", "strip"]


def test_a_new_walk_is_told_of_at_once(stage: Banked, visit: Visit) -> None:
    visitor = visit(stage.config, query="?seed=5")
    visitor.asleep()
    visitor.send("strip", shown=True)
    assert visitor.until("strip")["recalled"] == [None] * 4
    visitor.step(2)
    visitor.send("reset", seed=6)
    visitor.frame(0)
    assert (told := visitor.until("strip"))["kept"] == 1 and told["frame"] == 0


def test_dreams_without_a_bank_have_no_strip(starts: list[GalleryStart], visit: Visit) -> None:
    visitor = visit(Stage(starts).config, query="?seed=5")
    assert visitor.until("hello")["strip"] is False
    visitor.send("strip", shown=True)
    visitor.frame(4)
    assert "strip" not in [kind for kind, _ in visitor.heard]
    visitor.socket.send_text(json.dumps({"type": "strip", "shown": "yes"}))
    assert visitor.until("error")["message"].startswith("shown must be")


def test_thumbnails_are_small() -> None:
    wide = Image.open(io.BytesIO(encode_thumbnail(np.zeros((480, 640, 3), np.uint8))))
    assert wide.size == (THUMBNAIL, THUMBNAIL * 3 // 4)


# ---- in a browser


@pytest.fixture
def page(
    stage: Banked, serve_config: Callable[..., str], tab: Callable[..., Tab]
) -> Iterator[Callable[..., Tab]]:
    home = serve_config(stage.config)

    def opened(query: str = "?seed=3", **settings: Any) -> Tab:
        walk = tab(address=home + query, **settings)
        walk.page.click("#enter")
        walk.until("dreamwalk.strip.newest && dreamwalk.strip.newest.frame > 3")
        return walk

    yield opened


SAID = "[...document.querySelectorAll('#strip li')].map(one => one.innerText.replace(/\\s+/g, ' ').trim())"


@pytest.mark.browser
def test_the_strip_follows_the_walk_and_memory_off_empties_it(
    page: Callable[..., Tab], stage: Banked
) -> None:
    walk = page(viewport={"width": 1280, "height": 800})
    said = walk.look(SAID)
    assert said[0] == "1 2.0 s ago 40 frames covers 50 % true" and said[3] == "4 empty"
    assert said[2].endswith("38 frames covers 75 % dreamed")
    assert "of at most 64 kept" in walk.page.locator("#strip p").inner_text()
    before = walk.look("document.querySelector('#strip img').src")
    walk.until(f"document.querySelector('#strip img').src !== '{before}'")
    coloured = (
        "dreamwalk.map.canvas.getContext('2d').getImageData(0, 0, 999, 999).data.reduce((a, b) => a + b, 0)"
    )
    walk.page.keyboard.press("p")
    walk.until("dreamwalk.app.status.paused")
    walk.settle()
    marked = walk.look(coloured)
    walk.page.keyboard.press("x")
    walk.until("dreamwalk.app.status.memory === false")
    walk.until(f"{SAID}.join() === '1 empty,2 empty,3 empty,4 empty'")
    assert walk.page.locator("#memory-off").is_visible() and walk.look(coloured) != marked
    assert walk.page.locator("#strip p").inner_text().startswith("Memory off")
    walk.page.keyboard.press("p")
    walk.page.click('.tools [data-do="memory"]')
    walk.until(f"{SAID}[0].includes('covers')")
    walk.page.keyboard.press("t")
    walk.until("document.querySelector('#strip').hidden")
    walk.rests(lambda: stage.strips)
    walk.page.click('.tools [data-do="strip"]')
    walk.until("!document.querySelector('#strip').hidden")
    walk.page.keyboard.press("h")
    walk.until("document.querySelector('#strip').hidden")


@pytest.mark.browser
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_strip_covers_no_picture(page: Callable[..., Tab], size: tuple[int, int]) -> None:
    fingers = FINGERS if min(size) < 500 else {}
    if size == (844, 390):  # there is no room for it
        return
    walk = page(viewport={"width": size[0], "height": size[1]}, **fingers)
    for view in ("dream", "both"):
        if view == "both":
            walk.page.keyboard.press("b")
            walk.until("document.body.dataset.view === 'both' && dreamwalk.view.newest.view === 'both'")
        walk.until("document.querySelectorAll('#stats dd').length > 3")
        assert covering(walk) == [] and outside(walk) == []
        assert walk.page.locator("#strip, #strip li, #strip img, #strip li span").evaluate_all(OUTSIDE) == []
        strip, first = (walk.page.locator(part).bounding_box() for part in ("#strip", "#first"))
        assert strip and first and strip["y"] >= first["y"] + first["height"]
        for part in ("#keys", "#stats", "#views", "#level"):
            box = walk.page.locator(part).bounding_box() if walk.page.locator(part).is_visible() else None
            apart = (
                box is None
                or box["x"] >= strip["x"] + strip["width"]
                or strip["x"] >= box["x"] + box["width"]
            )
            assert (
                apart
                or box["y"] >= strip["y"] + strip["height"] - 1
                or strip["y"] >= box["y"] + box["height"] - 1
            )


@pytest.mark.browser
@pytest.mark.parametrize("size", list(SCREENS))
def test_the_strip_has_no_serious_faults(page: Callable[..., Tab], size: str) -> None:
    walk = page(bypass_csp=True, **SCREENS[size])
    found = faults(walk, "recalled")
    walk.look("dreamwalk.link.send({type: 'memory', recalling: false})")
    walk.until("dreamwalk.app.status.memory === false")
    assert found + faults(walk, "empty") == []


@pytest.mark.browser
def test_the_number_of_a_level_is_typed_while_walking(page: Callable[..., Tab], stage: Banked) -> None:
    walk = page(viewport={"width": 1280, "height": 800})
    assert walk.look("dreamwalk.app.status.level") == 3
    walk.page.click("#level")
    walk.page.keyboard.type("w1000")
    walk.page.keyboard.press("Enter")
    walk.page.wait_for_selector(".toast.error:has-text('from 0 to 999, not “w1000”.')")
    assert walk.look("dreamwalk.app.status.level") == 3 and walk.look("dreamwalk.view.newest.held") == []
    walk.type("#level", "41")
    walk.page.keyboard.press("Enter")
    walk.until("dreamwalk.app.status.level === 41 && location.search === '?seed=41'")
    assert stage.games[-1].number == 41 and walk.look("document.activeElement.id") == "theatre"
    assert walk.look("document.querySelector('#level').value") == ""
    walk.page.keyboard.press("b")
    walk.until("dreamwalk.view.newest.view === 'both'")
    assert stage.games[-1].number == 41, "the real game beside it is on that level"
    walk.page.click("#level")
    walk.page.keyboard.type("7")
    walk.page.keyboard.press("Escape")
    walk.until("document.activeElement.id === 'theatre'")
    assert (
        walk.look("document.body.dataset.screen") == "walk" and walk.look("dreamwalk.app.status.level") == 41
    )
